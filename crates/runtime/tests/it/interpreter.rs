//! The definition of every op, in f64, without regard to speed.

use margay_core::{
    Activation, Attention, AvgPool2d, BatchNorm, Conv2d, Embed, LayerNorm, Linear, MaxPool2d, Node, Op,
    Params, ResponseNorm, Shape, SparseModel,
};

/// Value of every node for one image, row-major as its shape says.
pub fn run(model: &SparseModel, image: &[f32]) -> Vec<Vec<f64>> {
    let params = model.to_params();
    let shapes = model.graph.shapes().unwrap();
    let mut values: Vec<Vec<f64>> = Vec::new();
    for node in model.graph.nodes() {
        let inputs =
            node.inputs.iter().map(|id| Input { values: &values[id.index()], shape: shapes[id.index()] });
        let value = match inputs.collect::<Vec<Input>>().as_slice() {
            [] => image.iter().map(|v| f64::from(*v)).collect(),
            inputs => apply(node, inputs, shapes[values.len()], &params),
        };
        values.push(value);
    }
    values
}

#[derive(Clone, Copy)]
struct Input<'a> {
    values: &'a [f64],
    shape: Shape,
}

impl Input<'_> {
    fn dims(self) -> [usize; 3] {
        match self.shape {
            Shape::Map { channels, height, width } => [channels, height, width],
            Shape::Tokens { count, features } => [features, 1, count],
            Shape::Vector { features } => [features, 1, 1],
        }
    }

    fn at(self, feature: usize, position: usize) -> f64 {
        self.values[place(self.shape, feature, position)]
    }

    /// Every feature at a position.
    fn position(self, position: usize) -> Vec<f64> {
        (0..self.shape.features()).map(|f| self.at(f, position)).collect()
    }

    /// A feature at every position.
    fn feature(self, feature: usize) -> Vec<f64> {
        (0..self.shape.positions()).map(|p| self.at(feature, p)).collect()
    }
}

fn place(shape: Shape, feature: usize, position: usize) -> usize {
    match shape {
        Shape::Tokens { features, .. } => position * features + feature,
        _ => feature * shape.positions() + position,
    }
}

/// A value of this shape from its features and positions.
fn build(shape: Shape, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut values = vec![0.0; shape.len()];
    for feature in 0..shape.features() {
        for position in 0..shape.positions() {
            values[place(shape, feature, position)] = value(feature, position);
        }
    }
    values
}

