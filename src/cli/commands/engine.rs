//! A model file ready to classify photos by the batch.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use margay_core::SparseModel;
use margay_core::adapter::Adapter;
use margay_runtime::{Note, PhotoError, Precision, Preprocessor, Session, SessionOptions};
use rayon::prelude::*;

use crate::cli::Context;
use crate::cli::exit::{Failure, OrFail};

/// How a model is opened.
#[derive(Debug, clap::Args)]
pub struct EngineArgs {
    /// How values are stored between layers: bf16 is faster, f32 exact
    #[arg(long, value_name = "f32|bf16", default_value_t)]
    pub precision: Precision,
    /// Find the fastest kernels anew instead of keeping them in the user's cache (`MARGAY_CACHE_DIR`)
    #[arg(long)]
    no_tune_cache: bool,
}

impl EngineArgs {
    /// Options of a session.
    pub fn options(&self, context: &Context) -> SessionOptions {
        let tune_cache = if self.no_tune_cache { None } else { cache_folder() };
        let (threads, precision) = (context.threads(), self.precision);
        SessionOptions { threads, precision, tune_cache, ..SessionOptions::default() }
    }
}

/// Where this user's caches are.
fn cache_folder() -> Option<PathBuf> {
    let named = std::env::var_os("MARGAY_CACHE_DIR").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("margay")))
}

/// Session, preprocessing and labels of one model.
pub struct Engine {
    /// Class names in the order of the logits.
    pub labels: Vec<String>,
    session: Session,
    preprocessor: Preprocessor,
}

/// What the model says to one photo.
#[derive(Debug)]
pub struct Answer {
    /// One per label.
    pub logits: Vec<f32>,
    /// What is wrong with the photo, if anything is.
    pub note: Option<Note>,
}

/// The answer to one photo, or why there is none.
pub type Answered = Result<Answer, PhotoError>;

/// Reads a `.margay` file.
pub fn read_model(path: &Path) -> Result<SparseModel, Failure> {
    SparseModel::read(path).or_bad_input("could not read the model").map_err(|failure| {
        match path.extension().and_then(|e| e.to_str()) {
            Some("pth" | "pt" | "bin" | "ckpt" | "safetensors") => {
                failure.hint("this looks like a checkpoint: `margay compress` makes a .margay file of it")
            }
            _ => failure,
        }
    })
}

/// Reads a `.margay` file and puts an adapter on it, if one is given.
pub fn read_adapted(path: &Path, adapter: Option<&Path>) -> Result<SparseModel, Failure> {
    let model = read_model(path)?;
    let Some(folder) = adapter else { return Ok(model) };
    let adapter = Adapter::read(folder)
        .or_bad_input("could not read the adapter")
        .map_err(|failure| failure.hint("give the folder `adapter` that `margay adapt` wrote"))?;
    let hint = "an adapter fits only the very .margay file that `margay adapt` was given";
    adapter.apply(&model).or_bad_input("could not apply the adapter").map_err(|failure| failure.hint(hint))
}

impl Engine {
    /// Prepares to run `model`.
    pub fn new(model: &SparseModel, options: &SessionOptions) -> Result<Self, Failure> {
        let session = Session::new(model, options).or_bad_input("could not prepare the model")?;
        let preprocessor = Preprocessor::new(&model.preprocess);
        Ok(Self { labels: model.labels.clone(), session, preprocessor })
    }

    /// The answer to each photo, in order; photos are decoded in parallel.
    pub fn answer(&mut self, paths: &[PathBuf]) -> Result<Vec<Answered>, Failure> {
        let length = self.preprocessor.image_len();
        let prepare = |path: &PathBuf| {
            let mut input = vec![0.0; length];
            let note = self.preprocessor.read(path, &mut input)?;
            Ok((input, note))
        };
        let inputs: Vec<Result<(Vec<f32>, Option<Note>), PhotoError>> = paths.par_iter().map(prepare).collect();
        let batch: Vec<f32> = inputs.iter().flatten().flat_map(|(input, _)| input).copied().collect();
        let classes = self.labels.len();
        let mut logits = vec![0.0; batch.len() / length * classes];
        if !batch.is_empty() {
            self.session.run(&batch, &mut logits).or_bad_input("could not run the model")?;
        }
        let mut rows = logits.chunks_exact(classes).map(<[f32]>::to_vec);
        let mut row = || rows.next().expect("every readable photo has its logits");
        Ok(inputs.into_iter().map(|input| input.map(|(_, note)| Answer { logits: row(), note })).collect())
    }
}

/// Probabilities of a row of logits.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Positions of the `count` highest values, highest first; the earlier of two equal ones first.
pub fn highest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b)));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_even_for_large_logits() {
        let p = softmax(&[1000.0, 1001.0, -1000.0]);
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((p[1] / p[0] - std::f32::consts::E).abs() < 1e-4);
    }

    #[test]
    fn ties_go_to_the_earlier_class() {
        assert_eq!(highest(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
        assert_eq!(highest(&[1.0], 5), [0]);
    }
}
