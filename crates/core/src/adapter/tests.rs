use ndarray::{Array2, arr2};

use super::file::Modules;
use super::*;
use crate::{GraphBuilder, Linear, Op, Params, Pattern, Preprocess, Provenance, Role, Shape};

/// A linear layer of 3 × 4 with a support of 6, and a head.
fn base() -> SparseModel {
    let (mut builder, image) = GraphBuilder::new("test", Shape::map(3, 1, 1));
    let pool = builder.push("pool", Op::GlobalAvgPool, &[image]);
    let stem = Linear { in_features: 3, out_features: 4, bias: false };
    let pool = builder.push("stem", Op::Linear(stem), &[pool]);
    let layer = Linear { in_features: 4, out_features: 3, bias: false };
    builder.role(Role::Body);
    let fc = builder.push("fc", Op::Linear(layer), &[pool]);
    builder.role(Role::Head);
    builder.push("head", Op::Linear(Linear { in_features: 3, out_features: 2, bias: true }), &[fc]);
    let graph = builder.finish().unwrap();
    let ramp = |shape: Vec<usize>| {
        let count: usize = shape.iter().product();
        ArrayD::from_shape_vec(shape, (0..count).map(|i| 1.0 + i as f32).collect()).unwrap()
    };
    let params: Params = graph.params().map(|spec| (spec.name, ramp(spec.shape))).collect();
    let masks = BTreeMap::from([("fc.weight".to_owned(), Mask::from_fn(12, |i| i % 2 == 0))]);
    let labels = vec!["a".to_owned(), "b".to_owned()];
    let preprocess = Preprocess::squash(1);
    SparseModel::pack(graph, &params, &masks, labels, preprocess, Provenance::default()).unwrap()
}

fn adapter() -> Adapter {
    let b = arr2(&[[1.0], [0.0], [-2.0]]);
    let a = arr2(&[[0.5, 0.25, 1.0, 2.0]]);
    let change =
        Change { factors: Some([b, a]), entries: Some((vec![2, 4], vec![10.0, 20.0])), ..Change::default() };
    Adapter {
        method: "rosa".into(),
        base: base().fingerprint().unwrap(),
        labels: vec!["c".into(), "d".into(), "e".into()],
        layers: BTreeMap::from([("fc.weight".into(), change)]),
        params: BTreeMap::from([
            ("head.weight".into(), ArrayD::ones(vec![3, 3])),
            ("head.bias".into(), ArrayD::zeros(vec![3])),
        ]),
    }
}

fn csr(model: &SparseModel) -> &Csr {
    match &model.weights["fc.weight"] {
        Weight::Csr(csr) => csr,
        Weight::Dense(_) => panic!("the layer is sparse"),
    }
}

#[test]
fn changes_the_support_only_and_replaces_the_head() {
    let (base, adapter) = (base(), adapter());
    let adapted = adapter.apply(&base).unwrap();
    assert_eq!(csr(&adapted).mask(), csr(&base).mask());
    // Rows 1 2 3 4 / 5 6 7 8 / 9 10 11 12 at even positions, plus the product and the two entries.
    assert_eq!(csr(&adapted).values(), [1.5, 14.0, 25.0, 7.0, 8.0, 9.0]);
    assert_eq!(adapted.labels, ["c", "d", "e"]);
    assert_eq!(adapted.graph.classes(), 3);
    adapted.to_bytes().expect("the adapted model is sound");
}

#[test]
fn a_support_that_stays_keeps_its_pattern() {
    let patterns = BTreeMap::from([("fc.weight".to_owned(), Pattern::NM { n: 1, m: 2 })]);
    let base = base().with_patterns(&patterns).unwrap();
    let mut adapter = Adapter { base: base.fingerprint().unwrap(), ..adapter() };
    assert_eq!(adapter.apply(&base).unwrap().patterns(), patterns);
    let change = adapter.layers.get_mut("fc.weight").unwrap();
    change.branch = true;
    assert_eq!(adapter.apply(&base).unwrap().patterns(), patterns);
    let change = adapter.layers.get_mut("fc.weight").unwrap();
    (change.branch, change.entries, change.dropped) = (false, Some((vec![1], vec![10.0])), vec![0]);
    assert!(adapter.apply(&base).unwrap().patterns().is_empty());
}

