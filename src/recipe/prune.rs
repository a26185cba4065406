//! How weights are removed.

use clap::ValueEnum;
use margay_core::{Granularity, Sparsity};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::data::no_general;
use super::methods::{AlpsSpec, ErkSpec, EvoSpec, ObcSpec, is_default};
use crate::options::{Opt, Options, Read, entry, points};

/// How weights are removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[options(heading = "Pruning")]
pub struct PruneSpec {
    /// Name of the solver, see `margay list`.
    #[option(default = "alps".to_owned(), value = "NAME")]
    pub solver: String,
    /// How sparsity is spread over layers, see `margay list`.
    #[option(default = "erk".to_owned(), value = "NAME")]
    pub allocation: String,
    /// Fraction of zeros over the weights that count, see --count.
    #[option(
        default = Sparsity::from_compression(20.0).expect("a factor above 1"), value = "FRACTION", set = sparsity,
        replaces("target"), also(compression)
    )]
    pub sparsity: Sparsity,
    /// Which weights a compression counts: all, or prunable (without stem, head, norms, biases, positions).
    #[option(choices)]
    pub count: Count,
    /// What the network may cost: 10x-macs (fewer multiply-adds), 3x-speedup or 8ms (on this machine); absent: the weights
    /// that the sparsity leaves.
    #[option(
        value = "TARGET", set = weights_or_cost, replaces("target"), conflicts("sparsity", "compression"),
        help = "What the network may cost: 20x (fewer weights), 10x-macs (fewer multiply-adds), 3x-speedup or 8ms (on this machine)"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Most accuracy that the held-out shots may lose; less is pruned where they lose more, beyond chance.
    #[option(
        value = "POINTS|none", points, set = max_drop, replaces("max-drop"), range = 0.0..=100.0,
        shown = "3, or what the recipe says",
        help = "Lower the compression until the held-out shots lose at most so many points of accuracy, beyond chance; none: prune as far as asked"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
    /// Most that a class's recall may fall, by cross-validation on the shots; beyond it less is pruned.
    #[option(
        value = "POINTS", points, range = 0.0..=100.0,
        help = "Lower the compression until no class loses more than so many points of recall, by cross-validation on the shots"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_class_drop: Option<f64>,
    /// What stays or goes as one: unstructured (any weight), 2:4 (N:M), 4x1 (rows x columns of blocks), channels (whole
    /// channels and heads; --allocation erk or uniform).
    #[option(default = Granularity::UNSTRUCTURED, value = "PATTERN", set = pattern)]
    #[serde(with = "as_text")]
    pub pattern: Granularity,
    /// Damping of the Hessian, relative to its diagonal; auto: the best of three on the held-out fold.
    #[option(default = Tuned::Value(0.1), value = "X|auto", range = 0.0..=1e3)]
    pub damping: Tuned,
    /// Weight of the --general photos beside the shots, 0 to 1; auto: the best of four on the held-out fold.
    #[option(default = Tuned::Auto, value = "X|auto", range = 0.0..=1.0, unused = no_general)]
    pub general_share: Tuned,
    /// How much each layer compensates for the pruning error of the layers before it, 0 (not) to 1 (fully).
    #[option(default = 1.0, value = "X", range = 0.0..=1.0)]
    pub correction: f64,
    /// Whether the last layer of a residual branch compensates for the error of the residual stream, not of its own output
    /// only.
    #[option(default = true, value = "BOOL")]
    pub stream: bool,
    /// Weight each output channel by its Fisher information to this power: 0 (all equal) to 1 (fully).
    #[option(default = 0.5, value = "X", range = 0.0..=1.0)]
    pub fisher: f64,
    /// Weight each position (token, or pixel of a map) by its Fisher information to this power: 0 (all equal) to 1 (fully).
    #[option(default = 0.5, value = "X", range = 0.0..=1.0)]
    pub positions: f64,
    /// Copies of each shot in the calibration statistics: the photo as it is, then random crops.
    #[option(default = 1, value = "N", range = 1..=1024)]
    pub views: usize,
    /// Images per calibration batch.
    #[option(default = 64, flag = "calibration-batch", value = "N", range = 1..=65536)]
    pub batch: usize,
    /// Options of the solver `alps`.
    #[option(table)]
    #[serde(skip_serializing_if = "is_default")]
    pub alps: AlpsSpec,
    /// Options of the solver `obc`.
    #[option(table)]
    #[serde(skip_serializing_if = "is_default")]
    pub obc: ObcSpec,
    /// Options of the allocator `erk`.
    #[option(table)]
    #[serde(skip_serializing_if = "is_default")]
    pub erk: ErkSpec,
    /// Options of the allocator `evo`.
    #[option(table)]
    #[serde(skip_serializing_if = "is_default")]
    pub evo: EvoSpec,
}

/// `--compression`, another flag for the sparsity.
fn compression(sparsity: &Opt) -> Opt {
    Opt {
        flag: Some("compression"),
        help: "The same as a factor, such as 20x",
        value: Some("FACTOR"),
        shown: None,
        conflicts: &["sparsity"],
        read: Read::Table(factor),
        ..sparsity.clone()
    }
}

