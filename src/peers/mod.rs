//! Other inference engines to compare with: those with a Python package each in a process of its own, libtorch here.

#[cfg(feature = "torch")]
mod libtorch;
mod process;

use std::path::{Path, PathBuf};

use margay_core::output::Scratch;
use margay_core::{SparseModel, nearest_name};

use crate::onnx::{OnnxError, OnnxOptions, to_onnx};
use process::Process;

/// An engine in one precision.
#[derive(Debug)]
pub struct Peer {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for `margay list`.
    pub about: &'static str,
    kind: Kind,
    /// `f32`, `bf16` or `int8`.
    pub precision: &'static str,
    /// Largest difference of a logit over the largest logit that is an agreement; absent: answers mean nothing.
    pub tolerance: Option<f64>,
}

/// Where an engine runs.
#[derive(Debug)]
enum Kind {
    /// In Python: function in `engine.py`, what `pip install` needs, version of the operator set.
    Python(&'static str, &'static str, u8),
    /// In this process, if this build has it.
    Libtorch,
}

/// Every engine; a new one in Python is a line here and a function in `engine.py`.
pub static PEERS: &[Peer] = &[
    Peer {
        name: "libtorch",
        about: "the libtorch of this build, f32",
        kind: Kind::Libtorch,
        precision: "f32",
        tolerance: Some(1e-3),
    },
    Peer {
        name: "onnxruntime",
        about: "ONNX Runtime, f32",
        kind: Kind::Python("onnxruntime", "onnxruntime", 17),
        precision: "f32",
        tolerance: Some(1e-3),
    },
    Peer {
        name: "onnxruntime-int8",
        about: "ONNX Runtime, quantised (speed only: calibrated on noise)",
        kind: Kind::Python("onnxruntime", "onnxruntime onnx", 17),
        precision: "int8",
        tolerance: None,
    },
    Peer {
        name: "openvino",
        about: "OpenVINO, f32",
        kind: Kind::Python("openvino", "openvino", 17),
        precision: "f32",
        tolerance: Some(1e-3),
    },
    Peer {
        name: "openvino-bf16",
        about: "OpenVINO, bf16: its default on processors that have it",
        kind: Kind::Python("openvino", "openvino", 17),
        precision: "bf16",
        tolerance: Some(0.1),
    },
    Peer {
        name: "openvino-int8",
        about: "OpenVINO, quantised (speed only: calibrated on noise)",
        kind: Kind::Python("openvino", "openvino onnxruntime onnx", 17),
        precision: "int8",
        tolerance: None,
    },
    Peer {
        name: "deepsparse",
        about: "DeepSparse 1.8, f32, knows zeros (ended in 2025; its licence allows evaluation)",
        kind: Kind::Python("deepsparse", "deepsparse==1.8.0 'numpy<2' 'setuptools<81'", 13),
        precision: "f32",
        tolerance: Some(1e-3),
    },
];

/// The peer of this name.
pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

/// The peer's name that looks most like this one.
pub fn nearest(name: &str) -> Option<String> {
    nearest_name(name, PEERS.iter().map(|peer| peer.name))
}

/// Why an engine does not take part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The network cannot be written for it.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// Its process cannot be started or talked to.
    #[error("could not run {}", .python.display())]
    Process {
        /// The interpreter.
        python: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It gave up.
    #[error("{0}")]
    Engine(String),
    /// A file for it could not be written.
    #[error("could not write a temporary file")]
    Temporary(#[from] std::io::Error),
    /// libtorch failed.
    #[cfg(feature = "torch")]
    #[error(transparent)]
    Torch(#[from] crate::torch::TorchError),
    /// There is no libtorch in this program.
    #[error("this program has no libtorch")]
    NoTorch,
}

/// An engine that has a network and its inputs in memory and has run once.
pub trait Engine {
    /// Version of the engine.
    fn version(&self) -> &str;
    /// Its answer to the inputs `[batch · classes]`.
    fn logits(&self) -> &[f64];
    /// Milliseconds of one run.
    fn run(&mut self) -> Result<f64, PeerError>;
}

/// Starts libtorch in this process, with a model, its images, their shape and the number of threads.
///
/// It is handed in: a table that named it would make every program that reads the table load libtorch.
pub type StartLibtorch = fn(&SparseModel, &[f32], [usize; 4], usize) -> Result<Box<dyn Engine>, PeerError>;

/// libtorch as an engine.
#[cfg(feature = "torch")]
pub fn libtorch(
    model: &SparseModel,
    images: &[f32],
    shape: [usize; 4],
    threads: usize,
) -> Result<Box<dyn Engine>, PeerError> {
    Ok(Box::new(libtorch::Libtorch::start(model, images, shape, threads)?))
}

impl Peer {
    /// Whether it runs in a program that links libtorch only.
    pub fn is_libtorch(&self) -> bool {
        matches!(self.kind, Kind::Libtorch)
    }

    /// How its package is installed, if it has one.
    pub fn install(&self) -> Option<String> {
        match self.kind {
            Kind::Python(_, packages, _) => Some(format!("pip install {packages}")),
            Kind::Libtorch => None,
        }
    }
}

/// A network and its inputs, ready for any engine.
#[derive(Debug)]
pub struct Exhibit<'a> {
    model: &'a SparseModel,
    images: &'a [f32],
    /// Batch, channels, height, width.
    shape: [usize; 4],
    libtorch: Option<StartLibtorch>,
    folder: Scratch,
}

impl<'a> Exhibit<'a> {
    /// Of `images`, a batch of inputs `[batch, channels, height, width]`.
    pub fn new(
        model: &'a SparseModel,
        images: &'a [f32],
        shape: [usize; 4],
        libtorch: Option<StartLibtorch>,
    ) -> Result<Self, PeerError> {
        let folder = Scratch::new(&std::env::temp_dir(), "margay-bench")?;
        let bytes: Vec<u8> = images.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs_err::write(folder.path().join("images.f32"), bytes)?;
        Ok(Self { model, images, shape, libtorch, folder })
    }

    /// Starts a peer with so many threads; `python` is the interpreter that has its package.
    pub fn start(
        &self,
        peer: &'static Peer,
        python: &Path,
        threads: usize,
    ) -> Result<Box<dyn Engine>, PeerError> {
        let Kind::Python(engine, _, opset) = peer.kind else {
            let start = self.libtorch.ok_or(PeerError::NoTorch)?;
            return start(self.model, self.images, self.shape, threads);
        };
        let network = self.network(opset)?;
        let images = self.folder.path().join("images.f32");
        let words = [engine.to_owned(), peer.precision.to_owned()].into_iter();
        let paths = [network, images].into_iter().map(|path| path.to_string_lossy().into_owned());
        let numbers = std::iter::once(threads).chain(self.shape).map(|number| number.to_string());
        let arguments: Vec<String> = words.chain(paths).chain(numbers).collect();
        Ok(Box::new(Process::start(python, &arguments)?))
    }

    /// The file of the network, written once per version of the operator set.
    fn network(&self, opset: u8) -> Result<PathBuf, PeerError> {
        let path = self.folder.path().join(format!("opset{opset}.onnx"));
        if !path.exists() {
            let options = OnnxOptions { opset, batch: Some(self.shape[0]) };
            fs_err::write(&path, to_onnx(self.model, &options)?)?;
        }
        Ok(path)
    }
}
