//! Axes of plots.

/// The least and the greatest of some values.
pub fn extent(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.fold([f64::MAX, f64::MIN], |[low, high], value| [low.min(value), high.max(value)])
}

/// A range of values along one side of a plot.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    values: [f64; 2],
    places: [f64; 2],
}

impl Scale {
    /// Draws `values` (low, high) at `places`, in user units.
    pub const fn new(values: [f64; 2], places: [f64; 2]) -> Self {
        Self { values, places }
    }

    /// The place of a value; what is outside of the range lies at its end.
    pub fn at(&self, value: f64) -> String {
        let ([low, high], [from, to]) = (self.values, self.places);
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        format!("{:.1}", from + (to - from) * share)
    }

    /// Places and texts of at most eight round values, each multiplied by `factor`.
    pub fn ticks(&self, factor: f64) -> Vec<(String, String)> {
        let [low, high] = self.values.map(|value| value * factor);
        let power = 10_f64.powf((high - low).log10().floor());
        let steps = [0.2, 0.5, 1.0, 2.0].map(|part| part * power);
        let Some(step) = steps.into_iter().find(|step| (high - low) / step <= 8.0) else { return Vec::new() };
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let tick = |n: i64| {
            let value = n as f64 * step;
            (self.at(value / factor), format!("{value:.digits$}"))
        };
        ((low / step).ceil() as i64..=(high / step).floor() as i64).map(tick).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(low: f64, high: f64, factor: f64) -> Vec<String> {
        Scale::new([low, high], [0.0, 100.0]).ticks(factor).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(texts(0.5, 0.59, 100.0), ["50", "52", "54", "56", "58"]);
        assert_eq!(texts(0.9, 1.6, 1.0), ["0.9", "1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6"]);
        assert_eq!(texts(0.0, 10.0, 1.0), ["0", "2", "4", "6", "8", "10"]);
        for high in 1..200 {
            let ticks = texts(0.0, 0.37 * f64::from(high), 1.0).len();
            assert!((3..=9).contains(&ticks), "{ticks} ticks up to {high}");
        }
    }

    #[test]
    fn values_outside_lie_at_the_end() {
        let scale = Scale::new([1.0, 2.0], [100.0, 0.0]);
        assert_eq!([0.0, 1.25, 3.0].map(|value| scale.at(value)), ["100.0", "75.0", "0.0"]);
    }
}
