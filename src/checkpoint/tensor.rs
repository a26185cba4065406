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
    /// 8-bit floating point of 4 exponent and 3 mantissa bits, without infinities.
    F8E4m3,
    /// 8-bit floating point of 5 exponent and 2 mantissa bits.
    F8E5m2,
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
            Self::F8E4m3 => "f8_e4m3",
            Self::F8E5m2 => "f8_e5m2",
            Self::Other(name) => name,
        }
    }

    /// The type that PyTorch (`torch.FloatStorage`, `torch.float32`) or NumPy (`<f4`) calls so.
    pub(super) fn of_torch(name: &str) -> Self {
        let own = name.rsplit('.').next().unwrap_or(name);
        match own.strip_suffix("Storage").unwrap_or(own).trim_start_matches(['<', '=', '|']) {
            "Float" | "float32" | "float" | "f4" => Self::F32,
            "Half" | "float16" | "half" | "f2" => Self::F16,
            "BFloat16" | "bfloat16" => Self::Bf16,
            "Double" | "float64" | "double" | "f8" => Self::F64,
            "float8_e4m3fn" => Self::F8E4m3,
            "float8_e5m2" => Self::F8E5m2,
            "Bool" | "bool" | "b1" => Self::Other("bool"),
            "Byte" | "uint8" | "u1" | "Untyped" => Self::Other("u8"),
            "Char" | "int8" | "i1" => Self::Other("i8"),
            "Short" | "int16" | "short" | "i2" => Self::Other("i16"),
            "Int" | "int32" | "int" | "i4" => Self::Other("i32"),
            "Long" | "int64" | "long" | "i8" => Self::Other("i64"),
            "ComplexFloat" | "complex64" | "c8" => Self::Other("complex numbers"),
            "ComplexDouble" | "complex128" | "c16" => Self::Other("complex numbers of 64 bits"),
            "QInt8" | "QUInt8" | "qint8" | "quint8" | "a quantised type" => Self::Other("a quantised type"),
            "QInt32" | "qint32" => Self::Other("a quantised type of 32 bits"),
            "an unusual layout" => Self::Other("a sparse or nested layout"),
            big if big.starts_with('>') => Self::Other("a big-endian type"),
            _ => Self::Other("an unusual type"),
        }
    }

    /// Bytes of an element; absent for types of unknown size.
    pub(super) fn size(self) -> Option<usize> {
        match self {
            Self::F8E4m3 | Self::F8E5m2 | Self::Other("bool" | "u8" | "i8" | "a quantised type") => Some(1),
            Self::F16 | Self::Bf16 | Self::Other("i16") => Some(2),
            Self::F32 | Self::Other("i32" | "a quantised type of 32 bits") => Some(4),
            Self::F64 | Self::Other("i64" | "complex numbers") => Some(8),
            Self::Other("complex numbers of 64 bits") => Some(16),
            Self::Other(_) => None,
        }
    }

    /// Whether it is floating point.
    pub(super) const fn is_float(self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Widens or rounds little-endian numbers to f32; absent for anything but numbers.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Vec<f32>> {
        match self {
            Self::F32 => Some(chunks(bytes, f32::from_le_bytes)),
            Self::F16 => Some(chunks(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Self::Bf16 => Some(chunks(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Self::F64 => Some(chunks(bytes, |b| f64::from_le_bytes(b) as f32)),
            Self::F8E4m3 => Some(chunks(bytes, |[b]| f8_e4m3(b))),
            // The upper half of a half.
            Self::F8E5m2 => Some(chunks(bytes, |[b]| f16::from_le_bytes([0, b]).to_f32())),
            Self::Other("bool") => Some(chunks(bytes, |[b]| f32::from(u8::from(b != 0)))),
            Self::Other("u8") => Some(chunks(bytes, |[b]| f32::from(b))),
            Self::Other("i8") => Some(chunks(bytes, |b| f32::from(i8::from_le_bytes(b)))),
            Self::Other("i16") => Some(chunks(bytes, |b| f32::from(i16::from_le_bytes(b)))),
            Self::Other("i32") => Some(chunks(bytes, |b| i32::from_le_bytes(b) as f32)),
            Self::Other("i64") => Some(chunks(bytes, |b| i64::from_le_bytes(b) as f32)),
            Self::Other(_) => None,
        }
    }
}

/// All bits of exponent and mantissa set are no number; there are no infinities.
fn f8_e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 0xf), f32::from(byte & 7));
    match (exponent, byte & 7) {
        (0xf, 7) => f32::NAN,
        (0, _) => sign * mantissa * (-9_f32).exp2(),
        _ => sign * (1.0 + mantissa / 8.0) * ((exponent - 7) as f32).exp2(),
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
        let table: [(Dtype, Vec<u8>); 6] = [
            (Dtype::F8E4m3, vec![0xbc]),
            (Dtype::F8E5m2, vec![0xbe]),
            (Dtype::F32, value.to_le_bytes().to_vec()),
            (Dtype::F16, f16::from_f32(value).to_le_bytes().to_vec()),
            (Dtype::Bf16, bf16::from_f32(value).to_le_bytes().to_vec()),
            (Dtype::F64, f64::from(value).to_le_bytes().to_vec()),
        ];
        for (dtype, bytes) in table {
            assert_eq!(dtype.decode(&[bytes.clone(), bytes].concat()), Some(vec![value; 2]), "{dtype:?}");
        }
        assert_eq!(Dtype::Other("complex numbers").decode(&[0; 8]), None);
        assert_eq!(Dtype::Other("bool").decode(&[0, 1, 2]), Some(vec![0.0, 1.0, 1.0]));
        // The smallest, the largest and the only number that is none.
        let eight = Dtype::F8E4m3.decode(&[0x01, 0x7e, 0x7f]).unwrap();
        assert_eq!(eight[..2], [(-9_f32).exp2(), 448.0]);
        assert!(eight[2].is_nan());
    }
}
