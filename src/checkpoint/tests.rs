mod saved;
mod strangers;

use std::path::PathBuf;

use half::{bf16, f16};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const IMAGE: [usize; 2] = [32, 32];

/// A file that torch wrote; `tests/golden/make_checkpoints.py` says how.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn reference() -> Pretrained {
    load_model(golden("resnet.safetensors"), IMAGE).unwrap()
}

fn labels() -> Vec<String> {
    ["ant", "bee", "cat"].map(str::to_owned).into()
}

/// The error and its cause in one line.
fn refusal(path: &Path) -> String {
    let error = load_model(path, IMAGE).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

/// Writes a safetensors file whose tensors are those of the reference, changed.
fn changed(folder: &Path, change: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> PathBuf {
    let tensors = reference().params.into_iter();
    let mut tensors: BTreeMap<_, _> =
        tensors.map(|(key, v)| (key, (v.shape().to_vec(), v.into_iter().collect()))).collect();
    change(&mut tensors);
    let path = folder.join("changed.safetensors");
    fs_err::write(&path, safetensors_bytes(&tensors)).unwrap();
    path
}

fn safetensors_bytes(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (key, (shape, values)) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(key.clone(), entry);
    }
    let json = serde_json::to_vec(&header).unwrap();
    [(json.len() as u64).to_le_bytes().as_slice(), &json, &data].concat()
}

#[test]
fn every_container_gives_the_same_network() {
    let reference = reference();
    assert_eq!((reference.graph.architecture.as_str(), reference.graph.classes()), ("resnet18", 3));
    assert_eq!(reference.labels, Some(labels()));
    let halves: [fn(f32) -> f32; 3] = [|v| v, |v| f16::from_f32(v).to_f32(), |v| bf16::from_f32(v).to_f32()];
    let [same, half, brain] = halves;
    let table = [
        ("zip.pth", Dtype::F32, None, same),
        ("legacy.pth", Dtype::F32, None, same),
        ("wrapped_f16.pth", Dtype::F16, Some(labels()), half),
        ("model_bf16.pth", Dtype::Bf16, None, brain),
    ];
    for (name, dtype, labels, round) in table {
        let read = load_model(golden(name), IMAGE).unwrap();
        assert_eq!((read.dtype, &read.labels), (dtype, &labels), "{name}");
        assert_eq!(read.graph, reference.graph, "{name}");
        assert_eq!(read.params.len(), reference.params.len(), "{name}");
        for (key, value) in reference.params.iter() {
            assert_eq!(read.params.get(key).unwrap(), value.mapv(round), "{name}: {key}");
        }
    }
}

#[test]
fn the_digest_is_that_of_the_files_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for parts in [vec!["abc"], vec!["a", "bc"]] {
        let path = |i: usize| folder.path().join(format!("part-{i}"));
        for (i, part) in parts.iter().enumerate() {
            fs_err::write(path(i), part).unwrap();
        }
        let weights = (0..parts.len()).map(path).collect();
        let source = Source { weights, index: None, config: None, preprocessor: None };
        assert_eq!(source.sha256().unwrap(), expected);
    }
}

