//! Renders photos of the demo's world, one folder per species.
//!
//! The generalist of `models/` was trained on what this writes:
//! ```text
//! cargo run --release --no-default-features --example render_world -- world/train 0 40 400
//! cargo run --release --no-default-features --example render_world -- world/val 40 60 40
//! ```

#![expect(clippy::print_stdout, reason = "a program that says what it wrote")]

use margay::progress::Silent;
use margay::world::{SPECIES, Survey, World};

const USAGE: &str = "usage: render_world FOLDER FIRST_CAMERA END_CAMERA PHOTOS_PER_SPECIES";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, first, end, per_species] = args.as_slice() else { return Err(USAGE.into()) };
    let survey = Survey {
        species: SPECIES.iter().collect(),
        cameras: first.parse()?..end.parse()?,
        per_species: per_species.parse()?,
    };
    let written = World::new(1).write_dataset(folder.as_ref(), &survey, &mut Silent)?;
    println!("{written} photos");
    Ok(())
}
