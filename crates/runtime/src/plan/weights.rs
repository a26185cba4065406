use margay_core::{BatchNorm, Csr, Embed, Mask, Node, SparseModel, Weight};
use ndarray::ArrayD;

use crate::RuntimeError;

/// The value of a parameter, checked against the extents that the graph asks for.
fn stored<'m>(model: &'m SparseModel, name: &str, shape: &[usize]) -> Result<&'m Weight, RuntimeError> {
    let missing = || RuntimeError::MissingWeight { name: name.to_owned() };
    let weight = model.weights.get(name).ok_or_else(missing)?;
    let fits = match weight {
        Weight::Dense(values) => values.shape() == shape,
        Weight::Csr(csr) => {
            !shape.is_empty() && csr.rows() == shape[0] && csr.cols() == shape[1..].iter().product::<usize>()
        }
    };
    if fits {
        return Ok(weight);
    }
    let got = match weight {
        Weight::Dense(values) => values.shape().to_vec(),
        Weight::Csr(csr) => vec![csr.rows(), csr.cols()],
    };
    Err(RuntimeError::WeightShape { name: name.to_owned(), expected: shape.to_vec(), got })
}

/// Checks that every parameter of the graph is there and well-shaped.
pub(super) fn check(model: &SparseModel) -> Result<(), RuntimeError> {
    model.graph.params().try_for_each(|spec| stored(model, &spec.name, &spec.shape).map(drop))
}

/// A weight as a matrix `[rows, columns]`.
pub(super) enum Matrix {
    Dense(Vec<f32>),
    Csr(Csr),
}

impl Matrix {
    /// Number of stored values.
    pub(super) fn stored(&self) -> usize {
        match self {
            Self::Dense(values) => values.len(),
            Self::Csr(csr) => csr.nnz(),
        }
    }

    /// Whether a kernel for blocks of rows can be tried.
    pub(super) fn has_blocks(&self) -> bool {
        match self {
            Self::Dense(_) => false,
            Self::Csr(csr) => has_blocks(csr),
        }
    }

    /// Every value, row-major.
    pub(super) fn into_dense(self) -> Vec<f32> {
        match self {
            Self::Dense(values) => values,
            Self::Csr(csr) => csr.to_dense(),
        }
    }

    /// The stored values.
    pub(super) fn into_csr(self, [rows, columns]: [usize; 2]) -> Csr {
        match self {
            Self::Dense(values) => Csr::from_dense(rows, columns, &values, &Mask::ones(values.len())),
            Self::Csr(csr) => csr,
        }
    }
}

/// Whether every four rows are said to have the same columns.
pub(super) fn has_blocks(csr: &Csr) -> bool {
    csr.pattern().block()[0].is_multiple_of(4)
}

/// The weight of a convolution or linear layer and its bias `[rows]`, zero where it has none.
pub(super) fn layer(
    model: &SparseModel,
    node: &Node,
    rows: usize,
) -> Result<(Matrix, Vec<f32>), RuntimeError> {
    let missing = |name: String| RuntimeError::MissingWeight { name };
    let matrix = match model.weights.get(&node.weight()) {
        Some(Weight::Dense(values)) => Matrix::Dense(values.iter().copied().collect()),
        Some(Weight::Csr(csr)) => Matrix::Csr(csr.clone()),
        None => return Err(missing(node.weight())),
    };
    let bias = if node.params().iter().any(|spec| spec.name == node.bias()) {
        values(model, node.bias())?
    } else {
        vec![0.0; rows]
    };
    Ok((matrix, bias))
}

/// The factors and summands of a layer norm or response norm.
pub(super) fn norm(model: &SparseModel, node: &Node) -> Result<[Vec<f32>; 2], RuntimeError> {
    Ok([values(model, node.weight())?, values(model, node.bias())?])
}

/// What is added to each token, row-major `[prefix + grid, features]`: learned tokens and positions.
pub(super) fn embedding(model: &SparseModel, node: &Node, embed: &Embed) -> Result<Vec<f32>, RuntimeError> {
    let get = |suffix: &str| values(model, format!("{}.{suffix}", node.name));
    let position = get("position")?;
    let (tokens, patches) = position.split_at(embed.positioned * embed.features);
    let mut table = if embed.prefix > 0 { get("prefix")? } else { Vec::new() };
    table.iter_mut().zip(tokens).for_each(|(token, position)| *token += position);
    table.extend(patches);
    Ok(table)
}

/// A batch norm as a scale and a shift per channel.
pub(super) fn affine(
    model: &SparseModel,
    node: &Node,
    norm: &BatchNorm,
) -> Result<(Matrix, Vec<f32>), RuntimeError> {
    let get = |suffix: &str| values(model, format!("{}.{suffix}", node.name));
    let (gain, shift) = (get("weight")?, get("bias")?);
    let (mean, var) = (get("running_mean")?, get("running_var")?);
    let scale = |c: usize| f64::from(gain[c]) / (f64::from(var[c]) + norm.eps).sqrt();
    let bias = |c: usize| (f64::from(shift[c]) - f64::from(mean[c]) * scale(c)) as f32;
    let scales = (0..norm.channels).map(|c| scale(c) as f32).collect();
    Ok((Matrix::Dense(scales), (0..norm.channels).map(bias).collect()))
}

/// Every value of a parameter, row-major.
pub(super) fn values(model: &SparseModel, name: String) -> Result<Vec<f32>, RuntimeError> {
    let flat = |values: &ArrayD<f32>| values.iter().copied().collect();
    match model.weights.get(&name) {
        Some(Weight::Dense(values)) => Ok(flat(values)),
        Some(Weight::Csr(csr)) => Ok(csr.to_dense()),
        None => Err(RuntimeError::MissingWeight { name }),
    }
}
