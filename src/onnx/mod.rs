//! Writes a network as ONNX, zeros and all: for engines that know no sparse weights, and to compare with them.

mod builder;
mod ops;
mod proto;

use margay_core::{GraphError, ParamsError, Shape, SparseModel};
use prost::Message;

use builder::Builder;
use ops::Layer;

/// IR version that came with opset 13; every engine reads it.
const IR_VERSION: i64 = 8;
/// Protocol buffers end here.
const LARGEST: usize = i32::MAX as usize;

/// Versions of the operator set that can be written.
pub const OPSETS: [u8; 2] = [13, 17];

/// How a network is written.
#[derive(Clone, Copy, Debug)]
pub struct OnnxOptions {
    /// Version of the operator set, one of [`OPSETS`].
    pub opset: u8,
    /// Images of a batch; absent: any number.
    pub batch: Option<usize>,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self { opset: 17, batch: None }
    }
}

/// Why a network cannot be written as ONNX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The graph does not hold together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A parameter is missing.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// More than protocol buffers can hold.
    #[error("the weights have {0} bytes; an ONNX file in one piece ends at 2 GiB")]
    TooLarge(usize),
}

/// The network as the bytes of an ONNX file: input `image [n, channels, height, width]`, output `logits [n, classes]`,
/// weights in f32 with their zeros, labels and preprocessing among the properties.
pub fn to_onnx(model: &SparseModel, options: &OnnxOptions) -> Result<Vec<u8>, OnnxError> {
    let params = model.to_params();
    let bytes: usize = params.iter().map(|(_, value)| value.len() * 4).sum();
    if bytes > LARGEST {
        return Err(OnnxError::TooLarge(bytes));
    }
    let shapes = model.graph.shapes()?;
    let mut builder = Builder::new(i64::from(options.opset));
    let mut values: Vec<String> = Vec::with_capacity(shapes.len());
    for node in model.graph.nodes() {
        let layer = Layer {
            node,
            params: &params,
            inputs: node.inputs.iter().map(|id| values[id.index()].as_str()).collect(),
            shapes: node.inputs.iter().map(|id| shapes[id.index()]).collect(),
        };
        let output = layer.write(&mut builder)?;
        values.push(output);
    }
    drop(params);
    let last = values.pop().expect("a checked graph has nodes");
    rename(&mut builder, &last, "logits");
    let graph = proto::Graph {
        node: builder.nodes,
        name: model.graph.architecture.clone(),
        initializer: builder.constants,
        input: vec![value("image", model.graph.input, options.batch)],
        output: vec![value("logits", *shapes.last().expect("a checked graph has nodes"), options.batch)],
    };
    let file = proto::Model {
        ir_version: IR_VERSION,
        producer_name: "margay".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: i64::from(options.opset) }],
        metadata_props: properties(model),
    };
    Ok(file.encode_to_vec())
}

/// Gives the output its name.
fn rename(builder: &mut Builder, from: &str, to: &str) {
    let names = builder.nodes.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
    names.filter(|name| *name == from).for_each(|name| to.clone_into(name));
}

fn value(name: &str, shape: Shape, batch: Option<usize>) -> proto::Value {
    let number = |extent: usize| proto::Dimension { dim_value: Some(extent as i64), dim_param: None };
    let any = || proto::Dimension { dim_value: None, dim_param: Some("n".to_owned()) };
    let extents = match shape {
        Shape::Map { channels, height, width } => vec![channels, height, width],
        Shape::Tokens { count, features } => vec![count, features],
        Shape::Vector { features } => vec![features],
    };
    let dim = std::iter::once(batch.map_or_else(any, number)).chain(extents.into_iter().map(number));
    let shape = proto::TensorShape { dim: dim.collect() };
    let tensor = proto::TensorType { elem_type: proto::Tensor::FLOAT, shape: Some(shape) };
    proto::Value { name: name.to_owned(), r#type: Some(proto::Type { tensor_type: Some(tensor) }) }
}

/// What a program needs beside the network.
fn properties(model: &SparseModel) -> Vec<proto::Property> {
    let labels = serde_json::to_string(&model.labels).expect("labels are text");
    let preprocess = serde_json::to_string(&model.preprocess).expect("preprocessing is numbers and words");
    let pairs = [("labels", labels), ("preprocess", preprocess)];
    pairs.into_iter().map(|(key, value)| proto::Property { key: key.to_owned(), value }).collect()
}

#[cfg(test)]
mod tests;
