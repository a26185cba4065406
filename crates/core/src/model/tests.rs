use proptest::prelude::*;
use serde_json::{Value, json};

use super::index::{self, Claim};
use super::*;
use crate::{BatchNorm, Conv2d, GraphBuilder, LimitError, Limits, Linear, Op, Role, Shape};

/// A convolution with bias whose weight is sparse, a mean, and a dense head of two classes.
fn small(channels: usize, kept: impl Fn(usize) -> bool) -> SparseModel {
    let (mut builder, image) = GraphBuilder::new("small", Shape::map(3, 4, 5));
    let geometry = Conv2d {
        in_channels: 3,
        out_channels: channels,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        groups: 1,
        bias: true,
    };
    builder.role(Role::Body);
    let conv = builder.push("conv", Op::Conv2d(geometry), &[image]);
    builder.block(conv);
    let pool = builder.push("pool", Op::GlobalAvgPool, &[conv]);
    builder.push("fc", Op::Linear(Linear { in_features: channels, out_features: 2, bias: false }), &[pool]);
    let graph = builder.finish().unwrap();
    let ramp = |shape: Vec<usize>| {
        let n: usize = shape.iter().product();
        ArrayD::from_shape_vec(shape, (0..n).map(|i| i as f32 - 3.5).collect()).unwrap()
    };
    let params: Params = graph.params().map(|spec| (spec.name, ramp(spec.shape))).collect();
    let mask = Mask::from_fn(channels * 27, kept);
    let masks = BTreeMap::from([("conv.weight".to_owned(), mask)]);
    let preprocess = Preprocess { size: [4, 5], ..Preprocess::squash(4) };
    let labels = vec!["ant".to_owned(), "bee".to_owned()];
    SparseModel::pack(graph, &params, &masks, labels, preprocess, Provenance::default()).unwrap()
}

fn model() -> SparseModel {
    small(4, |i| i % 5 == 0)
}

/// Rewrites the header of a sound file, everything else made to fit it again.
fn with_header(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[64..64 + length]).unwrap();
    change(&mut header);
    // Padding with blanks keeps the offsets of the sections.
    let mut json = serde_json::to_vec(&header).unwrap();
    let start = header["tensors"][0]["values"][0].as_u64().map_or(0, |n| n as usize);
    let start = start.clamp(64, 1 << 16).max((64 + length).next_multiple_of(64));
    json.resize(json.len().max(start - 64), b' ');
    let mut changed = bytes[..64].to_vec();
    changed[16..24].copy_from_slice(&(json.len() as u64).to_le_bytes());
    changed.extend_from_slice(&json);
    changed.extend_from_slice(&bytes[(64 + length).next_multiple_of(64)..]);
    sealed(changed)
}

/// Sets length and checksum.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    seal(&mut bytes);
    bytes
}

/// A sound file whose header has room to grow.
fn roomy() -> Vec<u8> {
    let mut model = model();
    model.provenance.recipe = " ".repeat(500);
    model.to_bytes().unwrap()
}

fn error_of(bytes: &[u8]) -> FormatError {
    SparseModel::from_bytes(bytes).unwrap_err()
}

macro_rules! refuses {
    ($bytes:expr, $pattern:pat) => {{
        let error = error_of($bytes);
        assert!(matches!(error, $pattern), "{error:?}");
    }};
}

proptest! {
    #[test]
    fn round_trip(channels in 1_usize..6, seed: u64, dense: bool) {
        let mut model = small(channels, |i| (seed.rotate_left((i % 64) as u32) ^ i as u64).is_multiple_of(4));
        if dense {
            let twin = model.to_params();
            model.weights = twin.into_iter().map(|(name, value)| (name, Weight::Dense(value))).collect();
        }
        let bytes = model.to_bytes().unwrap();
        prop_assert_eq!(SparseModel::from_bytes(&bytes).unwrap(), model);
        for section in sections(&bytes) {
            prop_assert_eq!(section % 64, 0);
        }
    }

    #[test]
    fn no_bytes_panic(changes in prop::collection::vec((0_usize..3000, any::<u8>()), 1..6), seal: bool) {
        let mut bytes = model().to_bytes().unwrap();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let bytes = if seal { sealed(bytes) } else { bytes };
        let _ = SparseModel::from_bytes(&bytes);
    }
}