fn sparsity(text: &str) -> Result<Table, String> {
    let fraction: f64 = text.parse().map_err(|_| "must be a fraction such as 0.95".to_owned())?;
    Ok(weights(Sparsity::new(fraction).map_err(|error| error.to_string())?))
}

fn factor(text: &str) -> Result<Table, String> {
    parse_compression(text).map(weights)
}

fn weights(sparsity: Sparsity) -> Table {
    entry("sparsity", Value::Float(sparsity.fraction()))
}

/// Reads `20x` as a sparsity, everything else as a cost.
fn weights_or_cost(text: &str) -> Result<Table, String> {
    if let Ok(sparsity) = parse_compression(text) {
        return Ok(weights(sparsity));
    }
    let target = Target::try_from(text.to_owned());
    let target = target.map_err(|_| "must be such as 20x, 10x-macs, 3x-speedup or 8ms".to_owned())?;
    Ok(entry("target", Value::String(target.into())))
}

fn pattern(text: &str) -> Result<Table, String> {
    let pattern: Granularity =
        text.parse().map_err(|error: <Granularity as std::str::FromStr>::Err| error.to_string())?;
    Ok(entry("pattern", Value::String(pattern.to_string())))
}

fn max_drop(text: &str) -> Result<Table, String> {
    match text {
        "none" => Ok(Table::new()),
        text => match points(text) {
            Ok(points) => Ok(entry("max-drop", Value::Float(points / 100.0))),
            Err(reason) => Err(format!("{reason}, or none")),
        },
    }
}

/// Which weights a sparsity is a fraction of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// Those of layers that can be pruned.
    Prunable,
    /// Every parameter of the network but statistics of norms: stem, head, norms, biases and positions, too.
    #[default]
    All,
}

/// What a pruned network may cost, if not in weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// So many times fewer multiply-adds, such as `10x-macs`.
    Macs(f64),
    /// So many times faster than dense on this machine's runtime at batch 1, such as `3x-speedup`.
    Speedup(f64),
    /// So many milliseconds an image there, such as `8ms`.
    Milliseconds(f64),
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        match target {
            Target::Macs(fold) => format!("{fold}x-macs"),
            Target::Speedup(fold) => format!("{fold}x-speedup"),
            Target::Milliseconds(ms) => format!("{ms}ms"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |suffix| text.strip_suffix(suffix).and_then(|number| number.trim().parse::<f64>().ok());
        let target = if let Some(fold) = number("x-macs") {
            Self::Macs(fold)
        } else if let Some(fold) = number("x-speedup") {
            Self::Speedup(fold)
        } else if let Some(ms) = number("ms") {
            Self::Milliseconds(ms)
        } else {
            return Err(format!("`{text}` is no target: use 10x-macs, 3x-speedup or 8ms"));
        };
        let (Self::Macs(x) | Self::Speedup(x) | Self::Milliseconds(x)) = target;
        if x.is_finite() && x > 0.0 { Ok(target) } else { Err(format!("`{text}` must be above 0")) }
    }
}

/// A number, or `auto`: the best of a few on the held-out fold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tuned {
    /// This number.
    Value(f64),
    /// Chosen on the held-out fold.
    #[serde(with = "auto_word")]
    Auto,
}

/// Values that recipes write as people do.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The word `auto` in a recipe.
mod auto_word {
    use serde::de::{Deserializer, Error};
    use serde::{Deserialize, Serializer};

    const WORD: &str = "auto";

    pub fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(WORD)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            WORD => Ok(()),
            other => Err(D::Error::custom(format!("`{other}` is neither a number nor `{WORD}`"))),
        }
    }
}

impl std::str::FromStr for Tuned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Value).map_err(|_| "must be a number or `auto`".to_owned()),
        }
    }
}

/// Reads a compression such as `20x` as the sparsity that it stands for.
pub fn parse_compression(text: &str) -> Result<Sparsity, String> {
    let digits = text.strip_suffix(['x', 'X', '×']).unwrap_or(text);
    let factor: f64 = digits.parse().map_err(|_| "must be a factor such as 20x".to_owned())?;
    Sparsity::from_compression(factor).map_err(|_| format!("{text} is no factor of at least 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for text in ["20x", "20", "20X", "20×"] {
            assert_eq!(parse_compression(text), Ok(Sparsity::from_compression(20.0).unwrap()));
            assert_eq!(weights_or_cost(text), factor(text));
        }
        assert!(parse_compression("0.5x").is_err());
        assert!(sparsity("95").is_err());
        assert_eq!(weights_or_cost("8ms").unwrap(), "target = '8ms'".parse().unwrap());
        assert!(weights_or_cost("8 bananas").is_err());
        assert_eq!(max_drop("3").unwrap(), "max-drop = 0.03".parse().unwrap());
        assert_eq!(max_drop("none").unwrap(), Table::new());
        assert!(max_drop("101").is_err() && max_drop("x").is_err());
    }
}
