use std::path::PathBuf;

use margay_runtime::{PhotoError, decode_with};
use rayon::prelude::*;

use crate::progress::Progress;

use super::{DataError, DataWarning, Dataset, Sample, generator, shuffle, told};

/// The few photos that a specialist is made from.
#[derive(Debug, Default)]
pub struct FewShot {
    /// What pruning and recovery learn from, by class and then in the order of the draw.
    pub calibration: Vec<Sample>,
    /// Held out for every choice that is made on the way.
    pub heldout: Vec<Sample>,
    /// Photos that were drawn but cannot be decoded.
    pub bad: Vec<(PathBuf, PhotoError)>,
    /// Things to worry about.
    pub warnings: Vec<DataWarning>,
}

/// The shots of one class.
struct ClassShots {
    chosen: Vec<PathBuf>,
    bad: Vec<(PathBuf, PhotoError)>,
}

impl FewShot {
    /// Draws `shots_per_class` photos of each class from the training photos; 0 takes all of them.
    ///
    /// A class's draw depends on `seed`, its name and its photos only. Each drawn photo is decoded, and
    /// the next in the draw takes the place of one that cannot be (with 0 nothing could, so none is
    /// tried). The last `holdout_fraction` of the shots is held out: at least one of two or more,
    /// never all, nothing at fraction 0.
    pub fn draw(
        dataset: &Dataset,
        shots_per_class: usize,
        holdout_fraction: f64,
        seed: u64,
    ) -> Result<Self, DataError> {
        if !(0.0..1.0).contains(&holdout_fraction) {
            return Err(DataError::HoldoutFraction { fraction: holdout_fraction });
        }
        if dataset.train.is_empty() {
            return Err(DataError::NoTrain { root: dataset.root.clone() });
        }
        let drawn: Vec<ClassShots> = (0..dataset.classes.len())
            .into_par_iter()
            .map(|class| draw_class(dataset, class, shots_per_class, seed))
            .collect();
        let mut shots = Self::default();
        for (class, drawn) in drawn.into_iter().enumerate() {
            shots.add(class, &dataset.classes[class], drawn, shots_per_class, holdout_fraction)?;
        }
        Ok(shots)
    }

    /// Tells the warnings.
    pub fn tell(&self, progress: &mut dyn Progress) {
        self.warnings.iter().for_each(|warning| progress.warn(&warning.to_string()));
    }

    fn add(
        &mut self,
        class: usize,
        name: &str,
        drawn: ClassShots,
        wanted: usize,
        fraction: f64,
    ) -> Result<(), DataError> {
        let available = drawn.chosen.len();
        if let (0, Some(first)) = (available, drawn.bad.first()) {
            let (class, count, first) = (name.to_owned(), drawn.bad.len(), told(first));
            return Err(DataError::UnreadableClass { class, count, first });
        }
        if available < wanted {
            self.warnings.push(DataWarning::FewImages { class: name.to_owned(), available, wanted });
        }
        if available == 1 && wanted != 1 && fraction > 0.0 {
            self.warnings.push(DataWarning::OneImage { class: name.to_owned() });
        }
        let reasons = drawn.bad.iter().map(|photo| DataWarning::BadPhoto { reason: told(photo) });
        self.warnings.extend(reasons);
        let kept = available - held_out(available, fraction);
        for (i, path) in drawn.chosen.into_iter().enumerate() {
            let side = if i < kept { &mut self.calibration } else { &mut self.heldout };
            side.push(Sample { path, class });
        }
        self.bad.extend(drawn.bad);
        Ok(())
    }
}

/// How many of `count` shots are held out.
fn held_out(count: usize, fraction: f64) -> usize {
    if count < 2 || fraction == 0.0 {
        return 0;
    }
    ((count as f64 * fraction).round() as usize).clamp(1, count - 1)
}

fn draw_class(dataset: &Dataset, class: usize, shots: usize, seed: u64) -> ClassShots {
    let mut order: Vec<PathBuf> =
        dataset.train.iter().filter(|sample| sample.class == class).map(|s| s.path.clone()).collect();
    shuffle(&mut order, &mut generator(seed, "shots", &dataset.classes[class]));
    if shots == 0 {
        return ClassShots { chosen: order, bad: Vec::new() };
    }
    let (mut chosen, mut bad) = (Vec::new(), Vec::new());
    let mut rest = order.into_iter();
    while chosen.len() < shots {
        let next: Vec<PathBuf> = rest.by_ref().take(shots - chosen.len()).collect();
        if next.is_empty() {
            break;
        }
        let tried: Vec<Option<PhotoError>> =
            next.par_iter().map(|path| decode_with(path, drop).err()).collect();
        for (path, error) in next.into_iter().zip(tried) {
            match error {
                None => chosen.push(path),
                Some(error) => bad.push((path, error)),
            }
        }
    }
    ClassShots { chosen, bad }
}

#[cfg(test)]
mod tests;