/// A repository with the reference network in two shards, and what else `files` says.
fn repository(files: &[(&str, serde_json::Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensors = reference().params.into_iter();
    let tensors = tensors.map(|(key, v)| (key, (v.shape().to_vec(), v.into_iter().collect::<Vec<f32>>())));
    let (mut shards, mut map) = ([BTreeMap::new(), BTreeMap::new()], serde_json::Map::new());
    for (i, (key, tensor)) in tensors.enumerate() {
        map.insert(key.clone(), format!("model-0000{}-of-00002.safetensors", 1 + i % 2).into());
        shards[i % 2].insert(key, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        let path = folder.path().join(format!("model-0000{}-of-00002.safetensors", 1 + i));
        fs_err::write(path, safetensors_bytes(shard)).unwrap();
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs_err::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    for (name, value) in files {
        fs_err::write(folder.path().join(name), value.to_string()).unwrap();
    }
    folder
}

#[test]
fn folders_and_indices_give_the_network_of_their_shards() {
    let folder = repository(&[]);
    for path in [folder.path().to_owned(), folder.path().join("model.safetensors.index.json")] {
        let read = load_model(&path, IMAGE).unwrap();
        assert_eq!((read.params, read.labels), (reference().params, None));
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let joined: Vec<u8> =
            shards.iter().flat_map(|name| fs_err::read(folder.path().join(name)).unwrap()).collect();
        let whole = folder.path().join("joined");
        fs_err::write(&whole, joined).unwrap();
        let one = Source { weights: vec![whole], index: None, config: None, preprocessor: None };
        assert_eq!(read.sha256, one.sha256().unwrap());
    }
}

#[test]
fn shards_that_are_missing_damaged_or_elsewhere() {
    let folder = repository(&[]);
    let shard = folder.path().join("model-00002-of-00002.safetensors");
    let bytes = fs_err::read(&shard).unwrap();
    fs_err::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("model-00002") && error.contains("damaged"), "{error}");
    fs_err::write(&shard, safetensors_bytes(&BTreeMap::new())).unwrap();
    let error = refusal(folder.path());
    assert!(
        error.contains("model-00002") && error.contains("which") && error.contains("promises"),
        "{error}"
    );
    fs_err::remove_file(&shard).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("model-00002-of-00002.safetensors") && error.contains("1 of the 2"), "{error}");

    let index = folder.path().join("model.safetensors.index.json");
    for (text, reason) in [
        (json!({"weight_map": {"a": "../model.safetensors"}}).to_string(), "`../model.safetensors`"),
        (json!({"weight_map": {"a": "/etc/passwd"}}).to_string(), "`/etc/passwd`"),
        (json!({"weight_map": {"a": "..\\model"}}).to_string(), "name of a file"),
        (json!({"weight_map": {"a": 3}}).to_string(), "names of files"),
        (json!({"weight_map": {}}).to_string(), "0 shards"),
        (json!({}).to_string(), "`weight_map`"),
        ("{".to_owned(), "not a usable configuration"),
        ("version https://git-lfs.github.com/spec/v1".to_owned(), "git lfs pull"),
    ] {
        fs_err::write(&index, text).unwrap();
        let error = refusal(folder.path());
        assert!(error.contains(reason) && error.contains("index.json"), "{reason}: {error}");
    }
}

#[test]
fn folders_without_weights_and_with_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    assert!(refusal(folder.path()).contains("holds no .safetensors"));
    fs_err::write(file("tf_model.h5"), "x").unwrap();
    assert!(refusal(folder.path()).contains("`tf_model.h5` of another framework"));
    fs_err::copy(golden("zip.pth"), file("best.pth")).unwrap();
    assert_eq!(load_model(folder.path(), IMAGE).unwrap().params.len(), reference().params.len());
    fs_err::copy(golden("zip.pth"), file("last.pth")).unwrap();
    assert!(refusal(folder.path()).contains("`best.pth`, `last.pth`"));
    fs_err::copy(golden("zip.pth"), file("pytorch_model.bin")).unwrap();
    assert!(load_model(folder.path(), IMAGE).is_ok());
}

#[test]
fn configurations_name_classes_and_preprocessing() {
    let names = json!({"0": "ant", "1": "bee", "2": "cat"});
    let processor = json!({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224},
                           "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]});
    let folder = repository(&[
        ("config.json", json!({"model_type": "resnet", "id2label": names})),
        ("preprocessor_config.json", processor),
    ]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let known = checkpoint.preprocess().unwrap();
    assert_eq!(known.file, "preprocessor_config.json");
    assert_eq!(known.spec, preprocess::find("hf-convnext").unwrap().spec);
    assert_eq!(checkpoint.into_model(IMAGE).unwrap().labels, Some(labels()));

    let cfg = json!({"input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic"});
    let config = json!({"architecture": "resnet18", "label_names": ["ant", "bee"], "pretrained_cfg": cfg});
    let folder = repository(&[("config.json", config)]);
    let mut checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.preprocess().unwrap().spec, preprocess::find("timm-bicubic").unwrap().spec);
    let error = refusal(folder.path());
    assert!(error.contains("config.json") && error.contains("2 class names for 3 classes"), "{error}");
    checkpoint.forget_labels();
    assert_eq!(checkpoint.into_model(IMAGE).unwrap().labels, None);

    // A broken configuration is a defect of a repository, and nothing beside a lone file.
    let folder = repository(&[]);
    fs_err::write(folder.path().join("config.json"), "{ // settings\n}").unwrap();
    assert!(refusal(folder.path()).contains("config.json: not a usable configuration"));
    fs_err::copy(golden("zip.pth"), folder.path().join("zip.pth")).unwrap();
    assert!(load_model(folder.path().join("zip.pth"), IMAGE).is_ok());

    // The configuration of something else that lies there says nothing.
    let folder = repository(&[("config.json", json!({"editor": "vim", "labels": ["a"]}))]);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().config_file(), None);
    assert_eq!(load_model(folder.path(), IMAGE).unwrap().labels, None);
}

#[test]
fn what_margay_wrote_wins_over_the_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let Pretrained { graph, params, names, .. } = reference();
    let spec = preprocess::find("zamba").unwrap().spec.clone();
    write_safetensors(&path, &graph, &params, &names, &labels(), Some(&spec)).unwrap();
    let config = json!({"architecture": "resnet18", "label_names": ["x", "y", "z"],
                        "pretrained_cfg": {"input_size": [3, 64, 64]}});
    fs_err::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.preprocess().unwrap().spec, spec);
    assert_eq!(checkpoint.into_model(IMAGE).unwrap().labels, Some(labels()));
}

