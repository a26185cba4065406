use tch::{Kind, TchError, Tensor};

/// Values that share a scale.
const GROUP: i64 = 64;
/// Most of the codes of 8 bits.
const LARGEST: f64 = 127.0;
/// The 16 values of NormalFloat4: quantiles of a normal distribution with a zero among them (QLoRA, arXiv 2305.14314,
/// appendix E).
const NORMAL_FLOAT: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Bits of a weight that is not trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// Whole numbers times the scale of their group.
    Eight,
    /// NormalFloat4 times the scale of its group, two in a byte.
    Four,
}

/// A weight in few bits: a code for each value, or for each kept value, and a scale for each 64 of them.
#[derive(Debug)]
pub(super) struct Packed {
    shape: Vec<i64>,
    /// Where the values are in the flat weight `[k]`, 32 bits; absent: everywhere.
    positions: Option<Tensor>,
    bits: Bits,
    codes: Tensor,
    /// Largest magnitude of each group `[groups, 1]`.
    scales: Tensor,
}

impl Packed {
    /// Of a weight and, where it is pruned, its mask.
    pub fn new(weight: &Tensor, mask: Option<&Tensor>, bits: Bits) -> Result<Self, TchError> {
        let flat = weight.f_detach()?.f_flatten(0, -1)?;
        let positions = mask.map(|mask| mask.f_flatten(0, -1)?.f_nonzero()?.f_squeeze_dim(1)).transpose()?;
        let values = match &positions {
            Some(positions) => flat.f_index_select(0, positions)?,
            None => flat,
        };
        let count = values.numel() as i64;
        let groups =
            values.f_constant_pad_nd([0, (GROUP - count % GROUP) % GROUP])?.f_reshape([-1, GROUP])?;
        let scales = groups.f_abs()?.f_amax([1_i64].as_slice(), true)?;
        // A group of zeros has no scale.
        let relative = groups.f_div(&scales.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?;
        let codes = match bits {
            Bits::Eight => relative.f_mul_scalar(LARGEST)?.f_round()?.f_to_kind(Kind::Int8)?,
            Bits::Four => pairs(&nearest(&relative)?)?,
        };
        let positions = positions.map(|positions| positions.f_to_kind(Kind::Int)).transpose()?;
        Ok(Self { shape: weight.size(), positions, bits, codes, scales })
    }

    /// The weight, as far as the codes tell it.
    pub fn unpack(&self) -> Result<Tensor, TchError> {
        let relative = match self.bits {
            Bits::Eight => self.codes.f_to_kind(Kind::Float)?.f_div_scalar(LARGEST)?,
            Bits::Four => {
                let codes =
                    [self.codes.f_bitwise_and(15)?, self.codes.f_bitwise_right_shift_tensor_scalar(4)?];
                let codes = Tensor::f_stack(&codes, 2)?.f_to_kind(Kind::Int64)?.f_flatten(0, -1)?;
                table(&self.codes)?.f_index_select(0, &codes)?.f_reshape([-1, GROUP])?
            }
        };
        let values = relative.f_mul(&self.scales)?.f_flatten(0, -1)?;
        let count = self.positions.as_ref().map_or(self.shape.iter().product(), |p| p.numel() as i64);
        let values = values.f_narrow(0, 0, count)?;
        let Some(positions) = &self.positions else { return values.f_reshape(&self.shape) };
        let all: i64 = self.shape.iter().product();
        let zeros = Tensor::f_zeros([all], (Kind::Float, values.device()))?;
        zeros.f_scatter(0, &positions.f_to_kind(Kind::Int64)?, &values)?.f_reshape(&self.shape)
    }

    /// A copy; nothing is ever written into the codes.
    pub fn share(&self) -> Self {
        Self {
            shape: self.shape.clone(),
            positions: self.positions.as_ref().map(Tensor::shallow_clone),
            bits: self.bits,
            codes: self.codes.shallow_clone(),
            scales: self.scales.shallow_clone(),
        }
    }
}

fn table(like: &Tensor) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(&NORMAL_FLOAT)?.f_to_device(like.device())
}

/// Index of the nearest value of the table.
fn nearest(relative: &Tensor) -> Result<Tensor, TchError> {
    let between: Vec<f32> = NORMAL_FLOAT.windows(2).map(|pair| f32::midpoint(pair[0], pair[1])).collect();
    let between = Tensor::f_from_slice(&between)?.f_to_device(relative.device())?;
    relative.f_bucketize(&between, false, false)
}

/// Codes `[groups, 64]` below 16, two to a byte: `[groups, 32]`.
fn pairs(codes: &Tensor) -> Result<Tensor, TchError> {
    let codes = codes.f_reshape([codes.size()[0], -1, 2])?;
    let high = codes.f_select(2, 1)?.f_mul_scalar(16)?;
    codes.f_select(2, 0)?.f_add(&high)?.f_to_kind(Kind::Uint8)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn normal(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn values_come_back_within_half_a_step_of_their_group() {
        let weight = normal(&[7, 3, 3, 3]);
        let largest = weight.abs().max().double_value(&[]);
        let steps = NORMAL_FLOAT.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f32::max);
        for (bits, step) in [(Bits::Eight, 1.0 / LARGEST), (Bits::Four, f64::from(steps))] {
            let back = Packed::new(&weight, None, bits).unwrap().unpack().unwrap();
            assert_eq!(back.size(), weight.size());
            let gap = (&back - &weight).abs().max().double_value(&[]);
            assert!(gap > 0.0 && gap <= 0.5 * step * largest * 1.0001, "{bits:?} {gap}");
            let again = Packed::new(&back, None, bits).unwrap().unpack().unwrap();
            assert!((&again - &back).abs().max().double_value(&[]) < 1e-6, "{bits:?} is its own nearest");
        }
    }

    #[test]
    fn what_is_pruned_stays_zero_and_takes_no_room() {
        let mask = normal(&[10, 40]).gt(1.0);
        let weight = normal(&[10, 40]) * &mask;
        let kept = mask.sum(Kind::Int64).int64_value(&[]);
        for bits in [Bits::Eight, Bits::Four] {
            let packed = Packed::new(&weight, Some(&mask), bits).unwrap();
            assert!(packed.codes.numel() as i64 <= kept + GROUP, "{bits:?}");
            let back = packed.unpack().unwrap();
            assert_eq!((&back * mask.logical_not()).abs().max().double_value(&[]), 0.0);
            assert!((&back - &weight).abs().max().double_value(&[]) < 0.5);
        }
    }

    #[test]
    fn zeros_are_exact() {
        let packed =
            Packed::new(&Tensor::zeros([3, 5], (Kind::Float, Device::Cpu)), None, Bits::Four).unwrap();
        assert_eq!(packed.unpack().unwrap().abs().max().double_value(&[]), 0.0);
    }
}
