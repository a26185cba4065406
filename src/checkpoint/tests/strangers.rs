//! Checkpoints as people have them: around, beside and in place of a plain state dict.

use super::saved::{Array, Py, archive, dict, state, zipped};
use super::*;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn net() -> Tensors {
    reference()
        .params
        .into_iter()
        .map(|(key, v)| (key, (v.shape().to_vec(), v.into_iter().collect())))
        .collect()
}

/// The network without its classifier under a prefix.
fn body(prefix: &str) -> Tensors {
    under(prefix, net().into_iter().filter(|(key, _)| !key.starts_with("fc.")))
}

fn under(prefix: &str, tensors: impl IntoIterator<Item = (String, (Vec<usize>, Vec<f32>))>) -> Tensors {
    tensors.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)).collect()
}

/// Features of the body.
const WIDTH: usize = 8;

/// A linear layer of twos.
fn linear(name: &str, rows: usize, columns: usize) -> Tensors {
    let weight = (vec![rows, columns], vec![2.0; rows * columns]);
    Tensors::from([
        (format!("{name}.weight"), weight),
        (format!("{name}.bias"), (vec![rows], vec![0.5; rows])),
    ])
}

fn joined<const N: usize>(parts: [Tensors; N]) -> Py {
    Py::Dict(state(&parts.into_iter().flatten().collect()))
}

fn written(folder: &Path, name: &str, root: &Py) -> PathBuf {
    let path = folder.join(name);
    fs_err::write(&path, archive(name.split('.').next().unwrap(), root)).unwrap();
    path
}

/// What a file is read as: what is taken off, the classifier, the number of classes, all notes.
struct Seen {
    prefix: String,
    head: Option<String>,
    notes: String,
    model: Pretrained,
}

fn seen(root: &Py) -> Seen {
    seen_with(root, None).unwrap()
}

fn seen_with(root: &Py, head: Option<&str>) -> Result<Seen, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open_with(written(folder.path(), "model.pth", root), head)?;
    let notes = checkpoint.notes().into_iter().map(|note| note.text).collect::<Vec<_>>().join("; ");
    let (prefix, head) = (checkpoint.prefix().to_owned(), checkpoint.head().map(str::to_owned));
    Ok(Seen { prefix, head, notes, model: checkpoint.into_model(IMAGE)? })
}

fn refused(root: &Py) -> String {
    let folder = tempfile::tempdir().unwrap();
    refusal(&written(folder.path(), "model.pth", root))
}

#[test]
fn archives_of_any_name_open() {
    let folder = tempfile::tempdir().unwrap();
    let root = joined([net()]);
    for length in 1..=64 {
        let path = folder.path().join("renamed.pth");
        fs_err::write(&path, archive(&"n".repeat(length), &root)).unwrap();
        let read = load_model(&path, IMAGE);
        assert!(read.is_ok_and(|read| read.params == reference().params), "{length} letters");
    }
    let other = folder.path().join("other.pth");
    fs_err::write(&other, zipped(&[("notes.txt".to_owned(), b"x".to_vec())])).unwrap();
    assert!(refusal(&other).contains("unpack it"));
}

#[test]
fn whatever_is_around_a_network_comes_off() {
    let wrapped = |name, prefix: &str| dict([(name, joined([under(prefix, net())])), ("epoch", Py::Int(3))]);
    let table = [
        (joined([under("cnn.", net())]), "cnn."),
        (joined([under("1.", net())]), "1."),
        (joined([under("model.trunk.", net())]), "model.trunk."),
        (wrapped("weights", ""), "weights."),
        (wrapped("my_state", "net.feature."), "my_state.net.feature."),
        (wrapped("state_dict", "module._orig_mod.model."), "state_dict.model."),
        (dict([("a", dict([("b", joined([net()]))]))]), "a.b."),
        (Py::Tuple(vec![joined([net()]), Py::Int(1)]), "0."),
    ];
    for (root, prefix) in table {
        let seen = seen(&root);
        assert_eq!(seen.prefix, prefix);
        assert_eq!((seen.model.params, seen.head.is_some()), (reference().params, true), "{prefix}");
    }
}

