//! Compresses a checkpoint from code, as `margay compress` does.
//!
//! ```sh
//! cargo run --release --example compress -- resnet18.pth photos/ out/
//! ```

#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::error::Error;
use std::path::Path;

use margay::pipeline::{CompressOptions, compress};
use margay::progress::Silent;
use margay::recipe::{Recipe, parse_compression};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, photos, out] = arguments.as_slice() else {
        return Err("give a checkpoint, a folder of photos and a folder for the result".into());
    };
    // Every option of a recipe is a field; the rest are the defaults that `margay compress --help` lists.
    let mut recipe = Recipe::new(model.into(), photos.into());
    recipe.shots.per_class = 16;
    recipe.prune.sparsity = parse_compression("20x")?;
    recipe.recovery.epochs = 10;
    fs_err::create_dir_all(out)?;
    let record = compress(&recipe, Path::new(out), &CompressOptions::default(), &mut Silent)?;
    for class in &record.specialist.classes {
        let recall = class.recall.map_or("unknown".to_owned(), |recall| format!("{:.1} %", 100.0 * recall));
        println!("{:<20} {recall} of {}", class.label, class.total);
    }
    println!("{:.2} MB, {:.1} ms an image", record.bytes.sparse as f64 / 1e6, record.latency_ms.sparse);
    Ok(())
}
