//! What each size of a specialist costs and gives: accuracy on the held-out fold against time, as table, JSON and plot.

mod plot;

use std::fmt::Write as _;

use serde::Serialize;

pub use plot::plot;

/// Specialists of one network at several targets, judged on the held-out fold of the shots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Front {
    /// Checkpoint.
    pub model: String,
    /// Photos that judge.
    pub heldout: usize,
    /// CPU threads of the timings.
    pub threads: usize,
    /// The dense network.
    pub dense: Point,
    /// One for each target, in the order of the targets.
    pub points: Vec<Point>,
}

/// A network: what it costs and what it gets right.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// What was asked for, such as `20x`.
    pub target: String,
    /// Weights of the dense network for each that is left, of those that a compression counts.
    pub compression: f64,
    /// Multiply-adds left, as a fraction of the dense network's.
    pub macs: f64,
    /// Median milliseconds an image at batch 1 on this machine.
    pub ms: f64,
    /// Held-out top-1, 0–1.
    pub top1: f64,
    /// Held-out cross-entropy.
    pub loss: f64,
    /// Most that the held-out recall of a class falls, 0–1.
    pub class_drop: f64,
    /// Whether no other network is as fast and has a lower loss.
    pub best: bool,
}

impl Front {
    /// Marks the networks that no other one beats in both time and loss.
    pub fn mark(&mut self) {
        let all: Vec<(f64, f64)> = self.all().map(|point| (point.ms, point.loss)).collect();
        let beaten = |ms: f64, loss: f64| {
            all.iter().any(|(other, lower)| *other <= ms && *lower <= loss && (*other < ms || *lower < loss))
        };
        for point in std::iter::once(&mut self.dense).chain(&mut self.points) {
            point.best = !beaten(point.ms, point.loss);
        }
    }

    /// The dense network, then the others.
    pub fn all(&self) -> impl Iterator<Item = &Point> + Clone {
        std::iter::once(&self.dense).chain(&self.points)
    }
}

/// The front as text; a star marks the networks that no other one beats.
pub fn table(front: &Front) -> String {
    let mut text = format!(
        "{}, judged on {} held-out photos, {} threads\n\n",
        front.model, front.heldout, front.threads
    );
    let width = front.all().map(|point| point.target.len()).max().unwrap_or(0).max(6);
    let _ = writeln!(
        text,
        "{:<width$}  weights  multiply-adds        ms  faster   top-1     loss  class drop",
        "target"
    );
    for point in front.all() {
        let Point { target, compression, macs, ms, top1, loss, class_drop, best } = point;
        let mark = if *best { " *" } else { "" };
        let _ = writeln!(
            text,
            "{target:<width$}  {compression:>6.1}x  {:>11.1} %  {ms:>8.2}  {:>5.1}x  {:>5.1} %  {loss:>7.3}  {:>8.1} %{mark}",
            100.0 * macs,
            front.dense.ms / ms,
            100.0 * top1,
            100.0 * class_drop
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(target: &str, ms: f64, loss: f64) -> Point {
        let target = target.to_owned();
        Point { target, compression: 20.0, macs: 0.2, ms, top1: 0.5, loss, class_drop: 0.1, best: false }
    }

    fn front() -> Front {
        let points = vec![
            point("10x", 5.0, 0.9),
            point("8ms", 8.0, 1.1),
            point("40x", 2.0, 1.4),
            point("20x", 5.0, 1.0),
        ];
        let mut front = Front {
            model: "m.pth".into(),
            heldout: 36,
            threads: 1,
            dense: point("dense", 10.0, 0.8),
            points,
        };
        front.mark();
        front
    }

    #[test]
    fn a_network_that_another_beats_is_not_marked() {
        let front = front();
        let best: Vec<&str> = front.all().filter(|p| p.best).map(|p| p.target.as_str()).collect();
        assert_eq!(best, ["dense", "10x", "40x"]);
    }

    #[test]
    fn the_table_stars_the_front() {
        let text = table(&front());
        assert_eq!(text.lines().filter(|line| line.ends_with(" *")).count(), 3, "{text}");
        assert!(
            text.contains("40x       20.0x         20.0 %      2.00    5.0x   50.0 %    1.400      10.0 % *"),
            "{text}"
        );
    }

    #[test]
    fn the_plot_names_every_network() {
        let svg = plot(&front());
        assert!(
            ["dense", "10x", "8ms", "40x", "20x"].iter().all(|name| svg.contains(&format!(">{name}<"))),
            "{svg}"
        );
    }
}