#[test]
fn code_is_named_and_never_run() {
    for (name, class) in [("runs_code.pth", "`posix.system`"), ("runs_code_legacy.pth", "`posix.system`")] {
        let error = refusal(&golden(name));
        assert!(error.contains(class) && error.contains(name), "{error}");
        assert!(!error.contains("import torch") && error.contains("nothing of it was run"), "{error}");
    }
    let error = refusal(&golden("torchscript.pt"));
    assert!(error.contains("TorchScript") && error.contains("torch.jit.load(\""), "{error}");
}

#[test]
fn strangers_are_told_apart_by_their_tensors() {
    let folder = tempfile::tempdir().unwrap();
    for (key, what) in [
        ("rpn.head.cls_logits.weight", "detection model"),
        ("text_model.embeddings.token_embedding.weight", "text tower"),
        ("base_model.model.fc.lora_A.weight", "merge_and_unload"),
    ] {
        let error = refusal(&changed(folder.path(), |t| {
            t.insert(key.to_owned(), (vec![1], vec![0.0]));
        }));
        assert!(error.contains(what) && error.contains("changed.safetensors"), "{error}");
    }
    let error = refusal(&changed(folder.path(), |t| {
        *t = BTreeMap::from([("state.0.exp_avg".to_owned(), (vec![1], vec![0.0]))]);
    }));
    assert!(error.contains("optimiser"), "{error}");
    assert!(refusal(&golden("optimizer.pth")).contains("optimiser"));
}

#[test]
fn a_pickled_module_is_read_as_its_state() {
    let checkpoint = Checkpoint::open(golden("whole_module.pth")).unwrap();
    let shapes = Shapes::from([("fc.bias".to_owned(), vec![2]), ("fc.weight".to_owned(), vec![2, 2])]);
    assert_eq!(checkpoint.shapes(), &shapes);
    assert_eq!(checkpoint.module(), Some("__main__.Custom"));
    assert!(
        refusal(&golden("whole_module.pth")).contains("no known architecture has keys such as `fc.bias`")
    );
}

#[test]
fn files_that_are_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains(name), "{error}");
        error
    };
    assert!(with("empty.pth", b"").contains("empty file"));
    assert!(with("pointer.bin", b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(with("page.pth", b"<!DOCTYPE html><html></html>").contains("web page"));
    assert!(with("keras.pth", b"\x89HDF\r\n\x1a\n").contains("HDF5"));
    assert!(with("model.pt", b"\x08\x08\x12\x07pytorch").contains("ONNX"));
    assert!(with("config.json", b"{\"model_type\": \"vit\"}").contains("folder that holds both"));
    assert!(with("text.pth", b"not a checkpoint at all").contains("neither"));
    assert!(with("short.safetensors", b"\x08\0\0").contains("damaged: it ends after 3 bytes"));
    assert!(with("none.safetensors", &safetensors_bytes(&BTreeMap::new())).contains("no tensor"));
    assert!(refusal(&golden("big_endian.pth")).contains("ig-endian"));
    assert!(refusal(&golden("expanded.pth")).contains("claim 1073741824 bytes, the file has"));
    assert!(refusal(&folder.path().join("absent.pth")).contains("absent.pth"));
}

#[test]
fn truncated_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["zip.pth", "legacy.pth", "resnet.safetensors"] {
        let bytes = fs_err::read(golden(name)).unwrap();
        for percent in [1, 10, 50, 90, 99] {
            let path = folder.path().join(name);
            fs_err::write(&path, &bytes[..bytes.len() * percent / 100]).unwrap();
            assert!(load_model(&path, IMAGE).is_err(), "{percent} % of {name}");
        }
    }
}

#[test]
fn a_backbone_without_its_classifier_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed(folder.path(), |t| t.retain(|key, _| !key.starts_with("fc.")));
    let model = load_model(&path, IMAGE).unwrap();
    assert_eq!(model.graph.classes(), 0);
    let weight = model.params.get("fc.weight").unwrap();
    assert_eq!((weight.shape()[0], weight.len()), (0, 0));
    assert_eq!(model.params.get("conv1.weight").unwrap(), reference().params.get("conv1.weight").unwrap());
}

