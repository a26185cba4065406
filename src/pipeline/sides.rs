//! What a network loses of the held-out photos, each seen from several sides.

use tch::Tensor;

use super::PipelineError;
use super::evaluate::score;
use crate::distill::{Examples, corners};
use crate::torch::{TorchError, TorchModel};

/// Standard errors by which a loss exceeds what is allowed before it counts: chance alone does so once in twenty times.
const DOUBT: f64 = 1.645;

/// Held-out accuracy that a network loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Fractions that are right, dense and sparse, over photos and their sides.
    pub top1: [f64; 2],
    /// Standard error of their difference, photo by photo.
    pub error: f64,
    /// Number of photos.
    pub photos: usize,
}

/// The held-out fold as a limit sees it: every photo from several sides, whose answers tell more than one.
pub struct Sides {
    views: Examples,
    photos: usize,
}

impl Sides {
    /// The sides of some photos.
    pub fn of(photos: &Examples) -> Result<Self, TorchError> {
        Ok(Self { views: views(photos)?, photos: photos.len() })
    }

    /// The share of each photo's sides that a network answers right.
    pub fn right(&self, model: &TorchModel) -> Result<Vec<f64>, PipelineError> {
        let right = score(model, &self.views)?.right;
        let sides = right.len() / self.photos;
        // All photos from one side, then all from the next.
        let share = |photo: usize| {
            let right = right.iter().skip(photo).step_by(self.photos).filter(|right| **right).count();
            right as f64 / sides as f64
        };
        Ok((0..self.photos).map(share).collect())
    }
}

impl Loss {
    /// What the sparse network loses against the dense one, by the share of each photo's sides that are right.
    pub fn of(dense: &[f64], sparse: &[f64]) -> Self {
        let photos = dense.len();
        let mean = |of: &[f64]| of.iter().sum::<f64>() / photos as f64;
        let top1 = [mean(dense), mean(sparse)];
        let lost = top1[0] - top1[1];
        let squares: f64 =
            dense.iter().zip(sparse).map(|(dense, sparse)| (dense - sparse - lost).powi(2)).sum();
        let error =
            if photos > 1 { (squares / ((photos - 1) * photos) as f64).sqrt() } else { f64::INFINITY };
        Self { top1, error, photos }
    }

    /// Whether more is lost than is allowed, by more than chance is likely to make of the photos. One photo tells nothing.
    pub fn exceeds(&self, allowed: f64) -> bool {
        self.top1[0] - self.top1[1] - DOUBT * self.error > allowed
    }
}

/// The held-out photos from several sides, all from one and then all from the next: one or two photos of a rare class would tell
/// its recall in steps of a half.
pub fn views(examples: &Examples) -> Result<Examples, TorchError> {
    let images = corners(&examples.images)?;
    let classes = examples.classes.f_repeat([images.len() as i64])?;
    Ok(Examples::new(Tensor::f_cat(&images, 0)?, classes))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::models::{Design, build};
    use crate::pipeline::random_params;

    #[test]
    fn a_loss_counts_where_it_is_more_than_chance() {
        let dense = [1.0; 8];
        let three = Loss::of(&dense, &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(three.top1, [1.0, 0.625]);
        // Variance of three ones of eight: 15/56; of their mean: 15/448.
        assert!((three.error - (15.0_f64 / 448.0).sqrt()).abs() < 1e-12);
        assert!(three.exceeds(0.07) && !three.exceeds(0.08));
        // What is lost on some photos and won on others is no loss.
        let even = Loss::of(&[1.0, 1.0, 0.0, 0.0], &[0.0, 0.0, 1.0, 1.0]);
        assert!(!even.exceeds(0.0));
        // As much is lost everywhere: the same loss is told by fewer photos.
        let everywhere = Loss::of(&[1.0, 0.8, 0.6, 0.4], &[0.8, 0.6, 0.4, 0.2]);
        assert!(everywhere.error < 1e-9 && everywhere.exceeds(0.19) && !everywhere.exceeds(0.21));
        let one = Loss::of(&[1.0], &[0.0]);
        assert!(!one.exceeds(0.0), "one photo tells nothing: {one:?}");
    }

    #[test]
    fn a_photo_counts_by_the_share_of_its_sides() {
        let image = [32, 32];
        let design = Design { variant: "resnet18".into(), width: Some(4), depth: None, classes: 3, image };
        let graph = build(&design).unwrap();
        let model = TorchModel::new(graph.clone(), &random_params(&graph, 5), Device::Cpu).unwrap();
        let images = (Tensor::arange(7 * 3 * 32 * 32, (Kind::Float, Device::Cpu)) * 0.37).sin();
        let photos =
            Examples::new(images.reshape([7, 3, 32, 32]), Tensor::from_slice(&[0_i64, 1, 2, 0, 1, 2, 0]));
        let shares = Sides::of(&photos).unwrap().right(&model).unwrap();
        for (photo, share) in shares.iter().enumerate() {
            let alone = Sides::of(&photos.select(&[photo as i64]).unwrap()).unwrap();
            let own = alone.right(&model).unwrap();
            let tenths = (10.0 * share).round() / 10.0;
            assert!(
                (own[0] - share).abs() < 1e-9 && (tenths - share).abs() < 1e-9,
                "{photo}: {own:?} {share}"
            );
        }
    }
}
