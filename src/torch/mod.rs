//! The torch executor: interprets a [`Graph`](margay_core::Graph) with libtorch.
//!
//! Everything that needs autograd or a GPU goes through here. [`forward`] runs a batch, [`stream`]
//! runs many batches node by node, so that a visitor may change each layer before its output is made.

pub mod cuda;
mod device;
mod exec;
mod linalg;
mod memory;
mod model;
mod ops;
mod packed;
mod sampled;
mod segments;
mod stream;

pub use device::{DeviceError, parse_device, seed_everything, set_threads};
pub use exec::{Effective, Norms, Outputs, forward};
pub(crate) use exec::{apply, forward_part};
pub use linalg::{Spectrum, cholesky, mask_to_tensor, tensor_to_mask, top_k_mask};
pub use memory::keep_freed_memory;
pub use model::TorchModel;
pub(crate) use model::to_array;
pub(crate) use ops::{like as features_like, rows};
pub use packed::Bits;
pub use sampled::Sampled;
pub(crate) use segments::segments;
pub use stream::{Flow, stream};

/// Why the torch executor failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// A parameter is missing or misshapen.
    #[error(transparent)]
    Params(#[from] margay_core::ParamsError),
    /// libtorch refused an operation of a node.
    #[error("libtorch failed at node `{node}`")]
    Node {
        /// Name of the node.
        node: String,
        /// libtorch's own message.
        source: tch::TchError,
    },
    /// Loss, gradients or weights left the numbers.
    #[error("training diverged in {stage}: the loss is not finite; lower --learning-rate")]
    Diverged {
        /// Name of the stage.
        stage: String,
    },
    /// libtorch refused an operation outside of a node.
    #[error("libtorch failed")]
    Torch(#[from] tch::TchError),
}
