use serde::{Deserialize, Serialize};

use crate::Shape;

/// What a node computes. Exhaustive on purpose: a new op must not compile until every executor knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The image `[channels, height, width]`.
    Input,
    /// Two-dimensional cross-correlation.
    Conv2d(Conv2d),
    /// Batch normalisation with stored statistics.
    BatchNorm(BatchNorm),
    /// Layer normalisation over the features of each position.
    LayerNorm(LayerNorm),
    /// Global response normalisation (ConvNeXt V2, arXiv 2301.00808) over the positions of each feature.
    ResponseNorm(ResponseNorm),
    /// `y = W x + b` at each position.
    Linear(Linear),
    /// Multi-head self-attention of fused queries, keys and values.
    Attention(Attention),
    /// Turns a map of patches into tokens: prefix tokens before them, position embeddings on them.
    Embed(Embed),
    /// A learned factor per feature (LayerScale, arXiv 2103.17239).
    Scale(Scale),
    /// A function of each value.
    Activation(Activation),
    /// Sum of two inputs of one shape.
    Add,
    /// Mean of two inputs of one shape.
    Average,
    /// Each plane of the first input times its entry of the second, a vector.
    Gate,
    /// Two vectors, one behind the other.
    Concat,
    /// Maximum over windows.
    MaxPool2d(MaxPool2d),
    /// Mean over windows; padding does not count.
    AvgPool2d(AvgPool2d),
    /// Zeros around a map, as TensorFlow's `SAME` adds them for a convolution.
    SamePad(SamePad),
    /// Mean of each plane: map to vector.
    GlobalAvgPool,
    /// One token as a vector.
    Token(Token),
    /// Mean of the tokens behind a prefix, as a vector.
    MeanTokens(MeanTokens),
    /// `log Σ exp` of each group of values of a vector: the logit of what any of its classes is.
    LogSumExp(LogSumExp),
}

/// Geometry of a convolution. Weight `[out, in / groups, kh, kw]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Planes read.
    pub in_channels: usize,
    /// Planes written.
    pub out_channels: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Step between windows, down and across.
    pub stride: [usize; 2],
    /// Zero rows and columns added on each side.
    pub padding: [usize; 2],
    /// Independent groups of channels.
    pub groups: usize,
    /// Whether there is a bias `[out]`.
    pub bias: bool,
}

impl Conv2d {
    /// A square kernel that keeps the size at stride 1, without groups and bias.
    pub const fn square([in_channels, out_channels]: [usize; 2], kernel: usize, stride: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: [kernel, kernel],
            stride: [stride, stride],
            padding: [kernel / 2, kernel / 2],
            groups: 1,
            bias: false,
        }
    }
}

/// `y = (x − mean) / sqrt(var + eps) · weight + bias`, per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// Number of planes.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// `y = (x − mean) / sqrt(var + eps) · weight + bias`, mean and variance over the features of a position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNorm {
    /// Number of features.
    pub features: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// `y = x + weight · x · g / (mean(g) + eps) + bias` with `g` the L2 norm of each feature over all
/// positions, and its mean over the features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseNorm {
    /// Number of features.
    pub features: usize,
    /// Added to the mean norm.
    pub eps: f64,
}

/// Geometry of a linear layer. Weight `[out, in]`. Works on vectors, tokens and, like a 1 × 1
/// convolution, on maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Features read.
    pub in_features: usize,
    /// Features written.
    pub out_features: usize,
    /// Whether there is a bias `[out]`.
    pub bias: bool,
}

/// `softmax(q kᵀ / sqrt(d)) v` per head. Reads tokens of `3 · heads · d` features: the queries of every
/// head, then the keys, then the values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Features written: heads · head dimension.
    pub features: usize,
}

