use askama::Template;

use super::{Front, Point};

/// Corners of the plane in user units.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 660.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 340.0;
/// Room around the marks, as a share of their range.
const MARGIN: f64 = 0.08;

/// Held-out top-1 against milliseconds as SVG, readable on light and dark ground.
pub fn plot(front: &Front) -> String {
    // Writing to memory does not fail.
    Plane::new(front).render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "front.svg", escape = "html")]
struct Plane {
    title: String,
    right: f64,
    bottom: f64,
    across: Vec<(String, String)>,
    up: Vec<(String, String)>,
    /// The front, from left to right.
    line: String,
    marks: Vec<Mark>,
}

struct Mark {
    x: String,
    y: String,
    best: bool,
    name: String,
}

/// A range of values along one side of the plane.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64> + Clone, [from, to]: [f64; 2]) -> Self {
        let (low, high) = (values.clone().fold(f64::MAX, f64::min), values.fold(f64::MIN, f64::max));
        let room = MARGIN * (high - low).max(1e-3);
        Self { low: low - room, high: high + room, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * (value - self.low) / (self.high - self.low)
    }

    /// Round values with their places.
    fn ticks(&self, factor: f64) -> Vec<(String, String)> {
        let range = (self.high - self.low) * factor;
        let step = 10_f64.powf(range.log10().floor());
        let step = [0.1, 0.2, 0.5, 1.0].map(|part| part * step).into_iter().find(|s| range / s <= 8.0);
        let step = step.unwrap_or(range);
        let (first, last) =
            ((self.low * factor / step).ceil() as i64, (self.high * factor / step).floor() as i64);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let tick = |n: i64| {
            let value = n as f64 * step;
            (format!("{:.1}", self.at(value / factor)), format!("{value:.digits$}"))
        };
        (first..=last).map(tick).collect()
    }
}

impl Plane {
    fn new(front: &Front) -> Self {
        let x = Scale::new(front.all().map(|point| point.ms), [LEFT, RIGHT]);
        let y = Scale::new(front.all().map(|point| point.top1), [BOTTOM, TOP]);
        let place = |point: &Point| [x.at(point.ms), y.at(point.top1)].map(|px| format!("{px:.1}"));
        let mut best: Vec<&Point> = front.all().filter(|point| point.best).collect();
        best.sort_by(|a, b| a.ms.total_cmp(&b.ms));
        let mark = |point: &Point| {
            let [x, y] = place(point);
            Mark { x, y, best: point.best, name: point.target.clone() }
        };
        Self {
            title: format!("{}: held-out top-1 (%) against ms an image", front.model),
            right: RIGHT,
            bottom: BOTTOM,
            across: x.ticks(1.0),
            up: y.ticks(100.0),
            line: best.into_iter().map(|point| place(point).join(",")).collect::<Vec<_>>().join(" "),
            marks: front.all().map(mark).collect(),
        }
    }
}
