use margay_core::{Conv2d, Op};
use tch::{Kind, Tensor};

use super::TorchError;
use super::ops::{columns, pair};

/// The gradient of a few weights of a layer, as sampled dense-dense products.
///
/// A weight's gradient is the inner product of an output's gradient and an input over all positions. Where few of
/// them are wanted, computing just these is cheaper than the whole matrix. Every offset in a convolution's kernel
/// is a 1 × 1 convolution of a shifted input.
#[derive(Debug)]
pub struct Sampled {
    /// Positions `[k]` in the flat weight, ascending.
    positions: Tensor,
    offsets: Vec<Offset>,
}

/// The weights wanted at one place of a kernel.
#[derive(Debug)]
struct Offset {
    row: i64,
    column: i64,
    /// Zeros at what is wanted of `[m, c]`, in CSR.
    pattern: Tensor,
    /// Which of the positions these are.
    slots: Tensor,
}

impl Sampled {
    /// For ascending positions `[k]` in the flat weight; nothing for other ops than linear layers and convolutions of
    /// one group.
    pub fn new(op: &Op, positions: &Tensor) -> Result<Option<Self>, TorchError> {
        let (channels, [height, width]) = match op {
            Op::Linear(linear) => (linear.in_features, [1, 1]),
            Op::Conv2d(conv) if conv.groups == 1 => (conv.in_channels, pair(conv.kernel)),
            _ => return Ok(None),
        };
        let Some([rows, inner]) = op.matrix() else { return Ok(None) };
        let size = [rows as i64, channels as i64];
        let row = positions.f_floor_divide_scalar(inner as i64)?;
        let within = positions.f_remainder(inner as i64)?;
        let channel = within.f_floor_divide_scalar(height * width)?;
        let place = within.f_remainder(height * width)?;
        let mut offsets = Vec::new();
        for at in 0..height * width {
            let slots = place.f_eq(at)?.f_nonzero()?.f_squeeze_dim(1)?;
            let [row, channel] = [&row, &channel].map(|all| all.f_index_select(0, &slots));
            let pattern = zeros(&row?, &channel?, size)?;
            offsets.push(Offset { row: at / width, column: at % width, pattern, slots });
        }
        Ok(Some(Self { positions: positions.shallow_clone(), offsets }))
    }

    /// The positions `[k]`.
    pub fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// The gradients `[k]` of these weights, by the layer's input and the gradient of its output.
    pub fn gradient(&self, op: &Op, input: &Tensor, output: &Tensor) -> Result<Tensor, TorchError> {
        let _no_grad = tch::no_grad_guard();
        let output_columns = columns(output)?;
        let padded = match op {
            Op::Conv2d(conv) => {
                let [vertical, horizontal] = pair(conv.padding);
                input.f_constant_pad_nd([horizontal, horizontal, vertical, vertical])?
            }
            _ => input.shallow_clone(),
        };
        let mut gradient = Tensor::f_zeros([self.positions.numel() as i64], (Kind::Float, input.device()))?;
        for offset in &self.offsets {
            let seen = match op {
                Op::Conv2d(conv) => offset.view(conv, &padded, &output.size())?,
                _ => padded.shallow_clone(),
            };
            let products = offset
                .pattern
                .f_sparse_sampled_addmm(&output_columns, &columns(&seen)?.f_transpose(0, 1)?)?;
            gradient = gradient.f_index_copy(0, &offset.slots, &products.f_values()?)?;
        }
        Ok(gradient)
    }
}

impl Offset {
    /// What this place of the kernel meets at each output, of an input that is padded already.
    fn view(&self, conv: &Conv2d, padded: &Tensor, output: &[i64]) -> Result<Tensor, TorchError> {
        let [down, right] = pair(conv.stride);
        let end = |start: i64, count: i64, step: i64| start + (count - 1) * step + 1;
        let rows = padded.f_slice(2, self.row, end(self.row, output[2], down), down)?;
        Ok(rows.f_slice(3, self.column, end(self.column, output[3], right), right)?)
    }
}

/// Zeros at ascending positions, in CSR.
fn zeros(rows: &Tensor, columns: &Tensor, size: [i64; 2]) -> Result<Tensor, TorchError> {
    let counts = rows.f_bincount(None::<Tensor>, size[0])?;
    let starts =
        Tensor::f_cat(&[counts.f_zeros_like()?.f_narrow(0, 0, 1)?, counts.f_cumsum(0, Kind::Int64)?], 0)?;
    let values = Tensor::f_zeros([rows.numel() as i64], (Kind::Float, rows.device()))?;
    let kind = (Kind::Float, rows.device());
    Ok(Tensor::f_sparse_csr_tensor_crow_col_value_size(&starts, columns, &values, size, kind)?)
}

#[cfg(test)]
mod tests {
    use margay_core::Linear;

    use super::*;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, tch::Device::Cpu))
    }

    fn conv(kernel: [usize; 2], stride: usize, padding: usize) -> Op {
        let square = Conv2d::square([3, 5], 1, stride);
        Op::Conv2d(Conv2d { kernel, padding: [padding; 2], ..square })
    }

    #[test]
    fn sampled_gradients_are_those_of_autograd() {
        tch::manual_seed(7);
        let linear = Op::Linear(Linear { in_features: 3, out_features: 5, bias: false });
        let cases = [
            (linear.clone(), vec![2, 6, 3]),
            (linear, vec![2, 3, 4, 6]),
            (conv([1, 1], 1, 0), vec![2, 3, 4, 6]),
            (conv([1, 1], 2, 0), vec![2, 3, 5, 6]),
            (conv([3, 3], 1, 1), vec![2, 3, 4, 6]),
            (conv([3, 2], 2, 1), vec![2, 3, 7, 6]),
        ];
        for (op, size) in cases {
            let [m, n] = op.matrix().unwrap().map(|n| n as i64);
            let weight = random(&[m, n]).set_requires_grad(true);
            let input = random(&size);
            let output = match &op {
                Op::Conv2d(c) => {
                    let kernel = weight.reshape([m, 3, c.kernel[0] as i64, c.kernel[1] as i64]);
                    input.conv2d(&kernel, None::<Tensor>, pair(c.stride), pair(c.padding), [1, 1], 1)
                }
                _ if input.dim() == 4 => {
                    input.conv2d(&weight.reshape([m, n, 1, 1]), None::<Tensor>, [1, 1], [0, 0], [1, 1], 1)
                }
                _ => input.linear(&weight, None::<Tensor>),
            };
            let gradient = random(&output.size());
            (&output * &gradient).sum(Kind::Float).backward();
            let positions = Tensor::arange(m * n, (Kind::Int64, tch::Device::Cpu)).slice(0, 1, m * n, 2);
            let sampled = Sampled::new(&op, &positions).unwrap().unwrap();
            let got = sampled.gradient(&op, &input, &gradient).unwrap();
            let wanted = weight.grad().flatten(0, -1).index_select(0, &positions);
            let gap = (&got - &wanted).abs().max().double_value(&[]);
            assert!(gap < 1e-5 * wanted.abs().max().double_value(&[]), "{op:?} {gap}");
        }
    }
}
