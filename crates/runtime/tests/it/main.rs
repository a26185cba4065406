//! Whole networks against a naive interpreter in f64.

mod interpreter;
mod resnet;
mod session;
