use tch::nn::Path;

use super::{Adapter, Delta, Site, Split};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

const NOTHING: Split = Split { low_rank: 0.0, sparse: 0.0 };

/// Every surviving weight is trained: masked finetuning.
pub struct Full;

impl Adapter for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn about(&self) -> &'static str {
        "every surviving weight: masked finetuning"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        NOTHING
    }

    fn trains_weights(&self) -> bool {
        true
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

/// Only what every adapter trains anyway (PERP, arXiv 2312.15230).
pub struct Head;

impl Adapter for Head {
    fn name(&self) -> &'static str {
        "head"
    }

    fn about(&self) -> &'static str {
        "head, norms and biases only (PERP)"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        NOTHING
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
