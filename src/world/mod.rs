//! The demo's camera-trap world, drawn by code.
//!
//! Cameras stand in different habitats and photograph animals by day and, in infrared, by night. The
//! pictures depend on the seed alone, and no value that reaches a pixel comes from libm.

mod animal;
mod bursts;
mod canvas;
mod draw;
mod photo;
mod scene;
mod species;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use image::{ImageError, RgbImage, codecs::jpeg::JpegEncoder};
use margay_core::output::{Existing, OutputFolder};
use rayon::prelude::*;

use crate::progress::Progress;
pub use bursts::Bursts;
use draw::Draw;
use photo::Lens;
use scene::Scene;
pub use species::{SPECIES, Species};

/// Width of a photo in pixels.
pub const WIDTH: u32 = 160;
/// Height of a photo in pixels.
pub const HEIGHT: u32 = 120;

const QUALITY: u8 = 88;

/// All cameras and animals that belong to a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    seed: u64,
}

/// Photos of some species by some cameras.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// What is photographed; each gets a folder.
    pub species: Vec<&'static Species>,
    /// Numbers of the cameras.
    pub cameras: Range<u32>,
    /// Photos per species, taken by the cameras in turn.
    pub per_species: usize,
}

/// Why a data set could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The folder to be made is there already.
    #[error("`{}` exists already", .0.display())]
    Exists(PathBuf),
    /// A survey without cameras.
    #[error("a survey needs at least one camera, got {}..{}", .0.start, .0.end)]
    NoCameras(Range<u32>),
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The encoder refused.
    #[error("cannot encode a photo")]
    Encode(#[from] ImageError),
}

/// A camera at its place.
struct Camera {
    number: u32,
    scene: Scene,
    lens: Lens,
}

impl World {
    /// The world of that seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The `index`-th photo of a species by a camera.
    pub fn photo(&self, species: &Species, camera: u32, index: u32) -> RgbImage {
        self.shoot(&self.camera(camera), species, index)
    }

    /// Writes `dir/<species>/cam03_0007.jpg` … and says how many photos were written.
    ///
    /// The folder appears complete or not at all.
    pub fn write_dataset(
        &self,
        dir: &Path,
        survey: &Survey,
        progress: &mut dyn Progress,
    ) -> Result<usize, WorldError> {
        let folders: Vec<&str> = survey.species.iter().map(|species| species.name).collect();
        let total = survey.species.len() * survey.per_species;
        progress.start("photographing animals", total as u64);
        written(dir, &folders, &survey.cameras, |root, number| {
            progress.advance(self.write_camera(root, survey, number)? as u64);
            Ok(())
        })?;
        progress.finish();
        Ok(total)
    }

    fn write_camera(self, root: &Path, survey: &Survey, number: u32) -> Result<usize, WorldError> {
        let turn = (number - survey.cameras.start) as usize;
        let count = (survey.per_species + survey.cameras.len() - 1 - turn) / survey.cameras.len();
        let shots: Vec<(&Species, u32)> =
            survey.species.iter().flat_map(|s| (0..count as u32).map(move |i| (*s, i))).collect();
        let camera = self.camera(number);
        shots.par_iter().try_for_each(|(species, index)| {
            let jpeg = encode(&self.shoot(&camera, species, *index))?;
            let name = format!("cam{number:02}_{index:04}.jpg");
            fs_err::write(root.join(species.name).join(name), jpeg).map_err(WorldError::from)
        })?;
        Ok(shots.len())
    }

    fn camera(self, number: u32) -> Camera {
        Camera { number, scene: Scene::new(self.seed, number), lens: Lens::new(self.seed, number) }
    }

    fn shoot(self, camera: &Camera, species: &Species, index: u32) -> RgbImage {
        let mut draw = Draw::new(&[self.seed, 3, u64::from(camera.number), species.hash(), u64::from(index)]);
        photo::take(&camera.scene, &camera.lens, species, &mut draw)
    }
}

