use std::sync::Arc;

#[cfg(feature = "photos")]
use crate::PhotoError;
use crate::{Note, RuntimeError};

/// What a model says about one photo.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    labels: Arc<[String]>,
    logits: Vec<f32>,
    note: Option<Note>,
}

/// A class and its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ranked<'a> {
    /// Position of the class among the model's labels.
    pub class: usize,
    /// Its label.
    pub label: &'a str,
    /// Its probability, 0 to 1.
    pub probability: f32,
}

/// Why a photo has no answer.
#[cfg(feature = "photos")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PredictionError {
    /// The file is no readable photo.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// The network overflows on it.
    #[error(transparent)]
    Network(#[from] RuntimeError),
}

impl Prediction {
    /// Wraps one photo's logits, one per label.
    ///
    /// # Errors
    /// [`RuntimeError::NotANumber`] where a logit is NaN or infinite, which is no answer;
    /// [`RuntimeError::OutputLength`] where there is not one logit per label.
    pub fn new(logits: Vec<f32>, labels: Arc<[String]>) -> Result<Self, RuntimeError> {
        check_logits(&logits)?;
        if logits.len() != labels.len() {
            return Err(RuntimeError::OutputLength { expected: labels.len(), got: logits.len() });
        }
        Ok(Self { labels, logits, note: None })
    }

    /// The same about a photo with a fault.
    #[must_use]
    pub(crate) fn with_note(self, note: Option<Note>) -> Self {
        Self { note, ..self }
    }

    /// The most probable class.
    ///
    /// # Panics
    /// If the model has no classes; readers refuse such a model.
    pub fn best(&self) -> Ranked<'_> {
        *self.top(1).first().expect("a model has classes")
    }

    /// The `count` most probable classes, most probable first; ties in the model's order.
    pub fn top(&self, count: usize) -> Vec<Ranked<'_>> {
        let probabilities = self.probabilities();
        let ranked = |class| Ranked { class, label: &self.labels[class], probability: probabilities[class] };
        highest(&self.logits, count).into_iter().map(ranked).collect()
    }

    /// Probability of each class, in the model's order.
    pub fn probabilities(&self) -> Vec<f32> {
        softmax(&self.logits)
    }

    /// Logit of each class, in the model's order.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// What is wrong with the photo, if it is truncated or damaged and was answered all the same.
    pub fn note(&self) -> Option<&Note> {
        self.note.as_ref()
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

/// Positions of the `count` highest values, highest first; the earlier of two equal ones first.
pub fn highest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Arc<[String]> {
        ["fox", "hare", "lynx", "vole"].map(str::to_owned).into()
    }

    #[test]
    fn classes_are_ranked_by_probability_and_ties_in_the_models_order() {
        let prediction = Prediction::new(vec![1.0, 3.0, 3.0, 2.0], labels()).unwrap();
        let top = prediction.top(9);
        assert_eq!(
            top.iter().map(|ranked| ranked.label).collect::<Vec<_>>(),
            ["hare", "lynx", "vole", "fox"]
        );
        assert_eq!(top.iter().map(|ranked| ranked.class).collect::<Vec<_>>(), [1, 2, 3, 0]);
        assert!((top.iter().map(|ranked| ranked.probability).sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((top[0].probability / top[2].probability - std::f32::consts::E).abs() < 1e-5);
        assert_eq!((prediction.best(), prediction.top(1).len()), (top[0], 1));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let prediction = Prediction::new(vec![0.0, wrong, 0.0, 1.0], labels());
            assert!(matches!(prediction, Err(RuntimeError::NotANumber)), "{wrong}");
        }
        let short = Prediction::new(vec![0.0; 3], labels());
        assert!(matches!(short, Err(RuntimeError::OutputLength { expected: 4, got: 3 })));
    }

    #[test]
    fn softmax_survives_large_logits() {
        assert_eq!(softmax(&[1000.0, 1000.0, -1000.0]), [0.5, 0.5, 0.0]);
        assert!(softmax(&[]).is_empty());
    }
}
