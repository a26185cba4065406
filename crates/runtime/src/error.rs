use margay_core::{FormatError, GraphError, LimitError, Shape};
use margay_kernels::IsaError;

/// Why a model cannot be planned or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The graph is malformed.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The model is unsound.
    #[error(transparent)]
    Model(#[from] FormatError),
    /// The model takes more memory or time than is allowed.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The network overflows on a photo: it has no answer.
    #[error("the network's answer is not a number")]
    NotANumber,
    /// The instruction set asked for is unknown or missing.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The graph needs a parameter that the model lacks.
    #[error("the model has no parameter `{name}`")]
    MissingWeight {
        /// Name of the parameter.
        name: String,
    },
    /// A parameter has other extents than the graph needs.
    #[error("parameter `{name}` has shape {got:?}, expected {expected:?}")]
    WeightShape {
        /// Name of the parameter.
        name: String,
        /// Extents the graph asks for.
        expected: Vec<usize>,
        /// Extents found.
        got: Vec<usize>,
    },
    /// A node computes something the runtime cannot.
    #[error("node `{node}` cannot run: {reason}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// What is not supported.
        reason: String,
    },
    /// A value is too large for the runtime's 32-bit offsets.
    #[error("the output of node `{node}`, {shape}, is too large")]
    TooLarge {
        /// Name of the node.
        node: String,
        /// Shape of its output.
        shape: Shape,
    },
    /// The images are no whole number of images.
    #[error("{got} input values are no multiple of an image's {image}")]
    InputLength {
        /// Values of one image.
        image: usize,
        /// Values given.
        got: usize,
    },
    /// There is not room for exactly the logits of the images.
    #[error("room for {got} logits, expected {expected}")]
    OutputLength {
        /// Images times classes.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The thread pool could not be started.
    #[error("cannot start {threads} threads")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The pool's own error.
        source: rayon::ThreadPoolBuildError,
    },
}