/// Tokens of a map, row by row, behind `prefix` learned tokens.
///
/// Parameters: `prefix [prefix, features]`, if any, and `position [positioned + height · width, features]`,
/// added to the first `positioned` prefix tokens and to every patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// Features of a token.
    pub features: usize,
    /// Learned tokens in front: class, distillation, registers.
    pub prefix: usize,
    /// How many of them have a position embedding.
    pub positioned: usize,
    /// Rows and columns of patches that have one.
    pub grid: [usize; 2],
}

/// `y = weight · x` per feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Number of features.
    pub features: usize,
}

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x Φ(x)` with the exact normal distribution function.
    Gelu,
    /// `x σ(x)`.
    Silu,
    /// `σ(x) = 1 / (1 + e⁻ˣ)`.
    Sigmoid,
}

/// Geometry of a max pooling; padding counts as −∞.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool2d {
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Step between windows, down and across.
    pub stride: [usize; 2],
    /// Rows and columns added on each side.
    pub padding: [usize; 2],
}

/// Geometry of a mean over windows that lie edge to edge; the last ones may be cut off by the border.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool2d {
    /// Window height and width, and the step between windows.
    pub kernel: [usize; 2],
}

/// The window for which a map is padded: output extents are the input's over the stride, rounded up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamePad {
    /// Kernel height and width of the convolution that follows.
    pub kernel: [usize; 2],
    /// Its stride.
    pub stride: [usize; 2],
}

/// Which token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its index.
    pub index: usize,
}

/// Which tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeanTokens {
    /// How many at the start do not count.
    pub prefix: usize,
}

/// Which values of a vector are joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSumExp {
    /// How many values, one behind the other, each group has: at least one each, and all together.
    pub groups: Vec<usize>,
}

/// What a parameter is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamRole {
    /// The matrix or kernel of a convolution or linear layer.
    Weight,
    /// An additive vector of a convolution or linear layer.
    Bias,
    /// Scale or shift of a normalisation, or a learned factor.
    Norm,
    /// Learned tokens and positions.
    Embedding,
    /// Running mean or variance of a normalisation: not trained by gradients.
    Statistic,
}

/// Name, shape and meaning of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// Canonical name (`layer1.0.conv1.weight`).
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// Meaning.
    pub role: ParamRole,
}

/// Suffix, shape and meaning of a parameter.
type Suffixed = (&'static str, Vec<usize>, ParamRole);

impl Op {
    /// `max(x, 0)`.
    pub const RELU: Self = Self::Activation(Activation::Relu);
    /// The exact Gaussian error linear unit.
    pub const GELU: Self = Self::Activation(Activation::Gelu);

    /// Number of inputs.
    pub const fn arity(&self) -> usize {
        match self {
            Self::Input => 0,
            Self::Add | Self::Average | Self::Gate | Self::Concat => 2,
            _ => 1,
        }
    }

    /// Every parameter of a node of this name.
    pub fn params(&self, node: &str) -> Vec<ParamSpec> {
        let named = |(suffix, shape, role)| ParamSpec { name: format!("{node}.{suffix}"), shape, role };
        self.suffixes().into_iter().map(named).collect()
    }

    fn suffixes(&self) -> Vec<Suffixed> {
        let bias = |has: bool, n: usize| has.then(|| ("bias", vec![n], ParamRole::Bias));
        let affine =
            |n: usize| vec![("weight", vec![n], ParamRole::Norm), ("bias", vec![n], ParamRole::Norm)];
        match self {
            Self::Conv2d(conv) => {
                let [kh, kw] = conv.kernel;
                let shape = vec![conv.out_channels, conv.in_channels / conv.groups, kh, kw];
                let weight = ("weight", shape, ParamRole::Weight);
                [weight].into_iter().chain(bias(conv.bias, conv.out_channels)).collect()
            }
            Self::Linear(linear) => {
                let weight = ("weight", vec![linear.out_features, linear.in_features], ParamRole::Weight);
                [weight].into_iter().chain(bias(linear.bias, linear.out_features)).collect()
            }
            Self::BatchNorm(norm) => {
                let statistic = |name| (name, vec![norm.channels], ParamRole::Statistic);
                let statistics = ["running_mean", "running_var"].map(statistic);
                affine(norm.channels).into_iter().chain(statistics).collect()
            }
            Self::LayerNorm(norm) => affine(norm.features),
            Self::ResponseNorm(norm) => affine(norm.features),
            Self::Scale(scale) => vec![("weight", vec![scale.features], ParamRole::Norm)],
            Self::Embed(embed) => {
                let positions = embed.positioned + embed.grid[0] * embed.grid[1];
                let tables = [("prefix", embed.prefix), ("position", positions)];
                let table = |(name, rows)| (name, vec![rows, embed.features], ParamRole::Embedding);
                tables.into_iter().filter(|(_, rows)| *rows > 0).map(table).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Extents of the weight seen as a matrix `[out, in / groups · kh · kw]`, if there is one.
    pub fn matrix(&self) -> Option<[usize; 2]> {
        match self {
            Self::Conv2d(c) => Some([c.out_channels, c.in_channels / c.groups * c.kernel[0] * c.kernel[1]]),
            Self::Linear(l) => Some([l.out_features, l.in_features]),
            _ => None,
        }
    }

    /// Shape of the output for inputs of these shapes, as many as [`Op::arity`], or what does not fit.
    pub fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let Some(&first) = inputs.first() else { return Err("there is no input".to_owned()) };
        match self {
            Self::Input => Err("the image has no input".to_owned()),
            Self::Activation(_) => Ok(first),
            Self::BatchNorm(norm) => map_of(first, norm.channels),
            Self::LayerNorm(norm) => featured(first, norm.features),
            Self::ResponseNorm(norm) => featured(first, norm.features),
            Self::Scale(scale) => featured(first, scale.features),
            Self::Linear(l) => Ok(featured(first, l.in_features)?.with_features(l.out_features)),
            Self::Add | Self::Average if inputs[1] == first => Ok(first),
            Self::Add | Self::Average => Err(format!("the other summand has shape {}", inputs[1])),
            Self::Gate if inputs[1] == Shape::vector(first.features()) => Ok(first),
            Self::Gate => Err(format!("the gate has shape {}", inputs[1])),
            Self::Concat => match (first, inputs[1]) {
                (Shape::Vector { features: a }, Shape::Vector { features: b }) => {
                    Ok(Shape::vector(a.saturating_add(b)))
                }
                _ => Err("two vectors are needed".to_owned()),
            },
            Self::Conv2d(_) | Self::MaxPool2d(_) | Self::AvgPool2d(_) | Self::SamePad(_) => {
                self.windowed(first)
            }
            Self::LogSumExp(join) => join.of(first),
            Self::GlobalAvgPool => map(first).map(|[channels, ..]| Shape::vector(channels)),
            Self::Attention(_) | Self::Embed(_) | Self::Token(_) | Self::MeanTokens(_) => {
                self.of_tokens(first)
            }
        }
    }

    fn windowed(&self, input: Shape) -> Result<Shape, String> {
        let [channels, height, width] = map(input)?;
        let size = [height, width];
        let fit = |size: Option<[usize; 2]>, channels: usize, kernel: [usize; 2]| {
            let [h, w] = size.ok_or_else(|| format!("window {kernel:?} does not fit"))?;
            Ok(Shape::map(channels, h, w))
        };
        match self {
            Self::Conv2d(conv) => {
                if channels != conv.in_channels {
                    return Err(format!("the convolution reads {} channels", conv.in_channels));
                }
                if conv.groups == 0 || channels % conv.groups != 0 || conv.out_channels % conv.groups != 0 {
                    return Err(format!("{} groups do not divide its channels", conv.groups));
                }
                let out = windows(size, conv.kernel, conv.stride, conv.padding);
                fit(out, conv.out_channels, conv.kernel)
            }
            Self::MaxPool2d(pool) => {
                fit(windows(size, pool.kernel, pool.stride, pool.padding), channels, pool.kernel)
            }
            Self::AvgPool2d(pool) if pool.kernel.contains(&0) => fit(None, channels, pool.kernel),
            Self::AvgPool2d(pool) => {
                let [h, w] = [0, 1].map(|axis| size[axis].div_ceil(pool.kernel[axis]));
                Ok(Shape::map(channels, h, w))
            }
            Self::SamePad(pad) => {
                let sides = pad.sides(size).ok_or_else(|| "the stride is zero".to_owned())?;
                let padded = |axis: usize| sides[axis].into_iter().fold(size[axis], usize::saturating_add);
                Ok(Shape::map(channels, padded(0), padded(1)))
            }
            _ => Ok(input),
        }
    }

    fn of_tokens(&self, input: Shape) -> Result<Shape, String> {
        if let Self::Embed(embed) = self {
            let [channels, height, width] = map(input)?;
            if [height, width] != embed.grid || channels != embed.features {
                return Err(format!(
                    "positions are for {} features on a grid of {:?}",
                    embed.features, embed.grid
                ));
            }
            if embed.positioned > embed.prefix {
                return Err("more positions than tokens".to_owned());
            }
            let patches = height.saturating_mul(width);
            return Ok(Shape::tokens(embed.prefix.saturating_add(patches), channels));
        }
        let Shape::Tokens { count, features } = input else { return Err("tokens are needed".to_owned()) };
        match self {
            Self::Attention(a) => {
                let sound = a.heads > 0 && a.features.is_multiple_of(a.heads) && features == 3 * a.features;
                let fault = || format!("attention reads 3 · {} features in {} heads", a.features, a.heads);
                if sound { Ok(Shape::tokens(count, a.features)) } else { Err(fault()) }
            }
            Self::Token(token) if token.index >= count => Err(format!("there is no token {}", token.index)),
            Self::MeanTokens(mean) if mean.prefix >= count => Err("no token is left".to_owned()),
            _ => Ok(Shape::vector(features)),
        }
    }
}

impl LogSumExp {
    fn of(&self, input: Shape) -> Result<Shape, String> {
        let Shape::Vector { .. } = input else { return Err("a vector is needed".to_owned()) };
        let total = self.groups.iter().try_fold(0_usize, |sum, group| sum.checked_add(*group));
        if self.groups.contains(&0) || total != Some(input.len()) {
            return Err("its groups do not make up the vector".to_owned());
        }
        Ok(Shape::vector(self.groups.len()))
    }
}

impl SamePad {
    /// Zeros before and after, down and across: the odd one goes behind.
    pub fn sides(&self, size: [usize; 2]) -> Option<[[usize; 2]; 2]> {
        let side = |axis: usize| {
            let stride = self.stride[axis];
            let windows = size[axis].checked_add(stride.checked_sub(1)?)?.checked_div(stride)?;
            let reach = windows.checked_sub(1)?.checked_mul(stride)?.checked_add(self.kernel[axis])?;
            let zeros = reach.saturating_sub(size[axis]);
            Some([zeros / 2, zeros - zeros / 2])
        };
        Some([side(0)?, side(1)?])
    }
}

fn map(shape: Shape) -> Result<[usize; 3], String> {
    match shape {
        Shape::Map { channels, height, width } => Ok([channels, height, width]),
        _ => Err("a feature map is needed".to_owned()),
    }
}

fn map_of(shape: Shape, channels: usize) -> Result<Shape, String> {
    map(shape)?;
    featured(shape, channels)
}

fn featured(shape: Shape, features: usize) -> Result<Shape, String> {
    if shape.features() == features { Ok(shape) } else { Err(format!("the layer reads {features} features")) }
}

fn windows(
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Option<[usize; 2]> {
    let extent = |axis: usize| {
        let padded = size[axis].checked_add(padding[axis].checked_mul(2)?)?;
        let steps = padded.checked_sub(kernel[axis])?.checked_div(stride[axis])?;
        (kernel[axis] > 0).then_some(steps + 1)
    };
    Some([extent(0)?, extent(1)?])
}
