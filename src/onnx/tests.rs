use std::collections::BTreeSet;
use std::fmt::Write as _;

use margay_core::{Params, Preprocess, Provenance};
use ndarray::ArrayD;

use super::*;
use crate::models::{Design, build};

fn model(variant: &str, depth: Option<usize>) -> SparseModel {
    let design = Design { variant: variant.to_owned(), width: None, depth, classes: 3, image: [64, 64] };
    let graph = build(&design).unwrap();
    let params: Params =
        graph.params().map(|spec| (spec.name, ArrayD::from_elem(spec.shape, 0.5_f32))).collect();
    let labels = ["fox", "hare", "\"lynx\""].map(str::to_owned).to_vec();
    let masks = std::collections::BTreeMap::new();
    let preprocess = Preprocess::squash(64);
    SparseModel::pack(graph, &params, &masks, labels, preprocess, Provenance::default()).unwrap()
}

fn read(model: &SparseModel, options: &OnnxOptions) -> proto::Model {
    proto::Model::decode(to_onnx(model, options).unwrap().as_slice()).unwrap()
}

const NETWORKS: [(&str, Option<usize>); 4] = [
    ("resnet18", None),
    ("vit_tiny_patch16", Some(1)),
    ("convnextv2_atto", None),
    ("efficientnetv2_s", None),
];

#[test]
fn every_value_is_made_once_before_it_is_read() {
    for (variant, depth) in NETWORKS {
        let model = model(variant, depth);
        for opset in OPSETS {
            let file = read(&model, &OnnxOptions { opset, batch: None });
            let graph = file.graph.unwrap();
            let mut known: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
            assert_eq!(known.len(), graph.initializer.len(), "{variant}");
            known.insert("image");
            for node in &graph.node {
                for input in &node.input {
                    assert!(known.contains(input.as_str()), "{variant}: {} reads {input}", node.name);
                }
                assert!(known.insert(&node.output[0]), "{variant}: {}", node.output[0]);
                assert!(opset >= 17 || node.op_type != "LayerNormalization", "{variant}");
            }
            assert_eq!(graph.node.last().unwrap().output, ["logits"], "{variant}");
            for tensor in &graph.initializer {
                let values: i64 = tensor.dims.iter().product();
                let size = if tensor.data_type == proto::Tensor::FLOAT { 4 } else { 8 };
                assert_eq!(tensor.raw_data.len() as i64, values * size, "{variant} {}", tensor.name);
            }
        }
    }
}

#[test]
fn batches_are_free_or_fixed_and_labels_travel_with_the_network() {
    let model = model("resnet18", None);
    for (batch, first) in [(None, (None, Some("n".to_owned()))), (Some(4), (Some(4), None))] {
        let file = read(&model, &OnnxOptions { opset: 17, batch });
        assert_eq!(file.opset_import[0].version, 17);
        let labels = file.metadata_props.iter().find(|p| p.key == "labels").unwrap();
        assert_eq!(serde_json::from_str::<Vec<String>>(&labels.value).unwrap(), model.labels);
        let graph = file.graph.unwrap();
        for (value, rest) in [(&graph.input[0], vec![3, 64, 64]), (&graph.output[0], vec![3])] {
            let tensor = value.r#type.clone().unwrap().tensor_type.unwrap();
            let mut dims = tensor.shape.unwrap().dim.into_iter().map(|d| (d.dim_value, d.dim_param));
            assert_eq!(dims.next(), Some(first.clone()));
            assert_eq!(
                dims.collect::<Vec<_>>(),
                rest.into_iter().map(|n| (Some(n), None)).collect::<Vec<_>>()
            );
        }
    }
}

/// One line per node: operator, inputs, settings.
#[test]
fn a_transformer_reads_as_before() {
    let graph = read(&model("vit_tiny_patch16", Some(1)), &OnnxOptions::default()).graph.unwrap();
    let mut text = String::new();
    for node in graph.node {
        let settings = node.attribute.iter().map(|a| match a.r#type {
            proto::Attribute::FLOAT => format!(" {}={}", a.name, a.f),
            proto::Attribute::INT => format!(" {}={}", a.name, a.i),
            _ => format!(" {}={:?}", a.name, a.ints),
        });
        let settings: String = settings.collect();
        writeln!(text, "{}({}){settings} -> {}", node.op_type, node.input.join(", "), node.output[0])
            .unwrap();
    }
    insta::assert_snapshot!(text);
}
