use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use crate::torch::{Spectrum, TorchError};

/// Columns with less than this share of the mean power count as if they had it.
const LEAST_POWER: f64 = 0.01;

/// `H = XᵀX / n` of a layer's inputs `X[n, d]`, one column per weight of an output row.
///
/// While there are fewer samples than columns the samples are kept too: their spectrum is far cheaper.
#[derive(Debug)]
pub struct Hessian {
    /// `XᵀX`, f64.
    sum: Tensor,
    /// `X_denseᵀX`, f64: the same samples in the dense network beside those in the pruned one.
    cross: Option<Tensor>,
    samples: Option<Vec<Tensor>>,
    rows: usize,
    columns: usize,
    spectrum: OnceCell<Spectrum>,
}

impl Hessian {
    /// No samples yet, `columns` wide.
    pub fn new(columns: usize, device: Device) -> Result<Self, TorchError> {
        let sum = Tensor::f_zeros([columns as i64, columns as i64], (Kind::Double, device))?;
        Ok(Self { sum, cross: None, samples: Some(Vec::new()), rows: 0, columns, spectrum: OnceCell::new() })
    }

    /// Adds samples `x[n, d]`: products in f32, sums in f64.
    pub fn update(&mut self, x: &Tensor) -> Result<(), TorchError> {
        let product = x.f_transpose(0, 1)?.f_matmul(x)?;
        self.sum = self.sum.f_add(&product.f_to_kind(Kind::Double)?)?;
        self.rows += x.size2()?.0 as usize;
        self.spectrum = OnceCell::new();
        match &mut self.samples {
            Some(samples) if self.rows < self.columns => samples.push(x.f_detach_copy()?),
            samples => *samples = None,
        }
        Ok(())
    }

    /// Tells what samples `x[n, d]` are in the dense network: `dense[n, d]`.
    pub fn update_cross(&mut self, dense: &Tensor, x: &Tensor) -> Result<(), TorchError> {
        let product = dense.f_transpose(0, 1)?.f_matmul(x)?.f_to_kind(Kind::Double)?;
        self.cross = Some(match &self.cross {
            Some(cross) => cross.f_add(&product)?,
            None => product,
        });
        Ok(())
    }

    /// `(1 − share) · self + share · other`, with `other` brought to the trace of `self` first.
    pub fn blend(&self, other: &Self, share: f64) -> Result<Self, TorchError> {
        let [own, others] = [self.power()?, other.power()?];
        let matched = if others > 0.0 { own / others } else { 0.0 };
        let factors = [(1.0 - share) / self.rows.max(1) as f64, share * matched / other.rows.max(1) as f64];
        let mixed = |a: &Tensor, b: &Tensor| a.f_mul_scalar(factors[0])?.f_add(&b.f_mul_scalar(factors[1])?);
        let cross = match (&self.cross, &other.cross) {
            (Some(a), Some(b)) => Some(mixed(a, b)?),
            _ => None,
        };
        let samples = match (&self.samples, &other.samples) {
            (Some(a), Some(b)) if self.rows + other.rows < self.columns => {
                let scaled = [(a, factors[0]), (b, factors[1])]
                    .into_iter()
                    .flat_map(|(part, factor)| part.iter().map(move |x| x.f_mul_scalar(factor.sqrt())));
                Some(scaled.collect::<Result<_, _>>()?)
            }
            _ => None,
        };
        let sum = mixed(&self.sum, &other.sum)?;
        Ok(Self { sum, cross, samples, rows: 1, columns: self.columns, spectrum: OnceCell::new() })
    }

    /// Mean power of a sample: the trace of `H`.
    fn power(&self) -> Result<f64, TorchError> {
        Ok(self.sum.f_trace()?.double_value(&[]) / self.rows.max(1) as f64)
    }

    /// Number of samples; 1 after a blend, whose samples are weighted.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns `d`.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `H` as f32.
    pub fn matrix(&self) -> Result<Tensor, TorchError> {
        self.mean(&self.sum)
    }

    /// The diagonal of `H` as f32.
    pub fn diagonal(&self) -> Result<Tensor, TorchError> {
        self.mean(&self.sum.f_diagonal(0, 0, 1)?)
    }

    /// `X_denseᵀX / n` as f32, if the dense samples were told.
    pub fn cross(&self) -> Result<Option<Tensor>, TorchError> {
        self.cross.as_ref().map(|cross| self.mean(cross)).transpose()
    }

    fn mean(&self, sum: &Tensor) -> Result<Tensor, TorchError> {
        Ok(sum.f_div_scalar(self.rows.max(1) as f64)?.f_to_kind(Kind::Float)?)
    }

    /// `D = sqrt(diag H)`, bounded below, `[d]`.
    ///
    /// A column that the shots hardly use is free for a solver to compensate with: without a bound its weights
    /// grow a millionfold, and the first new photo that uses it is lost.
    pub fn scale(&self) -> Result<Tensor, TorchError> {
        let diagonal = self.diagonal()?;
        let mean = diagonal.f_mean(Kind::Double)?.double_value(&[]);
        let least = if mean > 0.0 { LEAST_POWER * mean } else { 1.0 };
        Ok(diagonal.f_clamp_min(least)?.f_sqrt()?)
    }

    /// `D⁻¹ H D⁻¹`, whose diagonal is at most 1.
    pub fn scaled(&self) -> Result<Tensor, TorchError> {
        let scale = self.scale()?;
        Ok(self.matrix()?.f_div(&scale)?.f_div(&scale.f_unsqueeze(1)?)?)
    }

    /// Eigenpairs of [`Hessian::scaled`], computed once.
    pub fn spectrum(&self) -> Result<&Spectrum, TorchError> {
        if let Some(spectrum) = self.spectrum.get() {
            return Ok(spectrum);
        }
        let spectrum = match &self.samples {
            Some(samples) if !samples.is_empty() => {
                let x = Tensor::f_cat(samples, 0)?.f_div(&self.scale()?)?;
                Spectrum::of_samples(&x.f_div_scalar((self.rows as f64).sqrt())?)?
            }
            _ => Spectrum::of_symmetric(&self.scaled()?)?,
        };
        Ok(self.spectrum.get_or_init(|| spectrum))
    }
}
