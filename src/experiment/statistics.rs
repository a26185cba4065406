use serde::Serialize;

use crate::record::Z;

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean of the values.
    pub mean: f64,
    /// Half the width of the 95 % interval of the mean by Student's t; absent for a single value.
    pub half_width: Option<f64>,
    /// Number of values.
    pub count: usize,
}

impl Estimate {
    /// Mean of some values and `t₀.₉₇₅(n − 1) · s / √n`; nothing for no value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let half_width = (count > 1).then(|| {
            let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let deviation = (square / (count - 1) as f64).sqrt();
            student_t(count - 1) * deviation / (count as f64).sqrt()
        });
        Some(Self { mean, half_width, count })
    }

    /// The same with another error beside that of its values, a standard error that is independent of it.
    #[must_use]
    pub fn with_error(self, error: f64) -> Self {
        let half = self.half_width.unwrap_or(0.0).hypot(Z * error);
        Self { half_width: Some(half), ..self }
    }

    /// Ends of the interval; the mean twice for a single value.
    pub fn interval(&self) -> [f64; 2] {
        let half = self.half_width.unwrap_or(0.0);
        [self.mean - half, self.mean + half]
    }
}

/// The 97.5 % quantile of Student's t for few degrees of freedom, from 1.
const FEW: [f64; 5] = [12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582];

/// The 97.5 % quantile of Student's t with `freedom ≥ 1` degrees of freedom, to three digits or more.
///
/// Beyond five the Cornish–Fisher expansion around the normal quantile (Abramowitz and Stegun 26.7.5).
fn student_t(freedom: usize) -> f64 {
    if let Some(exact) = freedom.checked_sub(1).and_then(|index| FEW.get(index)) {
        return *exact;
    }
    let (z, n) = (Z, freedom as f64);
    let terms = [
        z,
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
        (79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5) - 1920.0 * z.powi(3) - 945.0 * z)
            / 92160.0,
    ];
    terms.iter().rev().fold(0.0, |sum, term| sum / n + term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, quantile) in
            [(1, 12.706), (2, 4.303), (5, 2.571), (6, 2.447), (9, 2.262), (30, 2.042), (120, 1.980)]
        {
            assert!((student_t(freedom) - quantile).abs() < 1e-3, "{freedom}: {}", student_t(freedom));
        }
    }

    #[test]
    fn intervals_are_those_of_the_textbook() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[0.5]).unwrap().half_width, None);
        let estimate = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((estimate.mean, estimate.count), (2.0, 3));
        let half = 4.302_653 / 3.0_f64.sqrt();
        assert!((estimate.half_width.unwrap() - half).abs() < 1e-6);
        assert!((estimate.interval()[0] - (2.0 - half)).abs() < 1e-6);
    }
}
