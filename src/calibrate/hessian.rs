use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use crate::torch::{Spectrum, TorchError, cholesky};

/// Columns with less than this share of the mean power count as if they had it.
const LEAST_POWER: f64 = 0.01;

/// `H = XᵀX / n` of a layer's inputs `X[n, d]`, one column per weight of an output row.
///
/// While there are fewer samples than columns the samples are kept too: their spectrum is far cheaper.
#[derive(Debug)]
pub struct Hessian {
    /// `XᵀX`, f64.
    sum: Tensor,
    /// `GᵀX`, f64: with what the layer's outputs lack for each sample, `G[n, out]`.
    gap: Option<Tensor>,
    samples: Option<Vec<Tensor>>,
    rows: usize,
    columns: usize,
    scaled: OnceCell<Tensor>,
    spectrum: OnceCell<Spectrum>,
}

impl Hessian {
    /// No samples yet, `columns` wide.
    pub fn new(columns: usize, device: Device) -> Result<Self, TorchError> {
        let sum = Tensor::f_zeros([columns as i64, columns as i64], (Kind::Double, device))?;
        Ok(Self {
            sum,
            gap: None,
            samples: Some(Vec::new()),
            rows: 0,
            columns,
            scaled: OnceCell::new(),
            spectrum: OnceCell::new(),
        })
    }

    /// Adds samples `x[n, d]`: products in f32, sums in f64.
    pub fn update(&mut self, x: &Tensor) -> Result<(), TorchError> {
        let product = x.f_transpose(0, 1)?.f_matmul(x)?;
        self.sum = self.sum.f_add(&product.f_to_kind(Kind::Double)?)?;
        self.rows += x.size2()?.0 as usize;
        (self.scaled, self.spectrum) = (OnceCell::new(), OnceCell::new());
        match &mut self.samples {
            Some(samples) if self.rows < self.columns => samples.push(x.f_detach_copy()?),
            samples => *samples = None,
        }
        Ok(())
    }

    /// Tells what the layer's outputs lack for samples `x[n, d]`: `gap[n, out]`.
    pub fn update_gap(&mut self, gap: &Tensor, x: &Tensor) -> Result<(), TorchError> {
        let product = gap.f_transpose(0, 1)?.f_matmul(x)?.f_to_kind(Kind::Double)?;
        self.gap = Some(match &self.gap {
            Some(gap) => gap.f_add(&product)?,
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
        let gap = match (&self.gap, &other.gap) {
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
        Ok(Self {
            sum,
            gap,
            samples,
            rows: 1,
            columns: self.columns,
            scaled: OnceCell::new(),
            spectrum: OnceCell::new(),
        })
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

    /// `GᵀX / n` as f32, `[out, d]`, if it was told what outputs lack.
    pub fn gap(&self) -> Result<Option<Tensor>, TorchError> {
        self.gap.as_ref().map(|gap| self.mean(gap)).transpose()
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

    /// `D⁻¹ H D⁻¹`, whose diagonal is at most 1, computed once.
    pub fn scaled(&self) -> Result<&Tensor, TorchError> {
        if let Some(scaled) = self.scaled.get() {
            return Ok(scaled);
        }
        let scale = self.scale()?;
        let scaled = self.matrix()?.f_div(&scale)?.f_div(&scale.f_unsqueeze(1)?)?;
        Ok(self.scaled.get_or_init(|| scaled))
    }

    /// Eigenpairs of [`Hessian::scaled`] where there are fewer samples than columns, computed once.
    fn thin(&self) -> Result<Option<&Spectrum>, TorchError> {
        let Some(samples) = self.samples.as_ref().filter(|samples| !samples.is_empty()) else {
            return Ok(None);
        };
        if let Some(spectrum) = self.spectrum.get() {
            return Ok(Some(spectrum));
        }
        let x = Tensor::f_cat(samples, 0)?.f_div(&self.scale()?)?;
        let spectrum = Spectrum::of_samples(&x.f_div_scalar((self.rows as f64).sqrt())?)?;
        Ok(Some(self.spectrum.get_or_init(|| spectrum)))
    }

    /// What multiplies with `(D⁻¹ H D⁻¹ + ridge I)⁻¹`, made in the cheapest way for `uses` products with `rows` rows each;
    /// nothing where the sum is not positive definite.
    pub fn inverse(&self, ridge: f64, rows: i64, uses: i64) -> Result<Option<Inverse<'_>>, TorchError> {
        let Some(spectrum) = self.thin()? else {
            let size = self.columns as i64;
            let identity = Tensor::f_eye(size, (Kind::Float, self.sum.device()))?;
            let damped = self.scaled()?.f_add(&identity.f_mul_scalar(ridge)?)?;
            let factor = cholesky(&damped, false)?;
            return Ok(factor
                .map(|factor| factor.f_cholesky_inverse(false))
                .transpose()?
                .map(Inverse::Whole));
        };
        // Fewer samples than columns leave the matrix singular.
        if ridge <= 0.0 {
            return Ok(None);
        }
        let (columns, rank) = spectrum.vectors.size2()?;
        // Multiply-adds: to form it and apply it, against two products with the eigenvectors each time.
        let whole = rank * columns * columns + uses * rows * columns * columns;
        let eigenbasis = uses * 2 * rows * columns * rank;
        Ok(Some(if whole < eigenbasis {
            Inverse::Whole(spectrum.inverse(ridge)?)
        } else {
            Inverse::Eigenbasis(spectrum, ridge)
        }))
    }
}

/// The inverse of a damped Hessian `[d, d]`.
pub enum Inverse<'a> {
    /// By the eigenvectors of few samples.
    Eigenbasis(&'a Spectrum, f64),
    /// As it is.
    Whole(Tensor),
}

impl Inverse<'_> {
    /// `b (D⁻¹ H D⁻¹ + ridge I)⁻¹` for `b[r, d]`.
    pub fn apply(&self, b: &Tensor) -> Result<Tensor, TorchError> {
        Ok(match self {
            Self::Eigenbasis(spectrum, ridge) => spectrum.solve(b, *ridge)?,
            Self::Whole(inverse) => b.f_matmul(inverse)?,
        })
    }
}
