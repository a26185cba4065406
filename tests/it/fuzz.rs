//! The fuzz targets on their seeds and on changes of them, without a nightly compiler.

use std::path::Path;

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Changes of each seed: cut short, a byte replaced, a piece repeated; always the same ones.
fn neighbours(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut state = 0x9E37_79B9_u64;
    let mut draw = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below.max(1)
    };
    (0..24).map(move |round| {
        let (mut bytes, at) = (seed.to_vec(), draw(seed.len()));
        match round % 3 {
            0 => bytes.truncate(at),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = draw(256) as u8),
            _ => {
                let piece = bytes[at..(at + 8).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
        bytes
    })
}

#[test]
fn seeds_and_their_neighbours_do_no_harm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, target) in targets::TARGETS {
        let folder = match name {
            "checkpoint" => "tests/golden".to_owned(),
            "photo" => "crates/runtime/tests/golden".to_owned(),
            name => format!("fuzz/seeds/{name}"),
        };
        let mut seeds = 0;
        for entry in fs_err::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && fs_err::metadata(&path).unwrap().len() < 8192 {
                let seed = fs_err::read(&path).unwrap();
                target(&seed);
                neighbours(&seed).for_each(|bytes| target(&bytes));
                seeds += 1;
            }
        }
        assert!(seeds > 0, "{name} has no seeds");
    }
}
