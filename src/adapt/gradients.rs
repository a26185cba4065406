use std::cell::RefCell;
use std::collections::BTreeMap;

use margay_core::Graph;
use tch::Tensor;

use crate::distill::{Examples, Student, Training, each_gradient};
use crate::progress::Progress;
use crate::recipe::GradAccMode;
use crate::torch::{Effective, TorchError};

/// Mean (squared) gradient `[m, n]` of each of these weights as they are in force, over so many of the images or
/// all of them, one image at a time.
///
/// The gradient is read from the tensor that the layer multiplies with, not from its input and output, so
/// that layers which share an input are no special case, and neither are convolutions.
pub fn gradients(
    student: &dyn Student,
    names: &[String],
    mode: GradAccMode,
    examples: &Examples,
    training: &Training,
    images: usize,
    progress: &mut dyn Progress,
) -> Result<BTreeMap<String, Tensor>, TorchError> {
    let leaves = names.iter().map(|name| Ok((name.clone(), leaf(student, name)?)));
    let watched = Watched { student, leaves: leaves.collect::<Result<_, TorchError>>()? };
    let sums: RefCell<BTreeMap<String, Tensor>> = RefCell::default();
    each_gradient(&watched, examples, training, images, progress, || {
        for (name, leaf) in &watched.leaves {
            let gradient = leaf.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let part = match mode {
                GradAccMode::MeanSquared => gradient.f_square()?,
                GradAccMode::Mean => gradient.f_detach()?.f_detach_copy()?,
            };
            let mut sums = sums.borrow_mut();
            let sum = match sums.remove(name) {
                Some(sum) => sum.f_add(&part)?,
                None => part,
            };
            sums.insert(name.clone(), sum);
            let _ = leaf.f_grad()?.f_zero_()?;
        }
        Ok(())
    })?;
    let seen = images.min(examples.len()).max(1) as f64;
    let matrix = |(name, sum): (String, Tensor)| Ok((name, sum.f_div_scalar(seen)?.f_flatten(1, -1)?));
    sums.into_inner().into_iter().map(matrix).collect()
}

fn leaf(student: &dyn Student, name: &str) -> Result<Tensor, TorchError> {
    Ok(student.effective(name)?.f_detach()?.f_detach_copy()?.f_set_requires_grad(true)?)
}

/// A student whose weights in force are leaves of the graph of gradients.
struct Watched<'a> {
    student: &'a dyn Student,
    leaves: BTreeMap<String, Tensor>,
}

impl Effective for Watched<'_> {
    fn effective(&self, name: &str) -> Result<Tensor, TorchError> {
        match self.leaves.get(name) {
            Some(leaf) => Ok(leaf.shallow_clone()),
            None => self.student.effective(name),
        }
    }
}

impl Student for Watched<'_> {
    fn graph(&self) -> &Graph {
        self.student.graph()
    }
}
