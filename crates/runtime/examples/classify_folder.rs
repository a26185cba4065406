//! Names what is on every photo of a folder, on all cores, a bounded number of photos in memory.
//!
//! ```sh
//! cargo run --release -p margay-runtime --example classify_folder -- out/specialist.margay photos/ > labels.tsv
//! ```

#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::error::Error;
use std::path::PathBuf;

use margay_runtime::{Classifier, SessionOptions, has_photo_extension};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder] = arguments.as_slice() else { return Err("give a model and a folder".into()) };
    let mut photos = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        if has_photo_extension(&path) {
            photos.push(path);
        }
    }
    photos.sort();
    let mut classifier = Classifier::open(model, &SessionOptions::default())?;
    for part in photos.chunks(classifier.batch()) {
        for (photo, answer) in part.iter().zip(classifier.classify_files(part)) {
            match answer {
                Ok(prediction) => {
                    let best = prediction.best();
                    println!("{}\t{}\t{:.4}", photo.display(), best.label, best.probability);
                }
                // One bad photo never ends a job.
                Err(error) => eprintln!("{} {error}", photo.display()),
            }
        }
    }
    Ok(())
}