/// Makes `dir` with some folders in it, which `camera` fills for one camera after the other: complete or not at all.
fn written(
    dir: &Path,
    folders: &[&str],
    cameras: &Range<u32>,
    mut camera: impl FnMut(&Path, u32) -> Result<(), WorldError>,
) -> Result<(), WorldError> {
    if dir.exists() {
        return Err(WorldError::Exists(dir.to_owned()));
    }
    if cameras.is_empty() {
        return Err(WorldError::NoCameras(cameras.clone()));
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs_err::create_dir_all(parent)?;
    let draft = OutputFolder::create(dir, Existing::Stays).map_err(io::Error::from)?;
    for folder in folders {
        fs_err::create_dir_all(draft.path().join(folder))?;
    }
    for number in cameras.clone() {
        camera(draft.path(), number)?;
    }
    draft.commit().map_err(io::Error::from)?;
    Ok(())
}

fn encode(photo: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(photo)?;
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::progress::Silent;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs_err::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn survey(cameras: Range<u32>) -> Survey {
        let species = ["empty", "margay"].map(|name| Species::named(name).unwrap());
        Survey { species: species.to_vec(), cameras, per_species: 5 }
    }

    #[test]
    fn names_are_sorted_and_unknown_ones_absent() {
        assert!(SPECIES.is_sorted_by_key(|species| species.name));
        assert!(Species::named("dodo").is_none());
    }

    #[test]
    fn photos_depend_on_seed_species_camera_and_index_alone() {
        let [fox, bear] = ["fox", "bear"].map(|name| Species::named(name).unwrap());
        let photo = World::new(1).photo(fox, 2, 3);
        assert_eq!(photo, World::new(1).photo(fox, 2, 3));
        for other in [
            World::new(2).photo(fox, 2, 3),
            World::new(1).photo(bear, 2, 3),
            World::new(1).photo(fox, 4, 3),
            World::new(1).photo(fox, 2, 4),
        ] {
            assert_ne!(photo, other);
        }
    }

    /// The shipped generalist has learnt these pixels; whoever changes them must train it again.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn pixels_are_those_that_the_generalist_has_learnt() {
        let mut hash = Sha256::new();
        for (camera, species) in SPECIES.iter().enumerate() {
            hash.update(World::new(1).photo(species, camera as u32, 2).as_raw());
        }
        let got = hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(got, "51b20b59dab563e504c3be71f06295474fdf11caaba2563990aa1c491997cdbf");
    }

    #[test]
    fn an_animal_changes_more_of_the_picture_than_noise() {
        let world = World::new(5);
        let [bear, empty] = ["bear", "empty"].map(|name| Species::named(name).unwrap());
        let dark = |species: &Species| -> usize {
            let photos = (0..12).map(|index| world.photo(species, 1, index));
            let day = photos.filter(|p| p.pixels().any(|p| p.0[0].abs_diff(p.0[2]) > 60));
            day.map(|p| p.pixels().filter(|p| p.0.iter().all(|v| *v < 70)).count()).max().unwrap_or(0)
        };
        assert!(dark(bear) > dark(empty) + 1000, "{} {}", dark(bear), dark(empty));
    }

    #[test]
    fn a_survey_is_the_same_for_any_number_of_threads() {
        let dir = tempfile::tempdir().unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let to = dir.path().join(threads.to_string());
            let written =
                pool.install(|| World::new(9).write_dataset(&to, &survey(3..5), &mut Silent)).unwrap();
            assert_eq!(written, 10);
        }
        let files = names(&dir.path().join("1/margay"));
        let expected =
            ["cam03_0000.jpg", "cam03_0001.jpg", "cam03_0002.jpg", "cam04_0000.jpg", "cam04_0001.jpg"];
        assert_eq!(files, expected);
        for name in files.iter().flat_map(|f| [format!("margay/{f}"), format!("empty/{f}")]) {
            let read = |threads: &str| fs_err::read(dir.path().join(threads).join(&name)).unwrap();
            assert_eq!(read("1"), read("3"), "{name}");
        }
        assert_eq!(names(dir.path()), ["1", "3"], "no draft stays behind");
    }

    #[test]
    fn refuses_a_folder_that_exists_and_a_survey_without_cameras() {
        let dir = tempfile::tempdir().unwrap();
        let write = |to: &Path, cameras| World::new(1).write_dataset(to, &survey(cameras), &mut Silent);
        assert!(matches!(write(dir.path(), 0..1), Err(WorldError::Exists(_))));
        assert!(matches!(write(&dir.path().join("new"), 4..4), Err(WorldError::NoCameras(_))));
        assert!(!dir.path().join("new").exists());
    }
}
