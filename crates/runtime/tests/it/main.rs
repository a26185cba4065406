//! Whole networks against a naive interpreter in f64.

mod families;
mod interpreter;
mod nets;
mod session;
