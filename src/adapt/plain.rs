use tch::nn::Path;

use super::{Adapter, Delta, Site, Split};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// Every surviving weight is trained: masked finetuning.
pub static FULL: Plain =
    Plain { name: "full", about: "every surviving weight: masked finetuning", weights: true };

/// Only what every adapter trains anyway (PERP, arXiv 2312.15230).
pub static HEAD: Plain = Plain { name: "head", about: "head, norms and biases only (PERP)", weights: false };

/// Adds nothing to layers.
#[derive(Debug)]
pub struct Plain {
    name: &'static str,
    about: &'static str,
    weights: bool,
}

impl Adapter for Plain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 0.0, sparse: 0.0 }
    }

    fn trains_weights(&self) -> bool {
        self.weights
    }

    fn attach(
        &self,
        _site: &Site,
        _spec: &AdaptSpec,
        _path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        Ok(None)
    }
}
