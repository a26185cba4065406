use askama::Template;

use super::axes::METHOD;
use super::table::{columns, percent};
use super::{Estimate, Group, Row, Summary};
use crate::scale::{Scale, extent};

/// Ends of the axes, in user units.
const LEFT: f64 = 50.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 300.0;
/// Where the curves' names begin, and their distance.
const NAMES: f64 = 616.0;
const LINE: f64 = 18.0;
/// Room for a letter of a name.
const LETTER: f64 = 7.5;
/// Least room above and below the curves, as a fraction.
const MARGIN: f64 = 0.01;
/// Curves of the same point lie side by side, this far apart.
const SHIFT: f64 = 5.0;

/// Top-1 of a group's rows along an axis with 95 % intervals over the seeds as SVG, a curve for whatever else varies.
pub(super) fn curves(summary: &Summary, group: &Group, axis: &str) -> String {
    // Writing to memory does not fail.
    Curves::new(summary, group, axis).render().expect("writing to a string does not fail")
}

#[derive(Template)]
#[template(path = "curves.svg", escape = "html")]
struct Curves {
    title: String,
    width: f64,
    names: f64,
    axis: String,
    ticks: Vec<(String, String)>,
    /// Where each value of the axis is, and the value.
    values: Vec<(f64, String)>,
    dense: String,
    series: Vec<Curve>,
}

struct Curve {
    label: String,
    /// Where its name is.
    y: f64,
    /// As SVG writes a polyline.
    path: String,
    points: Vec<Point>,
}

struct Point {
    x: f64,
    y: String,
    low: String,
    high: String,
    text: String,
}

impl Curves {
    fn new(summary: &Summary, group: &Group, axis: &str) -> Self {
        let values = distinct(group.rows.iter().filter_map(|row| row.settings.get(axis)));
        let step = (RIGHT - LEFT) / values.len().max(1) as f64;
        let at = |index: usize| LEFT + step * (index as f64 + 0.5);
        let scale = scale(&group.rows);
        let others: Vec<&str> = columns(summary, group).into_iter().filter(|name| *name != axis).collect();
        let label = |row: &Row| {
            let setting = |name: &&str| {
                let value = row.settings.get(*name)?;
                Some(if *name == METHOD { value.clone() } else { format!("{name} {value}") })
            };
            others.iter().filter_map(setting).collect::<Vec<_>>().join(", ")
        };
        let labels = distinct(group.rows.iter().map(label));
        let curve = |(number, name): (usize, &String)| {
            let shift = SHIFT * (number as f64 - 0.5 * (labels.len() - 1) as f64);
            let point = |(index, value): (usize, &String)| {
                let here = |row: &&Row| row.settings.get(axis) == Some(value) && label(row) == *name;
                let row = group.rows.iter().find(here)?;
                Some(Point::new(&row.top1, at(index) + shift, &scale))
            };
            let points: Vec<Point> = values.iter().enumerate().filter_map(point).collect();
            let path: Vec<String> =
                points.iter().map(|point| format!("{:.1},{}", point.x, point.y)).collect();
            Curve { label: name.clone(), y: TOP + LINE * (number as f64 + 0.5), path: path.join(" "), points }
        };
        let series = labels.iter().enumerate().map(curve).collect();
        let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        Self {
            title: group.title(),
            width: (NAMES + LETTER * longest as f64).ceil().max(780.0),
            names: NAMES,
            axis: axis.to_owned(),
            ticks: scale.ticks(100.0),
            dense: scale.at(group.dense()),
            series,
            values: values.into_iter().enumerate().map(|(index, value)| (at(index), value)).collect(),
        }
    }
}

impl Point {
    fn new(top1: &Estimate, x: f64, scale: &Scale) -> Self {
        let [low, high] = top1.interval().map(|end| scale.at(end));
        Self { x, y: scale.at(top1.mean), low, high, text: percent(top1) }
    }
}

/// Each value once, in the order of their first appearance.
fn distinct<T: ToString>(values: impl Iterator<Item = T>) -> Vec<String> {
    let mut seen = Vec::new();
    for value in values.map(|value| value.to_string()) {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// Holds every mean and the dense network; intervals may be cut.
fn scale(rows: &[Row]) -> Scale {
    let [low, high] = extent(rows.iter().flat_map(|row| [row.dense.mean, row.top1.mean]));
    Scale::new([low - MARGIN, high + MARGIN], [BOTTOM, TOP])
}