/// The model with its convolution pruned so that it has a pattern.
fn patterned(channels: usize, pattern: Pattern, seed: u64) -> SparseModel {
    let [rows, cols] = pattern.block();
    let draw = |i: usize| (seed.rotate_left((i % 64) as u32) ^ i as u64).is_multiple_of(3);
    let kept = |i: usize| match pattern {
        Pattern::NM { n, m } => draw(i) && i % 27 % usize::from(m) < usize::from(n),
        _ => draw(i / 27 / rows * 31 + i % 27 / cols),
    };
    let patterns = BTreeMap::from([("conv.weight".to_owned(), pattern)]);
    small(channels, kept).with_patterns(&patterns).unwrap()
}

const PATTERNS: [Pattern; 6] = [
    Pattern::NM { n: 2, m: 4 },
    Pattern::NM { n: 4, m: 8 },
    Pattern::Block { rows: 4, cols: 1 },
    Pattern::Block { rows: 1, cols: 4 },
    Pattern::Block { rows: 3, cols: 5 },
    Pattern::Block { rows: 255, cols: 255 },
];

proptest! {
    #[test]
    fn patterns_come_back(channels in 1_usize..11, seed: u64) {
        for pattern in PATTERNS {
            let model = patterned(channels, pattern, seed);
            let read = SparseModel::from_bytes(&model.to_bytes().unwrap()).unwrap();
            let Weight::Csr(csr) = &read.weights["conv.weight"] else { panic!("the weight is sparse") };
            prop_assert_eq!(csr.pattern(), pattern);
            prop_assert_eq!(&read, &model);
        }
    }

    #[test]
    fn no_bytes_of_a_patterned_file_panic(
        changes in prop::collection::vec((0_usize..3000, any::<u8>()), 1..6), index in 0_usize..6,
    ) {
        let mut bytes = patterned(6, PATTERNS[index], 7).to_bytes().unwrap();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = SparseModel::from_bytes(&sealed(bytes));
    }
}

#[test]
fn a_broken_pattern_is_refused() {
    let broken = BTreeMap::from([("conv.weight".to_owned(), Pattern::NM { n: 1, m: 27 })]);
    let error = model().with_patterns(&broken).unwrap_err();
    assert_eq!(error.to_string(), "tensor `conv.weight`: row 0 is not 1:27");
    let sound = roomy();
    let said = |pattern: Value| {
        with_header(&sound, |header| {
            header["provenance"]["recipe"] = json!("");
            header["tensors"][1]["form"]["csr"]["pattern"] = pattern;
        })
    };
    refuses!(&said(json!({"nm": {"n": 1, "m": 27}})), FormatError::Pattern { .. });
    refuses!(&said(json!({"nm": {"n": 3, "m": 2}})), FormatError::Pattern { .. });
    refuses!(&said(json!({"block": {"rows": 0, "cols": 1}})), FormatError::Pattern { .. });
    refuses!(
        &said(json!({"block": {"rows": 4, "cols": 1}})),
        FormatError::EntryCount { .. } | FormatError::RowCount { .. }
    );
    refuses!(&said(json!({"spiral": {}})), FormatError::Header(_));
    assert!(SparseModel::from_bytes(&said(json!({"nm": {"n": 1, "m": 4}}))).is_ok());
}

#[test]
fn blocks_share_an_index() {
    let scores: Vec<f32> = (0..256 * 512).map(|i| (i * 7919 % 4093) as f32).collect();
    let blocks = Mask::from_fn(scores.len(), |i| scores[i / 512 / 4 * 512 + i % 512] < 204.0);
    let loose = Csr::from_dense(256, 512, &scores, &blocks);
    let tight = loose.clone().with_pattern(Pattern::Block { rows: 4, cols: 1 }).unwrap();
    assert!(4 * index::encode(&tight).bytes.len() <= index::encode(&loose).bytes.len() + 4);
}

