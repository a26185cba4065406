use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{Line, Measured, Results, Run};

/// What is done of an experiment, and what is left.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Runs of this shard.
    pub runs: usize,
    /// Networks to prune for them.
    pub groups: usize,
    /// Runs with figures.
    pub done: usize,
    /// Runs that ended with an error.
    pub failed: usize,
    /// Runs left to do, in order.
    pub left: Vec<String>,
    /// Estimate of the time for them; absent while nothing is done.
    pub seconds_left: Option<f64>,
}

impl Plan {
    /// Compares runs by group with what is done.
    pub fn new(groups: &[Vec<Run>], results: &Results) -> Self {
        let all = || groups.iter().flatten();
        let outcome = |run: &Run| results.get(&run.key);
        let done = all().filter(|run| outcome(run).is_some_and(|o| o.measured().is_some())).count();
        let ended = all().filter(|run| outcome(run).is_some()).count();
        let left: Vec<Vec<&Run>> =
            groups.iter().map(|group| group.iter().filter(|run| outcome(run).is_none()).collect()).collect();
        Self {
            runs: all().count(),
            groups: groups.len(),
            done,
            failed: ended - done,
            left: left.iter().flatten().map(|run| run.title()).collect(),
            seconds_left: seconds_left(&left, results),
        }
    }
}

/// Time of similar runs, and of pruning once per group.
fn seconds_left(groups: &[Vec<&Run>], results: &Results) -> Option<f64> {
    let mut total = 0.0;
    for group in groups {
        let Some(first) = group.first() else { continue };
        total += similar(first, results, |measured| measured.shared_seconds.total())?;
        for run in group {
            total += similar(run, results, |measured| measured.seconds.total())?;
        }
    }
    Some(total)
}

/// Mean over the finished runs that are most like this one.
fn similar(run: &Run, results: &Results, seconds: impl Fn(&Measured) -> f64) -> Option<f64> {
    let likeness = |line: &Line| {
        let (a, b) = (&run.recipe, &line.recipe);
        let same = [
            run.checkpoint == line.checkpoint,
            a.shots == b.shots && a.recovery.epochs == b.recovery.epochs,
            a.recovery.schedule == b.recovery.schedule && a.adapt.method == b.adapt.method,
        ];
        // Each counts more than all behind it.
        same.iter().fold(0, |score, same| 2 * score + u32::from(*same))
    };
    let done: Vec<_> =
        results.iter().filter_map(|line| Some((likeness(line), seconds(line.outcome.measured()?)))).collect();
    let best = done.iter().map(|(likeness, _)| *likeness).max()?;
    let times: Vec<f64> = done.iter().filter(|(l, _)| *l == best).map(|(_, seconds)| *seconds).collect();
    Some(times.iter().sum::<f64>() / times.len() as f64)
}

/// The part of an experiment that one of several processes does: `2/3` is the second of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// The groups of this shard: every `of`-th.
    pub fn take(self, groups: Vec<Vec<Run>>) -> Vec<Vec<Run>> {
        groups.into_iter().skip(self.index - 1).step_by(self.of).collect()
    }

    /// Name of the file that holds its results.
    pub fn file(self) -> String {
        format!("runs-{}-of-{}.jsonl", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, of)) if 1 <= index && index <= of => Ok(Self { index, of }),
            _ => Err("must be I/N such as 1/2, with I from 1 to N".to_owned()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}
