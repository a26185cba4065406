use tch::{Cuda, Device};

use super::cuda::load_cuda_part;

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name is no device.
    #[error("`{0}` is no device; use auto, cpu, cuda or cuda:n")]
    Unknown(String),
    /// CUDA was asked for, but there is none.
    #[error("device `{0}` was asked for, but this libtorch sees no CUDA device; use --device cpu")]
    NoCuda(String),
    /// The GPU's number is too high.
    #[error("device `cuda:{index}` was asked for, but there are only {count} CUDA devices")]
    Index {
        /// Number asked for.
        index: usize,
        /// Devices there are.
        count: usize,
    },
}

/// The device named `auto`, `cpu`, `cuda` or `cuda:n`; `auto` takes the first GPU where there is one.
pub fn parse_device(name: &str) -> Result<Device, DeviceError> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let index = match name {
        "auto" | "cuda" => 0,
        _ => name
            .strip_prefix("cuda:")
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| DeviceError::Unknown(name.to_owned()))?,
    };
    load_cuda_part();
    let count = if Cuda::is_available() { Cuda::device_count().max(0) as usize } else { 0 };
    match (name, count) {
        ("auto", 0) => Ok(Device::Cpu),
        (_, 0) => Err(DeviceError::NoCuda(name.to_owned())),
        _ if index >= count => Err(DeviceError::Index { index, count }),
        _ => Ok(Device::Cuda(index)),
    }
}

/// Sets libtorch's CPU threads; 0 takes every core. Returns the number in force.
pub fn set_threads(threads: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if threads == 0 { cores } else { threads };
    tch::set_num_threads(threads as i32);
    threads
}

/// Seeds libtorch's generators and keeps cuDNN from picking algorithms by their speed of the day.
pub fn seed_everything(seed: u64) {
    tch::manual_seed(seed as i64);
    Cuda::cudnn_set_benchmark(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(parse_device("cpu"), Ok(Device::Cpu));
        for bad in ["", "gpu", "cuda:x", "CPU"] {
            assert_eq!(parse_device(bad), Err(DeviceError::Unknown(bad.to_owned())));
        }
        assert!(parse_device("cuda:4096").is_err());
    }
}