fn sections(bytes: &[u8]) -> Vec<u64> {
    let length = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[64..64 + length]).unwrap();
    let tensors = header["tensors"].as_array().unwrap().iter();
    tensors.map(|tensor| tensor["values"][0].as_u64().unwrap()).collect()
}

#[test]
fn every_prefix_is_refused() {
    let bytes = model().to_bytes().unwrap();
    refuses!(&[], FormatError::Magic);
    for end in 1..bytes.len() {
        refuses!(&bytes[..end], FormatError::Truncated { .. });
    }
}

#[test]
fn defects_of_the_preamble() {
    let sound = model().to_bytes().unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = sound.clone();
        bytes[at] = value;
        bytes
    };
    refuses!(&with(0, b'M'), FormatError::Magic);
    refuses!(&with(8, 9), FormatError::Version { expected: 1, got: 9 });
    refuses!(&with(12, 1), FormatError::Reserved);
    refuses!(&with(23, 1), FormatError::HeaderTooLarge { .. });
    refuses!(&with(18, 1), FormatError::Truncated { .. });
    refuses!(&with(40, sound[40] ^ 1), FormatError::Checksum);
    refuses!(&with(sound.len() - 1, sound[sound.len() - 1] ^ 1), FormatError::Checksum);
    let mut longer = sound.clone();
    longer.push(0);
    refuses!(&longer, FormatError::TrailingBytes { count: 1 });
    refuses!(&sealed(longer), FormatError::TrailingBytes { count: 1 });
    refuses!(&sealed(with(64, b'[')), FormatError::Header(_));
}

#[test]
fn defects_of_the_header() {
    let sound = roomy();
    assert_eq!(with_header(&sound, |_| ()).len(), sound.len());
    SparseModel::from_bytes(&with_header(&sound, |_| ())).unwrap();
    let set = |pointer: &str, value: Value| {
        with_header(&sound, |header| {
            header["provenance"]["recipe"] = json!("");
            *header.pointer_mut(pointer).unwrap() = value;
        })
    };
    refuses!(&set("/provenance", json!(null)), FormatError::Header(_));
    refuses!(&set("/labels", json!(["ant"])), FormatError::LabelCount { classes: 2, labels: 1 });
    refuses!(&set("/preprocess/size", json!([5, 4])), FormatError::ImageSize { .. });
    refuses!(&set("/preprocess/normalization/std", json!([1.0, 0.0, 1.0])), FormatError::Preprocess(_));
    refuses!(&set("/preprocess/normalization/std", json!([1.0, 1e-45, 1.0])), FormatError::Preprocess(_));
    refuses!(&set("/preprocess/normalization/mean", json!([0.0, 3e38, 0.0])), FormatError::Preprocess(_));
    refuses!(
        &set("/preprocess/resize", json!({"squash_to": [200_000, 200_000]})),
        FormatError::Preprocess(_)
    );
    refuses!(&set("/preprocess/resize", json!({"short_side": u64::MAX})), FormatError::Preprocess(_));
    refuses!(&set("/graph/blocks", json!([9])), FormatError::Block { index: 9 });
    refuses!(&set("/graph/nodes", json!([])), FormatError::Graph(_));
    refuses!(&set("/graph/nodes/2/inputs", json!([2])), FormatError::Graph(_));
    refuses!(&set("/graph/nodes/1/op/groups", json!(0)), FormatError::Graph(_));
    let huge = json!([u64::MAX, 0]);
    refuses!(&set("/graph/nodes/1/op/padding", huge), FormatError::NodeTooLarge { .. });
    let empty = with_header(&sound, |header| {
        header["graph"]["nodes"][1]["op"]["out_channels"] = json!(0);
        header["graph"]["nodes"][3]["op"]["in_features"] = json!(0);
    });
    refuses!(&empty, FormatError::NodeEmpty { .. });
    let image = json!({"map": {"channels": 3, "height": 1 << 21, "width": 5}});
    refuses!(&set("/graph/input", image), FormatError::NodeTooLarge { .. });
    let many = json!(vec![json!({"name": "x", "op": {"kind": "input"}, "inputs": []}); (1 << 16) + 1]);
    refuses!(&set("/graph/nodes", many), FormatError::TooManyNodes { .. });
}

