use std::fmt;

use serde::{Deserialize, Serialize};

/// Fraction of zeros, `0 <= s < 1`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sparsity(f64);

/// A fraction of zeros outside `0 <= s < 1`.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("sparsity {0} is not in 0 <= s < 1")]
pub struct InvalidSparsity(pub f64);

impl Sparsity {
    /// Nothing pruned.
    pub const DENSE: Self = Self(0.0);

    /// Checks that `fraction` of zeros is in `0 <= s < 1`.
    pub fn new(fraction: f64) -> Result<Self, InvalidSparsity> {
        if (0.0..1.0).contains(&fraction) { Ok(Self(fraction)) } else { Err(InvalidSparsity(fraction)) }
    }

    /// Sparsity of a `factor`-fold compression: 20 means that 1/20 of the weights stay.
    pub fn from_compression(factor: f64) -> Result<Self, InvalidSparsity> {
        if factor.is_finite() && factor >= 1.0 {
            Self::new(1.0 - 1.0 / factor)
        } else {
            Err(InvalidSparsity(1.0 - 1.0 / factor))
        }
    }

    /// Fraction of zeros.
    pub const fn fraction(self) -> f64 {
        self.0
    }

    /// Fraction of weights that stay.
    pub const fn density(self) -> f64 {
        1.0 - self.0
    }

    /// How many of `total` weights stay, rounded to the nearest count.
    pub fn kept(self, total: usize) -> usize {
        (self.density() * total as f64).round() as usize
    }

    /// Fold of compression, `1 / density`.
    pub const fn compression(self) -> f64 {
        1.0 / self.density()
    }
}

impl TryFrom<f64> for Sparsity {
    type Error = InvalidSparsity;
    fn try_from(fraction: f64) -> Result<Self, InvalidSparsity> {
        Self::new(fraction)
    }
}

impl From<Sparsity> for f64 {
    fn from(sparsity: Sparsity) -> Self {
        sparsity.0
    }
}

impl fmt::Display for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} %", 100.0 * self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_and_sparsity_agree() {
        let twenty = Sparsity::from_compression(20.0).unwrap();
        assert!((twenty.fraction() - 0.95).abs() < 1e-12);
        assert_eq!(twenty.kept(1000), 50);
        assert!((twenty.compression() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn refuses_what_is_no_fraction() {
        for bad in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Sparsity::new(bad).is_err(), "{bad}");
        }
        for bad in [0.0, 0.5, -3.0, f64::NAN, f64::INFINITY] {
            assert!(Sparsity::from_compression(bad).is_err(), "{bad}");
        }
    }
}
