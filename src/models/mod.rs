//! Architectures as graph builders, one file and one table line each.
//!
//! An [`Architecture`] recognises its checkpoints by names and shapes alone and builds the [`Graph`]
//! they were trained as, under canonical (timm) names. A [`NameMap`] leads back to the checkpoint's own.

mod config;
mod convnext;
mod dialect;
mod efficientnet;
mod names;
mod positions;
mod read;
mod reading;
mod resnet;
mod strangers;
mod vit;

use std::collections::BTreeMap;

use margay_core::{Graph, GraphError, nearest_name};

pub use config::Config;
pub use dialect::Dialect;
pub use names::{NameMap, Part};
pub use positions::{native_size, resize};
pub use reading::{Body, Reading, recognise};

/// Shape of every tensor of a checkpoint by its own key, wrapping prefixes removed.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Every family of architectures.
pub static ARCHITECTURES: &[&dyn Architecture] =
    &[&resnet::ResNet, &vit::Vit, &convnext::ConvNext, &efficientnet::EfficientNet];

/// A family of architectures.
pub trait Architecture: Sync {
    /// Name of the family, as `margay list` prints it.
    fn name(&self) -> &'static str;

    /// Names that [`Architecture::build`] knows.
    fn variants(&self) -> &'static [&'static str];

    /// Keys that checkpoints of the family have: what a stranger is compared with.
    fn marks(&self) -> &'static [&'static str];

    /// Canonical names of the layers that classify, the first that of a single classifier.
    fn heads(&self) -> &'static [&'static str];

    /// Whether a classifier may read twice the features of the body: the class token and the mean of the others.
    fn concatenates(&self) -> bool {
        false
    }

    /// Libraries whose checkpoints it reads.
    fn dialects(&self) -> &'static [Dialect];

    /// Whether a checkpoint with these tensors, under canonical names, belongs to the family, sound or not.
    fn recognises(&self, shapes: &Shapes) -> bool;

    /// The graph of a recognised checkpoint, under canonical names, for images of this height and width.
    ///
    /// Networks with position embeddings come for the size they were trained with.
    fn detect(&self, shapes: &Shapes, config: &Config, image: [usize; 2]) -> Result<Graph, ModelError>;

    /// The graph of a variant, to be trained from scratch.
    fn build(&self, design: &Design) -> Result<Graph, ModelError>;

    /// timm's keys for the graph of a variant, where canonical names are not timm's.
    fn timm_names(&self, _graph: &Graph) -> NameMap {
        NameMap::identity()
    }
}

/// What was found in a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Detected {
    /// What it computes, with canonical names.
    pub graph: Graph,
    /// Its own keys.
    pub names: NameMap,
    /// The library that names parameters so.
    pub library: &'static str,
}

/// What a model to be trained from scratch shall look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Design {
    /// Name of the variant (`resnet18`).
    pub variant: String,
    /// Channels after the stem; absent: the variant's usual width.
    pub width: Option<usize>,
    /// Number of blocks of a transformer; absent: the variant's usual depth.
    pub depth: Option<usize>,
    /// Number of classes.
    pub classes: usize,
    /// Height and width of the image.
    pub image: [usize; 2],
}

/// Why a checkpoint or a design is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No family recognises the checkpoint.
    #[error(
        "no known architecture has keys such as {}{}; margay reads {}",
        unmatched.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
        nearest.map_or_else(String::new, |family| format!(" (nearest: {family})")), families()
    )]
    Unrecognised {
        /// The family whose keys look most alike, if any are.
        nearest: Option<&'static str>,
        /// The first keys that it does not have.
        unmatched: Vec<String>,
    },
    /// The checkpoint is a classifier of a family that is not read.
    #[error("this is {what}; margay reads {}", families())]
    Stranger {
        /// What its keys look like.
        what: &'static str,
    },
    /// No family has a variant of this name.
    #[error("no architecture is named `{name}`{}", hint(nearest.as_deref()))]
    UnknownVariant {
        /// The name asked for.
        name: String,
        /// The variant that looks most like it.
        nearest: Option<String>,
    },
    /// A recognised checkpoint lacks a key that decides the geometry.
    #[error("key `{key}` is missing{}", hint(nearest.as_deref()))]
    MissingKey {
        /// The key.
        key: String,
        /// The key that looks most like it.
        nearest: Option<String>,
    },
    /// A tensor that decides the geometry has the wrong number of axes or an empty one.
    #[error("`{key}` has shape {got:?}, expected {expected} axes, none empty")]
    Axes {
        /// Key of the tensor.
        key: String,
        /// Axes expected.
        expected: usize,
        /// Shape found.
        got: Vec<usize>,
    },
    /// The checkpoint is a relative that the family cannot build.
    #[error("{variant} with {what} is not supported")]
    Unsupported {
        /// Name of the variant.
        variant: String,
        /// What is different.
        what: String,
    },
    /// The layers do not fit together or do not fit the image.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

fn families() -> String {
    let names: Vec<_> = ARCHITECTURES.iter().map(|family| format!("`{}`", family.name())).collect();
    names.join(", ")
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (nearest: `{name}`)"))
}

/// Recognises a checkpoint by the names and shapes of its tensors.
pub fn detect(shapes: &Shapes, config: &Config, image: [usize; 2]) -> Result<Detected, ModelError> {
    strangers::check(shapes)?;
    let reading = recognise(shapes).ok_or_else(|| unrecognised(shapes))?;
    let (graph, library) = (reading.graph(config, image)?, reading.library());
    Ok(Detected { graph, names: reading.into_names(), library })
}

/// Builds a variant by name.
pub fn build(design: &Design) -> Result<Graph, ModelError> {
    family_of(&design.variant)?.build(design)
}