#[test]
fn a_final_linear_layer_of_any_name_is_the_classifier() {
    let table = [
        (joined([body(""), linear("fc.1", 4, WIDTH)]), "fc.1", "fc.1.weight"),
        (joined([body(""), linear("classifier", 4, WIDTH)]), "classifier", "classifier.weight"),
        (
            joined([body("net.feature."), linear("net.classifier", 4, WIDTH)]),
            "net.classifier",
            "classifier.weight",
        ),
        (joined([body("0."), linear("1", 4, WIDTH)]), "1", "1.weight"),
        (joined([body("backbone."), linear("head.fc", 4, WIDTH)]), "head.fc", "head.fc.weight"),
        (
            dict([("backbone", joined([body("")])), ("head", joined([linear("out", 4, WIDTH)]))]),
            "out",
            "head.out.weight",
        ),
        (
            joined([under("net.feature.", net()), linear("net.classifier", 4, WIDTH)]),
            "net.classifier",
            "classifier.weight",
        ),
        (
            joined([body("encoder."), linear("projector.0", 3, WIDTH), linear("fc", 4, WIDTH)]),
            "fc",
            "fc.weight",
        ),
    ];
    for (root, head, key) in table {
        let seen = seen(&root);
        assert_eq!(seen.head.as_deref(), Some(head));
        assert_eq!(seen.model.graph.classes(), 4, "{head}");
        assert!(seen.model.params.get("fc.weight").unwrap().iter().all(|w| *w == 2.0), "{head}");
        assert_eq!(seen.model.names.key("fc.weight"), key);
        assert_eq!(
            seen.model.params.get("conv1.weight").unwrap(),
            reference().params.get("conv1.weight").unwrap()
        );
    }
}

#[test]
fn heads_that_are_several_or_none() {
    let two = joined([body(""), linear("head_a", 4, WIDTH), linear("head_b", 5, WIDTH)]);
    let error = refused(&two);
    assert!(error.contains("`head_a` (4 classes), `head_b` (5 classes); pass --head"), "{error}");
    assert_eq!(seen_with(&two, Some("head_b")).unwrap().model.graph.classes(), 5);
    assert_eq!(seen_with(&two, Some("none")).unwrap().model.graph.classes(), 0);
    assert!(seen_with(&two, Some("fc")).is_err_and(|e| e.to_string().contains("`fc` is no layer")));
    let names = Py::Tuple(["a", "b", "c", "d"].map(Py::Text).to_vec());
    let told = seen(&dict([("model", two), ("classes", names)]));
    assert_eq!((told.head.as_deref(), told.model.labels.map(|l| l.len())), (Some("head_a"), Some(4)));

    let perceptron = seen(&joined([body(""), linear("fc.0", 5, WIDTH), linear("fc.3", 4, 5)]));
    assert_eq!((perceptron.head, perceptron.model.graph.classes()), (None, 0));
    assert!(perceptron.notes.contains("`fc` is not one linear layer"), "{}", perceptron.notes);
    let projected = seen(&joined([body("encoder."), linear("projector.0", 5, WIDTH)]));
    assert_eq!(projected.model.graph.classes(), 0);
    assert!(projected.notes.contains("no classifier") && projected.notes.contains("`projector`"));
    let mut bare = linear("fc", 4, WIDTH);
    bare.remove("fc.bias");
    let bare = seen(&joined([body(""), bare]));
    assert!(bare.model.params.get("fc.bias").unwrap().iter().all(|b| *b == 0.0));
    assert!(bare.notes.contains("no bias"), "{}", bare.notes);
}

