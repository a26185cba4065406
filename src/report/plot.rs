//! Where the marks of the plots go. The template writes the SVG, so that every text is escaped there.

use std::fmt;

use super::format::{bytes, error, fold, interval, maybe_percent, milliseconds, percent, seconds};
use super::words::ClassChange;
use crate::record::{BlockRecord, ClassRecall, LayerRecord, RunRecord};

/// Width of every plot in user units.
pub(super) const WIDTH: f64 = 960.0;
/// Most classes in the plot; all of them are in the table below it.
const MOST_CLASSES: usize = 40;
/// Most characters of a name beside a plot.
const NAME: usize = 25;

/// A coordinate, written with one decimal so that the page does not depend on last bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Px(f64);

impl fmt::Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.0.is_finite() { (self.0 * 10.0).round() / 10.0 } else { 0.0 };
        // Adding zero turns a negative zero into a positive one.
        write!(f, "{}", value + 0.0)
    }
}

/// A labelled line of a scale.
pub(super) struct Tick {
    pub(super) at: Px,
    pub(super) text: String,
}

/// A value with its interval.
pub(super) struct Mark {
    pub(super) at: Px,
    pub(super) low: Px,
    pub(super) high: Px,
    pub(super) y: Px,
    pub(super) title: String,
}

/// One class in the accuracy plot.
pub(super) struct ClassRow {
    pub(super) label: String,
    pub(super) y: Px,
    pub(super) text_y: Px,
    pub(super) dense: Mark,
    pub(super) specialist: Mark,
    pub(super) text: String,
    pub(super) lost: bool,
}

/// Recall per class, dense above specialist.
pub(super) struct ClassPlot {
    pub(super) height: Px,
    pub(super) axis: Px,
    pub(super) ticks: Vec<Tick>,
    pub(super) rows: Vec<ClassRow>,
    /// Classes that did not fit.
    pub(super) left_out: usize,
}

impl ClassPlot {
    const LEFT: f64 = 190.0;
    const SPAN: f64 = 490.0;
    const ROW: f64 = 34.0;

    /// The plot of the classes in the order given.
    pub(super) fn new(changes: &[ClassChange]) -> Self {
        let shown = &changes[..changes.len().min(MOST_CLASSES)];
        let height = Self::ROW * shown.len() as f64 + 34.0;
        Self {
            height: Px(height),
            axis: Px(height - 28.0),
            ticks: (0..=5_u8)
                .map(|i| Tick { at: Self::x(f64::from(i) / 5.0), text: format!("{} %", 20 * i) })
                .collect(),
            rows: shown.iter().enumerate().map(|(i, change)| Self::row(i, change)).collect(),
            left_out: changes.len() - shown.len(),
        }
    }

    fn x(fraction: f64) -> Px {
        Px(Self::LEFT + Self::SPAN * fraction)
    }

    fn row(index: usize, change: &ClassChange) -> ClassRow {
        let y = Self::ROW * index as f64 + 4.0;
        let mark = |who: &str, class: &ClassRecall, y: f64| Mark {
            at: Self::x(class.recall.unwrap_or(0.0)),
            low: Self::x(class.interval[0]),
            high: Self::x(class.interval[1]),
            y: Px(y),
            title: format!(
                "{who}: {} ({} of {}), 95 % interval {}",
                maybe_percent(class.recall),
                class.correct,
                class.total,
                interval(class.interval)
            ),
        };
        ClassRow {
            label: short(&change.dense.label),
            y: Px(y),
            text_y: Px(y + 17.5),
            dense: mark("dense", change.dense, y + 8.0),
            specialist: mark("specialist", change.specialist, y + 19.0),
            text: format!(
                "{} → {}  ({}, n = {})",
                maybe_percent(change.dense.recall),
                maybe_percent(change.specialist.recall),
                change.gain(),
                change.dense.total
            ),
            lost: change.drop > 0.0,
        }
    }
}

/// Axis, scale and names of a plot with something for each layer or block, side by side.
pub(super) struct Frame {
    pub(super) height: Px,
    pub(super) ticks: Vec<Tick>,
    /// Names under the plot; empty where there is no room.
    pub(super) names: Vec<Tick>,
    /// The value at the upper end of the scale.
    top: f64,
    /// Distance of neighbours.
    step: f64,
}