/// A batch norm between image and head, with an eps and values of its variance.
fn normed(eps: f64, variance: [f32; 3], gain: f32) -> SparseModel {
    let (mut builder, image) = GraphBuilder::new("normed", Shape::map(3, 4, 5));
    let norm = builder.push("bn", Op::BatchNorm(BatchNorm { channels: 3, eps }), &[image]);
    let pool = builder.push("pool", Op::GlobalAvgPool, &[norm]);
    builder.push("fc", Op::Linear(Linear { in_features: 3, out_features: 2, bias: false }), &[pool]);
    let graph = builder.finish().unwrap();
    let value = |spec: crate::ParamSpec| {
        let value = match spec.name.as_str() {
            "bn.running_var" => ArrayD::from_shape_vec(spec.shape, variance.to_vec()).unwrap(),
            "bn.weight" => ArrayD::from_elem(spec.shape, gain),
            _ => ArrayD::ones(spec.shape),
        };
        (spec.name, value)
    };
    let params: Params = graph.params().map(value).collect();
    let preprocess = Preprocess { size: [4, 5], ..Preprocess::squash(4) };
    let labels = vec!["ant".to_owned(), "bee".to_owned()];
    SparseModel::pack(graph, &params, &BTreeMap::new(), labels, preprocess, Provenance::default()).unwrap()
}

#[test]
fn norms_that_make_no_numbers_are_refused() {
    normed(1e-5, [0.0, 1.0, 2.0], 1.0).to_bytes().unwrap();
    for eps in [0.0, -2.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
        let error = normed(eps, [1.0; 3], 1.0).to_bytes().unwrap_err();
        assert!(matches!(error, FormatError::Eps { .. }), "{eps}: {error:?}");
    }
    let error = normed(1e-5, [1.0, -1e-9, 1.0], 1.0).to_bytes().unwrap_err();
    assert!(matches!(error, FormatError::Variance { .. }), "{error:?}");
    let error = normed(1e-5, [1.0, 1.0, 0.0], 1e38).to_bytes().unwrap_err();
    assert!(matches!(error, FormatError::Scale { channel: 2, .. }), "{error:?}");
    // The same in a file.
    let mut model = normed(1e-5, [1.0; 3], 1.0);
    model.provenance.recipe = " ".repeat(500);
    let bytes = with_header(&model.to_bytes().unwrap(), |header| {
        header["provenance"]["recipe"] = json!("");
        header["graph"]["nodes"][1]["op"]["eps"] = json!(-2.0);
    });
    refuses!(&bytes, FormatError::Eps { .. });
}

#[test]
fn what_takes_too_much_is_refused_before_anything_is_allocated() {
    let bytes = model().to_bytes().unwrap();
    let footprint = model().check().unwrap();
    let limits = Limits { memory: footprint.memory(), operations: footprint.operations };
    assert_eq!(SparseModel::from_bytes_within(&bytes, &limits).unwrap(), model());
    let refused = |limits: Limits| SparseModel::from_bytes_within(&bytes, &limits).unwrap_err();
    let memory = refused(Limits { memory: limits.memory - 1, ..limits });
    assert!(matches!(memory, FormatError::Limit(LimitError::Memory { .. })), "{memory:?}");
    let operations = refused(Limits { operations: limits.operations - 1, ..limits });
    assert!(matches!(operations, FormatError::Limit(LimitError::Operations { .. })), "{operations:?}");
    // A file that is longer than the memory allowed is not read.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.margay");
    std::fs::write(&path, &bytes).unwrap();
    let error = SparseModel::read_within(&path, &Limits::with_memory(bytes.len() as u64 - 1)).unwrap_err();
    assert!(
        matches!(&error, FormatError::Io(e) if e.kind() == std::io::ErrorKind::FileTooLarge),
        "{error:?}"
    );
}