#[test]
fn what_is_not_of_the_network_is_listed_and_left() {
    let vector = |key: &str| Tensors::from([(key.to_owned(), (vec![3], vec![1.0; 3]))]);
    let root = dict([
        (
            "state_dict",
            joined([
                under("model.", net()),
                vector("criterion.pos_weight"),
                vector("train_acc.tp"),
                vector("mean"),
            ]),
        ),
        ("optimizer", dict([("state", Py::Dict(vec![(Py::Int(0), joined([vector("exp_avg")]))]))])),
    ]);
    let seen = seen(&root);
    assert_eq!(seen.model.params, reference().params);
    for name in ["`criterion.pos_weight`", "`train_acc.tp`", "`mean`", "`exp_avg`"] {
        assert!(seen.notes.contains(name), "{name}: {}", seen.notes);
    }
    // What stands within the body changes what it computes.
    let error = refused(&joined([under("model.", net()), vector("model.layer1.0.gate.weight")]));
    assert!(error.contains("`model.layer1.0.gate.weight` belongs to no layer"), "{error}");
    let mut short = under("net.", net());
    short.remove("net.layer3.0.bn1.bias");
    let error = refused(&joined([short]));
    assert!(error.contains("`net.layer3.0.bn1.bias` is missing"), "{error}");
}

#[test]
fn averaged_weights_come_first() {
    let mut other = net();
    other.get_mut("fc.bias").unwrap().1 = vec![9.0; 3];
    for (averaged, plain) in
        [("state_dict_ema", "state_dict"), ("model_ema", "model"), ("ema", "a"), ("best", "a")]
    {
        let seen = seen(&dict([(plain, joined([other.clone()])), (averaged, joined([net()]))]));
        assert_eq!(seen.model.params, reference().params, "{averaged}");
        assert!(seen.notes.contains(&format!("`{averaged}` of several networks")), "{}", seen.notes);
    }
    // The mean of a student is its teacher; another network is not.
    let same = seen(&dict([("student", joined([other.clone()])), ("teacher", joined([net()]))]));
    assert_eq!(same.prefix, "teacher.");
    let distilled =
        dict([("student", joined([net()])), ("teacher", joined([body(""), linear("fc", 9, WIDTH)]))]);
    assert_eq!(seen(&distilled).prefix, "student.");
}

#[test]
fn parametrised_weights_are_folded() {
    let mut pruned = net();
    let (shape, values) = pruned.remove("layer1.0.conv1.weight").unwrap();
    let zeros = vec![0.0; values.len()];
    pruned.insert("layer1.0.conv1.weight_orig".to_owned(), (shape.clone(), values.clone()));
    pruned.insert("layer1.0.conv1.weight_mask".to_owned(), (shape, zeros));
    let seen = seen(&joined([pruned]));
    assert!(seen.model.params.get("layer1.0.conv1.weight").unwrap().iter().all(|w| *w == 0.0));
    assert!(seen.notes.contains("masks of pruning"), "{}", seen.notes);
}

#[test]
fn inert_values_beside_the_weights_do_not_block() {
    let text = Py::Text;
    let beside = [
        (text("tuple"), Py::Tuple(vec![Py::Int(1), Py::None])),
        (Py::Tuple(vec![Py::Int(1)]), Py::Int(2)),
        (Py::Float(0.5), dict([("x", Py::None)])),
        (Py::None, Py::None),
        (text("easy"), Py::Mapping("easydict.EasyDict", vec![(text("lr"), Py::Float(0.1))])),
        (text("munch"), Py::Mapping("munch.Munch", vec![(text("lr"), Py::Float(0.1))])),
        (text("namespace"), Py::Object("argparse.Namespace", vec![(text("lr"), Py::Float(0.1))])),
        (text("own"), Py::Object("train.Config", vec![(text("lr"), Py::Float(0.1))])),
        (text("when"), Py::Call("datetime.datetime", vec![Py::Bytes(vec![7, 234, 1, 1, 0, 0, 0, 0, 0, 0])])),
        (text("complex"), Py::Call("__builtin__.complex", vec![Py::Float(1.0), Py::Float(2.0)])),
        (text("set"), Py::Call("__builtin__.set", vec![Py::Tuple(vec![Py::Int(1)])])),
        (text("path"), Py::Call("pathlib.PosixPath", vec![text("a"), text("b")])),
        (text("size"), Py::Call("torch.Size", vec![Py::Tuple(vec![Py::Int(1)])])),
        (text("dtype"), Py::Global("torch.float32")),
        (text("device"), Py::Call("torch.device", vec![text("cpu")])),
        (text("function"), Py::Global("torch.nn.functional.relu")),
        (text("builtin"), Py::Global("__builtin__.print")),
        (text("partial"), Py::Call("functools.partial", vec![Py::Global("torch.nn.LayerNorm")])),
        (text("enum"), Py::Call("train.Colour", vec![Py::Int(1)])),
        (text("z"), Py::Tensor(Array { kind: "ComplexFloatStorage", ..Array::f32(&[1], &[0.0, 0.0]) })),
        (text("q"), Py::Tensor(Array { kind: "QInt8Storage", ..Array::f32(&[4], &[0.0]) })),
    ];
    let mut entries = vec![(text("state_dict"), joined([net()]))];
    entries.extend(beside);
    assert_eq!(seen(&Py::Dict(entries)).model.params, reference().params);
}