impl Frame {
    const LEFT: f64 = 60.0;
    const TOP: f64 = 10.0;
    const HEIGHT: f64 = 130.0;
    /// Most names that fit.
    const NAMED: usize = 30;

    /// A frame that holds all the values, with something for each name.
    fn new(names: &[&str], values: impl Iterator<Item = f64>, text: impl Fn(f64) -> String) -> Self {
        let top = ceiling(values.filter(|value| value.is_finite()).fold(0.0, f64::max));
        let step = (WIDTH - Self::LEFT - 10.0) / names.len().max(1) as f64;
        let named = names.len() <= Self::NAMED;
        let mut frame = Self {
            height: Px(if named { 230.0 } else { 150.0 }),
            ticks: Vec::new(),
            names: Vec::new(),
            top,
            step,
        };
        frame.ticks = [0.0, 0.5, 1.0].map(|t| Tick { at: Px(frame.y(t * top)), text: text(t * top) }).into();
        if named {
            let name = |(at, name): (usize, &&str)| Tick { at: Px(frame.x(at)), text: short(name) };
            frame.names = names.iter().enumerate().map(name).collect();
        }
        frame
    }

    /// The middle of what belongs to a name.
    fn x(&self, at: usize) -> f64 {
        Self::LEFT + self.step * (at as f64 + 0.5)
    }

    fn y(&self, value: f64) -> f64 {
        Self::TOP + Self::HEIGHT * (1.0 - value / self.top)
    }
}

/// One layer as a column.
pub(super) struct Column {
    pub(super) x: Px,
    pub(super) y: Px,
    pub(super) width: Px,
    pub(super) height: Px,
    pub(super) title: String,
}

/// A figure per layer, as columns.
pub(super) struct LayerPlot {
    pub(super) frame: Frame,
    pub(super) columns: Vec<Column>,
}

impl LayerPlot {
    /// Weights that stay, as a fraction.
    pub(super) fn density(layers: &[LayerRecord]) -> Self {
        Self::new(layers, |layer| 1.0 - layer.sparsity, percent)
    }

    /// Reconstruction error.
    pub(super) fn error(layers: &[LayerRecord]) -> Self {
        Self::new(layers, |layer| layer.error, error)
    }

    fn new(
        layers: &[LayerRecord],
        value: impl Fn(&LayerRecord) -> f64,
        text: impl Fn(f64) -> String,
    ) -> Self {
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        let frame = Frame::new(&names, layers.iter().map(&value), &text);
        let width = (0.76 * frame.step).min(48.0);
        let column = |(at, layer): (usize, &LayerRecord)| {
            let [y, bottom] = [value(layer), 0.0].map(|value| frame.y(value));
            Column {
                x: Px(frame.x(at) - width / 2.0),
                y: Px(y),
                width: Px(width),
                height: Px((bottom - y).max(0.5)),
                title: format!("{} {:?}: {}", layer.name, layer.shape, text(value(layer))),
            }
        };
        let columns = layers.iter().enumerate().map(column).collect();
        Self { frame, columns }
    }
}

/// A point of a line.
pub(super) struct Point {
    pub(super) x: Px,
    pub(super) y: Px,
    pub(super) title: String,
}

/// A figure per block, on shots and on held-out ones, as lines.
pub(super) struct BlockPlot {
    pub(super) frame: Frame,
    /// The line of the shots, then that of the held-out ones.
    pub(super) lines: [Vec<Point>; 2],
}

impl BlockPlot {
    /// How far blocks' outputs are off.
    pub(super) fn error(blocks: &[BlockRecord]) -> Self {
        Self::new(blocks, |block| block.error)
    }

    /// How far answers are off with the network pruned up to a block.
    pub(super) fn divergence(blocks: &[BlockRecord]) -> Self {
        Self::new(blocks, |block| block.divergence)
    }

