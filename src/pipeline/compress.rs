use std::path::Path;

use margay_core::{SparseModel, output};
use margay_runtime::{Isa, Precision, RuntimeError, Session, SessionOptions, cpu_name};

use super::damage::damage;
use super::evaluate::{Answers, on_runtime, on_torch};
use super::export::{Exported, export, macs, nonzeros, pack};
use super::forecast::forecast;
use super::host::timed;
use super::images::{examples, relative};
use super::latency::{latency, own_session};
use super::limit::pruned;
use super::networks::{Base, Specialist, trained};
use super::recover::{decide, recover};
use super::task::Task;
use super::{PipelineError, host};
use crate::data::Loaded;
use crate::distill::Examples;
use crate::progress::{Progress, Recorder};
use crate::recipe::Recipe;
use crate::record::{
    Answer, ChangedAnswer, DataInfo, Evaluation, LayerRecord, Machine, ModelInfo, Parity, RunRecord, Stages,
};
use crate::report::render;
use crate::thumbnails::thumbnails;
use crate::torch::TorchModel;

/// Logits may differ from torch's by this share of the largest: beyond it, something is wrong.
const PARITY_LIMIT: f64 = 1e-4;
/// The same on a GPU, which may multiply with fewer bits.
const PARITY_LIMIT_CUDA: f64 = 1e-2;
/// Beyond it they may differ by this many times the rounding of torch's own logits.
const ROUNDING_MARGIN: f64 = 10.0;

/// Images of val on which the runtime is compared with torch.
const COMPARED: usize = 64;

/// What a run is told beside its recipe: nothing here changes the model.
#[derive(Clone, Debug, Default)]
pub struct CompressOptions {
    /// Facts about the source that travel into the record, such as licence and citation.
    pub provenance: std::collections::BTreeMap<String, String>,
}

/// Specialises a checkpoint and writes `specialist.margay`, `model.safetensors`, `recipe.toml`,
/// `run.json` and `report.html` into the folder `out`, which must exist.
pub fn compress(
    recipe: &Recipe,
    out: &Path,
    options: &CompressOptions,
    progress: &mut dyn Progress,
) -> Result<RunRecord, PipelineError> {
    let progress = &mut Recorder::new(progress);
    // A wrong MARGAY_ISA is told now, not when hours of work are done.
    Isa::choose(None).map_err(RuntimeError::from)?;
    let mut seconds = Stages::default();
    let mut task = timed(&mut seconds, "read", || Task::prepare(recipe, progress))?;
    let recipe = &task.ran(recipe);
    forecast(&task, recipe, progress)?;
    let (recipe, base, decision) = pruned(&task, recipe, &mut seconds, progress)?;
    let recipe = &recipe;
    let decision = match decision {
        Some(decision) => decision,
        None => decide(&task, base.trial.as_deref(), recipe, &mut seconds, progress)?,
    };
    let specialist = recover(&base, decision, recipe, &mut seconds, progress)?;
    let blocks = match &base.trial {
        Some(trial) => timed(&mut seconds, "compare", || damage(trial, &task.heldout))?,
        None => Vec::new(),
    };
    let exported = timed(&mut seconds, "export", || export(&task, recipe, &base.dense, &specialist, out))?;
    let val = timed(&mut seconds, "read val", || task.load_val(progress))?;
    let judged =
        timed(&mut seconds, "evaluate", || judge(&task, recipe, &base, &specialist, &exported, &val))?;
    let session = own_session(task.threads);
    progress.start("measure latency", 0);
    let latency = timed(&mut seconds, "bench", || latency(&exported.dense, &exported.sparse, &session))?;
    progress.finish();
    task.dataset.left_out.tell(progress);
    let record = RunRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: model_info(&task, recipe, options),
        machine: machine(&task, &exported.sparse)?,
        recipe: recipe.to_toml().map_err(|_| PipelineError::Text("recipe.toml"))?,
        data: data_info(&task, recipe),
        dense: judged.dense,
        oneshot: judged.oneshot,
        specialist: judged.specialist,
        nonzeros: nonzeros(&specialist.model, &specialist.masks, recipe.prune.count),
        bytes: exported.bytes,
        macs: macs(&specialist.model, &specialist.masks),
        latency_ms: latency,
        parity: judged.parity,
        seconds,
        peak_rss_bytes: host::peak_rss_bytes(),
        adapter: specialist.adapter.as_ref().map(|saved| trained(saved, &base.dense.graph)),
        layers: layers(&base),
        blocks,
        choices: [&task.choices[..], &base.chosen.choices, &specialist.choices].concat(),
        bad_photos: task.bad.clone(),
        noted_photos: task.noted.clone(),
        warnings: progress.warnings.clone(),
        changed: judged.changed,
    };
    write_texts(recipe, &record, &task, out)?;
    Ok(record)
}

/// Everything that is measured on val.
struct Judged {
    dense: Evaluation,
    oneshot: Evaluation,
    specialist: Evaluation,
    parity: Parity,
    changed: Vec<ChangedAnswer>,
}

fn judge(
    task: &Task,
    recipe: &Recipe,
    base: &Base,
    result: &Specialist,
    exported: &Exported,
    val: &Loaded,
) -> Result<Judged, PipelineError> {
    let labels = &task.dataset.classes;
    let dense = on_torch(&base.dense, &examples(val, task.device)?)?;
    let (specialist, parity) = answered(task, &result.model, &exported.sparse, val)?;
    let specialist_evaluation = specialist.evaluate_against(&dense, labels, &val.classes);
    let oneshot = if result.trained {
        let pruned = pack(task, recipe, &base.oneshot, &base.masks)?;
        let answers = on_runtime(&pruned, val, &own_session(task.threads))?;
        answers.evaluate_against(&dense, labels, &val.classes)
    } else {
        specialist_evaluation.clone()
    };
    Ok(Judged {
        changed: changed(task, val, &dense, &specialist),
        dense: dense.evaluate(labels, &val.classes),
        oneshot,
        specialist: specialist_evaluation,
        parity,
    })
}

