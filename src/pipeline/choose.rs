//! What the held-out fold decides before the final network is made from all shots.

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::rc::Rc;

use super::PipelineError;
use super::evaluate::{Score, score};
use super::networks::{Chosen, Keep, Settled, Sparse};
use super::pruning::Pruner;
use super::recalibrate::recalibrate;
use super::task::Task;
use crate::progress::Progress;
use crate::recipe::{Recalibration, Tuned};
use crate::record::{Candidate, Choice};
use crate::torch::TorchModel;

/// Dampings that are tried.
const DAMPINGS: [f64; 3] = [0.03, 0.1, 0.3];
/// Weights of the general photos that are tried.
const SHARES: [f64; 4] = [0.0, 0.25, 0.5, 0.75];
/// Shares of recalibrated norms that are tried.
const RECALIBRATED: [f64; 3] = [0.0, 0.5, 1.0];
/// Taken where nothing is held out.
const USUAL: Settled = Settled { damping: 0.1, general_share: 0.5, recalibrated: 0.0 };

/// Decides one thing after the other that the recipe leaves open, and how much each layer keeps.
///
/// Trials prune the calibration part of the shots and are thrown away.
pub fn choose(pruner: &Pruner, progress: &mut dyn Progress) -> Result<Chosen, PipelineError> {
    let (prune, recovery) = (&pruner.recipe.prune, &pruner.recipe.recovery);
    let dense = OnceCell::new();
    let mut fold = Fold { pruner, dense, settled: USUAL, choices: Vec::new(), pruned: None };
    match prune.damping {
        Tuned::Value(damping) => fold.settled.damping = damping,
        Tuned::Auto => fold.settle("damping", &DAMPINGS, |settled, x| settled.damping = x, progress)?,
    }
    match (prune.general_share, &pruner.task.general) {
        (_, None) => fold.settled.general_share = 0.0,
        (Tuned::Value(share), Some(_)) => fold.settled.general_share = share,
        (Tuned::Auto, Some(_)) => {
            let set = |settled: &mut Settled, x| settled.general_share = x;
            fold.settle("weight of the general photos", &SHARES, set, progress)?;
        }
    }
    let keep = if pruner.measures() {
        pruner.keep(fold.dense()?, &fold.settled, progress)?
    } else {
        pruner.rough_keep()?
    };
    match recovery.recalibrate {
        Recalibration::On => fold.settled.recalibrated = 1.0,
        Recalibration::Off => {}
        // Corrected weights were solved for the stored norms.
        Recalibration::Auto if prune.correction > 0.0 => {}
        Recalibration::Auto => fold.recalibration(&keep, progress)?,
    }
    Ok(Chosen { settled: fold.settled, keep, choices: fold.choices, pruned: fold.pruned })
}

/// Whether the held-out fold can decide something; a warning if not.
pub fn can_decide(task: &Task, what: &str, progress: &mut dyn Progress) -> bool {
    let some = !task.heldout.is_empty();
    if !some {
        progress.warn(&format!("nothing is held out: {what} is not chosen by trial"));
    }
    some
}

/// The held-out fold and what it decided so far.
struct Fold<'a> {
    pruner: &'a Pruner<'a>,
    /// The task's network, its head made without the held-out fold, once it was asked for.
    dense: OnceCell<TorchModel>,
    settled: Settled,
    choices: Vec<Choice>,
    pruned: Option<Rc<Sparse>>,
}

impl Fold<'_> {
    fn dense(&self) -> Result<&TorchModel, PipelineError> {
        if let Some(dense) = self.dense.get() {
            return Ok(dense);
        }
        let task = self.pruner.task;
        let dense = task.dense(&task.calibration)?;
        Ok(self.dense.get_or_init(|| dense))
    }

    /// Tries values of one setting and keeps the best.
    fn settle(
        &mut self,
        what: &str,
        values: &[f64],
        set: impl Fn(&mut Settled, f64),
        progress: &mut dyn Progress,
    ) -> Result<(), PipelineError> {
        if !can_decide(self.pruner.task, what, progress) {
            return Ok(());
        }
        let keep = self.pruner.rough_keep()?;
        let mut scores = Vec::with_capacity(values.len());
        for value in values {
            set(&mut self.settled, *value);
            scores.push(score(&self.pruned(&keep, progress)?.model, &self.pruner.task.heldout)?);
        }
        let names: Vec<String> = values.iter().map(f64::to_string).collect();
        let taken = self.take(what, &names, &scores);
        set(&mut self.settled, values[taken]);
        Ok(())
    }

    /// Tries how far norms are recalibrated, on one pruned network.
    fn recalibration(&mut self, keep: &Keep, progress: &mut dyn Progress) -> Result<(), PipelineError> {
        let task = self.pruner.task;
        if !can_decide(task, "recalibration of norms", progress) {
            return Ok(());
        }
        let pruned = self.pruned(keep, progress)?;
        let batches = task.calibration.batches(self.pruner.recipe.prune.batch)?;
        let mut scores = Vec::with_capacity(RECALIBRATED.len());
        for share in RECALIBRATED {
            let mut model = pruned.model.deep_clone()?;
            recalibrate(&mut model, self.dense()?, &batches, share)?;
            scores.push(score(&model, &task.heldout)?);
        }
        let (what, names) = if task.pretrained.graph.has_layer_norms() {
            ("means behind layer norms after pruning", ["stored", "half corrected", "corrected"])
        } else {
            ("batch-norm statistics after pruning", ["stored", "half re-estimated", "re-estimated"])
        };
        let taken = self.take(what, &names.map(str::to_owned), &scores);
        self.settled.recalibrated = RECALIBRATED[taken];
        self.pruned = Some(Rc::new(pruned));
        Ok(())
    }

    fn pruned(&self, keep: &Keep, progress: &mut dyn Progress) -> Result<Sparse, PipelineError> {
        let (model, shots) = (self.dense()?.deep_clone()?, &self.pruner.task.calibration);
        self.pruner.sparse(model, shots, keep, &self.settled, None, progress)
    }

    /// Notes the candidates; returns which is taken.
    fn take(&mut self, what: &str, names: &[String], scores: &[Score]) -> usize {
        let (taken, choice) = least_loss(what, names, scores);
        self.choices.push(choice);
        taken
    }
}

/// The candidate with the least held-out loss, the first of equals; a loss that is no number is the largest.
pub fn least_loss(what: &str, names: &[String], scores: &[impl Borrow<Score>]) -> (usize, Choice) {
    let loss = |at: usize| {
        let loss = scores[at].borrow().loss;
        if loss.is_nan() { f64::INFINITY } else { loss }
    };
    let best =
        (0..scores.len()).min_by(|a, b| loss(*a).total_cmp(&loss(*b))).expect("a choice has candidates");
    let candidate = |(name, score): (&String, &Score)| Candidate {
        name: name.clone(),
        top1: Some(score.top1),
        loss: Some(score.loss),
        class_drop: None,
    };
    let scores = scores.iter().map(Borrow::borrow);
    let candidates = names.iter().zip(scores).map(candidate).collect();
    (best, Choice { what: what.to_owned(), candidates, taken: names[best].clone() })
}
