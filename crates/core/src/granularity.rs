use std::fmt;
use std::str::FromStr;

use crate::{Graph, Hidden, Node, Pattern};

/// What stays or goes as one (Mao et al., arXiv 1705.08922).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Weights, of which a pattern may forbid some to stay together.
    Weights(Pattern),
    /// Whole channels between two layers, or heads: [`Hidden`].
    Channels,
}

/// The text names no granularity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown pattern `{0}` (known: unstructured, channels, N:M as 2:4, ROWSxCOLUMNS as 4x1)")]
pub struct UnknownGranularity(String);

impl Granularity {
    /// Any weight by itself.
    pub const UNSTRUCTURED: Self = Self::Weights(Pattern::Unstructured);

    /// The channels that may go.
    pub fn hidden(self, graph: &Graph) -> Vec<Hidden> {
        match self {
            Self::Weights(_) => Vec::new(),
            Self::Channels => graph.hidden(),
        }
    }

    /// The pattern of a layer's weights, `hidden` being the channels that it reads: whole columns of these. Groups of a convolution
    /// are pruned one by one: no block is higher than a group.
    pub fn pattern(self, node: &Node, hidden: Option<&Hidden>) -> Pattern {
        match (self, hidden, node.matrix()) {
            (Self::Weights(Pattern::Block { rows, cols }), _, Some([out, _])) => {
                let highest = u32::try_from(out / node.groups()).unwrap_or(u32::MAX);
                Pattern::Block { rows: rows.min(highest), cols }
            }
            (Self::Weights(pattern), ..) => pattern,
            (Self::Channels, Some(hidden), Some([rows, _])) => {
                Pattern::Block { rows: rows as u32, cols: hidden.columns as u32 }
            }
            (Self::Channels, ..) => Pattern::Unstructured,
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights(pattern) => pattern.fmt(f),
            Self::Channels => f.write_str("channels"),
        }
    }
}

impl FromStr for Granularity {
    type Err = UnknownGranularity;

    fn from_str(text: &str) -> Result<Self, UnknownGranularity> {
        match text {
            "channels" => Ok(Self::Channels),
            _ => text.parse().map(Self::Weights).map_err(|_| UnknownGranularity(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, Op, Role};

    #[test]
    fn blocks_are_no_higher_than_a_group() {
        let conv = |groups| {
            let op = Op::Conv2d(Conv2d { groups, ..Conv2d::square([16, 16], 3, 1) });
            Node { name: "conv".into(), op, inputs: Vec::new(), role: Role::Body }
        };
        let rows =
            |name: &str, groups| match name.parse::<Granularity>().unwrap().pattern(&conv(groups), None) {
                Pattern::Block { rows, cols: 1 } => rows,
                other => panic!("{other:?}"),
            };
        assert_eq!([rows("4x1", 1), rows("4x1", 8), rows("4x1", 16)], [4, 2, 1]);
        let two_of_four = "2:4".parse::<Granularity>().unwrap();
        assert_eq!(two_of_four.pattern(&conv(16), None), Pattern::NM { n: 2, m: 4 });
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for name in ["unstructured", "channels", "2:4", "4x1"] {
            assert_eq!(name.parse::<Granularity>().unwrap().to_string(), name);
        }
        let error = "channel".parse::<Granularity>().unwrap_err();
        assert!(error.to_string().contains("known: unstructured, channels,"), "{error}");
    }
}
