//! Groups of near-duplicate photos: the frames of one burst, or of one fixed camera.
//!
//! A photo that is left out while its twins stay says nothing of what becomes of new photos. So what is left out, or held
//! out, is left out group by group.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::Examples;
use crate::torch::TorchError;

/// Side of the grey pictures that are compared, in pixels.
const SIDE: i64 = 32;
/// Photos compared at a time with all others.
const ROWS: usize = 256;
/// Correlations of grey pictures from which two photos count as near-duplicates.
///
/// Photos of different scenes hardly ever reach the first (docs/results.md). A fixed camera's photos all do; they are told
/// apart by the first of the others that divides every class.
const LEVELS: [f32; 6] = [0.95, 0.97, 0.98, 0.99, 0.995, 0.998];

/// Which examples are near-duplicates of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Group of each example, numbered in the order of their first examples.
    pub of: Vec<usize>,
    /// Classes of two or more photos that are near-duplicates whatever the level: each photo is a group of its own.
    pub alike: Vec<usize>,
}

impl Groups {
    /// The groups of the labelled examples.
    pub fn of(examples: &Examples) -> Result<Self, TorchError> {
        let _no_grad = tch::no_grad_guard();
        let count = examples.labelled() as i64;
        let classes = Vec::<i64>::try_from(examples.classes.f_narrow(0, 0, count)?)?;
        let classes: Vec<usize> = classes.into_iter().map(|class| class as usize).collect();
        Self::among(&pictures(&examples.images.f_narrow(0, 0, count)?)?, &classes)
    }

    /// The groups of pictures `[n, d]` of length 1.
    fn among(pictures: &Tensor, classes: &[usize]) -> Result<Self, TorchError> {
        let counts = counts(classes);
        // A class's only photo is a group of its own.
        let mut levels: Vec<usize> =
            counts.iter().map(|count| if *count > 1 { 0 } else { LEVELS.len() }).collect();
        loop {
            let of = linked(pictures, classes, &levels)?;
            let whole = |class: usize| levels[class] < LEVELS.len() && groups_of(&of, classes, class) == 1;
            let whole: Vec<usize> = (0..counts.len()).filter(|class| whole(*class)).collect();
            if whole.is_empty() {
                let alike = |class: &usize| counts[*class] > 1 && levels[*class] == LEVELS.len();
                return Ok(Self { alike: (0..counts.len()).filter(alike).collect(), of });
            }
            for class in whole {
                levels[class] += 1;
            }
        }
    }

    /// Examples of each group.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.count()];
        self.of.iter().enumerate().for_each(|(at, group)| members[*group].push(at));
        members
    }

    /// Number of groups.
    pub fn count(&self) -> usize {
        self.of.iter().max().map_or(0, |last| last + 1)
    }
}

/// Number of examples of each class.
fn counts(classes: &[usize]) -> Vec<usize> {
    let mut counts = vec![0; classes.iter().max().map_or(0, |last| last + 1)];
    for class in classes {
        counts[*class] += 1;
    }
    counts
}

/// Number of groups that a class is in.
fn groups_of(of: &[usize], classes: &[usize], class: usize) -> usize {
    let mut groups: Vec<usize> =
        of.iter().zip(classes).filter(|(_, of)| **of == class).map(|(g, _)| *g).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.len()
}

/// Small grey pictures `[n, SIDE²]` of images `[n, 3, h, w]`, their mean 0 and their length 1.
fn pictures(images: &Tensor) -> Result<Tensor, TorchError> {
    let small = images.f_adaptive_avg_pool2d([SIDE; 2])?;
    let grey = small.f_mean_dim([1_i64].as_slice(), false, Kind::Float)?.f_flatten(1, -1)?;
    let grey = grey.f_sub(&grey.f_mean_dim([1_i64].as_slice(), true, Kind::Float)?)?;
    let length = grey.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Float)?.f_sqrt()?;
    Ok(grey.f_div(&length.f_clamp_min(1e-6)?)?)
}

