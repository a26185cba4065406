use std::path::PathBuf;

use margay_runtime::{Note, PhotoError, Preprocessor, dimensions};
use ndarray::{Array4, Axis};
use rayon::prelude::*;

use crate::names;
use crate::progress::Progress;

use super::{DataError, Sample, told};

/// Photos are decoded in groups of this many, so that progress can be told in between.
const GROUP: usize = 32;

/// What progress is told.
const STAGE: &str = "decode photos";

/// The sizes of at most this many photos are looked at for a hint.
const HINT_PHOTOS: usize = 64;

/// Images of at most this side are taken as they are.
const HINT_SIDE: usize = 224;

/// Decoded and prepared photos in the order of their samples, without those that cannot be decoded.
#[derive(Debug)]
pub struct Loaded {
    /// Inputs of a model, `[n, 3, height, width]`, contiguous and normalised.
    pub images: Array4<f32>,
    /// Class of each image, `[n]`.
    pub classes: Vec<usize>,
    /// File of each image, `[n]`.
    pub paths: Vec<PathBuf>,
    /// Files that were skipped, and why.
    pub bad: Vec<(PathBuf, PhotoError)>,
    /// Files that are truncated or damaged and used nevertheless.
    pub noted: Vec<(PathBuf, Note)>,
}

/// Decodes and prepares photos in parallel, in order; bad ones are skipped, listed and warned about. Those that are
/// truncated or damaged are used, listed and warned about.
///
/// It takes 12 bytes per pixel of the model's input for each photo: pass large sets in pieces.
pub fn load(
    samples: &[Sample],
    preprocessor: &Preprocessor,
    progress: &mut dyn Progress,
) -> Result<Loaded, DataError> {
    progress.start(STAGE, samples.len() as u64);
    let loaded = piece(samples, preprocessor, progress);
    progress.finish();
    some_readable(loaded.len(), loaded.bad.len(), loaded.bad.first().map(told))?;
    Ok(loaded)
}

/// Decodes photos as [`load`] does, `size` at a time, and hands on each piece.
pub fn load_in_pieces<E: From<DataError>>(
    samples: &[Sample],
    size: usize,
    preprocessor: &Preprocessor,
    progress: &mut dyn Progress,
    mut each: impl FnMut(Loaded) -> Result<(), E>,
) -> Result<(), E> {
    let (mut readable, mut bad, mut first) = (0, 0, None);
    progress.start(STAGE, samples.len() as u64);
    for samples in samples.chunks(size.max(1)) {
        let loaded = piece(samples, preprocessor, progress);
        (readable, bad) = (readable + loaded.len(), bad + loaded.bad.len());
        first = first.or_else(|| loaded.bad.first().map(told));
        each(loaded)?;
    }
    progress.finish();
    Ok(some_readable(readable, bad, first)?)
}

fn some_readable(readable: usize, bad: usize, first: Option<String>) -> Result<(), DataError> {
    match first {
        Some(first) if readable == 0 => Err(DataError::NothingReadable { count: bad, first }),
        _ => Ok(()),
    }
}

fn piece(samples: &[Sample], preprocessor: &Preprocessor, progress: &mut dyn Progress) -> Loaded {
    let [height, width] = preprocessor.spec().size;
    let mut images = Array4::zeros((samples.len(), 3, height, width));
    let (mut kept, mut bad, mut noted) = (Vec::with_capacity(samples.len()), Vec::new(), Vec::new());
    for (group, mut slots) in samples.chunks(GROUP).zip(images.axis_chunks_iter_mut(Axis(0), GROUP)) {
        let slots: Vec<&mut [f32]> =
            slots.axis_iter_mut(Axis(0)).filter_map(ndarray::ArrayViewMut3::into_slice).collect();
        let decoded: Vec<Result<Option<Note>, PhotoError>> =
            group.par_iter().zip(slots).map(|(sample, slot)| preprocessor.read(&sample.path, slot)).collect();
        for (sample, result) in group.iter().zip(decoded) {
            match result {
                Ok(note) => {
                    kept.push(sample);
                    noted.extend(note.map(|note| (sample.path.clone(), note)));
                }
                Err(error) => bad.push((sample.path.clone(), error)),
            }
        }
        progress.advance(group.len() as u64);
    }
    for photo in &bad {
        progress.warn(&format!("skipped a photo: {}", told(photo)));
    }
    for (path, note) in &noted {
        progress.warn(&format!("a photo is used as it is: `{}` is {note}", names::path(path)));
    }
    let images = without_bad(images, samples, &bad);
    let (classes, paths) = kept.into_iter().map(|sample| (sample.class, sample.path.clone())).unzip();
    Loaded { images, classes, paths, bad, noted }
}

fn without_bad(images: Array4<f32>, samples: &[Sample], bad: &[(PathBuf, PhotoError)]) -> Array4<f32> {
    if bad.is_empty() {
        return images;
    }
    let mut bad = bad.iter().map(|(path, _)| path).peekable();
    let good: Vec<usize> =
        (0..samples.len()).filter(|i| bad.next_if(|path| **path == samples[*i].path).is_none()).collect();
    images.select(Axis(0), &good)
}

impl Loaded {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// At most `most` of the images, spread evenly over all.
    #[must_use]
    pub fn spread(&self, most: usize) -> Self {
        let taken: Vec<usize> = (0..self.len()).step_by(stride(self.len(), most)).collect();
        Self {
            images: self.images.select(Axis(0), &taken),
            classes: taken.iter().map(|at| self.classes[*at]).collect(),
            paths: taken.iter().map(|at| self.paths[*at].clone()).collect(),
            bad: Vec::new(),
            noted: Vec::new(),
        }
    }

    /// Checks that every one of `samples`' classes has an image left; `names` are the classes' names.
    pub fn check_classes(&self, samples: &[Sample], names: &[String]) -> Result<(), DataError> {
        for (class, name) in names.iter().enumerate() {
            let count = samples.iter().filter(|sample| sample.class == class).count();
            if count > 0 && !self.classes.contains(&class) {
                let mine = |path: &PathBuf| samples.iter().any(|s| s.class == class && s.path == *path);
                let first = self.bad.iter().find(|(path, _)| mine(path)).map(told);
                let first = first.unwrap_or_default();
                return Err(DataError::UnreadableClass { class: name.clone(), count, first });
            }
        }
        Ok(())
    }
}

/// Photos whose header cannot be read, in order.
pub fn unreadable(samples: &[Sample]) -> Vec<(PathBuf, PhotoError)> {
    let bad = |sample: &Sample| dimensions(&sample.path).err().map(|error| (sample.path.clone(), error));
    samples.par_iter().filter_map(bad).collect()
}

/// The step by which at most `most` of `count` things are taken, spread evenly over all; `most` is not 0.
pub fn stride(count: usize, most: usize) -> usize {
    count.div_ceil(most).max(1)
}

/// The side that all photos share if they are square and at most 224 pixels wide, from their headers.
///
/// Of many photos 64 are looked at, evenly spread; those that cannot be read do not count.
pub fn image_size_hint(samples: &[Sample]) -> Option<usize> {
    let step = stride(samples.len(), HINT_PHOTOS);
    let sizes: Vec<[usize; 2]> =
        samples.par_iter().step_by(step).filter_map(|sample| dimensions(&sample.path).ok()).collect();
    let &[side, width] = sizes.first()?;
    (side == width && side <= HINT_SIDE && sizes.iter().all(|size| *size == [side, side])).then_some(side)
}

#[cfg(test)]
mod tests;