#[test]
fn a_grown_support_keeps_its_count() {
    let mut adapter = adapter();
    let change = adapter.layers.get_mut("fc.weight").unwrap();
    change.entries = Some((vec![1], vec![10.0]));
    change.dropped = vec![0];
    let adapted = adapter.apply(&base()).unwrap();
    assert_eq!(csr(&adapted).nnz(), 6);
    let kept: Vec<bool> = csr(&adapted).mask().iter().collect();
    assert_eq!(kept[..4], [false, true, true, false]);
    assert_eq!(csr(&adapted).values()[0], 10.25, "the base has nothing there, product and entry do");
}

#[test]
fn a_branch_leaves_the_weight_alone() {
    let mut adapter = adapter();
    let change = adapter.layers.get_mut("fc.weight").unwrap();
    change.branch = true;
    change.entries = None;
    let (base, adapted) = (base(), adapter.apply(&base()).unwrap());
    assert_eq!(csr(&adapted), csr(&base));
    assert!(adapted.weights.contains_key("fc.lora_A.weight"));
}

#[test]
fn folders_are_read_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut written = adapter();
    written.layers.get_mut("fc.weight").unwrap().dropped = vec![0];
    written.layers.get_mut("fc.weight").unwrap().branch = true;
    written.write(folder.path(), &base().graph, &Modules::new()).unwrap();
    assert_eq!(Adapter::read(folder.path()).unwrap(), written);
    // Queries, keys and values of one weight, apart in the checkpoint.
    let apart = Modules::from([("fc.weight".into(), ["q", "k", "v"].map(|m| (m.to_owned(), 1)).into())]);
    written.write(folder.path(), &base().graph, &apart).unwrap();
    assert_eq!(Adapter::read(folder.path()).unwrap(), written);
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |change: &dyn Fn(&mut Adapter)| {
        let mut adapter = adapter();
        change(&mut adapter);
        adapter.apply(&base()).unwrap_err().to_string()
    };
    assert!(refused(&|a| a.base = "0".repeat(64)).contains("another model"));
    assert!(refused(&|a| a.base = String::new()).contains("trained on a checkpoint"));
    assert!(refused(&|a| drop(a.params.insert("x".into(), ArrayD::zeros(vec![1])))).contains("`x`"));
    let layer = |a: &mut Adapter| a.layers.get_mut("fc.weight").unwrap().clone();
    let with = |a: &mut Adapter, change: Change| drop(a.layers.insert("fc.weight".into(), change));
    for entries in [(vec![99], vec![1.0]), (vec![2, 2], vec![1.0, 1.0]), (vec![2], vec![])] {
        let text = refused(&|a| {
            let change = Change { entries: Some(entries.clone()), ..layer(a) };
            with(a, change);
        });
        assert!(text.contains("fc.weight"), "{text}");
    }
    let text = refused(&|a| {
        let change = Change { factors: Some([Array2::zeros([3, 1]), Array2::zeros([1, 5])]), ..layer(a) };
        with(a, change);
    });
    assert!(text.contains("fc.weight"), "{text}");
    let text = refused(&|a| {
        let change =
            Change { factors: Some([Array2::zeros([3, 1025]), Array2::zeros([1025, 4])]), ..layer(a) };
        with(a, change);
    });
    assert!(text.contains("rank 1025; at most 1024"), "{text}");
    // A sum that leaves single precision, and a head that does not fit its labels.
    let text = refused(&|a| {
        let change = Change { entries: Some((vec![2], vec![f32::MAX])), ..layer(a) };
        let factors = Some([Array2::from_elem([3, 1], 1e20), Array2::from_elem([1, 4], 1e19)]);
        with(a, Change { factors, ..change });
    });
    assert!(text.contains("`fc.weight` holds"), "{text}");
    let text = refused(&|a| drop(a.params.insert("head.weight".into(), ArrayD::ones(vec![5, 3]))));
    assert!(text.contains("`head.weight` has shape [5, 3], expected [3, 3]"), "{text}");
    let peft = tempfile::tempdir().unwrap();
    fs_err::write(peft.path().join(file::PEFT), b"").unwrap();
    assert!(matches!(Adapter::read(peft.path()), Err(AdapterError::Foreign { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(Adapter::read(empty.path()).unwrap_err().to_string().contains(file::MARGAY));
    fs_err::write(empty.path().join(file::MARGAY), b"junk").unwrap();
    assert!(Adapter::read(empty.path()).is_err());
}
