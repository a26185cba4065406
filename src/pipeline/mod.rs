//! The main job: from a recipe to a specialist, its record and its report.
//!
//! Val images are read only after every choice is made and the model is final.

mod adapt;
mod budget;
mod choose;
mod compress;
mod damage;
mod demo;
mod evaluate;
mod experiment;
mod export;
mod footprint;
mod forecast;
mod front;
mod general;
mod guard;
mod holdout;
mod host;
mod images;
mod ladder;
mod latency;
mod limit;
mod networks;
mod opening;
mod plan;
mod preprocess;
mod pruning;
mod recalibrate;
mod recover;
mod sides;
mod sparsify;
mod task;
mod times;
mod train;

pub use adapt::adapt;
pub use compress::{CompressOptions, compress};
pub use demo::{demo_recipe, demo_world};
pub use experiment::{ExperimentOptions, experiment};
pub use front::front;
pub use host::peak_rss_bytes;
pub use plan::{Plan, PlannedClass, PlannedLayer, plan};
pub use train::{random_params, train};

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::head::HeadError;
use crate::labels::LabelError;
use crate::models::ModelError;
use crate::prune::SolveError;
use crate::torch::{DeviceError, TorchError};

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The recipe names something that does not exist.
    #[error("no {kind} is named `{name}`{}", nearest.as_deref().map_or_else(String::new, |n| format!("; did you mean `{n}`?")))]
    Unknown {
        /// Solver or allocator.
        kind: &'static str,
        /// The name in the recipe.
        name: String,
        /// The name that looks most like it.
        nearest: Option<String>,
    },
    /// Whole channels are spread by shape, for a number of weights or multiply-adds.
    #[error(
        "--pattern channels does not go with {0}; take --allocation erk or uniform, and a target like 2x or 2x-macs"
    )]
    Channels(String),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Class names cannot be used.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The graph cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A layer cannot be pruned.
    #[error("cannot prune")]
    Solve(#[from] SolveError),
    /// The layers' shares cannot be found.
    #[error("cannot spread the budget over layers: {0}")]
    Allocate(#[from] crate::allocate::Failed),
    /// The target cannot be met on this machine.
    #[error(
        "{asked:.2} ms an image is out of reach on this machine: what cannot be pruned takes {rest:.2} ms, and the layers that \
         can be {least:.2} ms where they keep next to nothing; ask for more than {:.2} ms",
        rest + least
    )]
    OutOfTime {
        /// Milliseconds that were asked for.
        asked: f64,
        /// Milliseconds of what cannot be pruned.
        rest: f64,
        /// Milliseconds of the other layers, at least.
        least: f64,
    },
    /// What cannot be pruned is more than may stay.
    #[error(
        "{asked:.1}x of all weights is out of reach: {rest} of {all} cannot be pruned (stem, head, norms, biases, \
         positions); ask for less than {most:.1}x, or count prunable weights only (--count prunable)"
    )]
    OutOfWeights {
        /// Compression that was asked for.
        asked: f64,
        /// Parameters of the network.
        all: usize,
        /// Those that cannot be pruned.
        rest: usize,
        /// The compression that leaves one weight a layer.
        most: f64,
    },
    /// The head cannot be made.
    #[error("cannot make the head")]
    Head(#[from] HeadError),
    /// An adapter cannot be trained.
    #[error("cannot adapt")]
    Adapt(#[from] crate::adapt::AdaptError),
    /// The trained adapter does not fit its base.
    #[error("cannot keep the adapter")]
    Adapter(#[from] margay_core::adapter::AdapterError),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The runtime cannot run the exported model.
    #[error("the exported model cannot be run")]
    Runtime(#[from] margay_runtime::RuntimeError),
    /// The exported file cannot be written or read back.
    #[error(transparent)]
    Format(#[from] margay_core::model::FormatError),
    /// The runtime's logits differ from torch's by more than rounding explains.
    #[error("the runtime's logits differ from torch's by {difference:e} at a largest logit of {scale:e}")]
    Parity {
        /// Largest difference.
        difference: f64,
        /// Largest logit.
        scale: f64,
    },
    /// A finetuned weight left its mask.
    #[error("weight `{0}` is not zero off its mask")]
    Support(String),
    /// A photo is needed, but none can be read.
    #[error("no photo of {0} can be read")]
    NoImages(&'static str),
    /// There is no target to make a specialist for, or none that can be met.
    #[error("there is no target within reach")]
    NoTarget,
    /// Training has no start, or two.
    #[error("training starts from an architecture or from a checkpoint: give one of them")]
    NoStart,
    /// The demo's world cannot be drawn.
    #[error("cannot draw the demo's photos")]
    World(#[from] crate::world::WorldError),
    /// A record or recipe cannot be written as text.
    #[error("cannot write {0}")]
    Text(&'static str),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl PipelineError {
    /// The stage that diverged, if that is what happened.
    fn diverged(&self) -> Option<&str> {
        match self {
            Self::Torch(TorchError::Diverged { stage })
            | Self::Adapt(crate::adapt::AdaptError::Torch(TorchError::Diverged { stage })) => Some(stage),
            _ => None,
        }
    }
}