#[test]
fn keys_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&changed(folder.path(), |t| {
        let value = t.remove("layer1.0.bn1.weight").unwrap();
        t.insert("layer1.0.bn1.wieght".to_owned(), value);
    }));
    assert!(error.contains("`layer1.0.bn1.weight` is missing"), "{error}");
    assert!(error.contains("nearest: `layer1.0.bn1.wieght`"), "{error}");
    let error = refusal(&changed(folder.path(), |t| {
        t.insert("layer1.0.extra.weight".to_owned(), (vec![1], vec![0.0]));
    }));
    assert!(error.contains("`layer1.0.extra.weight` belongs to no layer"), "{error}");
    let error = refusal(&changed(folder.path(), |t| t.get_mut("fc.bias").unwrap().0 = vec![3, 1]));
    assert!(error.contains("`fc.bias` has shape [3, 1], expected [3]"), "{error}");
    let error = refusal(&changed(folder.path(), |t| {
        t.get_mut("layer3.0.downsample.0.weight").unwrap().0 = vec![2, 4, 1, 1];
    }));
    assert!(
        error.contains("`layer3.0.downsample.0.weight` has shape [2, 4, 1, 1], expected [4, 2, 1, 1]"),
        "{error}"
    );
    let error = refusal(&changed(folder.path(), |t| t.get_mut("fc.bias").unwrap().1[1] = f32::NAN));
    assert!(error.contains("`fc.bias` holds 1 values"), "{error}");
    let error = refusal(&changed(folder.path(), |t| t.get_mut("bn1.running_var").unwrap().1[0] = -0.5));
    assert!(error.contains("`bn1.running_var` holds a negative variance"), "{error}");
}

#[test]
fn wrapped_keys_are_named_as_they_stand_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&changed(folder.path(), |t| {
        *t = std::mem::take(t).into_iter().map(|(key, value)| (format!("module.{key}"), value)).collect();
        t.get_mut("module.bn1.bias").unwrap().1[0] = f32::INFINITY;
    }));
    assert!(error.contains("`module.bn1.bias` holds 1 values"), "{error}");
}

#[test]
fn labels_must_fit_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.safetensors");
    let Pretrained { graph, params, names, .. } = reference();
    write_safetensors(&path, &graph, &params, &names, &labels()[..2], None).unwrap();
    assert!(refusal(&path).contains("2 class names for 3 classes"));
}

#[test]
fn written_weights_read_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["a.safetensors", "b.safetensors"].map(|name| folder.path().join(name));
    let Pretrained { graph, params, names, labels, .. } = reference();
    let labels = labels.unwrap();
    write_safetensors(&first, &graph, &params, &names, &labels, None).unwrap();
    let again = load_model(&first, IMAGE).unwrap();
    assert_eq!((&again.params, again.labels.as_ref()), (&params, Some(&labels)));
    write_safetensors(&second, &graph, &params, &names, &labels, None).unwrap();
    assert_eq!(fs_err::read(&first).unwrap(), fs_err::read(&second).unwrap());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 2);

    let mut incomplete = params;
    incomplete.remove("fc.bias");
    let third = folder.path().join("c.safetensors");
    assert!(write_safetensors(&third, &graph, &incomplete, &names, &labels, None).is_err());
    assert!(!third.exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(
        file in 0_usize..4,
        changes in prop::collection::vec((any::<u32>(), any::<u8>()), 1..5),
    ) {
        let name = ["legacy.pth", "zip.pth", "whole_module.pth", "resnet.safetensors"][file];
        let mut bytes = fs_err::read(golden(name)).unwrap();
        for (at, value) in changes {
            // Most of the structure is in the first and in the last kilobytes.
            let length = bytes.len();
            let window = length.min(6000);
            let at = at as usize % (2 * window);
            bytes[if at < window { at } else { length + at - 2 * window }] = value;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        if let Ok(read) = load_model(&path, IMAGE) {
            prop_assert!(read.params.check(&read.graph).is_ok());
        }
    }
}

#[test]
fn networks_built_here_are_written_under_timms_names() {
    let folder = tempfile::tempdir().unwrap();
    let variant = "vit_tiny_patch8".to_owned();
    let design = models::Design { variant, width: Some(64), depth: Some(1), classes: 2, image: [32, 32] };
    let graph = models::build(&design).unwrap();
    let names = models::timm_names(&design, &graph).unwrap();
    let values = |shape: Vec<usize>| ArrayD::from_elem(shape, 0.5_f32);
    let params: Params = graph.params().map(|spec| (spec.name, values(spec.shape))).collect();
    let path = folder.path().join("vit.safetensors");
    write_safetensors(&path, &graph, &params, &names, &[], None).unwrap();
    let stored = fs_err::read(&path).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&stored).unwrap();
    assert_eq!(stored.tensor("cls_token").unwrap().shape(), [1, 1, 64]);
    assert_eq!(stored.tensor("pos_embed").unwrap().shape(), [1, 17, 64]);
    let read = load_model(&path, [32, 32]).unwrap();
    assert_eq!((read.graph, read.library), (graph, "timm"));
}