#[test]
fn what_would_run_code_is_refused_without_a_line_that_runs_it() {
    for name in [
        "os.system",
        "posix.system",
        "subprocess.Popen",
        "__builtin__.eval",
        "builtins.exec",
        "importlib.import_module",
        "runpy.run_path",
    ] {
        let error =
            refused(&dict([("state_dict", joined([net()])), ("x", Py::Call(name, vec![Py::Text("1")]))]));
        assert!(
            error.contains(name) && !error.contains("import torch") && !error.contains("load("),
            "{error}"
        );
        assert!(!error.contains("damaged"), "{error}");
    }
    // A method of a class is no call of its own; one of a module of the system is.
    let attribute = |owner| {
        let method = Py::Call("builtins.getattr", vec![Py::Global(owner), Py::Text("create")]);
        dict([("state_dict", joined([net()])), ("x", method)])
    };
    assert!(seen_with(&attribute("fastai.vision.core.PILImage"), None).is_ok());
    assert!(refused(&attribute("os.path")).contains("would call"));
}

#[test]
fn arrays_of_numpy_are_weights_too() {
    let dtype = Py::Call("numpy.dtype", vec![Py::Text("f4"), Py::Int(0), Py::Int(1)]);
    let array = |(key, (shape, values)): (String, (Vec<usize>, Vec<f32>))| {
        let shape = Py::Tuple(shape.iter().map(|n| Py::Int(*n as i64)).collect());
        let bytes = Py::Bytes(values.iter().flat_map(|v| v.to_le_bytes()).collect());
        let arguments = vec![bytes, dtype.clone(), shape, Py::Text("C")];
        (Py::Key(key), Py::Call("numpy.core.numeric._frombuffer", arguments))
    };
    let root = dict([("model", Py::Dict(net().into_iter().map(array).collect()))]);
    assert_eq!(seen(&root).model.params, reference().params);
}

#[test]
fn other_families_are_named_and_never_by_chance() {
    let stack: Tensors =
        (0..12).map(|i| (format!("stack.{i}.weight"), (vec![1, 3, 3, 3], vec![1.0; 27]))).collect();
    let error = refused(&joined([stack]));
    assert!(!error.contains("nearest") && error.contains("`stack."), "{error}");
    let vgg = [0, 2, 5, 7, 10].map(|i| (format!("model.features.{i}.weight"), (vec![1, 1, 1, 1], vec![1.0])));
    let error = refused(&joined([vgg.into_iter().collect(), linear("model.classifier.6", 2, 2)]));
    assert!(error.contains("a VGG or AlexNet"), "{error}");
}

#[test]
fn names_and_classifier_of_a_wrapper_go_together() {
    let names = Py::Dict((0..4).map(|i| (Py::Int(i), Py::Key(format!("animal {i}")))).collect());
    let root = dict([
        ("state_dict", joined([under("net.feature.", net()), linear("net.classifier", 4, WIDTH)])),
        ("hyper_parameters", dict([("id_to_labels", names)])),
    ]);
    let seen = seen(&root);
    assert_eq!(seen.model.labels.unwrap()[3], "animal 3");
    assert!(
        seen.notes.contains("the classifier is `net.classifier`, not `net.feature.fc`"),
        "{}",
        seen.notes
    );
}
