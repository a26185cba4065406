//! `margay adapt`: trains an adapter on a model file or a checkpoint, saves it alone and merged.

use std::collections::BTreeMap;
use std::path::Path;

use margay_core::adapter::file::Modules;
use margay_core::adapter::{Adapter, Change};
use margay_core::{FormatError, Limits, Mask, ParamRole, SparseModel, Weight, output};
use ndarray::Array2;
use tch::Tensor;

use super::compress::{answered, data_info, machine, model_info};
use super::evaluate::on_torch;
use super::export::{SPECIALIST, pack};
use super::host::timed;
use super::images::examples;
use super::latency::{latency, own_session};
use super::networks::trained;
use super::recover::{adapter as find, steady};
use super::task::Task;
use super::{CompressOptions, PipelineError, host};
use crate::adapt::{self, Merged, Saved};
use crate::progress::{Progress, Recorder};
use crate::recipe::{AdaptSpec, AdapterSchedule, Policy, Recipe, RecoverySpec};
use crate::record::{AdaptRecord, Stages};
use crate::torch::{TorchError, TorchModel, to_array};

/// Name of the adapter's folder in the output folder.
const ADAPTER: &str = "adapter";

/// Adapts the recipe's model, a `.margay` file or a checkpoint, to its data. Writes `adapter/`,
/// `specialist.margay`, `recipe.toml` and `run.json` into the folder `out`, which must exist. A model file that takes more
/// than `limits` is refused.
pub fn adapt(
    recipe: &Recipe,
    limits: &Limits,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<AdaptRecord, PipelineError> {
    let progress = &mut Recorder::new(progress);
    let method = find(&recipe.adapt.method)?;
    let mut seconds = Stages::default();
    let file = model_file(&recipe.model, limits)?;
    let mut task = timed(&mut seconds, "read", || match &file {
        Some(model) => Task::of_model(recipe, model, progress),
        None => Task::prepare(recipe, progress),
    })?;
    let recipe = &task.ran(recipe);
    let shots = task.all_shots()?;
    let mut base = task.dense(&shots)?;
    let masks = file.as_ref().map(masks).unwrap_or_default();
    if let Some(bits) = recipe.adapt.base_bits {
        base.pack(&masks, bits.into())?;
    }
    let problem = adapt::Problem {
        base: &base,
        masks: &masks,
        teacher: None,
        examples: &shots,
        recovery: &recipe.recovery,
        spec: &recipe.adapt,
        seed: recipe.seed,
        pace: 1.0,
    };
    let mut merged = timed(&mut seconds, "adapt", || adapted(&problem, method, progress))?;
    if recipe.adapt.base_bits.is_some() {
        let packed = std::mem::replace(&mut base, task.dense(&shots)?);
        merged.rebase(&packed, &base)?;
    }
    let adapter = separate(&merged.adapter, &task, file.as_ref())?;
    let [before, after] = exported(&task, recipe, [&base, &merged.model], [&masks, &merged.masks])?;
    // What users get from base and adapter is what is evaluated.
    let after = match &file {
        Some(model) => adapter.apply_within(model, limits)?,
        None => after,
    };
    let path = out.join(SPECIALIST);
    let written = after.write(&path)?;
    fs_err::create_dir(out.join(ADAPTER))?;
    adapter.write(&out.join(ADAPTER), &base.graph, &modules(&task))?;
    let after = SparseModel::read_within(&path, &Limits::NONE)?;
    let options = own_session(task.threads);
    let val = timed(&mut seconds, "read val", || task.load_val(progress))?;
    let labels = &task.dataset.classes;
    let images = examples(&val, task.device)?;
    let (runtime, parity) = timed(&mut seconds, "evaluate", || answered(&task, &merged.model, &after, &val))?;
    let times = timed(&mut seconds, "bench", || latency(&before, &after, &options))?;
    let bytes = [before.to_bytes()?.len() as u64, written, folder_bytes(&out.join(ADAPTER))?];
    task.dataset.left_out.tell(progress);
    let record = AdaptRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: model_info(&task, recipe, &CompressOptions::default()),
        machine: machine(&task, &after)?,
        recipe: recipe.to_toml().map_err(|_| PipelineError::Text("recipe.toml"))?,
        data: data_info(&task, recipe),
        base: on_torch(&base, &images)?.evaluate(labels, &val.classes),
        adapted: runtime.evaluate(labels, &val.classes),
        trained: trained(&merged.adapter, &base.graph),
        support_unchanged: merged.masks == masks,
        nonzeros: [stored(&before), stored(&after)],
        bytes,
        latency_ms: times,
        parity,
        seconds,
        peak_rss_bytes: host::peak_rss_bytes(),
        bad_photos: task.bad.clone(),
        noted_photos: task.noted.clone(),
        warnings: progress.warnings.clone(),
    };
    output::write(out.join("recipe.toml"), &record.recipe)?;
    output::write(out.join("run.json"), record.to_json().map_err(|_| PipelineError::Text("run.json"))?)?;
    Ok(record)
}

