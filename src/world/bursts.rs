//! Bursts of fixed cameras: photos that differ by little more than noise.
//!
//! A camera in a tunnel or on a post looks at one place, in its own infrared light, and takes several frames each time that
//! something moves. So many photos tell little: an empty place is the same each time, and a burst shows one pose.

use std::ops::Range;
use std::path::Path;

use image::RgbImage;
use rayon::prelude::*;

use super::draw::Draw;
use super::{Camera, Species, World, WorldError, encode, photo, written};
use crate::progress::Progress;

/// Bursts of some cameras.
#[derive(Clone, Debug, PartialEq)]
pub struct Bursts {
    /// What is photographed, with the name of its folder.
    pub classes: Vec<(&'static str, &'static Species)>,
    /// Numbers of the cameras.
    pub cameras: Range<u32>,
    /// Numbers of the bursts that each camera takes of each class.
    pub bursts: Range<u32>,
    /// Frames of a burst.
    pub frames: u32,
}

/// One frame of a burst.
#[derive(Clone, Copy)]
struct Frame {
    class: usize,
    burst: u32,
    number: u32,
}

impl World {
    /// Writes `dir/<class>/cam03_burst02_1.jpg` … and says how many photos were written.
    ///
    /// The folder appears complete or not at all.
    pub fn write_bursts(
        &self,
        dir: &Path,
        survey: &Bursts,
        progress: &mut dyn Progress,
    ) -> Result<usize, WorldError> {
        let folders: Vec<&str> = survey.classes.iter().map(|(name, _)| *name).collect();
        let frames = survey.frames();
        let total = frames.len() * survey.cameras.len();
        progress.start("photographing bursts", total as u64);
        written(dir, &folders, &survey.cameras, |root, number| {
            let camera = self.camera(number);
            frames.par_iter().try_for_each(|frame| {
                let Frame { class, burst, number: nth } = *frame;
                let (folder, species) = survey.classes[class];
                let name = format!("cam{number:02}_burst{burst:02}_{nth}.jpg");
                let jpeg = encode(&self.frame(&camera, species, burst, nth))?;
                fs_err::write(root.join(folder).join(name), jpeg).map_err(WorldError::from)
            })?;
            progress.advance(frames.len() as u64);
            Ok(())
        })?;
        progress.finish();
        Ok(total)
    }

    /// A frame of a burst: place and light are the camera's, the animal is the burst's, its step and the noise the frame's.
    fn frame(self, camera: &Camera, species: &Species, burst: u32, frame: u32) -> RgbImage {
        let number = u64::from(camera.number);
        let [burst, frame] = [burst, frame].map(u64::from);
        let of_burst = [self.seed, 5, number, species.hash(), burst];
        photo::frame(
            &camera.scene,
            &camera.lens,
            species,
            photo::Draws {
                camera: Draw::new(&[self.seed, 4, number]),
                burst: Draw::new(&of_burst),
                frame: Draw::new(&[&of_burst[..], &[frame]].concat()),
            },
        )
    }
}

impl Bursts {
    /// Every frame of a camera.
    fn frames(&self) -> Vec<Frame> {
        let of = |class: usize| {
            let frames = move |burst: u32| (0..self.frames).map(move |number| Frame { class, burst, number });
            self.bursts.clone().flat_map(frames)
        };
        (0..self.classes.len()).flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    /// Mean difference of two photos, in grey levels.
    fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
        let sum: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        sum / a.as_raw().len() as f64
    }

    #[test]
    fn frames_of_a_burst_differ_less_than_bursts_and_bursts_less_than_cameras() {
        let world = World::new(3);
        let hare = Species::named("hare").unwrap();
        let photo = |camera, burst, frame| world.frame(&world.camera(camera), hare, burst, frame);
        assert_eq!(photo(7, 1, 1), photo(7, 1, 1));
        let first = photo(7, 1, 1);
        let [frame, burst, camera] =
            [photo(7, 1, 2), photo(7, 2, 1), photo(8, 1, 1)].map(|other| difference(&first, &other));
        assert!(frame > 0.5 && frame < 0.9 * burst && 2.0 * burst < camera, "{frame} {burst} {camera}");
    }

    #[test]
    fn every_camera_takes_every_burst_of_every_class() {
        let dir = tempfile::tempdir().unwrap();
        let classes =
            vec![("visitor", Species::named("hare").unwrap()), ("none", Species::named("empty").unwrap())];
        let survey = Bursts { classes, cameras: 4..6, bursts: 3..5, frames: 2 };
        let to = dir.path().join("bursts");
        assert_eq!(World::new(1).write_bursts(&to, &survey, &mut Silent).unwrap(), 16);
        let mut names: Vec<String> = fs_err::read_dir(to.join("none"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            (names.len(), names[1].as_str(), names[7].as_str()),
            (8, "cam04_burst03_1.jpg", "cam05_burst04_1.jpg")
        );
        assert!(matches!(World::new(1).write_bursts(&to, &survey, &mut Silent), Err(WorldError::Exists(_))));
    }
}
