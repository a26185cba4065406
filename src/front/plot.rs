use askama::Template;

use super::{Front, Point};
use crate::scale::{Scale, extent};

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
    Plane::new(front).render().expect("writing to a string does not fail")
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

/// Holds all values with some room.
fn scale(values: impl Iterator<Item = f64>, places: [f64; 2]) -> Scale {
    let [low, high] = extent(values);
    // Equal values would leave no range at all.
    let room = (MARGIN * (high - low)).max(0.01 * high.abs()).max(1e-3);
    Scale::new([low - room, high + room], places)
}

impl Plane {
    fn new(front: &Front) -> Self {
        let x = scale(front.all().map(|point| point.ms), [LEFT, RIGHT]);
        let y = scale(front.all().map(|point| point.top1), [BOTTOM, TOP]);
        let place = |point: &Point| [x.at(point.ms), y.at(point.top1)];
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
