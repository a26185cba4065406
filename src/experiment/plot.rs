use askama::Template;

use super::curve::curves;
use super::table::{columns, percent};
use super::{Group, Row, Summary};
use crate::scale::{Scale, extent};

/// Where the marks begin and how wide the scale is, in user units.
const LEFT: f64 = 250.0;
const SPAN: f64 = 400.0;
/// Height of a row and of what is above the first.
const ROW: f64 = 24.0;
const TOP: f64 = 34.0;
/// Least room on each side of the marks, as a fraction.
const MARGIN: f64 = 0.01;

/// Top-1 of a group's rows with 95 % intervals over the seeds as SVG, readable on light and dark ground: along the axis
/// that the experiment names, else row below row.
pub fn plot(summary: &Summary, group: &Group) -> String {
    match &summary.curve {
        Some(axis) if summary.columns.contains(axis) => curves(summary, group, axis),
        // Writing to memory does not fail.
        _ => Dots::new(summary, group).render().expect("writing to a string does not fail"),
    }
}

#[derive(Template)]
#[template(path = "dots.svg", escape = "html")]
struct Dots {
    title: String,
    height: f64,
    /// Lower end of the scale.
    axis: f64,
    ticks: Vec<(String, String)>,
    dense: String,
    recovered: bool,
    rows: Vec<Dot>,
}

struct Dot {
    label: String,
    text: String,
    /// Where pruning left the network, if it went on from there.
    oneshot: Option<String>,
    at: String,
    low: String,
    high: String,
    y: f64,
}

/// Holds every mean; of an interval no more than the means' own spread, as those of two seeds are wide.
fn scale(rows: &[Row]) -> Scale {
    let [low, high] = extent(rows.iter().flat_map(|row| [row.dense.mean, row.oneshot.mean, row.top1.mean]));
    let most = (high - low).max(0.05);
    let widest = rows.iter().filter_map(|row| row.top1.half_width).fold(0.0, f64::max).min(most);
    Scale::new([low - widest - MARGIN, high + widest + MARGIN], [LEFT, LEFT + SPAN])
}

impl Dots {
    fn new(summary: &Summary, group: &Group) -> Self {
        let scale = scale(&group.rows);
        let axis = TOP + ROW * group.rows.len() as f64;
        let columns = columns(summary, group);
        let dot = |(index, row): (usize, &Row)| {
            let [low, high] = row.top1.interval();
            let settings = columns.iter().filter_map(|axis| row.settings.get(*axis));
            Dot {
                label: settings.map(String::as_str).collect::<Vec<_>>().join(" "),
                text: percent(&row.top1),
                oneshot: group.recovered().then(|| scale.at(row.oneshot.mean)),
                at: scale.at(row.top1.mean),
                low: scale.at(low),
                high: scale.at(high),
                y: TOP + ROW * (index as f64 + 0.5),
            }
        };
        Self {
            title: group.title(),
            height: axis + 44.0,
            axis,
            ticks: scale.ticks(100.0),
            dense: scale.at(group.dense()),
            recovered: group.recovered(),
            rows: group.rows.iter().enumerate().map(dot).collect(),
        }
    }
}