/// timm's keys for what [`build`] makes of a design.
pub fn timm_names(design: &Design, graph: &Graph) -> Result<NameMap, ModelError> {
    Ok(family_of(&design.variant)?.timm_names(graph))
}

fn family_of(variant: &str) -> Result<&'static dyn Architecture, ModelError> {
    match ARCHITECTURES.iter().find(|family| family.variants().contains(&variant)) {
        Some(family) => Ok(*family),
        None => Err(ModelError::UnknownVariant {
            name: variant.to_owned(),
            nearest: nearest_name(variant, ARCHITECTURES.iter().flat_map(|f| f.variants()).copied()),
        }),
    }
}

/// Says what is missing where most is there, and else what is not known.
fn unrecognised(shapes: &Shapes) -> ModelError {
    /// One key may be alike by chance.
    const ALIKE: usize = 2;
    let nearest = reading::likeness(shapes).filter(|likeness| likeness.has.len() >= ALIKE);
    if let Some(likeness) = &nearest
        && let Some(key) = likeness.lacks.first().filter(|_| likeness.lacks.len() == 1)
    {
        let nearest = nearest_name(key, shapes.keys().map(String::as_str));
        return ModelError::MissingKey { key: key.clone(), nearest };
    }
    let has = |key: &&String| nearest.as_ref().is_some_and(|likeness| likeness.has.contains(*key));
    let unmatched = shapes.keys().filter(|key| !has(key)).take(3).cloned().collect();
    ModelError::Unrecognised { nearest: nearest.map(|likeness| likeness.family), unmatched }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn every_variant_builds_and_is_detected_again() {
        for family in ARCHITECTURES {
            for variant in family.variants() {
                let design = Design {
                    variant: (*variant).to_owned(),
                    width: None,
                    depth: None,
                    classes: 12,
                    image: [64, 64],
                };
                let graph = build(&design).unwrap();
                assert_eq!(graph.architecture, *variant);
                assert_eq!(graph.classes(), 12);
                let shapes: Shapes = graph.params().map(|spec| (spec.name, spec.shape)).collect();
                let detected = detect(&shapes, &Config::default(), [64, 64]).unwrap();
                assert!(detected.graph == graph, "{variant}");
            }
        }
    }

    /// What `scripts/key_shapes.py` wrote about a checkpoint.
    #[derive(serde::Deserialize)]
    struct Golden {
        library: String,
        architecture: String,
        classes: usize,
        parameters: usize,
        config: BTreeMap<String, serde_json::Value>,
    }

    fn golden(text: &str) -> (Golden, Shapes) {
        let (header, tensors) = text.split_once('\n').unwrap();
        let tensor = |line: &str| {
            let mut words = line.split(' ');
            let key = words.next().unwrap().to_owned();
            (key, words.map(|extent| extent.parse().unwrap()).collect())
        };
        (serde_json::from_str(header).unwrap(), tensors.lines().map(tensor).collect())
    }

    /// Every tensor belongs to one parameter or is left out, and every parameter is in the file.
    fn check_names(found: &Detected, shapes: &Shapes) -> usize {
        let mut rest = shapes.clone();
        for spec in found.graph.params() {
            let parts = found.names.parts(&spec.name, &spec.shape);
            for part in &parts {
                assert_eq!(rest.remove(&part.key), Some(part.shape.clone()), "{} of {}", part.key, spec.name);
                assert_eq!(found.names.name(&part.key), spec.name);
            }
            let stored: usize = parts.iter().map(|part| part.shape.iter().product::<usize>()).sum();
            assert_eq!(stored, spec.shape.iter().product::<usize>(), "{}", spec.name);
        }
        let left: Vec<_> = rest.keys().filter(|key| !found.names.leaves_out(key)).collect();
        assert!(left.is_empty(), "{left:?} belong to no parameter");
        rest.values().map(|shape| shape.iter().product::<usize>()).sum()
    }

    #[test]
    fn checkpoints_of_every_library_are_read_completely() {
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/shapes");
        let folder = std::env::var("MARGAY_SHAPES").unwrap_or_else(|_| own.to_owned());
        let mut checked = 0;
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let (golden, shapes) = golden(&fs_err::read_to_string(&path).unwrap());
            let file = path.file_stem().unwrap().display();
            let found = detect(&shapes, &Config::from(golden.config), [64, 64]);
            let found = found.unwrap_or_else(|error| panic!("{file}: {error}"));
            let got = (found.library, found.graph.architecture.as_str(), found.graph.classes());
            assert_eq!(
                got,
                (golden.library.as_str(), golden.architecture.as_str(), golden.classes),
                "{file}"
            );
            let unused = check_names(&found, &shapes);
            assert_eq!(found.graph.parameters() + unused, golden.parameters, "{file}");
            checked += 1;
        }
        assert!(checked >= 16, "{checked}");
    }

    #[test]
    fn strangers_are_named() {
        let design =
            Design { variant: "resnet81".to_owned(), width: None, depth: None, classes: 2, image: [32, 32] };
        let error = build(&design).unwrap_err().to_string();
        assert!(error.contains("`resnet81`") && error.contains("`resnet1"), "{error}");
        let shapes = Shapes::from([("trunk.0.weight".to_owned(), vec![40, 3, 4, 4])]);
        let error = detect(&shapes, &Config::default(), [64, 64]).unwrap_err().to_string();
        assert!(error.contains("`trunk.0.weight`") && !error.contains("nearest"), "{error}");
        let table =
            [("layers.0.blocks.0.attn.relative_position_bias_table", "Swin"), ("denseblock1.a", "DenseNet")];
        for (key, what) in table {
            let shapes = Shapes::from([(key.to_owned(), vec![169, 3])]);
            let error = detect(&shapes, &Config::default(), [64, 64]).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("`convnext`"), "{error}");
        }
    }
}
