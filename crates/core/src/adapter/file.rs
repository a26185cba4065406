//! Adapters as folders that Hugging Face's PEFT reads where it has the method.
//!
//! | file | holds |
//! |---|---|
//! | `adapter_config.json` | PEFT's `LoraConfig`: ranks per module, scale 1 |
//! | `adapter_model.safetensors` | `base_model.model.<module>.lora_A.weight` and `lora_B.weight` |
//! | `margay_adapter.safetensors` | sparse entries, head, norms and biases, and what PEFT has no word for |
//!
//! The first two are absent where no layer has a low-rank part. PEFT knows no mask: on a sparse base it adds
//! the product everywhere, margay on the mask only.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ndarray::{Array2, ArrayD, Axis, Slice, concatenate};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Adapter, AdapterError};
use crate::{Graph, Op, input};

/// PEFT's description of the low-rank part.
pub const CONFIG: &str = "adapter_config.json";
/// The low-rank part under PEFT's names.
pub const PEFT: &str = "adapter_model.safetensors";
/// Everything else.
pub const MARGAY: &str = "margay_adapter.safetensors";

/// Files above this size are refused.
const MAX_BYTES: u64 = 4 << 30;

/// The modules of a checkpoint that hold a weight, and the rows of each; one, unless the checkpoint keeps
/// queries, keys and values apart.
pub type Modules = BTreeMap<String, Vec<(String, usize)>>;

/// What is stored beside the tensors, as JSON in the file's metadata.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    version: u32,
    method: String,
    base: String,
    labels: Vec<String>,
    /// PEFT's modules of each weight with a low-rank part.
    modules: BTreeMap<String, Vec<String>>,
    /// Weights whose low-rank part is a branch.
    branches: Vec<String>,
}

const VERSION: u32 = 1;

/// A tensor to write: extents, type, little-endian bytes.
type Raw = (Vec<usize>, Dtype, Vec<u8>);

impl Adapter {
    /// Writes the files into `folder`, which exists; `modules` names a checkpoint's modules where they differ
    /// from the graph's.
    pub fn write(&self, folder: &Path, graph: &Graph, modules: &Modules) -> Result<(), AdapterError> {
        let own = |name: &str, rows: usize| {
            let module = name.strip_suffix(".weight").unwrap_or(name).to_owned();
            modules.get(name).cloned().unwrap_or_else(|| vec![(module, rows)])
        };
        let (mut peft, mut rest) = (BTreeMap::new(), BTreeMap::new());
        let (mut ranks, mut facts) = (BTreeMap::new(), self.facts());
        for (name, change) in &self.layers {
            if let Some([b, a]) = &change.factors {
                let op = graph.nodes().iter().find(|node| node.weight() == *name).map(|node| &node.op);
                let places = own(name, b.nrows());
                write_factors(&mut peft, op, [b, a], &places);
                ranks.extend(places.iter().map(|(module, _)| (module.clone(), a.nrows())));
                facts.modules.insert(name.clone(), places.into_iter().map(|(module, _)| module).collect());
            }
            if let Some((positions, values)) = &change.entries {
                rest.insert(format!("{name}.positions"), whole(positions));
                rest.insert(format!("{name}.values"), floats(vec![values.len()], values.iter()));
            }
            if !change.dropped.is_empty() {
                rest.insert(format!("{name}.dropped"), whole(&change.dropped));
            }
        }
        for (name, value) in &self.params {
            rest.insert(format!("params.{name}"), floats(value.shape().to_vec(), value.iter()));
        }
        if !peft.is_empty() {
            put(&folder.join(CONFIG), config(&ranks).as_bytes())?;
            write_tensors(&folder.join(PEFT), &peft, None)?;
        }
        let facts = serde_json::to_string(&facts).map_err(|e| broken(&folder.join(MARGAY), &e))?;
        write_tensors(&folder.join(MARGAY), &rest, Some(HashMap::from([("margay".to_owned(), facts)])))
    }