/// The exported model's answers as users get them, and how close the runtime is to torch, on some of the images.
pub(super) fn answered(
    task: &Task,
    model: &TorchModel,
    exported: &SparseModel,
    val: &Loaded,
) -> Result<(Answers, Parity), PipelineError> {
    let options = own_session(task.threads);
    let answers = on_runtime(exported, val, &options)?;
    let some = val.spread(COMPARED);
    let exact = SessionOptions { precision: Precision::F32, ..options.clone() };
    let [usual, exact] = [options, exact].map(|options| on_runtime(exported, &some, &options));
    let (usual, exact) = (usual?, exact?);
    let images = examples(&some, task.device)?;
    let torch = on_torch(model, &images)?;
    let mut parity = parity(task, model, &images, [&torch, &exact])?;
    let same = Parity::compare(&exact.logits, &usual.logits, task.dataset.classes.len());
    parity.bf16_agreement = Some(same.argmax_agreement);
    Ok((answers, parity))
}

/// Compares torch's answers with the runtime's; refuses differences that rounding does not explain.
///
/// Layer norms of nearly constant features amplify rounding. Where the difference is beyond the limit, the
/// logits in f64 tell by how much.
fn parity(
    task: &Task,
    model: &TorchModel,
    images: &Examples,
    [torch, runtime]: [&Answers; 2],
) -> Result<Parity, PipelineError> {
    let classes = task.dataset.classes.len();
    let mut parity = Parity::compare(&torch.logits, &runtime.logits, classes);
    let (difference, scale) = (parity.max_abs_logit_difference, parity.max_abs_logit);
    let limit = if task.device == tch::Device::Cpu { PARITY_LIMIT } else { PARITY_LIMIT_CUDA };
    if difference <= limit * scale {
        return Ok(parity);
    }
    let exact = on_torch(&model.in_double()?, &images.in_double()?)?;
    let rounding = Parity::compare(&exact.logits, &torch.logits, classes).max_abs_logit_difference;
    parity.max_abs_rounding = Some(rounding);
    if difference <= limit * scale + ROUNDING_MARGIN * rounding {
        return Ok(parity);
    }
    Err(PipelineError::Parity { difference, scale })
}

fn changed(task: &Task, val: &Loaded, dense: &Answers, sparse: &Answers) -> Vec<ChangedAnswer> {
    let labels = &task.dataset.classes;
    let answer = |answers: &Answers, image: usize, class: usize| Answer {
        label: labels[class].clone(),
        confidence: answers.probability(image, class),
    };
    let (before, after) = (dense.predicted(), sparse.predicted());
    (0..val.len())
        .filter(|&image| before[image] != after[image])
        .map(|image| ChangedAnswer {
            path: relative(&task.dataset, &val.paths[image]),
            label: labels[val.classes[image]].clone(),
            dense: answer(dense, image, before[image]),
            specialist: answer(sparse, image, after[image]),
        })
        .collect()
}

pub(super) fn model_info(task: &Task, recipe: &Recipe, options: &CompressOptions) -> ModelInfo {
    ModelInfo {
        architecture: task.pretrained.graph.architecture.clone(),
        checkpoint: recipe.model.to_string_lossy().into_owned(),
        sha256: task.pretrained.sha256.clone(),
        head: task.head_kind().to_owned(),
        input: task.preprocess.size,
        provenance: options.provenance.clone(),
    }
}

pub(super) fn machine(task: &Task, model: &SparseModel) -> Result<Machine, PipelineError> {
    let session = Session::new(model, &own_session(0))?;
    let (threads, device) = (task.threads, task.device_name());
    Ok(Machine { cpu: cpu_name(), isa: session.isa().to_string(), threads, device })
}

pub(super) fn data_info(task: &Task, recipe: &Recipe) -> DataInfo {
    let general = task.general.iter().flat_map(|general| &general.photos);
    DataInfo {
        path: recipe.data.to_string_lossy().into_owned(),
        calibration: task.calibration.len(),
        holdout: task.heldout.len(),
        val: task.dataset.val.len(),
        split: Some(task.dataset.split.record()),
        left_out: task.dataset.left_out.kinds(),
        general: general.map(|path| relative(&task.dataset, path)).collect(),
    }
}

fn layers(base: &Base) -> Vec<LayerRecord> {
    let record = |layer: &crate::prune::LayerOutcome| LayerRecord {
        name: layer.name.clone(),
        shape: layer.matrix.to_vec(),
        sparsity: 1.0 - layer.kept as f64 / (layer.matrix[0] * layer.matrix[1]).max(1) as f64,
        nonzeros: layer.kept,
        error: layer.error,
        seconds: layer.seconds,
    };
    base.layers.iter().map(record).collect()
}

fn write_texts(recipe: &Recipe, record: &RunRecord, task: &Task, out: &Path) -> Result<(), PipelineError> {
    let recipe = recipe.to_toml().map_err(|_| PipelineError::Text("recipe.toml"))?;
    output::write(out.join("recipe.toml"), recipe)?;
    let json = record.to_json().map_err(|_| PipelineError::Text("run.json"))?;
    output::write(out.join("run.json"), json)?;
    let thumbnails = thumbnails(record, &task.dataset.root);
    Ok(output::write(out.join("report.html"), render(record, &thumbnails))?)
}
