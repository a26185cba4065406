use margay_core::{Graph, SparseModel};
use margay_runtime::{Session, SessionOptions, highest};
use tch::{Device, Kind, Tensor};

use super::PipelineError;
use crate::data::Loaded;
use crate::distill::Examples;
use crate::record::{Evaluation, Paired};
use crate::torch::{Effective, Norms, TorchError, TorchModel, forward};

/// Images per batch of an evaluation.
const BATCH: usize = 64;

/// How a model does on labelled images.
pub struct Score {
    /// Fraction of right answers.
    pub top1: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Whether each image is right `[n]`.
    pub right: Vec<bool>,
}

/// Logits `[n, classes]` of some images with their true classes.
pub struct Answers {
    /// Row-major logits.
    pub logits: Vec<f32>,
    /// Number of classes.
    pub classes: usize,
}

impl Answers {
    /// Class of the largest logit of each image; ties go to the first.
    pub fn predicted(&self) -> Vec<usize> {
        self.logits.chunks_exact(self.classes).map(|row| highest(row, 1)[0]).collect()
    }

    /// Softmax probability of class `class` for image `image`.
    pub fn probability(&self, image: usize, class: usize) -> f64 {
        let row = &self.logits[image * self.classes..][..self.classes];
        (f64::from(row[class]) - log_sum_exp(row)).exp()
    }

    /// −ln p(true class) of each image.
    fn losses(&self, truth: &[usize]) -> Vec<f64> {
        let loss = |(row, class): (&[f32], &usize)| log_sum_exp(row) - f64::from(row[*class]);
        self.logits.chunks_exact(self.classes).zip(truth).map(loss).collect()
    }

    /// Counts of right answers per class, and the cross-entropy.
    pub fn evaluate(&self, labels: &[String], truth: &[usize]) -> Evaluation {
        let counts = Evaluation::from_predictions(labels, truth, &self.predicted());
        let mean = self.losses(truth).iter().sum::<f64>() / truth.len() as f64;
        Evaluation { cross_entropy: (!truth.is_empty()).then_some(mean), ..counts }
    }

    /// The same beside the dense network's answers to the same images.
    pub fn evaluate_against(&self, dense: &Self, labels: &[String], truth: &[usize]) -> Evaluation {
        let right = |answers: &Self| -> Vec<bool> {
            answers.predicted().iter().zip(truth).map(|(answer, class)| answer == class).collect()
        };
        let (before, after) = (right(dense), right(self));
        let losses = [dense, self].map(|answers| answers.losses(truth));
        let paired = Paired::of([&before, &after], [&losses[0], &losses[1]]);
        Evaluation { against_dense: paired, ..self.evaluate(labels, truth) }
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(top) + logits.iter().map(|logit| f64::from(logit - top).exp()).sum::<f64>().ln()
}

/// Logits of a batch list, joined.
pub fn logits(model: &TorchModel, batches: &[Tensor]) -> Result<Tensor, PipelineError> {
    Ok(logits_of(&model.graph, model, batches)?)
}

/// Logits of a batch list, joined, of a graph with the weights that somebody has for it.
pub fn logits_of(graph: &Graph, weights: &dyn Effective, batches: &[Tensor]) -> Result<Tensor, TorchError> {
    let _no_grad = tch::no_grad_guard();
    let run = |batch: &Tensor| Ok(forward(graph, weights, Norms::Stored, batch, &[])?.logits);
    let parts = batches.iter().map(run).collect::<Result<Vec<_>, TorchError>>()?;
    Ok(Tensor::f_cat(&parts, 0)?)
}

/// Accuracy and loss of a torch model.
pub fn score(model: &TorchModel, examples: &Examples) -> Result<Score, PipelineError> {
    Ok(score_of(&model.graph, model, examples)?)
}

/// Accuracy and loss of a graph with the weights that somebody has for it; images count in the loss as they do in training.
pub fn score_of(graph: &Graph, weights: &dyn Effective, examples: &Examples) -> Result<Score, TorchError> {
    let logits = logits_of(graph, weights, &examples.batches(BATCH)?)?;
    let hits = logits.f_argmax(1, false)?.f_eq_tensor(&examples.classes)?;
    let none = None::<Tensor>;
    let losses = logits.f_cross_entropy_loss(&examples.classes, none, tch::Reduction::None, -100, 0.0)?;
    let losses = match &examples.weights {
        Some(weights) => losses.f_mul(weights)?,
        None => losses,
    };
    let top1 = hits.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?.double_value(&[]);
    let hits = hits.f_to_device(Device::Cpu)?;
    Ok(Score { top1, loss: losses.f_mean(Kind::Float)?.double_value(&[]), right: Vec::try_from(hits)? })
}

/// Answers of a torch model.
pub fn on_torch(model: &TorchModel, examples: &Examples) -> Result<Answers, PipelineError> {
    let logits = crate::torch::to_array(&logits(model, &examples.batches(BATCH)?)?)?;
    Ok(Answers { classes: model.graph.classes(), logits: logits.iter().copied().collect() })
}

/// Answers of an exported model on the runtime.
pub fn on_runtime(
    model: &SparseModel,
    loaded: &Loaded,
    options: &SessionOptions,
) -> Result<Answers, PipelineError> {
    let mut session = Session::new(model, options)?;
    let (image, classes) = (session.image_len(), session.classes());
    let images = loaded.images.as_slice().expect("images are loaded row by row");
    let mut logits = vec![0.0; loaded.len() * classes];
    let batches = images.chunks(BATCH * image).zip(logits.chunks_mut(BATCH * classes));
    for (images, logits) in batches {
        session.run(images, logits)?;
    }
    Ok(Answers { logits, classes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_that_of_the_true_class() {
        // Three images of two classes: p = 3/4, 1/2 and, far beyond what exp can hold, 1 - e^-1000.
        let logits = vec![3.0_f32.ln(), 0.0, 7.0, 7.0, 0.0, 1000.0];
        let answers = Answers { logits, classes: 2 };
        let labels = ["a".to_owned(), "b".to_owned()];
        let evaluation = answers.evaluate(&labels, &[0, 1, 1]);
        let expected = -(0.75_f64.ln() + 0.5_f64.ln()) / 3.0;
        assert!((evaluation.cross_entropy.unwrap() - expected).abs() < 1e-7, "{evaluation:?}");
        assert_eq!(evaluation.correct, 2);
        assert!((answers.probability(0, 1) - 0.25).abs() < 1e-7);
        // The second image is a tie, which goes to the first class.
        let surer = Answers { logits: vec![9.0_f32.ln(), 0.0, 0.0, 1.0, 0.0, 1000.0], classes: 2 };
        let paired = surer.evaluate_against(&answers, &labels, &[0, 1, 1]).against_dense.unwrap();
        assert_eq!((paired.lost, paired.won), (0, 1));
        let gain = (0.9_f64 / 0.75).ln() + (1.0 / (1.0 + (-1.0_f64).exp()) / 0.5).ln();
        assert!((paired.cross_entropy.mean + gain / 3.0).abs() < 1e-7, "{paired:?}");
        let nothing = Answers { logits: Vec::new(), classes: 2 }.evaluate(&labels, &[]);
        assert_eq!(nothing.cross_entropy, None);
    }
}
