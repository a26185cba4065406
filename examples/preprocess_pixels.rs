//! Writes what every preset makes of photos, before normalisation, for `scripts/preprocess_parity.py`.
//!
//! ```text
//! cargo run --release --no-default-features --example preprocess_pixels -- OUT PHOTO...
//! ```
//!
//! `OUT/PRESET/N.rgb` holds the pixels `[height, width, 3]` of the N-th photo, `OUT/decoded/N.rgb` those of the
//! whole photo, `OUT/presets.json` names, input sizes and constants.

use std::path::{Path, PathBuf};

use margay::preprocess::{PRESETS, Preset};
use margay_runtime::{Preprocessor, decode};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let out = args.next().ok_or("usage: preprocess_pixels OUT PHOTO...")?;
    let presets: Vec<_> = PRESETS.iter().map(|Preset { name, spec, .. }| (name, spec)).collect();
    fs_err::create_dir_all(out.join("decoded"))?;
    fs_err::write(out.join("presets.json"), serde_json::to_string(&presets)?)?;
    for (number, path) in args.enumerate() {
        write(&out, number, &path)?;
    }
    Ok(())
}

fn write(out: &Path, number: usize, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let photo = decode(path)?;
    let file = format!("{number}.rgb");
    fs_err::write(out.join("decoded").join(&file), photo.pixels())?;
    for Preset { name, spec, .. } in PRESETS {
        let folder = out.join(name);
        fs_err::create_dir_all(&folder)?;
        fs_err::write(folder.join(&file), Preprocessor::new(spec).resize(&photo).pixels())?;
    }
    Ok(())
}