/// Joins what correlates at the levels of both classes.
fn linked(pictures: &Tensor, classes: &[usize], levels: &[usize]) -> Result<Vec<usize>, TorchError> {
    let count = classes.len();
    let mut sets = Sets((0..count).collect());
    let least = |class: usize| LEVELS.get(levels[class]).copied().unwrap_or(f32::INFINITY);
    for start in (0..count).step_by(ROWS) {
        let rows = start..(start + ROWS).min(count);
        let correlations = correlations(pictures, &rows)?;
        for (row, line) in rows.zip(correlations.chunks_exact(count)) {
            let own = least(classes[row]);
            let near = |at: &usize| line[*at] >= own.max(least(classes[*at]));
            (0..row).filter(near).for_each(|at| sets.join(at, row));
        }
    }
    Ok(sets.numbered())
}

/// Correlations of some pictures with all, row by row.
fn correlations(pictures: &Tensor, rows: &Range<usize>) -> Result<Vec<f32>, TorchError> {
    let own = pictures.f_narrow(0, rows.start as i64, rows.len() as i64)?;
    let correlations = own.f_matmul(&pictures.f_transpose(0, 1)?)?.f_flatten(0, -1)?;
    Ok(Vec::try_from(correlations.f_to_device(tch::Device::Cpu)?)?)
}

/// Disjoint sets: each example leads to an earlier one of its set, the first to itself.
struct Sets(Vec<usize>);

impl Sets {
    fn first(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let [a, b] = [a, b].map(|at| self.first(at));
        self.0[a.max(b)] = a.min(b);
    }

    /// The set of each example, numbered in the order of their first examples.
    fn numbered(mut self) -> Vec<usize> {
        let firsts: Vec<usize> = (0..self.0.len()).map(|at| self.first(at)).collect();
        let mut order = firsts.clone();
        order.sort_unstable();
        order.dedup();
        firsts.iter().map(|first| order.partition_point(|other| other < first)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Pictures in a plane, by their angles in degrees.
    fn at(degrees: &[f64]) -> Tensor {
        let angles = Tensor::from_slice(degrees) * std::f64::consts::PI / 180.0;
        Tensor::stack(&[angles.cos(), angles.sin()], 1).to_kind(Kind::Float)
    }

    fn among(degrees: &[f64], classes: &[usize]) -> Groups {
        Groups::among(&at(degrees), classes).unwrap()
    }

    #[test]
    fn twins_are_one_group_and_others_groups_of_their_own() {
        let groups = among(&[0.0, 60.0, 5.0, 120.0, 62.0, 180.0], &[0, 0, 0, 1, 1, 1]);
        assert_eq!(groups.of, [0, 1, 0, 2, 1, 3]);
        assert_eq!((groups.alike.len(), groups.members()[0].clone(), groups.count()), (0, vec![0, 2], 4));
    }

    #[test]
    fn a_class_of_one_scene_is_divided_at_a_level_of_its_own() {
        // 0.99 is 8.1 degrees, 0.995 is 5.7: class 0 falls into three bursts, class 1 was divided before.
        let degrees = [0.0, 2.0, 9.0, 10.0, 18.0, 60.0, 62.0, 100.0];
        let groups = among(&degrees, &[0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!((groups.of, groups.alike), (vec![0, 0, 1, 1, 2, 3, 3, 4], vec![]));
    }

    #[test]
    fn where_nothing_divides_a_class_each_photo_counts_and_it_is_told() {
        let groups = among(&[0.0, 1.0, 2.0, 1.5, 90.0, 2.5], &[0, 0, 0, 1, 1, 2]);
        assert_eq!(groups.of, [0, 1, 2, 3, 4, 5], "class 2 has a single photo");
        assert_eq!(groups.alike, [0]);
    }

    #[test]
    fn noise_and_light_make_no_new_scene() {
        tch::manual_seed(3);
        let scenes = Tensor::rand([4, 3, 8, 8], (Kind::Float, Device::Cpu));
        let scenes = scenes.upsample_nearest2d([64, 64], None, None);
        let noise = || Tensor::randn([3, 64, 64], (Kind::Float, Device::Cpu)) * 0.05;
        let frames: Vec<Tensor> =
            (0..8).map(|i| (scenes.select(0, i % 4) + noise()) * (1.0 + i as f64) - 0.3).collect();
        let classes = Tensor::from_slice(&[0_i64, 1, 0, 1, 0, 1, 0, 1]);
        let groups = Groups::of(&Examples::new(Tensor::stack(&frames, 0), classes)).unwrap();
        assert_eq!((groups.of, groups.alike), (vec![0, 1, 2, 3, 0, 1, 2, 3], vec![]));
    }
}
