use std::fmt;
use std::str::FromStr;

use half::bf16;

/// How the values of feature maps and tokens are stored between layers. Arithmetic is in f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// 32 bits: exact, for those who doubt.
    F32,
    /// 16 bits: the upper half of an f32, rounded to nearest even when stored and exact when read. Halves
    /// what a layer reads and what must fit the caches.
    #[default]
    Bf16,
}

/// Why a precision cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown precision `{0}` (known: f32, bf16)")]
pub struct PrecisionError(String);

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// Name as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of a stored value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Values of a cache line.
    pub(crate) const fn line(self) -> usize {
        64 / self.bytes()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = PrecisionError;
    fn from_str(name: &str) -> Result<Self, PrecisionError> {
        let found = Self::ALL.into_iter().find(|precision| precision.name() == name);
        found.ok_or_else(|| PrecisionError(name.to_owned()))
    }
}

/// A stored value: plain data of [`Precision::bytes`] bytes for which every pattern is valid.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// Its precision.
    const PRECISION: Precision;

    /// Its value.
    fn widen(self) -> f32;

    /// The nearest stored value.
    fn narrow(x: f32) -> Self;
}

impl Element for f32 {
    const PRECISION: Precision = Precision::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
}

impl Element for bf16 {
    const PRECISION: Precision = Precision::Bf16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        Self::from_f32(x)
    }
}
