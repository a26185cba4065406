//! Operations of nodes on batches: maps `[n, c, h, w]`, tokens `[n, count, features]`, vectors `[n, features]`.

use margay_core::{Activation, Attention, Embed, LayerNorm, SamePad};
use tch::{TchError, Tensor};

type Result<T> = std::result::Result<T, TchError>;

/// The features of every position of a map `[n, d, h, w]`, of tokens `[n, count, d]` or of vectors: `[rows, d]`.
pub(crate) fn rows(x: &Tensor) -> Result<Tensor> {
    let features_last = if is_map(x) { x.f_permute([0, 2, 3, 1])? } else { x.shallow_clone() };
    features_last.f_flatten(0, -2)
}

/// The positions of every feature, the transpose of [`rows`] in memory of its own: `[d, rows]`.
pub(super) fn columns(x: &Tensor) -> Result<Tensor> {
    let features_first =
        if is_map(x) { x.f_transpose(0, 1)?.f_flatten(1, -1)? } else { rows(x)?.f_transpose(0, 1)? };
    features_first.f_contiguous()
}

pub(super) fn activate(function: Activation, x: &Tensor) -> Result<Tensor> {
    match function {
        Activation::Relu => x.f_relu(),
        Activation::Relu6 => x.f_clamp(0.0, 6.0),
        Activation::Gelu => x.f_gelu("none"),
        Activation::Silu => x.f_silu(),
        Activation::Sigmoid => x.f_sigmoid(),
    }
}

pub(super) fn mean_of(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.f_add(b)?.f_mul_scalar(0.5)
}

/// A layer at each position; on maps it is a 1 × 1 convolution.
pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !is_map(x) {
        return x.f_linear(weight, bias);
    }
    let kernel = weight.f_unsqueeze(2)?.f_unsqueeze(3)?;
    x.f_conv2d(&kernel, bias, [1, 1], [0, 0], [1, 1], 1)
}

/// Over the features of each position.
pub(super) fn layer_norm(x: &Tensor, norm: &LayerNorm, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let over_last = |x: &Tensor| {
        x.f_layer_norm([norm.features as i64].as_slice(), Some(weight), Some(bias), norm.eps, false)
    };
    if !is_map(x) {
        return over_last(x);
    }
    over_last(&x.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])
}

/// Over the positions of each feature.
pub(super) fn response_norm(x: &Tensor, eps: f64, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (positions, features): (&[i64], i64) = if is_map(x) { (&[2, 3], 1) } else { (&[1], 2) };
    let energy = x.f_square()?.f_sum_dim_intlist(positions, true, x.kind())?.f_sqrt()?;
    let mean = energy.f_mean_dim([features].as_slice(), true, x.kind())?.f_add_scalar(eps)?;
    let response = x.f_mul(&energy.f_div(&mean)?)?;
    response.f_mul(&like(x, weight))?.f_add(&like(x, bias))?.f_add(x)
}

/// `softmax(q kᵀ / sqrt(d)) v` of tokens `[n, count, 3 · features]`.
pub(super) fn attend(x: &Tensor, attention: &Attention) -> Result<Tensor> {
    let (n, count, _) = x.size3()?;
    let (heads, features) = (attention.heads as i64, attention.features as i64);
    let split = x.f_reshape([n, count, 3, heads, features / heads])?.f_permute([2, 0, 3, 1, 4])?;
    let [q, k, v] = [0, 1, 2].map(|i| split.f_select(0, i));
    let scores = q?.f_matmul(&k?.f_transpose(-2, -1)?)?;
    let scores = scores.f_mul_scalar(((features / heads) as f64).sqrt().recip())?;
    let mixed = scores.f_softmax(-1, x.kind())?.f_matmul(&v?)?;
    mixed.f_transpose(1, 2)?.f_reshape([n, count, features])
}

/// Patches `[n, features, rows, columns]` as tokens.
pub(super) fn embed(x: &Tensor, embed: &Embed, prefix: Option<&Tensor>, position: &Tensor) -> Result<Tensor> {
    let positioned = embed.positioned as i64;
    let patches = position.f_narrow(0, positioned, position.size()[0] - positioned)?;
    let tokens = x.f_flatten(2, 3)?.f_transpose(1, 2)?.f_add(&patches)?;
    let Some(prefix) = prefix else { return Ok(tokens) };
    let with = prefix.f_narrow(0, 0, positioned)?.f_add(&position.f_narrow(0, 0, positioned)?)?;
    let without = prefix.f_narrow(0, positioned, prefix.size()[0] - positioned)?;
    let prefix =
        Tensor::f_cat(&[with, without], 0)?.f_unsqueeze(0)?.f_expand([x.size()[0], -1, -1], false)?;
    Tensor::f_cat(&[prefix, tokens], 1)
}

/// Zeros around a map, as many as `SAME` asks for.
pub(super) fn same_pad(x: &Tensor, pad: &SamePad) -> Result<Tensor> {
    let size = x.size();
    let sides = pad.sides([size[2] as usize, size[3] as usize]).expect("a checked graph fits its padding");
    let [[top, bottom], [left, right]] = sides.map(|side| side.map(|n| n as i64));
    x.f_constant_pad_nd([left, right, top, bottom])
}

/// `log Σ exp` of each group of columns `[n, c]`; groups of one stay as they are.
pub(super) fn log_sum_exp(x: &Tensor, groups: &[usize]) -> Result<Tensor> {
    let (mut start, mut parts) = (0, Vec::new());
    for group in groups.chunk_by(|a, b| *a == 1 && *b == 1) {
        let size = group.iter().sum::<usize>() as i64;
        let members = x.f_narrow(1, start, size)?;
        parts.push(if group[0] == 1 { members } else { members.f_logsumexp([1_i64].as_slice(), true)? });
        start += size;
    }
    Tensor::f_cat(&parts, 1)
}

pub(super) fn mean_over_plane(x: &Tensor) -> Result<Tensor> {
    x.f_mean_dim([2_i64, 3].as_slice(), false, x.kind())
}

/// One value per feature, shaped to be combined with `x`.
pub(crate) fn like(x: &Tensor, values: &Tensor) -> Tensor {
    if is_map(x) { values.view([1, -1, 1, 1]) } else { values.shallow_clone() }
}

/// A vector `[n, c]`, shaped to be combined with a map.
pub(super) fn over_planes(gate: &Tensor) -> Tensor {
    gate.unsqueeze(2).unsqueeze(3)
}

fn is_map(x: &Tensor) -> bool {
    x.dim() == 4
}

pub(super) fn pair(of: [usize; 2]) -> [i64; 2] {
    of.map(|n| n as i64)
}
