//! The statistic that places sparse parts, on queries, keys and values that share an input.

use std::path::Path as FilePath;

use super::*;
use crate::checkpoint::{load_model, write_safetensors};
use crate::distill::{Examples, Training};
use crate::models::{NameMap, Part};
use crate::progress::Silent;
use crate::recipe::{GradAccMode, RecoverySpec};

const QKV: &str = "blocks.0.attn.qkv.weight";

/// How Hugging Face names the parameters of a vision transformer with one block.
const HUGGING_FACE: &[(&str, &str)] = &[
    ("embed.prefix", "vit.embeddings.cls_token"),
    ("embed.position", "vit.embeddings.position_embeddings"),
    ("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
    ("blocks.0.norm1", "vit.encoder.layer.0.layernorm_before"),
    ("blocks.0.attn.qkv", "vit.encoder.layer.0.attention.attention.query"),
    ("blocks.0.attn.qkv", "vit.encoder.layer.0.attention.attention.key"),
    ("blocks.0.attn.qkv", "vit.encoder.layer.0.attention.attention.value"),
    ("blocks.0.attn.proj", "vit.encoder.layer.0.attention.output.dense"),
    ("blocks.0.norm2", "vit.encoder.layer.0.layernorm_after"),
    ("blocks.0.mlp.fc1", "vit.encoder.layer.0.intermediate.dense"),
    ("blocks.0.mlp.fc2", "vit.encoder.layer.0.output.dense"),
    ("norm", "vit.layernorm"),
    ("head", "classifier"),
];

fn hugging_face(graph: &Graph) -> NameMap {
    let mut names = NameMap::identity();
    for spec in graph.params() {
        let parts = HUGGING_FACE.iter().filter(|(own, _)| spec.name.starts_with(own));
        let parts: Vec<_> =
            parts.filter(|(own, _)| matches!(&spec.name[own.len()..], "" | ".weight" | ".bias")).collect();
        for (own, theirs) in &parts {
            let mut shape = spec.shape.clone();
            shape[0] /= parts.len();
            let key = format!("{theirs}{}", &spec.name[own.len()..]);
            names.push(&spec.name, Part { key, shape });
        }
    }
    names
}

/// The network as it is read from a file with these names.
fn through_a_file(folder: &FilePath, model: &TorchModel, names: &NameMap) -> TorchModel {
    let path = folder.join("model.safetensors");
    write_safetensors(&path, &model.graph, &model.to_params().unwrap(), names, &[], None).unwrap();
    let read = load_model(&path, [32, 32]).unwrap();
    TorchModel::new(read.graph, &read.params, Device::Cpu).unwrap()
}

/// A network of which one weight is a leaf.
struct Leaf<'a> {
    model: &'a TorchModel,
    leaf: Tensor,
}

impl Effective for Leaf<'_> {
    fn effective(&self, name: &str) -> Result<Tensor, TorchError> {
        if name == QKV { Ok(self.leaf.shallow_clone()) } else { self.model.effective(name) }
    }
}

/// Gradient of each image's cross-entropy, one image at a time.
fn one_by_one(model: &TorchModel, examples: &Examples) -> Vec<Tensor> {
    let weights = Leaf { model, leaf: model.get(QKV).unwrap().copy().set_requires_grad(true) };
    let gradient = |i: i64| {
        let image = examples.images.narrow(0, i, 1);
        let out = forward(&model.graph, &weights, Norms::Stored, &image, &[]).unwrap();
        let loss = out.logits.cross_entropy_for_logits(&examples.classes.narrow(0, i, 1));
        Tensor::run_backward(&[loss], &[&weights.leaf], false, false).swap_remove(0)
    };
    (0..examples.len() as i64).map(gradient).collect()
}

fn collected(model: &TorchModel, examples: &Examples, mode: GradAccMode, images: usize) -> Tensor {
    let spec =
        RecoverySpec { cross_entropy: Some(1.0), label_smoothing: Some(0.0), ..RecoverySpec::default() };
    let (norms, stage, pace) = (Norms::Stored, "test", 1.0);
    let training = Training { spec: &spec, teacher: None, norms, seed: 4, stage, pace };
    let student = Adapted::new(model, &BTreeMap::new()).unwrap();
    let names = [QKV.to_owned()];
    let mut all = gradients(&student, &names, mode, examples, &training, images, &mut Silent).unwrap();
    all.remove(QKV).unwrap()
}

#[test]
fn queries_keys_and_values_get_gradients_of_their_own() {
    let pruned = Pruned::new(&small("vit_tiny_patch16", 64));
    let folder = tempfile::tempdir().unwrap();
    let fused = through_a_file(folder.path(), &pruned.dense, &NameMap::identity());
    let separate = through_a_file(folder.path(), &pruned.dense, &hugging_face(&pruned.dense.graph));
    // Flat colours look the same mirrored and shifted, as training shows them.
    let colours = normal(&[4, 3, 1, 1], 80).expand([4, 3, 32, 32], false).contiguous();
    let examples = Examples::new(colours, Tensor::from_slice(&[0_i64, 1, 1, 0]));
    for (name, model) in [("fused", &fused), ("separate", &separate)] {
        let single = one_by_one(model, &examples);
        let squares: Vec<Tensor> = single.iter().map(Tensor::square).collect();
        for (mode, parts) in [(GradAccMode::Mean, &single), (GradAccMode::MeanSquared, &squares)] {
            let expected = Tensor::stack(parts, 0).mean_dim([0_i64].as_slice(), false, Kind::Float);
            // There are four images, however many are asked for.
            for images in [4, 9] {
                let got = collected(model, &examples, mode, images);
                let gap = largest(&(&got - &expected)) / largest(&expected);
                assert!(gap < 1e-5, "{name} {mode:?} {images}: {gap}");
                for (block, part) in got.chunk(3, 0).iter().zip(["query", "key", "value"]) {
                    let share = largest(block) / largest(&expected);
                    assert!(share > 1e-6, "{name} {mode:?} {part}: {share}");
                }
            }
        }
    }
}
