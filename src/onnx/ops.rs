//! Each op of a graph as nodes of ONNX, from operators that opset 13 has.

use margay_core::{
    Activation, Attention, AvgPool2d, BatchNorm, Conv2d, Embed, LayerNorm, Linear, LogSumExp, MaxPool2d,
    MeanTokens, Node, Op, Params, ParamsError, ResponseNorm, SamePad, Shape,
};
use ndarray::ArrayD;

use super::builder::{Builder, Setting};

/// A layer that is written: its parameters, and the values and shapes that it reads.
pub(super) struct Layer<'a> {
    pub node: &'a Node,
    pub params: &'a Params,
    pub inputs: Vec<&'a str>,
    pub shapes: Vec<Shape>,
}

impl Layer<'_> {
    /// Writes the layer; returns the name of its output.
    pub fn write(&self, to: &mut Builder) -> Result<String, ParamsError> {
        to.begin(&self.node.name);
        match &self.node.op {
            Op::Input => Ok("image".to_owned()),
            Op::Conv2d(conv) => self.conv(conv, to),
            Op::BatchNorm(norm) => self.batch_norm(norm, to),
            Op::LayerNorm(norm) => self.layer_norm(norm, to),
            Op::ResponseNorm(norm) => self.response_norm(norm, to),
            Op::Linear(linear) => self.linear(linear, to),
            Op::Attention(attention) => Ok(self.attention(attention, to)),
            Op::Embed(embed) => self.embed(embed, to),
            Op::Scale(_) => {
                let weight = self.per_feature("weight", to)?;
                Ok(to.node("Mul", &[self.x(), &weight], vec![]))
            }
            Op::Activation(function) => Ok(self.activation(*function, to)),
            Op::Add => Ok(to.node("Add", &self.inputs, vec![])),
            Op::Average => {
                let sum = to.node("Add", &self.inputs, vec![]);
                let half = to.float("half", 0.5);
                Ok(to.node("Mul", &[&sum, &half], vec![]))
            }
            Op::Gate => {
                let axes = to.ints("axes", &[2, 3]);
                let gate = to.node("Unsqueeze", &[self.inputs[1], &axes], vec![]);
                Ok(to.node("Mul", &[self.x(), &gate], vec![]))
            }
            Op::Concat => Ok(to.node("Concat", &self.inputs, vec![("axis", Setting::Int(1))])),
            Op::MaxPool2d(pool) => Ok(self.max_pool(pool, to)),
            Op::AvgPool2d(pool) => Ok(self.avg_pool(pool, to)),
            Op::SamePad(pad) => Ok(self.same_pad(pad, to)),
            Op::GlobalAvgPool => {
                let mean = to.node("GlobalAveragePool", &[self.x()], vec![]);
                Ok(to.node("Flatten", &[&mean], vec![("axis", Setting::Int(1))]))
            }
            Op::Token(token) => {
                let index = to.ints("index", &[token.index as i64]);
                let token = to.node("Gather", &[self.x(), &index], vec![("axis", Setting::Int(1))]);
                Ok(to.node("Flatten", &[&token], vec![("axis", Setting::Int(1))]))
            }
            Op::MeanTokens(mean) => Ok(self.mean_tokens(mean, to)),
            Op::LogSumExp(join) => Ok(self.log_sum_exp(join, to)),
        }
    }

    fn x(&self) -> &str {
        self.inputs[0]
    }

    fn is_map(&self) -> bool {
        matches!(self.shapes[0], Shape::Map { .. })
    }

    fn param(&self, suffix: &str) -> Result<&ArrayD<f32>, ParamsError> {
        self.params.get(&format!("{}.{suffix}", self.node.name))
    }

    /// A parameter as it is.
    fn constant(&self, suffix: &str, to: &mut Builder) -> Result<String, ParamsError> {
        let value = self.param(suffix)?;
        let flat: Vec<f32> = value.iter().copied().collect();
        Ok(to.floats(suffix, value.shape(), &flat))
    }

    /// A vector with a value per feature, shaped to be combined with the input.
    fn per_feature(&self, suffix: &str, to: &mut Builder) -> Result<String, ParamsError> {
        let value: Vec<f32> = self.param(suffix)?.iter().copied().collect();
        let shape = if self.is_map() { vec![value.len(), 1, 1] } else { vec![value.len()] };
        Ok(to.floats(suffix, &shape, &value))
    }

    fn conv(&self, conv: &Conv2d, to: &mut Builder) -> Result<String, ParamsError> {
        let mut inputs = vec![self.x().to_owned(), self.constant("weight", to)?];
        if conv.bias {
            inputs.push(self.constant("bias", to)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let [top, left] = ints(conv.padding);
        let settings = vec![
            ("kernel_shape", Setting::Ints(ints(conv.kernel).to_vec())),
            ("strides", Setting::Ints(ints(conv.stride).to_vec())),
            ("pads", Setting::Ints(vec![top, left, top, left])),
            ("group", Setting::Int(conv.groups as i64)),
        ];
        Ok(to.node("Conv", &inputs, settings))
    }

    fn batch_norm(&self, norm: &BatchNorm, to: &mut Builder) -> Result<String, ParamsError> {
        let names = ["weight", "bias", "running_mean", "running_var"];
        let params = names.map(|name| self.constant(name, to));
        let [weight, bias, mean, var] = params;
        let inputs = [self.x(), &weight?, &bias?, &mean?, &var?];
        Ok(to.node("BatchNormalization", &inputs, vec![("epsilon", Setting::Float(norm.eps as f32))]))
    }

    /// Over the last axis, where features lie in tokens; those of maps are brought there and back.
    fn layer_norm(&self, norm: &LayerNorm, to: &mut Builder) -> Result<String, ParamsError> {
        let (weight, bias) = (self.constant("weight", to)?, self.constant("bias", to)?);
        if !self.is_map() {
            return Ok(norm_last(norm, self.x(), [&weight, &bias], to));
        }
        let last = transpose(self.x(), &[0, 2, 3, 1], to);
        let normed = norm_last(norm, &last, [&weight, &bias], to);
        Ok(transpose(&normed, &[0, 3, 1, 2], to))
    }

    fn response_norm(&self, norm: &ResponseNorm, to: &mut Builder) -> Result<String, ParamsError> {
        let (positions, features) = if self.is_map() { (vec![2, 3], 1) } else { (vec![1], 2) };
        let energy = to.node("ReduceL2", &[self.x()], vec![("axes", Setting::Ints(positions))]);
        let mean = to.node("ReduceMean", &[&energy], vec![("axes", Setting::Ints(vec![features]))]);
        let eps = to.float("eps", norm.eps as f32);
        let mean = to.node("Add", &[&mean, &eps], vec![]);
        let response = to.node("Div", &[&energy, &mean], vec![]);
        let response = to.node("Mul", &[self.x(), &response], vec![]);
        let (weight, bias) = (self.per_feature("weight", to)?, self.per_feature("bias", to)?);
        let scaled = to.node("Mul", &[&response, &weight], vec![]);
        let shifted = to.node("Add", &[&scaled, &bias], vec![]);
        Ok(to.node("Add", &[&shifted, self.x()], vec![]))
    }

    /// A convolution on maps, `Gemm` on vectors, `MatMul` on tokens: what engines know best.
    fn linear(&self, linear: &Linear, to: &mut Builder) -> Result<String, ParamsError> {
        let weight = self.param("weight")?;
        match self.shapes[0] {
            Shape::Map { .. } => {
                let flat: Vec<f32> = weight.iter().copied().collect();
                let weight = to.floats("weight", &[linear.out_features, linear.in_features, 1, 1], &flat);
                self.affine("Conv", &weight, linear.bias, vec![], to)
            }
            Shape::Vector { .. } => {
                let weight = self.constant("weight", to)?;
                self.affine("Gemm", &weight, linear.bias, vec![("transB", Setting::Int(1))], to)
            }
            Shape::Tokens { .. } => {
                let transposed: Vec<f32> = weight.t().iter().copied().collect();
                let weight = to.floats("weight", &[linear.in_features, linear.out_features], &transposed);
                let product = to.node("MatMul", &[self.x(), &weight], vec![]);
                if !linear.bias {
                    return Ok(product);
                }
                let bias = self.constant("bias", to)?;
                Ok(to.node("Add", &[&product, &bias], vec![]))
            }
        }
    }

    fn affine(
        &self,
        op: &str,
        weight: &str,
        has_bias: bool,
        settings: Vec<super::builder::Named>,
        to: &mut Builder,
    ) -> Result<String, ParamsError> {
        let bias = if has_bias { Some(self.constant("bias", to)?) } else { None };
        let inputs: Vec<&str> = [self.x(), weight].into_iter().chain(bias.as_deref()).collect();
        Ok(to.node(op, &inputs, settings))
    }

    fn attention(&self, attention: &Attention, to: &mut Builder) -> String {
        let (heads, features) = (attention.heads as i64, attention.features as i64);
        let split = to.ints("split", &[0, 0, 3, heads, features / heads]);
        let parts = to.node("Reshape", &[self.x(), &split], vec![]);
        // Queries, keys and values in front: [3, n, heads, count, d].
        let parts = transpose(&parts, &[2, 0, 3, 1, 4], to);
        let [q, k, v] = [0, 1, 2].map(|part| {
            let index = to.ints(&format!("part{part}"), &[part]);
            let taken = to.node("Gather", &[&parts, &index], vec![("axis", Setting::Int(0))]);
            let axis = to.ints(&format!("axis{part}"), &[0]);
            to.node("Squeeze", &[&taken, &axis], vec![])
        });
        let keys = transpose(&k, &[0, 1, 3, 2], to);
        let scale = to.float("scale", ((features / heads) as f32).sqrt().recip());
        let queries = to.node("Mul", &[&q, &scale], vec![]);
        let scores = to.node("MatMul", &[&queries, &keys], vec![]);
        let shares = to.node("Softmax", &[&scores], vec![("axis", Setting::Int(-1))]);
        let mixed = to.node("MatMul", &[&shares, &v], vec![]);
        let mixed = transpose(&mixed, &[0, 2, 1, 3], to);
        let joined = to.ints("joined", &[0, 0, features]);
        to.node("Reshape", &[&mixed, &joined], vec![])
    }

    fn embed(&self, embed: &Embed, to: &mut Builder) -> Result<String, ParamsError> {
        let features = embed.features;
        let flat = to.ints("flat", &[0, features as i64, -1]);
        let tokens = to.node("Reshape", &[self.x(), &flat], vec![]);
        let tokens = transpose(&tokens, &[0, 2, 1], to);
        let position: Vec<f32> = self.param("position")?.iter().copied().collect();
        let (front, patches) = position.split_at(embed.positioned * features);
        let patches = to.floats("position", &[patches.len() / features, features], patches);
        let tokens = to.node("Add", &[&tokens, &patches], vec![]);
        if embed.prefix == 0 {
            return Ok(tokens);
        }
        let mut prefix: Vec<f32> = self.param("prefix")?.iter().copied().collect();
        prefix.iter_mut().zip(front).for_each(|(token, position)| *token += position);
        let prefix = to.floats("prefix", &[1, embed.prefix, features], &prefix);
        // As many as there are images.
        let shape = to.node("Shape", &[self.x()], vec![]);
        let [from, until] = [("from", 0), ("until", 1)].map(|(name, at)| to.ints(name, &[at]));
        let images = to.node("Slice", &[&shape, &from, &until], vec![]);
        let rest = to.ints("rest", &[embed.prefix as i64, features as i64]);
        let shape = to.node("Concat", &[&images, &rest], vec![("axis", Setting::Int(0))]);
        let prefix = to.node("Expand", &[&prefix, &shape], vec![]);
        Ok(to.node("Concat", &[&prefix, &tokens], vec![("axis", Setting::Int(1))]))
    }

    fn activation(&self, function: Activation, to: &mut Builder) -> String {
        match function {
            Activation::Relu => to.node("Relu", &[self.x()], vec![]),
            Activation::Relu6 => {
                let [least, most] =
                    [("least", 0.0), ("most", 6.0)].map(|(name, value)| to.float(name, value));
                to.node("Clip", &[self.x(), &least, &most], vec![])
            }
            Activation::Sigmoid => to.node("Sigmoid", &[self.x()], vec![]),
            Activation::Silu => {
                let gate = to.node("Sigmoid", &[self.x()], vec![]);
                to.node("Mul", &[self.x(), &gate], vec![])
            }
            // As PyTorch writes it, which engines recognise.
            Activation::Gelu => {
                let root = to.float("root", std::f32::consts::SQRT_2);
                let [one, half] = [("one", 1.0), ("half", 0.5)].map(|(name, value)| to.float(name, value));
                let scaled = to.node("Div", &[self.x(), &root], vec![]);
                let erf = to.node("Erf", &[&scaled], vec![]);
                let erf = to.node("Add", &[&erf, &one], vec![]);
                let product = to.node("Mul", &[self.x(), &erf], vec![]);
                to.node("Mul", &[&product, &half], vec![])
            }
        }
    }

    fn max_pool(&self, pool: &MaxPool2d, to: &mut Builder) -> String {
        let [top, left] = ints(pool.padding);
        let settings = vec![
            ("kernel_shape", Setting::Ints(ints(pool.kernel).to_vec())),
            ("strides", Setting::Ints(ints(pool.stride).to_vec())),
            ("pads", Setting::Ints(vec![top, left, top, left])),
        ];
        to.node("MaxPool", &[self.x()], settings)
    }

    fn avg_pool(&self, pool: &AvgPool2d, to: &mut Builder) -> String {
        let kernel = || Setting::Ints(ints(pool.kernel).to_vec());
        let settings =
            vec![("kernel_shape", kernel()), ("strides", kernel()), ("ceil_mode", Setting::Int(1))];
        to.node("AveragePool", &[self.x()], settings)
    }

    fn same_pad(&self, pad: &SamePad, to: &mut Builder) -> String {
        let Shape::Map { height, width, .. } = self.shapes[0] else { return self.x().to_owned() };
        let [[top, bottom], [left, right]] = pad
            .sides([height, width])
            .expect("a checked graph fits its padding")
            .map(|side| side.map(|n| n as i64));
        let pads = to.ints("pads", &[0, 0, top, left, 0, 0, bottom, right]);
        to.node("Pad", &[self.x(), &pads], vec![])
    }

    fn log_sum_exp(&self, join: &LogSumExp, to: &mut Builder) -> String {
        let axis = to.ints("axis", &[1]);
        let mut start = 0;
        let mut parts = Vec::with_capacity(join.groups.len());
        for (group, size) in join.groups.iter().enumerate() {
            let bounds = [("from", start), ("until", start + *size as i64)];
            let [from, until] = bounds.map(|(name, at)| to.ints(&format!("{name}_{group}"), &[at]));
            let members = to.node("Slice", &[self.x(), &from, &until, &axis], vec![]);
            let settings = vec![("axes", Setting::Ints(vec![1])), ("keepdims", Setting::Int(1))];
            parts.push(if *size == 1 { members } else { to.node("ReduceLogSumExp", &[&members], settings) });
            start += *size as i64;
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        to.node("Concat", &parts, vec![("axis", Setting::Int(1))])
    }

    fn mean_tokens(&self, mean: &MeanTokens, to: &mut Builder) -> String {
        let [from, until, axis] = [("from", mean.prefix as i64), ("until", i64::MAX), ("axis", 1)]
            .map(|(name, value)| to.ints(name, &[value]));
        let rest = to.node("Slice", &[self.x(), &from, &until, &axis], vec![]);
        let settings = vec![("axes", Setting::Ints(vec![1])), ("keepdims", Setting::Int(0))];
        to.node("ReduceMean", &[&rest], settings)
    }
}

/// One operator since opset 17, its parts before.
fn norm_last(norm: &LayerNorm, x: &str, [weight, bias]: [&str; 2], to: &mut Builder) -> String {
    let eps = norm.eps as f32;
    if to.opset >= 17 {
        let settings = vec![("axis", Setting::Int(-1)), ("epsilon", Setting::Float(eps))];
        return to.node("LayerNormalization", &[x, weight, bias], settings);
    }
    let last = || vec![("axes", Setting::Ints(vec![-1]))];
    let mean = to.node("ReduceMean", &[x], last());
    let centred = to.node("Sub", &[x, &mean], vec![]);
    let two = to.float("two", 2.0);
    let square = to.node("Pow", &[&centred, &two], vec![]);
    let variance = to.node("ReduceMean", &[&square], last());
    let eps = to.float("eps", eps);
    let variance = to.node("Add", &[&variance, &eps], vec![]);
    let deviation = to.node("Sqrt", &[&variance], vec![]);
    let normed = to.node("Div", &[&centred, &deviation], vec![]);
    let scaled = to.node("Mul", &[&normed, weight], vec![]);
    to.node("Add", &[&scaled, bias], vec![])
}

fn transpose(x: &str, axes: &[i64], to: &mut Builder) -> String {
    to.node("Transpose", &[x], vec![("perm", Setting::Ints(axes.to_vec()))])
}

fn ints(pair: [usize; 2]) -> [i64; 2] {
    pair.map(|n| n as i64)
}