#[test]
fn a_row_of_nodes_that_double_ends_at_the_largest_value() {
    let (mut builder, image) = GraphBuilder::new("doubling", Shape::map(3, 1, 1));
    let mut last = builder.push("pool", Op::GlobalAvgPool, &[image]);
    for step in 0..100 {
        last = builder.push(format!("c{step}"), Op::Concat, &[last, last]);
    }
    assert!(matches!(builder.finish(), Err(crate::GraphError::TooLarge { .. })));
}

#[test]
fn defects_of_the_table() {
    // Tensors in order: conv.bias, conv.weight (sparse), fc.weight.
    let sound = roomy();
    let change = |change: &dyn Fn(&mut Vec<Value>)| {
        with_header(&sound, |header| {
            header["provenance"]["recipe"] = json!("");
            change(header["tensors"].as_array_mut().unwrap());
        })
    };
    let set = |index: usize, pointer: &str, value: Value| {
        change(&|tensors| *tensors[index].pointer_mut(pointer).unwrap() = value.clone())
    };
    refuses!(&change(&|t| t.swap(1, 2)), FormatError::TensorOrder { .. });
    refuses!(&change(&|t| t.insert(1, t[0].clone())), FormatError::TensorOrder { .. });
    refuses!(&change(&|t| drop(t.pop())), FormatError::TensorMissing { .. });
    refuses!(&set(0, "/name", json!("conv.bia")), FormatError::TensorExtra { .. });
    refuses!(&set(0, "/dtype", json!("f64")), FormatError::Header(_));
    refuses!(&set(0, "/form/dense/shape", json!([2, 2])), FormatError::TensorShape { .. });
    refuses!(&set(1, "/form/csr/cols", json!(28)), FormatError::TensorShape { .. });
    refuses!(&set(1, "/form/csr/rows", json!(u64::MAX)), FormatError::TensorShape { .. });
    let sparse = json!({"csr": {"rows": 4, "cols": 1, "index": [0, 0], "count": 0, "gap": 0}});
    refuses!(&set(0, "/form", sparse), FormatError::TensorShape { .. });
    let start = sections(&sound)[0];
    refuses!(&set(0, "/values/0", json!(start + 4)), FormatError::Misaligned { .. });
    refuses!(&set(0, "/values/0", json!(0)), FormatError::Overlap { .. });
    refuses!(&set(1, "/values/0", json!(start)), FormatError::Overlap { .. });
    refuses!(&set(2, "/values/1", json!(1_u64 << 40)), FormatError::OutOfFile { .. });
    refuses!(&set(2, "/values/1", json!(u64::MAX)), FormatError::OutOfFile { .. });
    refuses!(&set(0, "/values/1", json!(12)), FormatError::ValueBytes { expected: 16, got: 12, .. });
    refuses!(&set(1, "/values/1", json!(5)), FormatError::ValueBytes { expected: 8, got: 5, .. });
    refuses!(&set(1, "/form/csr/gap", json!(32)), FormatError::Parameter { parameter: 32, .. });
    refuses!(&set(1, "/form/csr/index/1", json!(0)), FormatError::IndexLength { .. });
    refuses!(&set(1, "/form/csr/index/1", json!(9)), FormatError::IndexLength { .. });
    refuses!(&set(1, "/values/1", json!(4)), FormatError::RowCount { row: 0, .. });
}

