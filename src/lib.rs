//! margay turns a pretrained vision classifier and a few images into a small, fast, sparse specialist.
//!
//! Stages, in the order of a run: [`checkpoint`] and [`models`] read a pretrained network as a graph, [`data`] draws the few shots,
//! `calibrate`, `allocate` and `prune` make it sparse, `distill` and `adapt` win accuracy back, `pipeline` puts them in order and
//! writes one file, and `margay-runtime` runs it. Only modules behind the `torch` feature know libtorch.
#![cfg_attr(
    feature = "torch",
    doc = r#"
```no_run
use margay::pipeline::{CompressOptions, compress};
use margay::progress::Silent;
use margay::recipe::{Recipe, parse_compression};

let mut recipe = Recipe::new("resnet18.pth".into(), "photos".into());
recipe.prune.sparsity = parse_compression("20x")?;
let record = compress(&recipe, "out".as_ref(), &CompressOptions::default(), &mut Silent)?;
println!("{:?} of val are right", record.specialist.top1);
# Ok::<(), Box<dyn std::error::Error>>(())
```
"#
)]

#[cfg(doctest)]
#[doc = include_str!("../docs/book/src/runtime.md")]
mod book {}

pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod experiment;
pub mod front;
pub mod labels;
pub mod models;
pub mod names;
pub mod onnx;
pub mod options;
pub mod peers;
pub mod preprocess;
pub mod progress;
pub mod recipe;
pub mod record;
pub mod report;
mod scale;
pub mod thumbnails;
pub mod world;

#[cfg(feature = "torch")]
pub mod adapt;
pub mod allocate;
#[cfg(feature = "torch")]
pub mod calibrate;
#[cfg(feature = "torch")]
pub mod distill;
#[cfg(feature = "torch")]
pub mod head;
#[cfg(feature = "torch")]
pub mod pipeline;
#[cfg(feature = "torch")]
pub mod prune;
#[cfg(feature = "torch")]
pub mod torch;
