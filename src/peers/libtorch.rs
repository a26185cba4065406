use std::time::Instant;

use margay_core::SparseModel;
use tch::{Device, Kind, Tensor};

use super::{Engine, PeerError};
use crate::torch::{Norms, TorchError, TorchModel, forward, set_threads};

/// Version that this build was made for.
const VERSION: &str = "2.11.0";

/// The network with its zeros stored, run by libtorch in this process.
pub(super) struct Libtorch {
    model: TorchModel,
    images: Tensor,
    logits: Vec<f64>,
}

impl Libtorch {
    pub fn start(
        model: &SparseModel,
        images: &[f32],
        shape: [usize; 4],
        threads: usize,
    ) -> Result<Self, PeerError> {
        set_threads(threads);
        let model = TorchModel::new(model.graph.clone(), &model.to_params(), Device::Cpu)?;
        let images =
            Tensor::f_from_slice(images).and_then(|images| images.f_reshape(shape.map(|n| n as i64)));
        let mut engine = Self { model, images: images.map_err(TorchError::from)?, logits: Vec::new() };
        let logits = engine.forward()?.f_to_kind(Kind::Double).and_then(|logits| logits.f_flatten(0, -1));
        let logits = logits.and_then(Vec::try_from);
        engine.logits = logits.map_err(TorchError::from)?;
        Ok(engine)
    }

    fn forward(&self) -> Result<Tensor, TorchError> {
        let _no_grad = tch::no_grad_guard();
        Ok(forward(&self.model.graph, &self.model, Norms::Stored, &self.images, &[])?.logits)
    }
}

impl Engine for Libtorch {
    fn version(&self) -> &str {
        VERSION
    }

    fn logits(&self) -> &[f64] {
        &self.logits
    }

    fn run(&mut self) -> Result<f64, PeerError> {
        let begun = Instant::now();
        let _ = self.forward()?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}