fn apply(node: &Node, inputs: &[Input], shape: Shape, params: &Params) -> Vec<f64> {
    let x = inputs[0];
    let get = |suffix: &str| param(params, &node.name, suffix);
    let with =
        |f: fn(f64, f64) -> f64| x.values.iter().zip(inputs[1].values).map(|(a, b)| f(*a, *b)).collect();
    match &node.op {
        Op::Input => Vec::new(),
        Op::Conv2d(conv) => conv2d(conv, x.values, x.dims(), params, &node.name),
        Op::Linear(layer) => linear(layer, x, shape, params, &node.name),
        Op::BatchNorm(norm) => batch_norm(norm, x, shape, get),
        Op::LayerNorm(norm) => layer_norm(norm, x, shape, get),
        Op::ResponseNorm(norm) => response_norm(norm, x, shape, get),
        Op::Attention(attention) => attend(attention, x, shape),
        Op::Embed(embed) => tokens(embed, x, shape, get),
        Op::Scale(_) => {
            let factor = get("weight");
            build(shape, |f, p| factor[f] * x.at(f, p))
        }
        Op::Activation(function) => x.values.iter().map(|v| activate(*function, *v)).collect(),
        Op::Add => with(|a, b| a + b),
        Op::Average => with(f64::midpoint),
        Op::Gate => build(shape, |f, p| x.at(f, p) * inputs[1].at(f, 0)),
        Op::Concat => [x.values, inputs[1].values].concat(),
        Op::MaxPool2d(pool) => max_pool(pool, x.values, x.dims()),
        Op::AvgPool2d(pool) => avg_pool(pool, x, shape),
        Op::SamePad(pad) => {
            let [_, h, w] = x.dims();
            let Shape::Map { width, .. } = shape else { panic!("a map is padded") };
            let [[top, _], [left, _]] = pad.sides([h, w]).unwrap();
            let inside = |at: usize, before: usize, n: usize| at.checked_sub(before).filter(|i| *i < n);
            build(shape, |f, p| match (inside(p / width, top, h), inside(p % width, left, w)) {
                (Some(y), Some(column)) => x.at(f, y * w + column),
                _ => 0.0,
            })
        }
        Op::GlobalAvgPool => build(shape, |f, _| mean(&x.feature(f))),
        Op::Token(token) => x.position(token.index),
        Op::LogSumExp(join) => {
            let mut rest = x.values;
            let mut of_group = |size: &usize| {
                let (group, behind) = rest.split_at(*size);
                rest = behind;
                group.iter().map(|value| value.exp()).sum::<f64>().ln()
            };
            join.groups.iter().map(&mut of_group).collect()
        }
        Op::MeanTokens(of) => build(shape, |f, _| mean(&x.feature(f)[of.prefix..])),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn activate(function: Activation, x: f64) -> f64 {
    match function {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// The error function by its Maclaurin series, which is exact to 1e-11 up to 4 and 1 beyond 6.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn linear(layer: &Linear, x: Input, shape: Shape, params: &Params, name: &str) -> Vec<f64> {
    let weight = param(params, name, "weight");
    let bias = if layer.bias { param(params, name, "bias") } else { vec![0.0; layer.out_features] };
    build(shape, |f, p| {
        let row = &weight[f * layer.in_features..][..layer.in_features];
        bias[f] + row.iter().zip(x.position(p)).map(|(w, x)| w * x).sum::<f64>()
    })
}

fn batch_norm(norm: &BatchNorm, x: Input, shape: Shape, get: impl Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let (gain, shift, mean, var) = (get("weight"), get("bias"), get("running_mean"), get("running_var"));
    build(shape, |f, p| (x.at(f, p) - mean[f]) / (var[f] + norm.eps).sqrt() * gain[f] + shift[f])
}

fn layer_norm(norm: &LayerNorm, x: Input, shape: Shape, get: impl Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let (gain, shift) = (get("weight"), get("bias"));
    let statistics = |p: usize| {
        let values = x.position(p);
        let mean = mean(&values);
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
    };
    let statistics: Vec<(f64, f64)> = (0..shape.positions()).map(statistics).collect();
    build(shape, |f, p| {
        let (mean, var) = statistics[p];
        (x.at(f, p) - mean) / (var + norm.eps).sqrt() * gain[f] + shift[f]
    })
}

fn response_norm(norm: &ResponseNorm, x: Input, shape: Shape, get: impl Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let (gain, shift) = (get("weight"), get("bias"));
    let length = |f: usize| x.feature(f).iter().map(|v| v * v).sum::<f64>().sqrt();
    let lengths: Vec<f64> = (0..norm.features).map(length).collect();
    let typical = mean(&lengths) + norm.eps;
    build(shape, |f, p| x.at(f, p) * (1.0 + gain[f] * lengths[f] / typical) + shift[f])
}

fn attend(attention: &Attention, x: Input, shape: Shape) -> Vec<f64> {
    let (features, dims) = (attention.features, attention.features / attention.heads);
    let weights = |head: usize, query: usize| -> Vec<f64> {
        let product = |key: usize| -> f64 {
            (head * dims..(head + 1) * dims).map(|d| x.at(d, query) * x.at(features + d, key)).sum()
        };
        let scores: Vec<f64> =
            (0..shape.positions()).map(|key| product(key) / (dims as f64).sqrt()).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.iter().map(|p| p / total).collect()
    };
    let heads = |head: usize| (0..shape.positions()).map(move |query| weights(head, query)).collect();
    let weights: Vec<Vec<Vec<f64>>> = (0..attention.heads).map(heads).collect();
    build(shape, |f, query| {
        let values = x.feature(2 * features + f);
        weights[f / dims][query].iter().zip(values).map(|(w, v)| w * v).sum()
    })
}

fn tokens(embed: &Embed, x: Input, shape: Shape, get: impl Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let (positions, features) = (get("position"), embed.features);
    let prefix = if embed.prefix > 0 { get("prefix") } else { Vec::new() };
    build(shape, |f, token| match token.checked_sub(embed.prefix) {
        Some(patch) => x.at(f, patch) + positions[(embed.positioned + patch) * features + f],
        None if token < embed.positioned => prefix[token * features + f] + positions[token * features + f],
        None => prefix[token * features + f],
    })
}

fn avg_pool(pool: &AvgPool2d, x: Input, shape: Shape) -> Vec<f64> {
    let ([_, h, w], [kh, kw]) = (x.dims(), pool.kernel);
    let Shape::Map { width, .. } = shape else { panic!("a map is pooled") };
    build(shape, |f, p| {
        let (top, left) = (p / width * kh, p % width * kw);
        let rows = top..(top + kh).min(h);
        let window = rows.flat_map(|y| (left..(left + kw).min(w)).map(move |x| y * w + x));
        mean(&window.map(|place| x.at(f, place)).collect::<Vec<f64>>())
    })
}

fn param(params: &Params, node: &str, suffix: &str) -> Vec<f64> {
    params.get(&format!("{node}.{suffix}")).unwrap().iter().map(|v| f64::from(*v)).collect()
}

/// `(input row or column, kernel index)` pairs of window `at` that are inside.
fn inside(at: usize, stride: usize, pad: usize, kernel: usize, size: usize) -> Vec<(usize, usize)> {
    let place = |k: usize| (at * stride + k).checked_sub(pad).filter(|i| *i < size).map(|i| (i, k));
    (0..kernel).filter_map(place).collect()
}

fn conv2d(conv: &Conv2d, x: &[f64], [_, h, w]: [usize; 3], params: &Params, name: &str) -> Vec<f64> {
    let (weight, [kh, kw]) = (param(params, name, "weight"), conv.kernel);
    let bias = if conv.bias { param(params, name, "bias") } else { vec![0.0; conv.out_channels] };
    let (gin, gout) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
    let out =
        |n: usize, axis: usize| (n + 2 * conv.padding[axis] - conv.kernel[axis]) / conv.stride[axis] + 1;
    let mut y = Vec::new();
    for o in 0..conv.out_channels {
        for oy in 0..out(h, 0) {
            for ox in 0..out(w, 1) {
                let mut sum = bias[o];
                for c in 0..gin {
                    for (iy, i) in inside(oy, conv.stride[0], conv.padding[0], kh, h) {
                        for (ix, j) in inside(ox, conv.stride[1], conv.padding[1], kw, w) {
                            let value = x[((o / gout * gin + c) * h + iy) * w + ix];
                            sum += weight[((o * gin + c) * kh + i) * kw + j] * value;
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn max_pool(pool: &MaxPool2d, x: &[f64], [c, h, w]: [usize; 3]) -> Vec<f64> {
    let out =
        |n: usize, axis: usize| (n + 2 * pool.padding[axis] - pool.kernel[axis]) / pool.stride[axis] + 1;
    let mut y = Vec::new();
    for c in 0..c {
        for oy in 0..out(h, 0) {
            for ox in 0..out(w, 1) {
                let mut most = f64::NEG_INFINITY;
                for (iy, _) in inside(oy, pool.stride[0], pool.padding[0], pool.kernel[0], h) {
                    for (ix, _) in inside(ox, pool.stride[1], pool.padding[1], pool.kernel[1], w) {
                        most = most.max(x[(c * h + iy) * w + ix]);
                    }
                }
                y.push(most);
            }
        }
    }
    y
}
