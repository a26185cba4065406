use std::collections::BTreeMap;
use std::path::Path;

use margay_core::{
    Granularity, Limits, Mask, NodeId, Pattern, Provenance, SparseModel, Weight, fold, hidden,
};

use super::PipelineError;
use super::networks::Specialist;
use super::task::Task;
use crate::checkpoint::write_safetensors;
use crate::recipe::{Count, Recipe};
use crate::record::{Nonzeros, Pair};
use crate::torch::{TorchError, TorchModel};

/// Name of the sparse model in the output folder.
pub const SPECIALIST: &str = "specialist.margay";
/// Name of the dense-with-zeros checkpoint in the output folder.
pub const CHECKPOINT: &str = "model.safetensors";

/// The specialist as it was read back from its file, and its dense twin.
pub struct Exported {
    /// Read back from disk: what users will run.
    pub sparse: SparseModel,
    /// The dense network in the same form, for comparison.
    pub dense: SparseModel,
    /// File sizes.
    pub bytes: Pair<u64>,
}

/// Writes both files of the specialist into `out`, and reads the sparse one back.
pub fn export(
    task: &Task,
    recipe: &Recipe,
    dense: &TorchModel,
    specialist: &Specialist,
    out: &Path,
) -> Result<Exported, PipelineError> {
    let sparse = pack(task, recipe, &specialist.model, &specialist.masks)?;
    let dense = pack(task, recipe, dense, &BTreeMap::new())?;
    let path = out.join(SPECIALIST);
    let bytes = Pair { dense: dense.to_bytes()?.len() as u64, sparse: sparse.write(&path)? };
    let params = specialist.model.to_params()?;
    let (graph, names) = (&specialist.model.graph, &task.pretrained.names);
    write_safetensors(
        out.join(CHECKPOINT),
        graph,
        &params,
        names,
        &task.head.output_names(&task.dataset.classes),
        Some(&task.preprocess),
    )?;
    Ok(Exported { sparse: SparseModel::read_within(&path, &Limits::NONE)?, dense, bytes })
}

/// The specialist as its file would hold it, and its dense twin, without a file.
pub fn packed(
    task: &Task,
    recipe: &Recipe,
    dense: &TorchModel,
    specialist: &Specialist,
) -> Result<Exported, PipelineError> {
    let sparse = pack(task, recipe, &specialist.model, &specialist.masks)?.to_bytes()?;
    let dense = pack(task, recipe, dense, &BTreeMap::new())?;
    let bytes = Pair { dense: dense.to_bytes()?.len() as u64, sparse: sparse.len() as u64 };
    Ok(Exported { sparse: SparseModel::from_bytes_within(&sparse, &Limits::NONE)?, dense, bytes })
}

/// Folds what can be folded and packs masked weights as CSR. Where whole channels were pruned, they are taken out and what
/// is left is dense.
pub fn pack(
    task: &Task,
    recipe: &Recipe,
    model: &TorchModel,
    masks: &BTreeMap<String, Mask>,
) -> Result<SparseModel, PipelineError> {
    let torch = PipelineError::from;
    let (graph, params) = fold::all(&model.graph, &model.to_params()?).map_err(TorchError::from)?;
    let source = recipe.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let provenance = Provenance {
        generator: concat!("margay ", env!("CARGO_PKG_VERSION")).to_owned(),
        source,
        source_sha256: task.pretrained.sha256.clone(),
        recipe: recipe.to_toml().map_err(|_| PipelineError::Text("recipe.toml"))?,
        licence: None,
    };
    let labels = task.dataset.classes.clone();
    let (graph, params, masks) = match recipe.prune.pattern {
        Granularity::Channels if !masks.is_empty() => {
            let (graph, params) = hidden::compact(&graph, &params).map_err(TorchError::from)?;
            (graph, params, &BTreeMap::new())
        }
        _ => (graph, params, masks),
    };
    let model = SparseModel::pack(graph, &params, masks, labels, task.preprocess.clone(), provenance)
        .map_err(|e| torch(TorchError::from(e)))?;
    let patterns = kept_patterns(&model, recipe.prune.pattern);
    Ok(model.with_patterns(&patterns)?)
}

/// The pattern of each weight that has it: a layer that keeps all, or an adapter that grew weights, need not.
fn kept_patterns(model: &SparseModel, granularity: Granularity) -> BTreeMap<String, Pattern> {
    let Granularity::Weights(pattern) = granularity else { return BTreeMap::new() };
    if pattern.is_unstructured() {
        return BTreeMap::new();
    }
    let has = |weight: &Weight| matches!(weight, Weight::Csr(csr) if pattern.check(csr).is_ok());
    let names = model.weights.iter().filter(|(_, weight)| has(weight)).map(|(name, _)| name.clone());
    names.map(|name| (name, pattern)).collect()
}

/// Weights kept, over the prunable layers and over every parameter of the network.
pub fn nonzeros(model: &TorchModel, masks: &BTreeMap<String, Mask>, counted: Count) -> Nonzeros {
    let graph = &model.graph;
    let all = graph.parameters() as u64;
    let prunable: u64 = graph
        .prunable()
        .filter_map(|id| graph.node(id).matrix())
        .map(|[rows, columns]| (rows * columns) as u64)
        .sum();
    let pruned: u64 = masks.values().map(|mask| (mask.len() - mask.count()) as u64).sum();
    let [prunable, all] = [prunable, all].map(|dense| Pair { dense, sparse: dense - pruned });
    let counted = match counted {
        Count::Prunable => prunable,
        Count::All => all,
    };
    Nonzeros::new(counted, prunable, all)
}

/// Multiply-adds per image, dense and over the kept weights only.
pub fn macs(model: &TorchModel, masks: &BTreeMap<String, Mask>) -> Pair<u64> {
    let graph = &model.graph;
    let dense = graph.macs().expect("a network that ran has shapes");
    let kept = |id: NodeId| match masks.get(&graph.node(id).weight()) {
        Some(mask) => dense[id.index()] / mask.len().max(1) as u64 * mask.count() as u64,
        None => dense[id.index()],
    };
    Pair { dense: dense.iter().sum(), sparse: graph.ids().map(kept).sum() }
}
