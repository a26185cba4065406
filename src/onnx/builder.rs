use super::proto::{Attribute, Node, Tensor};

/// Attribute of a node, by name.
pub(super) type Named<'a> = (&'a str, Setting);

/// Value of an attribute.
pub(super) enum Setting {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
}

/// Collects nodes and constants. Values are called after the layer that makes them.
pub(super) struct Builder {
    pub opset: i64,
    pub nodes: Vec<Node>,
    pub constants: Vec<Tensor>,
    /// Layer whose nodes are made.
    pub layer: String,
    made: usize,
}

impl Builder {
    pub fn new(opset: i64) -> Self {
        Self { opset, nodes: Vec::new(), constants: Vec::new(), layer: String::new(), made: 0 }
    }

    /// Starts a layer.
    pub fn begin(&mut self, layer: &str) {
        layer.clone_into(&mut self.layer);
        self.made = 0;
    }

    /// A node with one output, whose name it returns.
    pub fn node(&mut self, op: &str, inputs: &[&str], settings: Vec<Named>) -> String {
        self.made += 1;
        let output = format!("{}/{}_{}", self.layer, op, self.made);
        self.nodes.push(Node {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: op.to_owned(),
            attribute: settings.into_iter().map(attribute).collect(),
        });
        output
    }

    /// A constant of floats under a name of its own.
    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, Tensor::FLOAT, data)
    }

    /// A single float.
    pub fn float(&mut self, name: &str, value: f32) -> String {
        self.floats(name, &[], &[value])
    }

    /// A list of whole numbers.
    pub fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[values.len()], Tensor::INT64, data)
    }

    fn constant(&mut self, name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        let name = format!("{}.{name}", self.layer);
        let dims = shape.iter().map(|extent| *extent as i64).collect();
        self.constants.push(Tensor { dims, data_type, name: name.clone(), raw_data });
        name
    }
}

fn attribute((name, setting): Named) -> Attribute {
    let name = name.to_owned();
    match setting {
        Setting::Int(i) => Attribute { name, i, r#type: Attribute::INT, ..Attribute::default() },
        Setting::Float(f) => Attribute { name, f, r#type: Attribute::FLOAT, ..Attribute::default() },
        Setting::Ints(ints) => Attribute { name, ints, r#type: Attribute::INTS, ..Attribute::default() },
    }
}
