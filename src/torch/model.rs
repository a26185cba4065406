use std::collections::BTreeMap;

use margay_core::{Graph, Mask, ParamRole, ParamSpec, Params, ParamsError};
use ndarray::ArrayD;
use tch::{Device, Kind, Tensor};

use super::packed::{Bits, Packed};
use super::{Effective, TorchError, mask_to_tensor};

/// A graph with its parameters as tensors on one device.
#[derive(Debug)]
pub struct TorchModel {
    /// What is computed.
    pub graph: Graph,
    params: BTreeMap<String, Stored>,
    device: Device,
}

/// How a parameter is held.
#[derive(Debug)]
enum Stored {
    Whole(Tensor),
    Packed(Packed),
}

impl Stored {
    fn share(&self) -> Result<Self, tch::TchError> {
        Ok(match self {
            Self::Whole(value) => Self::Whole(value.f_detach()?),
            Self::Packed(packed) => Self::Packed(packed.share()),
        })
    }

    fn copy(&self) -> Result<Self, tch::TchError> {
        Ok(match self {
            Self::Whole(value) => Self::Whole(value.f_detach()?.f_detach_copy()?),
            Self::Packed(packed) => Self::Packed(packed.share()),
        })
    }
}

impl TorchModel {
    /// Copies checked parameters to the device.
    pub fn new(graph: Graph, params: &Params, device: Device) -> Result<Self, TorchError> {
        params.check(&graph)?;
        let stored = |spec: ParamSpec| {
            let value = to_tensor(params.get(&spec.name)?, device)?;
            Ok((spec.name, Stored::Whole(value)))
        };
        let params = graph.params().map(stored).collect::<Result<_, TorchError>>()?;
        Ok(Self { graph, params, device })
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The tensor of a parameter, sharing storage with the model's unless that is packed.
    pub fn get(&self, name: &str) -> Result<Tensor, TorchError> {
        match self.stored(name)? {
            Stored::Whole(value) => Ok(value.shallow_clone()),
            Stored::Packed(packed) => Ok(packed.unpack()?),
        }
    }

    fn stored(&self, name: &str) -> Result<&Stored, ParamsError> {
        self.params.get(name).ok_or_else(|| ParamsError::Missing { name: name.to_owned(), nearest: None })
    }

    /// Whether an optimiser may change a parameter.
    pub fn is_trained(&self, name: &str) -> bool {
        matches!(self.params.get(name), Some(Stored::Whole(value)) if value.requires_grad())
    }

    /// Replaces a parameter by another tensor of its shape.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<(), TorchError> {
        let old = self.get(name)?;
        let value =
            value.f_detach()?.f_to_device(self.device)?.f_reshape(old.size())?.f_to_kind(Kind::Float)?;
        self.replace(name, value);
        Ok(())
    }

    /// Puts an optimiser's variable in the place of a parameter.
    pub(crate) fn replace(&mut self, name: &str, variable: Tensor) {
        self.params.insert(name.to_owned(), Stored::Whole(variable));
    }

    /// Holds the prunable weights in few bits, as QLoRA does (arXiv 2305.14314), and only those on the masks.
    ///
    /// The network then computes with the nearest values that the bits can tell.
    pub fn pack(&mut self, masks: &BTreeMap<String, Mask>, bits: Bits) -> Result<(), TorchError> {
        for id in self.graph.prunable() {
            let name = self.graph.node(id).weight();
            let weight = self.get(&name)?;
            let mask = masks.get(&name).map(|mask| mask_to_tensor(mask, &weight.size(), self.device));
            let packed = Packed::new(&weight, mask.transpose()?.as_ref(), bits)?;
            self.params.insert(name, Stored::Packed(packed));
        }
        Ok(())
    }

    /// A copy with parameters of 64 bits.
    pub fn in_double(&self) -> Result<Self, TorchError> {
        let double =
            |name: &String| Ok((name.clone(), Stored::Whole(self.get(name)?.f_to_kind(Kind::Double)?)));
        let params = self.params.keys().map(double).collect::<Result<_, TorchError>>()?;
        Ok(Self { graph: self.graph.clone(), params, device: self.device })
    }

    /// A copy whose parameters are this model's until they are replaced.
    pub fn share(&self) -> Result<Self, TorchError> {
        self.map(Stored::share)
    }

    /// A copy that shares nothing with this model that could be written to.
    pub fn deep_clone(&self) -> Result<Self, TorchError> {
        self.map(Stored::copy)
    }

    fn map(&self, copy: fn(&Stored) -> Result<Stored, tch::TchError>) -> Result<Self, TorchError> {
        let copies = self.params.iter().map(|(name, stored)| Ok((name.clone(), copy(stored)?)));
        let params = copies.collect::<Result<_, tch::TchError>>()?;
        Ok(Self { graph: self.graph.clone(), params, device: self.device })
    }

    /// Marks the parameters in `which` that gradients may change, and returns their names and tensors.
    pub fn trainable(&self, which: impl Fn(&ParamSpec) -> bool) -> Result<Vec<(String, Tensor)>, TorchError> {
        let specs = self.graph.params().filter(|spec| spec.role != ParamRole::Statistic && which(spec));
        specs.map(|spec| Ok((spec.name.clone(), self.get(&spec.name)?.f_set_requires_grad(true)?))).collect()
    }

    /// Ends training: no parameter asks for gradients any more.
    pub fn freeze(&mut self) -> Result<(), TorchError> {
        for stored in self.params.values_mut() {
            *stored = stored.share()?;
        }
        Ok(())
    }

    /// Copies every parameter back to the host.
    pub fn to_params(&self) -> Result<Params, TorchError> {
        self.params.keys().map(|name| Ok((name.clone(), to_array(&self.get(name)?)?))).collect()
    }
}

impl Effective for TorchModel {
    fn effective(&self, name: &str) -> Result<Tensor, TorchError> {
        self.get(name)
    }
}

fn to_tensor(value: &ArrayD<f32>, device: Device) -> Result<Tensor, TorchError> {
    let shape: Vec<i64> = value.shape().iter().map(|n| *n as i64).collect();
    let flat: Vec<f32> = value.iter().copied().collect();
    Ok(Tensor::f_from_slice(&flat)?.f_reshape(shape)?.f_to_device(device)?)
}

pub(crate) fn to_array(value: &Tensor) -> Result<ArrayD<f32>, TorchError> {
    let value = value.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let shape: Vec<usize> = value.size().iter().map(|n| *n as usize).collect();
    let mut flat = vec![0.0_f32; value.numel()];
    value.f_copy_data(&mut flat, value.numel())?;
    Ok(ArrayD::from_shape_vec(shape, flat)
        .unwrap_or_else(|_| unreachable!("numel is the product of the shape")))
}
