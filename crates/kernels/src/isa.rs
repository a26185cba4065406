use std::fmt;
use std::str::FromStr;

/// Environment variable that forces an instruction set: `portable`, `avx2` or `avx512`.
pub const ISA_VARIABLE: &str = "MARGAY_ISA";

/// An instruction set that kernels are compiled for. Ordered from slow to fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What every CPU of the target has.
    Portable,
    /// AVX2 and FMA: 8 lanes, 16 registers.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 lanes, 32 registers.
    Avx512,
}

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// The name is none of the known ones.
    #[error("unknown instruction set `{0}` (known: portable, avx2, avx512)")]
    Unknown(String),
    /// The CPU lacks the instructions.
    #[error("this CPU has no {wanted}; the best it has is {best}")]
    Missing {
        /// Instruction set asked for.
        wanted: Isa,
        /// Fastest one the CPU has.
        best: Isa,
    },
}

impl Isa {
    /// Every instruction set, slow to fast.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Avx2 => crate::simd::has_avx2(),
            Self::Avx512 => crate::simd::has_avx512(),
        }
    }

    /// Fastest instruction set of this CPU.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// The one asked for, else the one `MARGAY_ISA` names, else the best.
    pub fn choose(wanted: Option<Self>) -> Result<Self, IsaError> {
        let wanted = match (wanted, std::env::var(ISA_VARIABLE)) {
            (Some(isa), _) => isa,
            (None, Ok(name)) if !name.is_empty() => name.parse()?,
            _ => return Ok(Self::best()),
        };
        if wanted.is_available() { Ok(wanted) } else { Err(IsaError::Missing { wanted, best: Self::best() }) }
    }

    /// Values of one vector.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable => 4,
            Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }

    /// Name as in `MARGAY_ISA`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;
    fn from_str(name: &str) -> Result<Self, IsaError> {
        let found = Self::ALL.into_iter().find(|isa| isa.name() == name);
        found.ok_or_else(|| IsaError::Unknown(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert_eq!("sse9".parse::<Isa>(), Err(IsaError::Unknown("sse9".to_owned())));
    }

    #[test]
    fn the_best_is_available() {
        assert!(Isa::best().is_available());
        assert_eq!(Isa::choose(Some(Isa::Portable)), Ok(Isa::Portable));
    }
}