/// A trained adapter; one that changes nothing where training diverges even at a tenth of the rates.
fn adapted(
    problem: &adapt::Problem,
    method: &dyn adapt::Adapter,
    progress: &mut dyn Progress,
) -> Result<Merged, PipelineError> {
    let made = steady(1.0, progress, |pace, progress| {
        Ok(adapt::adapt(&adapt::Problem { pace, ..*problem }, method, progress)?)
    })?;
    if let Some(made) = made {
        return Ok(made);
    }
    let recovery = RecoverySpec { epochs: 0, ..problem.recovery.clone() };
    let spec =
        AdaptSpec { policy: Policy::Keep, schedule: AdapterSchedule::WarmUp(0), ..problem.spec.clone() };
    let untrained = adapt::Problem { recovery: &recovery, spec: &spec, ..*problem };
    Ok(adapt::adapt(&untrained, method, progress)?)
}

/// The model, if the path leads to a `.margay` file and not to a checkpoint.
fn model_file(path: &Path, limits: &Limits) -> Result<Option<SparseModel>, PipelineError> {
    if path.extension().is_none_or(|extension| extension != "margay") {
        return Ok(None);
    }
    let model = SparseModel::read_within(path, limits)?;
    // Training stores every zero.
    model.check()?.check_dense(limits).map_err(FormatError::from)?;
    Ok(Some(model))
}

fn masks(model: &SparseModel) -> BTreeMap<String, Mask> {
    let mask = |(name, weight): (&String, &Weight)| match weight {
        Weight::Csr(csr) => Some((name.clone(), csr.mask())),
        Weight::Dense(_) => None,
    };
    model.weights.iter().filter_map(mask).collect()
}

/// Base and adapted network as model files.
fn exported(
    task: &Task,
    recipe: &Recipe,
    models: [&TorchModel; 2],
    masks: [&BTreeMap<String, Mask>; 2],
) -> Result<[SparseModel; 2], PipelineError> {
    Ok([pack(task, recipe, models[0], masks[0])?, pack(task, recipe, models[1], masks[1])?])
}

/// The adapter as it is kept: apart from the base.
fn separate(saved: &Saved, task: &Task, file: Option<&SparseModel>) -> Result<Adapter, PipelineError> {
    let layer = |(name, change): (&String, &adapt::Change)| Ok((name.clone(), kept(change)?));
    let layers = saved.layers.iter().map(layer).collect::<Result<_, PipelineError>>()?;
    let param = |(name, value): (&String, &Tensor)| Ok((name.clone(), to_array(value)?));
    let params = saved.params.iter().map(param).collect::<Result<_, TorchError>>()?;
    Ok(Adapter {
        method: saved.method.to_owned(),
        base: file.map(SparseModel::fingerprint).transpose()?.unwrap_or_default(),
        labels: task.dataset.classes.clone(),
        layers,
        params,
    })
}

fn kept(change: &adapt::Change) -> Result<Change, PipelineError> {
    let matrix = |tensor: &Tensor| -> Result<Array2<f32>, TorchError> {
        let (rows, columns) = tensor.size2()?;
        let values = to_array(tensor)?.iter().copied().collect();
        let matrix = Array2::from_shape_vec([rows as usize, columns as usize], values);
        Ok(matrix.unwrap_or_else(|_| unreachable!("a tensor has as many values as its shape says")))
    };
    let positions = |tensor: &Tensor| -> Result<Vec<u32>, TorchError> {
        let positions: Vec<i64> = tensor.f_to_device(tch::Device::Cpu)?.try_into()?;
        Ok(positions.into_iter().map(|position| position as u32).collect())
    };
    let factors = match &change.factors {
        Some([b, a]) => Some([matrix(b)?, matrix(a)?]),
        None => None,
    };
    let entries = match &change.entries {
        Some([at, values]) => Some((positions(at)?, to_array(values)?.iter().copied().collect())),
        None => None,
    };
    let dropped = change.dropped.as_ref().map(positions).transpose()?.unwrap_or_default();
    Ok(Change { factors, entries, dropped, branch: change.branch })
}

/// The checkpoint's own modules of every weight.
fn modules(task: &Task) -> Modules {
    let weights = task.pretrained.graph.params().filter(|spec| spec.role == ParamRole::Weight);
    let places = |spec: margay_core::ParamSpec| {
        let parts = task.pretrained.names.parts(&spec.name, &spec.shape);
        let place = |part: crate::models::Part| {
            let rows = *part.shape.first().expect("a weight has rows");
            (part.key.strip_suffix(".weight").unwrap_or(&part.key).to_owned(), rows)
        };
        (spec.name, parts.into_iter().map(place).collect())
    };
    weights.map(places).collect()
}

fn stored(model: &SparseModel) -> u64 {
    model.weights.values().map(|weight| weight.stored() as u64).sum()
}

fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut total = 0;
    for entry in fs_err::read_dir(folder)? {
        total += entry?.metadata()?.len();
    }
    Ok(total)
}