    fn facts(&self) -> Facts {
        let branches = self.layers.iter().filter(|(_, change)| change.branch);
        Facts {
            version: VERSION,
            method: self.method.clone(),
            base: self.base.clone(),
            labels: self.labels.clone(),
            modules: BTreeMap::new(),
            branches: branches.map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Reads the files of a folder; whether they fit a model is found out when they are applied.
    pub fn read(folder: &Path) -> Result<Self, AdapterError> {
        let path = folder.join(MARGAY);
        let foreign = folder.join(PEFT);
        if !path.exists() && foreign.exists() {
            return Err(AdapterError::Foreign { path: foreign });
        }
        let file = |path: &Path, reason| AdapterError::File { path: path.to_owned(), reason };
        let bytes = get(&path)?;
        let (mut adapter, modules) = Self::own(&bytes).map_err(|reason| file(&path, reason))?;
        if !modules.is_empty() {
            let bytes = get(&foreign)?;
            adapter.take_factors(&bytes, modules).map_err(|reason| file(&foreign, reason))?;
        }
        Ok(adapter)
    }

    /// Reads the bytes of `margay_adapter.safetensors` and of `adapter_model.safetensors`, which is not asked for where no
    /// layer has a low-rank part.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(margay: &[u8], peft: &[u8]) -> Result<Self, String> {
        let (mut adapter, modules) = Self::own(margay)?;
        if !modules.is_empty() {
            adapter.take_factors(peft, modules)?;
        }
        Ok(adapter)
    }

    /// What margay's own file holds, and the modules of each weight with a low-rank part.
    fn own(bytes: &[u8]) -> Result<(Self, BTreeMap<String, Vec<String>>), String> {
        let facts = facts(bytes)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let mut adapter =
            Self { method: facts.method, base: facts.base, labels: facts.labels, ..Self::default() };
        for (key, view) in tensors.tensors() {
            adapter.take(&key, &view)?;
        }
        for name in facts.branches {
            adapter.layers.entry(name).or_default().branch = true;
        }
        Ok((adapter, facts.modules))
    }

    fn take_factors(&mut self, peft: &[u8], modules: BTreeMap<String, Vec<String>>) -> Result<(), String> {
        let tensors = SafeTensors::deserialize(peft).map_err(|e| e.to_string())?;
        for (name, modules) in modules {
            let factors = read_factors(&tensors, &modules)?;
            self.layers.entry(name).or_default().factors = Some(factors);
        }
        Ok(())
    }

    fn take(&mut self, key: &str, view: &TensorView) -> Result<(), String> {
        if let Some(name) = key.strip_prefix("params.") {
            let value = ArrayD::from_shape_vec(view.shape().to_vec(), read_floats(key, view)?);
            self.params.insert(name.to_owned(), value.map_err(|e| format!("`{key}`: {e}"))?);
            return Ok(());
        }
        let (name, part) = key.rsplit_once('.').ok_or_else(|| format!("unknown tensor `{key}`"))?;
        let change = self.layers.entry(name.to_owned()).or_default();
        match part {
            "positions" => change.entries.get_or_insert_default().0 = read_whole(key, view)?,
            "values" => change.entries.get_or_insert_default().1 = read_floats(key, view)?,
            "dropped" => change.dropped = read_whole(key, view)?,
            _ => return Err(format!("unknown tensor `{key}`")),
        }
        Ok(())
    }
}

/// PEFT's description: every module has its own rank and a scale of `alpha / r = 1`.
fn config(ranks: &BTreeMap<String, usize>) -> String {
    let top = ranks.values().copied().max().unwrap_or(1);
    let config = json!({
        "peft_type": "LORA",
        "auto_mapping": null,
        "base_model_name_or_path": null,
        "task_type": null,
        "inference_mode": true,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": false,
        "modules_to_save": null,
        "r": top,
        "lora_alpha": top,
        "target_modules": ranks.keys().collect::<Vec<_>>(),
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
    });
    format!("{config:#}\n")
}

/// A convolution's factors get its kernel's extents, as PEFT has them.
fn write_factors(
    into: &mut BTreeMap<String, Raw>,
    op: Option<&Op>,
    [b, a]: [&Array2<f32>; 2],
    places: &[(String, usize)],
) {
    let rank = a.nrows();
    let mut start = 0;
    for (module, rows) in places {
        let part = b.slice_axis(Axis(0), Slice::from(start..(start + rows).min(b.nrows())));
        start += rows;
        let [down, up] = match op {
            Some(Op::Conv2d(conv)) => {
                let [kh, kw] = conv.kernel;
                [vec![rank, a.ncols() / (kh * kw), kh, kw], vec![part.nrows(), rank, 1, 1]]
            }
            _ => [vec![rank, a.ncols()], vec![part.nrows(), rank]],
        };
        into.insert(format!("base_model.model.{module}.lora_A.weight"), floats(down, a.iter()));
        into.insert(format!("base_model.model.{module}.lora_B.weight"), floats(up, part.iter()));
    }
}

/// Modules that were one weight share `A`; their rows of `B` lie one behind the other.
fn read_factors(tensors: &SafeTensors, modules: &[String]) -> Result<[Array2<f32>; 2], String> {
    let matrix = |module: &str, part: &str| {
        let key = format!("base_model.model.{module}.{part}.weight");
        let view = tensors.tensor(&key).map_err(|_| format!("there is no `{key}`"))?;
        let rows = view.shape().first().copied().unwrap_or(0);
        let values = read_floats(&key, &view)?;
        let columns = values.len().checked_div(rows).unwrap_or(0);
        Array2::from_shape_vec([rows, columns], values).map_err(|e| format!("`{key}`: {e}"))
    };
    let first = modules.first().ok_or_else(|| "a layer has no module".to_owned())?;
    let parts = modules.iter().map(|module| matrix(module, "lora_B")).collect::<Result<Vec<_>, _>>()?;
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let b = concatenate(Axis(0), &views).map_err(|e| format!("`{first}`: {e}"))?;
    Ok([b, matrix(first, "lora_A")?])
}

fn floats<'a>(shape: Vec<usize>, values: impl Iterator<Item = &'a f32>) -> Raw {
    (shape, Dtype::F32, values.flat_map(|v| v.to_le_bytes()).collect())
}

