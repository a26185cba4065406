//! The definition of every op, in f64, without regard to speed.

use margay_core::{Conv2d, MaxPool2d, Op, Params, Shape, SparseModel};

/// Value of every node for one image.
pub fn run(model: &SparseModel, image: &[f32]) -> Vec<Vec<f64>> {
    let params = model.to_params();
    let shapes = model.graph.shapes().unwrap();
    let mut values: Vec<Vec<f64>> = Vec::new();
    for node in model.graph.nodes() {
        let input = |i: usize| &values[node.inputs[i].index()];
        let dims = |i: usize| match shapes[node.inputs[i].index()] {
            Shape::Map { channels, height, width } => [channels, height, width],
            Shape::Vector { features } => [features, 1, 1],
        };
        let value = match &node.op {
            Op::Input => image.iter().map(|v| f64::from(*v)).collect(),
            Op::Conv2d(conv) => conv2d(conv, input(0), dims(0), &params, &node.name),
            Op::Linear(linear) => {
                let pixel = Conv2d {
                    in_channels: linear.in_features,
                    out_channels: linear.out_features,
                    kernel: [1, 1],
                    stride: [1, 1],
                    padding: [0, 0],
                    groups: 1,
                    bias: linear.bias,
                };
                conv2d(&pixel, input(0), dims(0), &params, &node.name)
            }
            Op::BatchNorm(norm) => {
                let [c, h, w] = dims(0);
                let get = |suffix: &str| param(&params, &node.name, suffix);
                let (gain, shift, mean, var) =
                    (get("weight"), get("bias"), get("running_mean"), get("running_var"));
                let one = |c: usize, x: f64| (x - mean[c]) / (var[c] + norm.eps).sqrt() * gain[c] + shift[c];
                (0..c * h * w).map(|i| one(i / (h * w), input(0)[i])).collect()
            }
            Op::RELU => input(0).iter().map(|v| v.max(0.0)).collect(),
            Op::Add => input(0).iter().zip(input(1)).map(|(a, b)| a + b).collect(),
            Op::MaxPool2d(pool) => max_pool(pool, input(0), dims(0)),
            Op::GlobalAvgPool => {
                let [_, h, w] = dims(0);
                input(0).chunks(h * w).map(|p| p.iter().sum::<f64>() / p.len() as f64).collect()
            }
        };
        values.push(value);
    }
    values
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
