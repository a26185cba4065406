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
fn the_digest_is_that_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abc");
    fs_err::write(&path, "abc").unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(file_sha256(&path).unwrap(), expected);
}

#[test]
fn code_is_named_and_never_run() {
    for (name, class) in [
        ("runs_code.pth", "`posix.system`"),
        ("runs_code_legacy.pth", "`posix.system`"),
        ("torchscript.pt", "`__torch__."),
    ] {
        let error = refusal(&golden(name));
        assert!(error.contains(class) && error.contains(name), "{error}");
        assert!(error.contains("import torch, safetensors.torch"), "{error}");
    }
}

#[test]
fn a_pickled_module_is_read_as_its_state() {
    let checkpoint = Checkpoint::open(golden("whole_module.pth")).unwrap();
    let shapes = Shapes::from([("fc.bias".to_owned(), vec![2]), ("fc.weight".to_owned(), vec![2, 2])]);
    assert_eq!(checkpoint.shapes(), &shapes);
    assert!(refusal(&golden("whole_module.pth")).contains("nearest is `resnet`"));
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
    assert!(with("empty.pth", b"").contains("neither"));
    assert!(with("text.pth", b"not a checkpoint at all").contains("neither"));
    assert!(with("empty.safetensors", b"").contains("damaged"));
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
fn keys_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&changed(folder.path(), |t| {
        let value = t.remove("layer1.0.bn1.weight").unwrap();
        t.insert("layer1.0.bn1.wieght".to_owned(), value);
    }));
    assert!(error.contains("`layer1.0.bn1.weight` is missing"), "{error}");
    assert!(error.contains("nearest: `layer1.0.bn1.wieght`"), "{error}");
    let error = refusal(&changed(folder.path(), |t| {
        t.insert("layer1.0.se.weight".to_owned(), (vec![1], vec![0.0]));
    }));
    assert!(error.contains("`layer1.0.se.weight` belongs to no layer"), "{error}");
    let error = refusal(&changed(folder.path(), |t| t.get_mut("fc.bias").unwrap().0 = vec![3, 1]));
    assert!(error.contains("`fc.bias` has shape [3, 1], expected [3]"), "{error}");
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