fn whole(values: &[u32]) -> Raw {
    (vec![values.len()], Dtype::U32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn read_floats(key: &str, view: &TensorView) -> Result<Vec<f32>, String> {
    let values: Vec<f32> = words(key, view, Dtype::F32)?.map(f32::from_le_bytes).collect();
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(format!("`{key}` is not finite at {index}")),
        None => Ok(values),
    }
}

fn read_whole(key: &str, view: &TensorView) -> Result<Vec<u32>, String> {
    Ok(words(key, view, Dtype::U32)?.map(u32::from_le_bytes).collect())
}

fn words<'a>(
    key: &str,
    view: &'a TensorView,
    dtype: Dtype,
) -> Result<impl Iterator<Item = [u8; 4]> + 'a, String> {
    if view.dtype() != dtype {
        return Err(format!("`{key}` is {:?}, but must be {dtype:?}", view.dtype()));
    }
    Ok(view.data().as_chunks().0.iter().copied())
}

fn facts(bytes: &[u8]) -> Result<Facts, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let facts = header.metadata().as_ref().and_then(|facts| facts.get("margay"));
    let facts = facts.ok_or_else(|| "this is no adapter of margay".to_owned())?;
    let facts: Facts = serde_json::from_str(facts).map_err(|e| e.to_string())?;
    match facts.version {
        VERSION => Ok(facts),
        other => Err(format!("version {other} of the format is not known; this program reads {VERSION}")),
    }
}

fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Raw>,
    facts: Option<HashMap<String, String>>,
) -> Result<(), AdapterError> {
    let views = tensors.iter().map(|(key, (shape, dtype, bytes))| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (key.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(|e| broken(path, &e))?;
    put(path, &serialize(views, facts).map_err(|e| broken(path, &e))?)
}

fn get(path: &Path) -> Result<Vec<u8>, AdapterError> {
    Ok(input::read(path, MAX_BYTES)?)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), AdapterError> {
    crate::output::write(path, bytes).map_err(AdapterError::Write)
}

fn broken(path: &Path, error: &dyn std::error::Error) -> AdapterError {
    AdapterError::File { path: path.to_owned(), reason: error.to_string() }
}
