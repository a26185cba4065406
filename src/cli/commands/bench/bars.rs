//! The times as a picture.

use askama::Template;

use super::Measured;

/// Length of the longest bar, and what stands before and behind bars, in user units.
const SPAN: f64 = 400.0;
const LEFT: f64 = 160.0;
const GAP: f64 = 8.0;
/// Height of a bar with its gap, and of what is above the first.
const ROW: f64 = 26.0;
const TOP: f64 = 30.0;

#[derive(Template)]
#[template(path = "bars.svg", escape = "html")]
struct Plot {
    title: String,
    height: f64,
    times: Vec<Bar>,
}

struct Bar {
    name: &'static str,
    own: bool,
    y: f64,
    length: String,
    end: String,
    text: String,
}

/// Median milliseconds per image of all that took part, as SVG that is readable on light and dark ground.
pub fn draw(measured: &Measured) -> String {
    let own = [("margay", Some(measured.latency_ms.sparse)), ("margay, dense", measured.latency_ms.dense)];
    let own = own.into_iter().filter_map(|(name, spread)| Some((name, true, spread?.median, None)));
    let others = measured.against.iter().filter_map(|standing| {
        Some((standing.name, false, standing.latency_ms?.median, standing.ratio.map(|ratio| ratio.median)))
    });
    let times: Vec<_> = own.chain(others).collect();
    let longest = times.iter().fold(f64::MIN_POSITIVE, |most, (_, _, ms, _)| most.max(*ms));
    let bar = |(row, (name, own, ms, ratio)): (usize, (&'static str, bool, f64, Option<f64>))| {
        let length = SPAN * ms / longest;
        let ratio = ratio.map(|ratio| format!(" ({ratio:.2} ×)")).unwrap_or_default();
        let y = TOP + ROW * row as f64;
        let [length, end] = [length, LEFT + length + GAP].map(|x| format!("{x:.1}"));
        Bar { name, own, y, length, end, text: format!("{ms:.2} ms{ratio}") }
    };
    let height = TOP + ROW * times.len() as f64;
    let Measured { threads, batch, .. } = measured;
    let title = format!("{}: ms per image, batch {batch}, threads {threads}", measured.model);
    let times = times.into_iter().enumerate().map(bar).collect();
    // Writing to memory does not fail.
    Plot { title, height, times }.render().expect("writing to a string does not fail")
}