#[test]
fn defects_of_the_sections() {
    let model = model();
    let Weight::Csr(csr) = &model.weights["conv.weight"] else { panic!("the weight is sparse") };
    let coded = index::encode(csr);
    let claim = |cols: usize, nnz: usize| Claim {
        name: "w",
        rows: csr.rows(),
        cols,
        nnz,
        count_parameter: coded.count_parameter,
        gap_parameter: coded.gap_parameter,
        pattern: Pattern::Unstructured,
    };
    assert_eq!(claim(27, csr.nnz()).decode(&coded.bytes).unwrap().1, csr.col_idx());
    let refused = |cols: usize, nnz: usize, bytes: &[u8]| claim(cols, nnz).decode(bytes).unwrap_err();
    let last = coded.bytes.len() - 1;
    assert!(matches!(refused(20, csr.nnz(), &coded.bytes), FormatError::Gap { columns: 20, .. }));
    assert!(matches!(refused(27, csr.nnz() + 1, &coded.bytes), FormatError::EntryCount { .. }));
    assert!(matches!(refused(27, csr.nnz() - 1, &coded.bytes), FormatError::RowCount { row: 3, .. }));
    assert!(matches!(refused(27, csr.nnz(), &coded.bytes[..last]), FormatError::IndexLength { .. }));
    assert!(matches!(refused(27, usize::MAX, &coded.bytes), FormatError::IndexLength { row: 0, .. }));
    let longer = [coded.bytes.as_slice(), &[0]].concat();
    assert!(matches!(refused(27, csr.nnz(), &longer), FormatError::IndexLength { row: 4, .. }));

    let mut bytes = model.to_bytes().unwrap();
    let start = sections(&bytes)[0] as usize;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    refuses!(&sealed(bytes), FormatError::NotFinite { count: 1, .. });
}

#[test]
fn an_unsound_model_is_not_written() {
    let mut model = model();
    model.labels.pop();
    assert!(matches!(model.to_bytes(), Err(FormatError::LabelCount { .. })));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.margay");
    assert!(model.write(&path).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn files_name_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ünï.margay");
    let size = model().write(&path).unwrap();
    assert_eq!(size, std::fs::metadata(&path).unwrap().len());
    assert_eq!(SparseModel::read(&path).unwrap(), model());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    std::fs::write(&path, b"GIF89a").unwrap();
    let error = SparseModel::read(&path).unwrap_err().to_string();
    assert!(error.contains("ünï.margay") && error.contains("does not start"), "{error}");
    let error = SparseModel::read(folder.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
}

#[test]
fn a_twentieth_of_the_weights_takes_less_than_six_percent_of_the_bytes() {
    let (rows, cols) = (256, 2304);
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let scores: Vec<f32> = (0..rows * cols).map(|_| random() as f32).collect();
    let mask = Mask::top_k(&scores, rows * cols / 20);
    let csr = Csr::from_dense(rows, cols, &scores, &mask);
    let bytes = index::encode(&csr).bytes.len() + 4 * csr.nnz();
    let share = bytes as f64 / (4 * rows * cols) as f64;
    assert!(share < 0.0595, "{share}");
}

/// The model of the example in docs/format.md.
fn example() -> SparseModel {
    let (mut builder, image) = GraphBuilder::new("tiny", Shape::map(3, 1, 1));
    let pool = builder.push("pool", Op::GlobalAvgPool, &[image]);
    builder.push("fc", Op::Linear(Linear { in_features: 3, out_features: 2, bias: true }), &[pool]);
    let graph = builder.finish().unwrap();
    let weight = Csr::new(2, 3, vec![0, 2, 3], vec![0, 2, 1], vec![1.0, -1.0, 0.5]).unwrap();
    let bias = ArrayD::from_shape_vec(vec![2], vec![0.25, -0.25]).unwrap();
    let weights = BTreeMap::from([
        ("fc.bias".to_owned(), Weight::Dense(bias)),
        ("fc.weight".to_owned(), Weight::Csr(weight)),
    ]);
    let labels = vec!["ant".to_owned(), "bee".to_owned()];
    let preprocess = Preprocess::squash(1);
    SparseModel { graph, weights, labels, preprocess, provenance: Provenance::default() }
}

/// Sixteen bytes a line: offset, hexadecimal bytes, text.
fn hexdump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().map(|(i, line)| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = line.iter().map(|b| if (32..127).contains(b) { char::from(*b) } else { '.' });
        format!("{:04x}  {:<47}  {}\n", 16 * i, hex.join(" "), text.collect::<String>())
    });
    lines.collect()
}

#[test]
fn the_documented_example_is_the_truth() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    let text = std::fs::read_to_string(path).unwrap();
    let dump = hexdump(&example().to_bytes().unwrap());
    assert!(text.contains(&dump), "docs/format.md lacks this dump:\n{dump}");
}
