use std::collections::BTreeMap;

use margay_core::{Graph, ParamRole, ParamSpec, Params, ParamsError};
use ndarray::ArrayD;
use tch::{Device, Kind, Tensor};

use super::{Effective, TorchError};

/// A graph with its parameters as tensors on one device.
#[derive(Debug)]
pub struct TorchModel {
    /// What is computed.
    pub graph: Graph,
    params: BTreeMap<String, Tensor>,
    device: Device,
}

impl TorchModel {
    /// Copies checked parameters to the device.
    pub fn new(graph: Graph, params: &Params, device: Device) -> Result<Self, TorchError> {
        params.check(&graph)?;
        let tensors = graph
            .params()
            .map(|spec| Ok((spec.name.clone(), to_tensor(params.get(&spec.name)?, device)?)))
            .collect::<Result<_, TorchError>>()?;
        Ok(Self { graph, params: tensors, device })
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The tensor of a parameter; sharing storage with the model's.
    pub fn get(&self, name: &str) -> Result<&Tensor, ParamsError> {
        self.params.get(name).ok_or_else(|| ParamsError::Missing { name: name.to_owned(), nearest: None })
    }

    /// Replaces a parameter by another tensor of its shape.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<(), TorchError> {
        let old = self.get(name)?;
        let value =
            value.f_detach()?.f_to_device(self.device)?.f_reshape(old.size())?.f_to_kind(Kind::Float)?;
        self.params.insert(name.to_owned(), value);
        Ok(())
    }

    /// Puts an optimiser's variable in the place of a parameter.
    pub(crate) fn replace(&mut self, name: &str, variable: Tensor) {
        self.params.insert(name.to_owned(), variable);
    }

    /// A copy with parameters of 64 bits.
    pub fn in_double(&self) -> Result<Self, TorchError> {
        let double = |(name, value): (&String, &Tensor)| Ok((name.clone(), value.f_to_kind(Kind::Double)?));
        let params = self.params.iter().map(double).collect::<Result<_, tch::TchError>>()?;
        Ok(Self { graph: self.graph.clone(), params, device: self.device })
    }

    /// A copy that shares nothing with this model.
    pub fn deep_clone(&self) -> Result<Self, TorchError> {
        let params = self
            .params
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.f_detach()?.f_detach_copy()?)))
            .collect::<Result<_, tch::TchError>>()?;
        Ok(Self { graph: self.graph.clone(), params, device: self.device })
    }

    /// Marks the parameters in `which` that gradients may change, and returns their names and tensors.
    pub fn trainable(&self, which: impl Fn(&ParamSpec) -> bool) -> Result<Vec<(String, Tensor)>, TorchError> {
        let specs = self.graph.params().filter(|spec| spec.role != ParamRole::Statistic && which(spec));
        specs.map(|spec| Ok((spec.name.clone(), self.get(&spec.name)?.f_set_requires_grad(true)?))).collect()
    }

    /// Ends training: no parameter asks for gradients any more.
    pub fn freeze(&mut self) -> Result<(), TorchError> {
        for value in self.params.values_mut() {
            *value = value.f_detach()?;
        }
        Ok(())
    }

    /// Copies every parameter back to the host.
    pub fn to_params(&self) -> Result<Params, TorchError> {
        let values = self.params.iter().map(|(name, value)| Ok((name.clone(), to_array(value)?)));
        values.collect::<Result<_, TorchError>>()
    }
}

impl Effective for TorchModel {
    fn effective(&self, name: &str) -> Result<Tensor, TorchError> {
        Ok(self.get(name)?.shallow_clone())
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
