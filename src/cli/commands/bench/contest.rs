//! Rounds in which everything that is compared runs once, so that all see the same machine.

use serde::Serialize;

use crate::cli::exit::Failure;
use crate::progress::Progress;

/// Untimed rounds before the timed ones.
const WARM_UP: u32 = 2;

/// Something that is timed: milliseconds of a run.
pub type Contestant<'a> = Box<dyn FnMut() -> Result<f64, Failure> + 'a>;

/// Milliseconds of each contestant in each of `runs` rounds.
pub fn rounds(
    contestants: &mut [Contestant],
    runs: u32,
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<f64>>, Failure> {
    let mut times = vec![Vec::new(); contestants.len()];
    progress.start("bench", u64::from(runs + WARM_UP));
    for round in 0..runs + WARM_UP {
        for (run, times) in contestants.iter_mut().zip(&mut times) {
            let ms = run()?;
            if round >= WARM_UP {
                times.push(ms);
            }
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(times)
}

/// Times of one contestant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of times of runs of `batch` images: milliseconds per image.
    pub fn per_image(times: &[f64], batch: usize) -> Self {
        let sorted = sorted(times.iter().map(|ms| ms / batch as f64));
        Self { median: median(&sorted), min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

/// How many times as long one contestant took as another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Median over the rounds.
    pub median: f64,
    /// 95 % interval of the median, by ranks.
    pub interval: [f64; 2],
}

impl Ratio {
    /// Round by round.
    pub fn of(slow: &[f64], fast: &[f64]) -> Self {
        let ratios = sorted(slow.iter().zip(fast).map(|(slow, fast)| slow / fast));
        let count = ratios.len();
        let low = ((count as f64 - 1.96 * (count as f64).sqrt()) / 2.0).floor().max(0.0) as usize;
        Self { median: median(&ratios), interval: [ratios[low], ratios[count - 1 - low]] }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Spread::per_image(&[3.0, 1.0, 2.0], 1), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::per_image(&[4.0, 1.0, 2.0, 3.0], 2), Spread { median: 1.25, min: 0.5, max: 2.0 });
    }

    #[test]
    fn ratios_pair_the_rounds() {
        // A machine that slows down changes both alike.
        let fast: Vec<f64> = (1..=30).map(f64::from).collect();
        let slow: Vec<f64> = fast.iter().map(|ms| 3.0 * ms).collect();
        let ratio = Ratio::of(&slow, &fast);
        assert!((ratio.median - 3.0).abs() < 1e-12 && ratio.interval == [ratio.median; 2], "{ratio:?}");
        let one = Ratio::of(&[2.0], &[1.0]);
        assert_eq!((one.median, one.interval), (2.0, [2.0, 2.0]));
    }

    /// scipy.stats.binom.ppf([0.025], 30, 0.5) is 10: the interval goes from the 10th to the 21st of 30 values.
    #[test]
    fn intervals_of_medians_follow_the_binomial() {
        let values: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(Ratio::of(&values, &[1.0; 30]).interval, [10.0, 21.0]);
    }

    #[test]
    fn warm_up_rounds_do_not_count() {
        let mut calls = 0;
        let count: Contestant = Box::new(|| {
            calls += 1;
            Ok(f64::from(calls))
        });
        let times = rounds(&mut [count], 3, &mut Silent).unwrap_or_default();
        assert_eq!(times, [[3.0, 4.0, 5.0]]);
    }
}
