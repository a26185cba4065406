//! Damages photos as failing cards, cut transfers and flipped bits do, and counts what decoding tells of it.
//!
//! ```text
//! cargo run --release -p margay-runtime --example damaged_copies -- COPIES [MODEL.margay] PHOTO...
//! ```
//! A copy is `told` with a note, `refused` with an error, or answered in silence. Of the silent ones those count as
//! `seen` whose pixels differ from the whole photo's by more than a step of 255 on average, and as `other label` those
//! that the model, if one is given, answers differently.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use margay_runtime::{Classifier, Photo, PhotoError, SessionOptions, decode, decode_bytes};

type Random<'r> = &'r mut dyn FnMut(usize) -> usize;
type Damage = fn(&[u8], Random) -> Vec<u8>;

const KINDS: [(&str, Damage); 12] = [
    ("cut", |jpeg, random| jpeg[..place(jpeg, random, 1)].to_vec()),
    ("cut, then EOI", |jpeg, random| [&jpeg[..place(jpeg, random, 1)], &[0xFF, 0xD9]].concat()),
    ("zeros to the end", |jpeg, random| overwritten(jpeg, place(jpeg, random, 512), jpeg.len(), |_| 0)),
    ("ones to the end", |jpeg, random| overwritten(jpeg, place(jpeg, random, 512), jpeg.len(), |_| 0xFF)),
    ("sector of zeros", |jpeg, random| overwritten(jpeg, place(jpeg, random, 512), 512, |_| 0)),
    ("sector of ones", |jpeg, random| overwritten(jpeg, place(jpeg, random, 512), 512, |_| 0xFF)),
    ("4 kB of zeros", |jpeg, random| overwritten(jpeg, place(jpeg, random, 4096), 4096, |_| 0)),
    ("4 kB of noise", |jpeg, random| {
        let at = place(jpeg, random, 4096);
        let noise: Vec<u8> = (0..4096).map(|_| random(256) as u8).collect();
        overwritten(jpeg, at, 4096, |i| noise[i])
    }),
    ("4 kB of elsewhere", |jpeg, random| {
        let (at, from) = (place(jpeg, random, 4096), place(jpeg, random, 4096));
        overwritten(jpeg, at, 4096, |i| jpeg[(from + i) % jpeg.len()])
    }),
    ("sector missing", |jpeg, random| {
        let at = place(jpeg, random, 512);
        [&jpeg[..at], &jpeg[(at + 512).min(jpeg.len())..]].concat()
    }),
    ("one bit", |jpeg, random| flipped(jpeg, random, 1)),
    ("ten bits", |jpeg, random| flipped(jpeg, random, 10)),
];

#[derive(Default)]
struct Count {
    copies: usize,
    told: usize,
    refused: usize,
    silent: usize,
    seen: usize,
    other: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let copies: usize = args.next().ok_or("give the number of copies")?.parse()?;
    let (models, photos): (Vec<PathBuf>, Vec<PathBuf>) =
        args.map(PathBuf::from).partition(|path| path.extension().is_some_and(|ending| ending == "margay"));
    let mut model =
        models.first().map(|path| Classifier::open(path, &SessionOptions::default())).transpose()?;
    let files = photos.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    let whole = photos.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut counts = BTreeMap::<usize, Count>::new();
    for copy in 0..copies {
        let (kind, photo) = (copy % KINDS.len(), copy / KINDS.len() % files.len());
        let damaged = KINDS[kind].1(&files[photo], &mut random);
        counts.entry(kind).or_default().add(&decode_bytes(&damaged), &whole[photo], model.as_mut())?;
    }
    print(&counts);
    Ok(())
}

/// A place behind the first tenth of a file, at a multiple of `step`.
fn place(jpeg: &[u8], random: Random, step: usize) -> usize {
    let least = jpeg.len() / 10;
    (least + random(jpeg.len() - least - 4)) / step * step
}

fn overwritten(jpeg: &[u8], at: usize, length: usize, with: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut copy = jpeg.to_vec();
    copy[at..].iter_mut().take(length).enumerate().for_each(|(i, byte)| *byte = with(i));
    copy
}

fn flipped(jpeg: &[u8], random: Random, bits: usize) -> Vec<u8> {
    let mut copy = jpeg.to_vec();
    for _ in 0..bits {
        let at = place(jpeg, random, 1);
        copy[at] ^= 1 << random(8);
    }
    copy
}

impl Count {
    fn add(
        &mut self,
        decoded: &Result<Photo, PhotoError>,
        whole: &Photo,
        model: Option<&mut Classifier>,
    ) -> Result<(), Box<dyn Error>> {
        self.copies += 1;
        match decoded {
            Err(_) => self.refused += 1,
            Ok(photo) if photo.note() != whole.note() => self.told += 1,
            Ok(photo) => {
                self.silent += 1;
                self.seen += usize::from(difference(photo, whole) > 1.0);
                if let Some(model) = model {
                    let mut best = |photo| Ok::<_, Box<dyn Error>>(model.classify(photo)?.best().class);
                    self.other += usize::from(best(photo)? != best(whole)?);
                }
            }
        }
        Ok(())
    }
}

/// Mean difference of two photos in steps of 255.
fn difference(a: &Photo, b: &Photo) -> f64 {
    if [a.width(), a.height()] != [b.width(), b.height()] {
        return 255.0;
    }
    let total: u64 = a.pixels().iter().zip(b.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    total as f64 / a.pixels().len() as f64
}

#[allow(clippy::print_stdout)]
fn print(counts: &BTreeMap<usize, Count>) {
    println!("{:<18} copies   told refused silent   seen other label", "damage");
    let line = |name: &str, c: &Count| {
        let Count { copies, told, refused, silent, seen, other } = c;
        println!("{name:<18} {copies:>6} {told:>6} {refused:>7} {silent:>6} {seen:>6} {other:>11}");
    };
    let mut all = Count::default();
    for (kind, c) in counts {
        line(KINDS[*kind].0, c);
        all.copies += c.copies;
        all.told += c.told;
        all.refused += c.refused;
        all.silent += c.silent;
        all.seen += c.seen;
        all.other += c.other;
    }
    line("all", &all);
}
