use std::path::Path;
use std::sync::Arc;

use margay_core::model::FormatError;
use margay_core::{Footprint, SparseModel};
#[cfg(feature = "photos")]
use rayon::prelude::*;

#[cfg(feature = "photos")]
use crate::{Note, PhotoError, PredictionError};
use crate::{Photo, Prediction, Prepared, Preprocessor, RuntimeError, Session, SessionOptions};

/// Photos that are decoded and classified at a time, where there is memory for as many: keeps every core busy.
const BATCH: u64 = 64;

/// A model ready to name what is on photos: preprocessing, network and labels in one.
///
/// ```no_run
/// # #[cfg(feature = "photos")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use margay_runtime::{Classifier, SessionOptions};
///
/// let mut classifier = Classifier::open("out/specialist.margay", &SessionOptions::default())?;
/// let photos = ["fox.jpg", "hare.jpg"];
/// for (photo, answer) in photos.iter().zip(classifier.classify_files(&photos)) {
///     match answer {
///         Ok(prediction) => println!("{photo}: {}", prediction.best().label),
///         Err(error) => eprintln!("{photo} {error}"),
///     }
/// }
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "photos"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Classifier {
    session: Session,
    preprocessor: Preprocessor,
    labels: Arc<[String]>,
    batch: usize,
    /// One prepared input, kept between calls of `classify`.
    input: Vec<f32>,
}

/// A model that a classifier can use in the place of its own, with its labels.
#[derive(Debug)]
pub struct Region {
    prepared: Prepared,
    labels: Arc<[String]>,
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
    ///
    /// # Errors
    /// If the file is unsound, or takes more than `options.limits`.
    pub fn open(path: impl AsRef<Path>, options: &SessionOptions) -> Result<Self, ClassifierError> {
        Self::from_model(&SparseModel::read_within(path, &options.limits)?, options)
    }

    /// Prepares to run a model.
    ///
    /// # Errors
    /// If the model is unsound, or takes more than `options.limits`.
    pub fn from_model(model: &SparseModel, options: &SessionOptions) -> Result<Self, ClassifierError> {
        model.check()?;
        let session = Session::new(model, options)?;
        let preprocessor = Preprocessor::new(&model.preprocess);
        let batch = batch(model, options)?;
        let input = vec![0.0; preprocessor.image_len()];
        Ok(Self { session, preprocessor, labels: model.labels.clone().into(), batch, input })
    }

    /// Prepares another model with the same input: the base with a region's adapter.
    ///
    /// # Errors
    /// If the model is unsound or reads another input.
    pub fn region(&self, model: &SparseModel) -> Result<Region, ClassifierError> {
        model.check()?;
        let (made, read) = (self.preprocessor.image_len(), model.graph.input.len());
        if made != read {
            return Err(ClassifierError::InputLength { made, read });
        }
        Ok(Region { prepared: self.session.prepare(model)?, labels: model.labels.clone().into() })
    }

    /// Exchanges the model in use with a region's.
    pub fn swap(&mut self, region: &mut Region) {
        self.session.swap(&mut region.prepared);
        std::mem::swap(&mut self.labels, &mut region.labels);
    }

    /// Names what is on a photo in memory.
    ///
    /// # Errors
    /// [`RuntimeError::NotANumber`] where the network overflows.
    pub fn classify(&mut self, photo: &Photo) -> Result<Prediction, RuntimeError> {
        self.preprocessor.run(photo, &mut self.input);
        let mut logits = vec![0.0; self.labels.len()];
        self.session.run(&self.input, &mut logits)?;
        let prediction = Prediction::new(logits, Arc::clone(&self.labels))?;
        Ok(prediction.with_note(photo.note()))
    }

    /// Names what is on each photo file, in the order of `paths`; one that has no answer says why.
    ///
    /// Photos are decoded on all threads. At most [`Self::batch`] of them are in memory at a time, however many there are.
    #[cfg(feature = "photos")]
    pub fn classify_files<P: AsRef<Path> + Sync>(
        &mut self,
        paths: &[P],
    ) -> Vec<Result<Prediction, PredictionError>> {
        paths.chunks(self.batch).flat_map(|part| self.classify_batch(part)).collect()
    }

    #[cfg(feature = "photos")]
    fn classify_batch<P: AsRef<Path> + Sync>(
        &mut self,
        paths: &[P],
    ) -> Vec<Result<Prediction, PredictionError>> {
        let (preprocessor, length) = (&self.preprocessor, self.preprocessor.image_len());
        let prepare = |path: &P| -> Result<(Vec<f32>, Option<Note>), PhotoError> {
            let mut input = vec![0.0; length];
            let note = preprocessor.read(path.as_ref(), &mut input)?;
            Ok((input, note))
        };
        let inputs: Vec<Result<_, PhotoError>> =
            self.session.on_threads(|| paths.par_iter().map(prepare).collect());
        let batch: Vec<f32> = inputs.iter().flatten().flat_map(|(input, _)| input).copied().collect();
        let logits = self.logits(&batch).expect("the batch holds whole inputs");
        let mut rows = logits.chunks_exact(self.labels.len());
        let answer = |input: Result<(Vec<f32>, Option<Note>), PhotoError>| {
            let (_, note) = input?;
            let row = rows.next().expect("every readable photo has its logits").to_vec();
            Ok(Prediction::new(row, Arc::clone(&self.labels))?.with_note(note))
        };
        inputs.into_iter().map(answer).collect()
    }

    /// Logits `[batch, classes]` of prepared inputs `[batch, 3, height, width]`.
    ///
    /// # Errors
    /// If `images` are no whole number of inputs.
    pub fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, RuntimeError> {
        let mut logits = vec![0.0; images.len() / self.preprocessor.image_len() * self.labels.len()];
        self.session.run(images, &mut logits)?;
        Ok(logits)
    }

    /// Most photos that `classify_files` holds in memory at a time: the number to give it between two looks at
    /// the clock.
    pub fn batch(&self) -> usize {
        self.batch
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

/// Photos that fit into a quarter of the memory allowed; the session itself has been compared with all of it.
fn batch(model: &SparseModel, options: &SessionOptions) -> Result<usize, RuntimeError> {
    let shapes = model.graph.shapes()?;
    let photo = Footprint::new(&model.graph, &shapes, &model.preprocess, 0).photo;
    Ok((options.limits.memory / 4 / photo.max(1)).clamp(1, BATCH) as usize)
}

#[cfg(all(test, feature = "photos"))]
mod tests;
