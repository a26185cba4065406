use margay_core::Mask;
use tch::{Device, Kind, TchError, Tensor};

/// Eigenvectors `[d, k]` and eigenvalues `[k]` of a positive semi-definite matrix of rank k < d.
#[derive(Debug)]
pub struct Spectrum {
    /// Orthonormal columns.
    pub vectors: Tensor,
    /// Eigenvalues, positive.
    pub values: Tensor,
}

impl Spectrum {
    /// Of `xᵀ x` for a wide `x[n, d]`, through its n×n Gram matrix: far cheaper where n < d.
    pub fn of_samples(x: &Tensor) -> Result<Self, TchError> {
        let (values, vectors) = x.f_matmul(&x.f_transpose(0, 1)?)?.f_linalg_eigh("L")?;
        // Directions below rounding carry no signal, and dividing by their length would only add noise.
        let floor = values.f_max()?.f_mul_scalar(1e-7)?;
        let kept = values.f_gt_tensor(&floor)?.f_nonzero()?.f_squeeze_dim(1)?;
        let values = values.f_index_select(0, &kept)?;
        let vectors = x.f_transpose(0, 1)?.f_matmul(&vectors.f_index_select(1, &kept)?)?;
        Ok(Self { vectors: vectors.f_div(&values.f_sqrt()?)?, values })
    }

    /// `b (H + ridge I)⁻¹` for `b[r, d]`.
    pub fn solve(&self, b: &Tensor, ridge: f64) -> Result<Tensor, TchError> {
        let coordinates = b.f_matmul(&self.vectors)?.f_mul(&self.inside(ridge)?)?;
        coordinates.f_matmul(&self.vectors.f_transpose(0, 1)?)?.f_add(&b.f_mul_scalar(1.0 / ridge)?)
    }

    /// `(H + ridge I)⁻¹` as a whole, `[d, d]`.
    pub fn inverse(&self, ridge: f64) -> Result<Tensor, TchError> {
        let inverse = self.vectors.f_mul(&self.inside(ridge)?)?.f_matmul(&self.vectors.f_transpose(0, 1)?)?;
        let identity = Tensor::f_eye(self.vectors.size2()?.0, (inverse.kind(), inverse.device()))?;
        inverse.f_add(&identity.f_mul_scalar(1.0 / ridge)?)
    }

    /// By how much the inverse's eigenvalues differ from `1 / ridge`, which is that of what the eigenvectors do not span.
    fn inside(&self, ridge: f64) -> Result<Tensor, TchError> {
        self.values.f_add_scalar(ridge)?.f_reciprocal()?.f_sub_scalar(1.0 / ridge)
    }
}

/// Cholesky factors of one or more matrices, upper or lower; none where a matrix is not positive definite.
pub fn cholesky(matrices: &Tensor, upper: bool) -> Result<Option<Tensor>, TchError> {
    let (factor, info) = matrices.f_linalg_cholesky_ex(upper, false)?;
    Ok((info.f_max()?.int64_value(&[]) == 0).then_some(factor))
}

/// Boolean tensor of the shape of `scores` that is true at its `count` largest values.
pub fn top_k_mask(scores: &Tensor, count: usize) -> Result<Tensor, TchError> {
    let flat = scores.f_flatten(0, -1)?;
    let (_, indices) = flat.f_topk(count.min(flat.numel()) as i64, 0, true, false)?;
    let mask = Tensor::f_zeros([flat.numel() as i64], (Kind::Bool, scores.device()))?;
    mask.f_scatter_value(0, &indices, 1.0)?.f_reshape(scores.size())
}

/// A boolean tensor as a mask.
pub fn tensor_to_mask(mask: &Tensor) -> Result<Mask, TchError> {
    let flat = mask.f_to_device(Device::Cpu)?.f_to_kind(Kind::Uint8)?.f_contiguous()?;
    let mut bytes = vec![0_u8; flat.numel()];
    flat.f_copy_data(&mut bytes, flat.numel())?;
    Ok(Mask::from_fn(bytes.len(), |i| bytes[i] != 0))
}

/// A mask as a boolean tensor of a shape on a device.
pub fn mask_to_tensor(mask: &Mask, shape: &[i64], device: Device) -> Result<Tensor, TchError> {
    let bytes: Vec<u8> = mask.iter().map(u8::from).collect();
    Tensor::f_from_slice(&bytes)?.f_to_kind(Kind::Bool)?.f_reshape(shape)?.f_to_device(device)
}
