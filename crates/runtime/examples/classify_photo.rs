//! Names what is on one photo.
//!
//! ```sh
//! cargo run --release -p margay-runtime --example classify_photo -- out/specialist.margay photo.jpg
//! ```

#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::error::Error;

use margay_runtime::{Classifier, SessionOptions, decode};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, photo] = arguments.as_slice() else { return Err("give a model and a photo".into()) };
    let mut classifier = Classifier::open(model, &SessionOptions::default())?;
    let prediction = classifier.classify(&decode(photo)?)?;
    for ranked in prediction.top(5) {
        println!("{:5.1} %  {}", 100.0 * ranked.probability, ranked.label);
    }
    if let Some(note) = prediction.note() {
        println!("the photo is {note}");
    }
    Ok(())
}