    fn new(blocks: &[BlockRecord], value: impl Fn(&BlockRecord) -> [f64; 2]) -> Self {
        let names: Vec<&str> = blocks.iter().map(|block| block.name.as_str()).collect();
        let frame = Frame::new(&names, blocks.iter().flat_map(&value), error);
        let line = |which: usize| {
            let point = |(at, block): (usize, &BlockRecord)| {
                let value = value(block)[which];
                let title = format!("{}, {}: {}", block.name, ["shots", "held out"][which], error(value));
                Point { x: Px(frame.x(at)), y: Px(frame.y(value)), title }
            };
            blocks.iter().enumerate().map(point).collect()
        };
        let lines = [line(0), line(1)];
        Self { frame, lines }
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn ceiling(value: f64) -> f64 {
    let mut unit = 1e-12;
    while unit < 1e12 {
        for step in [1.0, 2.0, 2.5, 5.0] {
            if value <= unit * step * (1.0 + 1e-9) {
                return unit * step;
            }
        }
        unit *= 10.0;
    }
    value
}

/// A horizontal bar with its text.
pub(super) struct Bar {
    pub(super) label: String,
    /// Length in per cent of the track.
    pub(super) length: Px,
    /// Whisker in per cent of the track.
    pub(super) range: Option<[Px; 2]>,
    pub(super) text: String,
    pub(super) sparse: bool,
}

/// Latency and size, dense above sparse.
pub(super) fn cost_bars(record: &RunRecord) -> [Vec<Bar>; 3] {
    let (time, size) = (&record.latency_ms, &record.bytes);
    let longest = time.dense.max(time.sparse).max(time.dense_range[1]).max(time.sparse_range[1]);
    let pair = |dense: f64, sparse: f64, top: f64, text: &dyn Fn(f64) -> String| {
        [("dense", dense, false), ("specialist", sparse, true)].map(|(label, value, sparse)| Bar {
            label: label.to_owned(),
            length: share(value, top),
            range: None,
            text: if sparse { format!("{} ({})", text(value), fold(dense, value)) } else { text(value) },
            sparse,
        })
    };
    let mut latency = pair(time.dense, time.sparse, longest, &milliseconds);
    latency[0].range = Some(time.dense_range.map(|v| share(v, longest)));
    latency[1].range = Some(time.sparse_range.map(|v| share(v, longest)));
    let plain = |dense: u64, sparse: u64, text: &dyn Fn(f64) -> String| {
        Vec::from(pair(dense as f64, sparse as f64, dense.max(sparse) as f64, text))
    };
    [
        latency.into(),
        plain(size.dense, size.sparse, &|v| bytes(v as u64)),
        plain(record.macs.dense, record.macs.sparse, &|v| super::format::count(v as u64)),
    ]
}

/// Time of every stage.
pub(super) fn stage_bars(record: &RunRecord) -> Vec<Bar> {
    let longest = record.seconds.iter().map(|(_, seconds)| seconds).fold(0.0, f64::max);
    let bar = |(name, value): (&str, f64)| Bar {
        label: name.to_owned(),
        length: share(value, longest),
        range: None,
        text: seconds(value),
        sparse: true,
    };
    record.seconds.iter().map(bar).collect()
}

/// A name that fits beside a plot: its end is what tells taxonomic labels apart.
fn short(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(length + 1 - NAME)).collect()
}

fn share(value: f64, whole: f64) -> Px {
    Px(if whole > 0.0 { (100.0 * value / whole).clamp(0.0, 100.0) } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_on_round_numbers() {
        for (value, top) in [(0.0, 1e-12), (0.04, 0.05), (0.051, 0.1), (0.2, 0.2), (0.21, 0.25), (1.0, 1.0)] {
            assert!((ceiling(value) / top - 1.0).abs() < 1e-9, "{value}: {}", ceiling(value));
        }
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(short("mammalia;carnivora;felidae;leopardus;wiedii;margay"), "…;leopardus;wiedii;margay");
        assert_eq!(short("Öländischer Fuchs"), "Öländischer Fuchs");
    }

    #[test]
    fn coordinates_are_short_and_never_nan() {
        let texts = [Px(12.34), Px(-0.01), Px(f64::NAN), Px(3.0)].map(|px| px.to_string());
        assert_eq!(texts, ["12.3", "0", "0", "3"]);
    }
}
