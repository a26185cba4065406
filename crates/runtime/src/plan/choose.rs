use margay_kernels::{Isa, Precision};

/// Which kernel a layer with stored zeros runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// Whichever is faster by a calibrated model of density and shape.
    #[default]
    Auto,
    /// The sparse kernel everywhere.
    Sparse,
    /// The dense kernel everywhere.
    Dense,
}

/// What the choice for one convolution depends on.
pub(super) struct Candidate {
    pub(super) isa: Isa,
    pub(super) precision: Precision,
    /// Stored weights.
    pub(super) nonzeros: usize,
    /// Whether the weight has blocks of rows.
    pub(super) blocks: bool,
    /// Weights with those that only pad register tiles.
    pub(super) padded: usize,
    /// Vectors that cover a plane of the output.
    pub(super) vectors: usize,
}

impl KernelChoice {
    /// Whether the sparse kernel is worth a try: it may be faster than the dense one, as far as can be told without
    /// running either.
    pub(super) fn may_be_sparse(self, candidate: &Candidate) -> bool {
        let cost = candidate.nonzeros as f64 * relative_cost(candidate) / candidate.padded.max(1) as f64;
        self == Self::Sparse || self == Self::Auto && cost < 1.0
    }
}

/// Time of a stored weight in the sparse kernel over that of a weight in the dense kernel, both on one
/// core: measured on the layers of a ResNet-50 at 20 to 60 % density (`examples/resnet50.rs`), towards
/// the high end of what was found, because a wrong choice of the sparse kernel costs more.
fn relative_cost(candidate: &Candidate) -> f64 {
    match (candidate.isa, candidate.precision) {
        // Four rows share what they read, as those of a dense tile do.
        _ if candidate.blocks => 1.2,
        // So few vectors leave too little work between two rows.
        (Isa::Avx512, Precision::F32) if candidate.vectors <= 4 => 2.7,
        (Isa::Avx512, Precision::F32) => 2.2,
        (Isa::Avx512, Precision::Bf16) if candidate.vectors <= 4 => 1.8,
        (Isa::Avx512, Precision::Bf16) => 1.4,
        (Isa::Avx2, Precision::F32) => 2.0,
        (Isa::Avx2, Precision::Bf16) => 1.6,
        (Isa::Portable, _) => 1.5,
    }
}
