use std::fmt;

use margay_core::{Preprocess, Resize};

use super::presets;
use crate::recipe::{InputSpec, ResizeChoice};

/// Side of the input where nothing says otherwise.
const SIDE: usize = 224;

/// Who says how photos are prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user, by the name of a preset.
    Preset(&'static str),
    /// A file of the checkpoint.
    File(String),
    /// Nobody.
    Assumed,
}

/// What the files of a checkpoint say.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// How photos are prepared.
    pub spec: Preprocess,
    /// The file that says so.
    pub file: String,
}

/// How a run prepares photos, and who says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// How photos are prepared.
    pub spec: Preprocess,
    /// Who chose constants and filter; the geometry may be the user's own.
    pub origin: Origin,
}

/// A recipe names a preset that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPreset {
    /// The name in the recipe.
    pub name: String,
    /// The name that looks most like it.
    pub nearest: Option<String>,
}

/// The input of a run: the user's preset, else what the checkpoint's files say, else ImageNet's constants.
///
/// `image_size` and `resize` of the recipe change the geometry only. A preset comes at the size `native`
/// whose positions the network has learned, if it has learned any and the preset does not resample them; `hint` is the side that the images
/// suggest where nobody says anything.
pub fn resolve(
    input: &InputSpec,
    known: Option<Known>,
    native: Option<[usize; 2]>,
    hint: impl FnOnce() -> Option<usize>,
) -> Result<Resolved, UnknownPreset> {
    let chosen = input.image_size.map(|side| [side, side]);
    let (spec, origin) = match (&input.preprocess, known) {
        (Some(name), _) => {
            let unknown = || UnknownPreset { name: name.clone(), nearest: presets::nearest(name) };
            let preset = presets::find(name).ok_or_else(unknown)?;
            let size = chosen.or(native.filter(|_| !preset.resamples)).unwrap_or(preset.spec.size);
            (preset.spec.at(size), Origin::Preset(preset.name))
        }
        (None, Some(Known { spec, file })) => {
            let size = chosen.unwrap_or(spec.size);
            (spec.at(size), Origin::File(file))
        }
        (None, None) => {
            let size = chosen.or(native).unwrap_or_else(|| [hint().unwrap_or(SIDE); 2]);
            (assumed(size), Origin::Assumed)
        }
    };
    let spec = match input.resize {
        Some(choice) => Preprocess { resize: resize(choice, &spec), ..spec },
        None => spec,
    };
    Ok(Resolved { spec, origin })
}

/// torchvision's evaluation at its own size, else the whole photo: small crops are no habit of anyone.
fn assumed(size: [usize; 2]) -> Preprocess {
    let usual = Preprocess::torchvision(SIDE);
    if size == usual.size { usual } else { Preprocess { size, ..Preprocess::squash(SIDE) } }
}

/// The geometry that the user asks for; a margin that is known stays.
fn resize(choice: ResizeChoice, spec: &Preprocess) -> Resize {
    let shorter = spec.size[0].min(spec.size[1]);
    match (choice, spec.resize) {
        (ResizeChoice::ShortSide, Resize::ShortSide(short)) => Resize::ShortSide(short),
        (ResizeChoice::ShortSide, _) => Resize::ShortSide(shorter * 256 / 224),
        (ResizeChoice::Squash, _) => Resize::Squash,
        (ResizeChoice::Pad, fit @ Resize::Fit { .. }) => fit,
        (ResizeChoice::Pad, _) => {
            let fill = spec.normalization.mean.map(|mean| (255.0 * mean).round() as u8);
            Resize::Fit { sides: spec.size, fill }
        }
    }
}

impl Resolved {
    /// What the user is told where nobody says how photos are prepared.
    pub fn warning(&self) -> Option<String> {
        (self.origin == Origin::Assumed).then(|| {
            format!(
                "nothing says how photos are prepared for this checkpoint; assumed: {}. \
                 --preprocess NAME sets it (`margay list` has the names); the shots will check the constants",
                self.spec
            )
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(name) => write!(f, "--preprocess {name}"),
            Self::File(file) => f.write_str(file),
            Self::Assumed => f.write_str("assumed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use margay_core::{Interpolation, Normalization};

    use super::*;

    fn input(preprocess: Option<&str>, image_size: Option<usize>, resize: Option<ResizeChoice>) -> InputSpec {
        InputSpec { preprocess: preprocess.map(str::to_owned), image_size, resize, head: None }
    }

    fn known() -> Known {
        let spec = presets::find("augreg").unwrap().spec.clone();
        Known { spec, file: "config.json".to_owned() }
    }

    #[test]
    fn the_user_wins_over_the_files_and_the_files_over_habit() {
        let resolve = |input: &InputSpec, known| resolve(input, known, None, || Some(64)).unwrap();
        let preset = resolve(&input(Some("hf-convnext"), None, None), Some(known()));
        assert_eq!(preset.origin, Origin::Preset("hf-convnext"));
        assert_eq!(preset.spec, presets::find("hf-convnext").unwrap().spec);
        let stored = resolve(&input(None, None, None), Some(known()));
        assert_eq!((stored.spec, stored.origin), (known().spec, Origin::File("config.json".to_owned())));
        let assumed = resolve(&input(None, None, None), None);
        assert_eq!((&assumed.spec, &assumed.origin), (&Preprocess::squash(64), &Origin::Assumed));
        assert!(assumed.warning().unwrap().contains("squash to 64 x 64"), "{:?}", assumed.warning());
        let nothing = super::resolve(&input(None, None, None), None, None, || None).unwrap();
        assert_eq!(nothing.spec, Preprocess::torchvision(224));
        assert!(preset.warning().is_none());
    }

    #[test]
    fn flags_change_the_geometry_and_keep_constants_and_filter() {
        let all = [ResizeChoice::Squash, ResizeChoice::ShortSide, ResizeChoice::Pad];
        let fill = [128; 3];
        let fit = Resize::Fit { sides: [112, 112], fill };
        let expected = [Resize::Squash, Resize::ShortSide(124), fit];
        for (choice, resize) in all.into_iter().zip(expected) {
            for (preset, known) in [(Some("augreg"), None), (None, Some(known()))] {
                let spec = super::resolve(&input(preset, Some(112), Some(choice)), known, None, || None);
                let spec = spec.unwrap().spec;
                assert_eq!((spec.size, spec.resize), ([112, 112], resize));
                assert_eq!(spec.interpolation, Interpolation::Bicubic);
                assert_eq!(spec.normalization, Normalization::INCEPTION);
            }
        }
    }

    #[test]
    fn presets_come_at_the_size_of_learned_positions() {
        let spec = resolve(&input(Some("augreg"), None, None), None, Some([384, 384]), || None).unwrap().spec;
        assert_eq!((spec.size, spec.resize), ([384, 384], Resize::ShortSide(425)));
        let dino =
            |side| resolve(&input(Some("dinov2"), side, None), None, Some([518, 518]), || None).unwrap().spec;
        assert_eq!((dino(None).size, dino(None).resize), ([224, 224], Resize::ShortSide(256)));
        assert_eq!(dino(Some(518)).size, [518, 518]);
        let error = resolve(&input(Some("augrag"), None, None), None, None, || None).unwrap_err();
        assert_eq!(error.nearest.as_deref(), Some("augreg"));
    }
}
