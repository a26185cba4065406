//! Reading and writing checkpoints: safetensors and PyTorch files, without executing anything.
