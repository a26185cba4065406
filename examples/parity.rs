//! Computes the logits that another library computed, on the torch executor and on the runtime.
//!
//! ```text
//! cargo run --release --example parity -- CHECKPOINT REFERENCE
//! ```
//! REFERENCE is a safetensors file with `images` `[n, 3, height, width]` and `logits` `[n, classes]`. Prints one
//! line of JSON: what was read, and per executor the largest difference in parts of the largest logit.
//! `scripts/parity.py` makes the files and collects the lines.

#![expect(clippy::print_stdout, reason = "a program that prints a line of JSON")]

use std::collections::BTreeMap;
use std::error::Error;
use std::iter::successors;
use std::path::Path;

use margay::checkpoint::{Checkpoint, CheckpointError, Pretrained, load_model};
use margay::torch::{Norms, TorchModel, forward};
use margay_core::{ParamRole, Preprocess, Provenance, SparseModel, fold};
use margay_runtime::{Precision, Session, SessionOptions};
use ndarray::ArrayD;
use serde_json::{Value, json};
use tch::{Device, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let [checkpoint, reference] = args.as_slice() else {
        return Err("usage: parity CHECKPOINT REFERENCE".into());
    };
    let reference = Reference::read(Path::new(reference))?;
    let line = match load_model(Path::new(checkpoint), reference.image()) {
        Ok(model) => compared(&model, &reference),
        Err(error) => json!({ "refused": chain(&error) }),
    };
    println!("{line}");
    Ok(())
}

/// What another library computed.
struct Reference {
    images: ArrayD<f32>,
    logits: ArrayD<f32>,
}

impl Reference {
    fn read(path: &Path) -> Result<Self, CheckpointError> {
        let file = Checkpoint::open(path)?;
        Ok(Self { images: file.read("images")?, logits: file.read("logits")? })
    }

    fn image(&self) -> [usize; 2] {
        [self.images.shape()[2], self.images.shape()[3]]
    }

    fn images(&self) -> Vec<f32> {
        self.images.iter().copied().collect()
    }

    /// Largest difference in parts of the largest logit.
    fn difference(&self, logits: &[f32]) -> Result<f64, Box<dyn Error>> {
        if logits.len() != self.logits.len() {
            return Err(format!("{} logits instead of {}", logits.len(), self.logits.len()).into());
        }
        if logits.iter().any(|v| !v.is_finite()) {
            return Err("a logit is no number".into());
        }
        let largest = |most: f32, value: f32| most.max(value.abs());
        let scale = self.logits.iter().copied().fold(0.0, largest);
        let gap = self.logits.iter().zip(logits).map(|(theirs, ours)| theirs - ours).fold(0.0, largest);
        Ok(f64::from(gap / scale))
    }
}

/// The line of a model that was read; an executor that fails leaves its number out.
fn compared(model: &Pretrained, reference: &Reference) -> Value {
    let weights = model.graph.params().filter(|spec| spec.role != ParamRole::Statistic);
    let parameters: usize = weights.map(|spec| spec.shape.iter().product::<usize>()).sum();
    let mut line = json!({
        "architecture": model.graph.architecture,
        "library": model.library,
        "parameters": parameters,
    });
    let sides = [("torch", on_torch as fn(&_, &_) -> _), ("runtime", on_runtime)];
    for (side, run) in sides {
        match run(model, reference).and_then(|logits| reference.difference(&logits)) {
            Ok(difference) => line[side] = difference.into(),
            Err(error) => line["error"] = format!("{side}: {}", chain(error.as_ref())).into(),
        }
    }
    line
}

fn on_torch(model: &Pretrained, reference: &Reference) -> Result<Vec<f32>, Box<dyn Error>> {
    let shape: Vec<i64> = reference.images.shape().iter().map(|n| *n as i64).collect();
    let images = Tensor::f_from_slice(&reference.images())?.f_reshape(shape)?;
    let model = TorchModel::new(model.graph.clone(), &model.params, Device::Cpu)?;
    let _no_grad = tch::no_grad_guard();
    let logits = forward(&model.graph, &model, Norms::Stored, &images, &[])?.logits;
    Ok(Vec::try_from(logits.f_reshape([-1])?)?)
}

/// Folded and packed, as `margay compress` writes a dense model.
fn on_runtime(model: &Pretrained, reference: &Reference) -> Result<Vec<f32>, Box<dyn Error>> {
    let (graph, params) = fold::all(&model.graph, &model.params)?;
    let labels = (0..graph.classes()).map(|class| format!("class {class}")).collect();
    let preprocess = Preprocess { size: reference.image(), ..Preprocess::squash(0) };
    let packed =
        SparseModel::pack(graph, &params, &BTreeMap::new(), labels, preprocess, Provenance::default())?;
    let mut session = Session::new(
        &packed,
        &SessionOptions { threads: 1, precision: Precision::F32, ..SessionOptions::default() },
    )?;
    let mut logits = vec![0.0; reference.images.shape()[0] * session.classes()];
    session.run(&reference.images(), &mut logits)?;
    Ok(logits)
}

/// An error and everything behind it.
fn chain(error: &dyn Error) -> String {
    successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
