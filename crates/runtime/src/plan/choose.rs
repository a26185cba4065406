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
    /// Whether every tap reads the place it writes, so that loads are aligned.
    pub(super) pointwise: bool,
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

/// Time of a stored weight in the sparse kernel over that of a weight in the dense kernel.
fn relative_cost(candidate: &Candidate) -> f64 {
    match (candidate.isa, candidate.pointwise) {
        (Isa::Avx512, true) => 2.0,
        (Isa::Avx512, false) => 2.8,
        (Isa::Avx2, true) => 1.8,
        (Isa::Avx2, false) => 2.2,
        (Isa::Portable, _) => 1.4,
    }
}
