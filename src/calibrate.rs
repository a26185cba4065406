//! Second-moment statistics of layer inputs, streamed over the calibration images.

use margay_core::{Node, Op};
use tch::{Device, Kind, Tensor};

use crate::torch::{Spectrum, TorchError, rows};

/// Rows of an unfolded input that are held at once: bounds memory to about this many floats.
const CHUNK_FLOATS: usize = 1 << 25;

/// `H = XᵀX / n` of a layer's inputs `X[n, d]`, one column per weight of an output row.
///
/// While there are fewer samples than columns the samples are kept too: their spectrum is far cheaper.
#[derive(Debug)]
pub struct Hessian {
    sum: Tensor,
    samples: Option<Vec<Tensor>>,
    rows: usize,
    columns: usize,
}

impl Hessian {
    /// No samples yet, `columns` wide.
    pub fn new(columns: usize, device: Device) -> Result<Self, TorchError> {
        let sum = Tensor::f_zeros([columns as i64, columns as i64], (Kind::Double, device))?;
        Ok(Self { sum, samples: Some(Vec::new()), rows: 0, columns })
    }

    /// Adds samples `x[n, d]`: products in f32, sums in f64.
    pub fn update(&mut self, x: &Tensor) -> Result<(), TorchError> {
        let product = x.f_transpose(0, 1)?.f_matmul(x)?;
        self.sum = self.sum.f_add(&product.f_to_kind(Kind::Double)?)?;
        self.rows += x.size2()?.0 as usize;
        match &mut self.samples {
            Some(samples) if self.rows < self.columns => samples.push(x.f_detach_copy()?),
            samples => *samples = None,
        }
        Ok(())
    }

    /// Number of samples.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns `d`.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `H` as f32.
    pub fn matrix(&self) -> Result<Tensor, TorchError> {
        Ok(self.sum.f_div_scalar(self.rows.max(1) as f64)?.f_to_kind(Kind::Float)?)
    }

    /// The diagonal of `H` as f32.
    pub fn diagonal(&self) -> Result<Tensor, TorchError> {
        let diagonal = self.sum.f_diagonal(0, 0, 1)?;
        Ok(diagonal.f_div_scalar(self.rows.max(1) as f64)?.f_to_kind(Kind::Float)?)
    }

    /// Eigenpairs of `diag(scale)⁻¹ H diag(scale)⁻¹`.
    pub fn scaled_spectrum(&self, scale: &Tensor) -> Result<Spectrum, TorchError> {
        match &self.samples {
            Some(samples) if !samples.is_empty() => {
                let x = Tensor::f_cat(samples, 0)?.f_div(scale)?;
                Ok(Spectrum::of_samples(&x.f_div_scalar((self.rows as f64).sqrt())?)?)
            }
            _ => Ok(Spectrum::of_symmetric(&self.scaled(scale)?)?),
        }
    }

    /// `diag(scale)⁻¹ H diag(scale)⁻¹`.
    pub fn scaled(&self, scale: &Tensor) -> Result<Tensor, TorchError> {
        Ok(self.matrix()?.f_div(scale)?.f_div(&scale.f_unsqueeze(1)?)?)
    }
}

/// The Hessian of each group of a layer from the layer's inputs, batch by batch.
pub fn hessians(node: &Node, inputs: &[Tensor]) -> Result<Vec<Hessian>, TorchError> {
    let groups = match &node.op {
        Op::Conv2d(conv) => conv.groups,
        _ => 1,
    };
    let columns = node.matrix().map_or(0, |[_, inner]| inner);
    let device = inputs.first().map_or(Device::Cpu, Tensor::device);
    let mut hessians =
        (0..groups).map(|_| Hessian::new(columns, device)).collect::<Result<Vec<_>, TorchError>>()?;
    for batch in inputs {
        for chunk in chunks(node, batch)? {
            for (group, hessian) in hessians.iter_mut().enumerate() {
                hessian.update(&columns_of_group(node, &chunk, group)?)?;
            }
        }
    }
    Ok(hessians)
}

fn chunks(node: &Node, batch: &Tensor) -> Result<Vec<Tensor>, TorchError> {
    let images = batch.size()[0].max(1);
    let taps = match &node.op {
        Op::Conv2d(conv) => conv.kernel[0] * conv.kernel[1],
        _ => 1,
    };
    let per_image = (batch.numel() / images as usize * taps).max(1);
    let step = (CHUNK_FLOATS / per_image).clamp(1, images as usize);
    Ok(batch.f_split(step as i64, 0)?)
}

/// The samples `[n, d]` one group of a layer multiplies with: windows of a convolution, columns
/// in the order (channel, kernel row, kernel column).
fn columns_of_group(node: &Node, input: &Tensor, group: usize) -> Result<Tensor, TorchError> {
    let Op::Conv2d(conv) = &node.op else { return Ok(rows(input)?) };
    let width = (conv.in_channels / conv.groups) as i64;
    let input = input.f_narrow(1, group as i64 * width, width)?;
    let as_long = |of: [usize; 2]| of.map(|n| n as i64);
    let unfolded = if conv.kernel == [1, 1] && conv.padding == [0, 0] {
        let [down, across] = as_long(conv.stride);
        input.f_slice(2, None, None, down)?.f_slice(3, None, None, across)?.f_flatten(2, 3)?
    } else {
        input.f_im2col(as_long(conv.kernel), [1_i64, 1], as_long(conv.padding), as_long(conv.stride))?
    };
    Ok(unfolded.f_transpose(1, 2)?.f_reshape([-1, unfolded.size()[1]])?.f_contiguous()?)
}
