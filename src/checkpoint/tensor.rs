use half::{bf16, f16};

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of `F32`.
    Bf16,
    /// 64-bit floating point.
    F64,
    /// Anything else, by name.
    Other(&'static str),
}

impl Dtype {
    /// Name as in safetensors, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::Other(name) => name,
        }
    }

    /// Widens or rounds little-endian numbers to f32; absent for anything but floating point.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Vec<f32>> {
        match self {
            Self::F32 => Some(chunks(bytes, f32::from_le_bytes)),
            Self::F16 => Some(chunks(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Self::Bf16 => Some(chunks(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Self::F64 => Some(chunks(bytes, |b| f64::from_le_bytes(b) as f32)),
            Self::Other(_) => None,
        }
    }
}

fn chunks<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| decode(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_type_decodes() {
        let value = -1.5_f32;
        let table: [(Dtype, Vec<u8>); 4] = [
            (Dtype::F32, value.to_le_bytes().to_vec()),
            (Dtype::F16, f16::from_f32(value).to_le_bytes().to_vec()),
            (Dtype::Bf16, bf16::from_f32(value).to_le_bytes().to_vec()),
            (Dtype::F64, f64::from(value).to_le_bytes().to_vec()),
        ];
        for (dtype, bytes) in table {
            assert_eq!(dtype.decode(&[bytes.clone(), bytes].concat()), Some(vec![value; 2]), "{dtype:?}");
        }
        assert_eq!(Dtype::Other("i64").decode(&[0; 8]), None);
    }
}
