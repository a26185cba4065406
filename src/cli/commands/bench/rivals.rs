//! Other engines, which `--against` names.

use std::path::PathBuf;

use margay_core::{Shape, SparseModel};
use serde::Serialize;

use super::contest::{Contestant, Ratio, Spread};
use crate::cli::Context;
use crate::cli::exit::{Failure, OrFail};
use crate::peers::{self, Engine, Exhibit, Peer, PeerError};
use crate::progress::Progress;

/// Interpreter where none is named.
const PYTHON: &str = "python3";

/// An engine on the command line.
#[derive(Clone, Debug)]
pub struct Wanted {
    peer: &'static Peer,
    python: PathBuf,
}

/// Reads `NAME` or `NAME=PYTHON`.
pub fn parse(text: &str) -> Result<Wanted, String> {
    let (name, python) = text.split_once('=').unwrap_or((text, PYTHON));
    let peer = peers::find(name).ok_or_else(|| {
        let hint = peers::nearest(name).map(|name| format!("; did you mean `{name}`?"));
        format!("no engine `{name}` is known{}", hint.unwrap_or_default())
    })?;
    Ok(Wanted { peer, python: PathBuf::from(python) })
}

#[cfg(feature = "torch")]
impl Wanted {
    /// Whether a program without libtorch cannot start it.
    pub fn is_libtorch(&self) -> bool {
        self.peer.is_libtorch()
    }
}

/// How an engine did; `error` says why it did not take part.
#[derive(Debug, Default, Serialize)]
pub struct Standing {
    pub name: &'static str,
    pub precision: &'static str,
    pub version: Option<String>,
    /// Milliseconds per image.
    pub latency_ms: Option<Spread>,
    /// Its time over ours.
    pub ratio: Option<Ratio>,
    /// Largest difference of a logit from ours, over the largest logit; absent where answers mean nothing.
    pub largest_difference: Option<f64>,
    pub agrees: Option<bool>,
    pub error: Option<String>,
}

/// What others are compared with.
pub struct Ours<'a> {
    /// Milliseconds of each round.
    pub times: &'a [f64],
    pub logits: &'a [f32],
    /// Largest relative difference that rounding alone makes.
    pub tolerance: f64,
    pub batch: usize,
}

/// Engines that have started, or why they have not.
pub struct Rivals(Vec<(Wanted, Started)>);

type Started = Result<Box<dyn Engine>, PeerError>;

impl Rivals {
    /// Starts every engine with the model and its inputs.
    pub fn start(
        wanted: &[Wanted],
        model: &SparseModel,
        images: &[f32],
        threads: usize,
        context: &Context,
    ) -> Result<Self, Failure> {
        let Shape::Map { channels, height, width } = model.graph.input else {
            return Err(Failure::usage("other engines are given images only"));
        };
        let batch = images.len() / (channels * height * width);
        let exhibit = Exhibit::new(model, images, [batch, channels, height, width], context.libtorch)
            .or_io("could not write what other engines read")?;
        let progress = &mut context.progress();
        progress.start("start engines", wanted.len() as u64);
        let mut engines = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            progress.status(wanted.peer.name);
            engines.push((wanted.clone(), exhibit.start(wanted.peer, &wanted.python, threads)));
            progress.advance(1);
        }
        progress.finish();
        Ok(Self(engines))
    }

    /// Those that run.
    pub fn contestants(&mut self) -> impl Iterator<Item = Contestant<'_>> {
        let running = self.0.iter_mut().filter_map(|(_, engine)| engine.as_mut().ok());
        running.map(|engine| {
            Box::new(move || engine.run().or_bad_input("an engine gave up on the way")) as Contestant
        })
    }

    /// How they did, by the times of those that ran in order, and ours.
    pub fn standings(&self, times: &[Vec<f64>], ours: &Ours) -> Vec<Standing> {
        let mut times = times.iter();
        let standing = |(Wanted { peer, python }, engine): &(Wanted, Started)| {
            let known = Standing { name: peer.name, precision: peer.precision, ..Standing::default() };
            let engine = match engine {
                Ok(engine) => engine,
                Err(error) => {
                    let mut told = chain(error);
                    if let Some(install) = peer.install() {
                        told = format!("{told} ({}: {install})", python.display());
                    }
                    return Standing { error: Some(told), ..known };
                }
            };
            let its: &[f64] = times.next().map_or(&[], Vec::as_slice);
            let difference = peer.tolerance.map(|_| difference(engine.logits(), ours.logits));
            Standing {
                version: Some(engine.version().to_owned()),
                latency_ms: Some(Spread::per_image(its, ours.batch)),
                ratio: Some(Ratio::of(its, ours.times)),
                largest_difference: difference,
                agrees: difference.zip(peer.tolerance).map(|(gap, most)| gap <= most.max(ours.tolerance)),
                ..known
            }
        };
        self.0.iter().map(standing).collect()
    }
}

/// Largest difference over the largest logit of ours.
fn difference(theirs: &[f64], ours: &[f32]) -> f64 {
    if theirs.len() != ours.len() {
        return f64::INFINITY;
    }
    let largest = ours.iter().fold(0.0_f64, |most, logit| most.max(f64::from(logit.abs())));
    let gap = theirs.iter().zip(ours).fold(0.0_f64, |most, (a, b)| most.max((a - f64::from(*b)).abs()));
    gap / largest.max(f64::MIN_POSITIVE)
}

fn chain(error: &PeerError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_named_with_their_interpreter() {
        let wanted = parse("openvino=/opt/venv/bin/python").unwrap();
        assert_eq!((wanted.peer.name, wanted.python), ("openvino", "/opt/venv/bin/python".into()));
        assert_eq!(parse("libtorch").unwrap().python, PathBuf::from(PYTHON));
        assert!(parse("openvin").unwrap_err().contains("did you mean `openvino`?"));
    }

    #[test]
    fn differences_are_relative_to_the_largest_logit() {
        assert!((difference(&[1.0, -4.5], &[1.0, -4.0]) - 0.125).abs() < 1e-12);
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }
}
