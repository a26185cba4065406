use margay_kernels::Isa;

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
    /// Stored weights.
    pub(super) nonzeros: usize,
    /// Weights with those that only pad register tiles.
    pub(super) padded: usize,
    /// Vectors that cover a plane of the output.
    pub(super) vectors: usize,
}

impl KernelChoice {
    /// Whether to take the sparse kernel.
    pub(super) fn is_sparse(self, candidate: &Candidate) -> bool {
        match self {
            Self::Sparse => true,
            Self::Dense => false,
            Self::Auto => {
                let cost = candidate.nonzeros as f64 * relative_cost(candidate);
                cost < candidate.padded as f64
            }
        }
    }
}

/// Time of a stored weight in the sparse kernel over that of a weight in the dense kernel, both on one
/// core: measured on the layers of a ResNet-50 at 20 to 60 % density (`examples/resnet50.rs`), towards
/// the high end of what was found, because a wrong choice of the sparse kernel costs more.
fn relative_cost(candidate: &Candidate) -> f64 {
    match candidate.isa {
        // So few vectors leave too little work between two rows.
        Isa::Avx512 if candidate.vectors <= 4 => 2.7,
        Isa::Avx512 => 2.2,
        Isa::Avx2 => 2.0,
        Isa::Portable => 1.5,
    }
}
