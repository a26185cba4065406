//! Where photos are, which of them count, and how they become inputs.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::options::{Options, entry, said};

/// The largest input side that is accepted, in pixels.
const MAX_IMAGE_SIZE: usize = 1024;

/// How folders become classes, and classes outputs of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[options(heading = "Data")]
pub struct ClassSpec {
    /// How far below the folder (or below train/ and val/) the class folders are: 2 for camera/class.
    #[option(flag = "class-level", value = "N", range = 1..=32, shown = "1, and folders that look like cameras are refused")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<usize>,
    /// Follow links that lead out of the folder.
    #[option(switch)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub follow_links: bool,
    /// Fit a new head, even if the checkpoint's labels are the classes or look like them.
    #[option(switch, conflicts("map"))]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fit_head: bool,
    /// Labels of the model that a class folder stands for, such as `fox=red_fox,kit_fox`: several count as one.
    #[option(
        value = "CLASS=LABEL,…", set = mapping, many,
        help = "Labels of the model that a class folder stands for, such as `fox=red_fox,kit_fox`: several count as one; may be given more than once"
    )]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub map: BTreeMap<String, Vec<String>>,
}

impl ClassSpec {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads `class=label,label`.
fn mapping(text: &str) -> Result<Table, String> {
    let (class, labels) = text.split_once('=').ok_or("must be such as fox=red_fox,kit_fox")?;
    let labels: Vec<&str> = labels.split(',').map(str::trim).collect();
    if class.trim().is_empty() || labels.contains(&"") {
        return Err("must name a class and its labels, such as fox=red_fox,kit_fox".to_owned());
    }
    Ok(entry("map", Value::Table(entry(class.trim(), Value::from(labels)))))
}

/// How the few shots are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[options(heading = "Data")]
pub struct Shots {
    /// Images per class; 0 takes all.
    #[option(default = 16, flag = "shots", value = "N", set = per_class, help = "Images per class, or `all`")]
    pub per_class: usize,
    /// Fraction of the shots held out for every choice (at least one image per class where two exist).
    #[option(
        default = 0.2, value = "FRACTION", range = 0.0..=0.9,
        help = "Fraction of the shots held out for choices made on the way"
    )]
    pub holdout: f64,
    /// Whether every class counts the same, however many shots it has.
    #[option(
        default = true,
        flag = "unbalanced",
        switch,
        help = "Let classes with more shots count more than rare ones"
    )]
    pub balance: bool,
    /// Most photos to take from --general.
    #[option(default = 256, flag = "general-images", value = "N", unused = no_general)]
    pub general: usize,
    /// Photos of --general to rank by their similarity to the task, before the best are taken; 0: take a random subset.
    #[option(default = 2048, value = "N", unused = no_pool)]
    pub general_pool: usize,
    /// Most photos to take from --unlabelled.
    #[option(default = 1024, flag = "unlabelled-images", value = "N", unused = no_unlabelled)]
    pub unlabelled: usize,
}

/// Reads a number of shots, or `all`.
pub(super) fn per_class(text: &str) -> Result<Table, String> {
    let number: i64 = match text.parse() {
        _ if text == "all" => 0,
        Ok(number) if number > 0 => number,
        _ => return Err("must be a whole number above 0, or `all`".to_owned()),
    };
    Ok(entry("per-class", Value::Integer(number)))
}

pub(super) fn no_general(recipe: &Table) -> Option<&'static str> {
    said(recipe, "general").is_none().then_some("there is no folder --general")
}

fn no_pool(recipe: &Table) -> Option<&'static str> {
    let share = said(recipe, "prune.general-share").and_then(Value::as_float);
    no_general(recipe).or((share == Some(0.0)).then_some("no photo of --general counts (--general-share 0)"))
}

fn no_unlabelled(recipe: &Table) -> Option<&'static str> {
    said(recipe, "unlabelled").is_none().then_some("there is no folder --unlabelled")
}

/// How photos become inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[options(heading = "Data")]
pub struct InputSpec {
    /// How photos are prepared, by name, see `margay list`.
    #[option(value = "NAME", shown = "as the checkpoint's files say")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<String>,
    /// Side of the square input in pixels.
    #[option(value = "PIXELS", range = 8..=MAX_IMAGE_SIZE, shown = "as prepared, else that of the images up to 224")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// The layer that is the checkpoint's classifier, or none to fit a new one.
    #[option(value = "LAYER", shown = "the only one that can be")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// How a photo is resized to the input.
    #[option(choices, shown = "as prepared, else short-side at 224, squash elsewhere")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<ResizeChoice>,
}

/// How a photo is brought to the input size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeChoice {
    /// Scale both sides.
    Squash,
    /// Scale the short side to 256/224 of the size (or as the preset says), cut out the centre.
    ShortSide,
    /// Scale the photo until it fits, fill the rest with the mean colour.
    Pad,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shots_and_mappings_are_read_as_people_write_them() {
        assert_eq!(per_class("all").unwrap(), "per-class = 0".parse().unwrap());
        assert_eq!(per_class("3").unwrap(), "per-class = 3".parse().unwrap());
        for bad in ["0", "-1", "few", ""] {
            assert!(per_class(bad).is_err(), "{bad}");
        }
        assert_eq!(mapping("fox = c, d").unwrap(), "map.fox = ['c', 'd']".parse().unwrap());
        for bad in ["fox", "=a", "fox=", "fox=a,,b"] {
            assert!(mapping(bad).is_err(), "{bad}");
        }
    }
}
