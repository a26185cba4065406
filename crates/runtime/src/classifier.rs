use std::path::Path;

use margay_core::SparseModel;
use margay_core::model::FormatError;

use crate::{Photo, Prepared, Preprocessor, RuntimeError, Session, SessionOptions};

/// A model ready to name what is on a photo: preprocessing, network and labels in one.
#[derive(Debug)]
pub struct Classifier {
    session: Session,
    preprocessor: Preprocessor,
    labels: Vec<String>,
    /// One prepared input, kept between calls.
    input: Vec<f32>,
}

/// A model that a classifier can use in the place of its own, with its labels.
#[derive(Debug)]
pub struct Region {
    prepared: Prepared,
    labels: Vec<String>,
}

/// What a model says about a photo.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The most probable class.
    pub label: String,
    /// Its probability.
    pub probability: f32,
    /// Every class with its probability, most probable first; ties in the model's order.
    pub top: Vec<(String, f32)>,
}

/// Why a model cannot classify.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The model file is unsound.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The model cannot be planned.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A region's model reads other inputs than the classifier's own.
    #[error("the model reads {read} values per photo, the classifier makes {made}")]
    InputLength {
        /// Values that the classifier's preprocessing makes.
        made: usize,
        /// Values that the model reads.
        read: usize,
    },
}

impl Classifier {
    /// Reads a model file and prepares to run it.
    pub fn open(path: impl AsRef<Path>, options: &SessionOptions) -> Result<Self, ClassifierError> {
        Self::from_model(SparseModel::read_within(path, &options.limits)?, options)
    }

    /// Prepares to run a model.
    pub fn from_model(model: SparseModel, options: &SessionOptions) -> Result<Self, ClassifierError> {
        model.check()?;
        let session = Session::new(&model, options)?;
        let preprocessor = Preprocessor::new(&model.preprocess);
        let input = vec![0.0; preprocessor.image_len()];
        Ok(Self { session, preprocessor, labels: model.labels, input })
    }

    /// Prepares another model with the same input: the base with a region's adapter.
    pub fn region(&self, model: &SparseModel) -> Result<Region, ClassifierError> {
        model.check()?;
        let (made, read) = (self.input.len(), model.graph.input.len());
        if made != read {
            return Err(ClassifierError::InputLength { made, read });
        }
        Ok(Region { prepared: self.session.prepare(model)?, labels: model.labels.clone() })
    }

    /// Exchanges the model in use with a region's.
    pub fn swap(&mut self, region: &mut Region) {
        self.session.swap(&mut region.prepared);
        std::mem::swap(&mut self.labels, &mut region.labels);
    }

    /// Names what is on a photo.
    ///
    /// # Errors
    /// [`RuntimeError::NotANumber`] where the network overflows.
    pub fn classify(&mut self, photo: &Photo) -> Result<Prediction, RuntimeError> {
        self.preprocessor.run(photo, &mut self.input);
        let mut logits = vec![0.0; self.labels.len()];
        self.session.run(&self.input, &mut logits)?;
        Prediction::new(&logits, &self.labels)
    }

    /// Logits `[batch, classes]` of prepared inputs `[batch, 3, height, width]`.
    pub fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, RuntimeError> {
        let mut logits = vec![0.0; images.len() / self.input.len().max(1) * self.labels.len()];
        self.session.run(images, &mut logits)?;
        Ok(logits)
    }

    /// Class names in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What turns photos into inputs.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.preprocessor
    }

    /// What runs the network.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Prediction {
    /// Ranks the classes of one photo's logits `[classes]`.
    ///
    /// # Errors
    /// [`RuntimeError::NotANumber`] where one is NaN or infinite, which is no answer.
    pub fn new(logits: &[f32], labels: &[String]) -> Result<Self, RuntimeError> {
        check_logits(logits)?;
        let mut order: Vec<usize> = (0..logits.len().min(labels.len())).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let probabilities = softmax(logits);
        let top: Vec<(String, f32)> =
            order.into_iter().map(|class| (labels[class].clone(), probabilities[class])).collect();
        let (label, probability) = top.first().cloned().unwrap_or_default();
        Ok(Self { label, probability, top })
    }
}

/// Refuses logits that are no answer: NaN or infinite.
pub fn check_logits(logits: &[f32]) -> Result<(), RuntimeError> {
    if logits.iter().all(|logit| logit.is_finite()) { Ok(()) } else { Err(RuntimeError::NotANumber) }
}

/// Probabilities `exp(z) / Σ exp(z)` of logits `[classes]`, summed in f64.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|z| f64::from(z - highest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| (power / sum) as f32).collect()
}

#[cfg(test)]
mod tests;
