use std::fmt;

use serde::{Deserialize, Serialize};

/// Shape of one activation, without the batch axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A feature map `[channels, height, width]`.
    Map {
        /// Number of planes.
        channels: usize,
        /// Rows of a plane.
        height: usize,
        /// Columns of a plane.
        width: usize,
    },
    /// A sequence of tokens `[count, features]`.
    Tokens {
        /// Number of tokens.
        count: usize,
        /// Features of each token.
        features: usize,
    },
    /// A feature vector `[features]`.
    Vector {
        /// Number of features.
        features: usize,
    },
}

impl Shape {
    /// A feature map `[channels, height, width]`.
    pub const fn map(channels: usize, height: usize, width: usize) -> Self {
        Self::Map { channels, height, width }
    }

    /// A sequence of tokens `[count, features]`.
    pub const fn tokens(count: usize, features: usize) -> Self {
        Self::Tokens { count, features }
    }

    /// A feature vector `[features]`.
    pub const fn vector(features: usize) -> Self {
        Self::Vector { features }
    }

    /// Number of values.
    pub const fn len(self) -> usize {
        match self {
            Self::Map { channels, height, width } => channels * height * width,
            Self::Tokens { count, features } => count * features,
            Self::Vector { features } => features,
        }
    }

    /// Number of values, if it is a number of the machine.
    pub fn checked_len(self) -> Option<usize> {
        self.dims().into_iter().try_fold(1_usize, usize::checked_mul)
    }

    /// Features at each position: channels of a map.
    pub const fn features(self) -> usize {
        match self {
            Self::Map { channels: features, .. }
            | Self::Tokens { features, .. }
            | Self::Vector { features } => features,
        }
    }

    /// Number of positions: pixels of a map, tokens of a sequence, one for a vector.
    pub const fn positions(self) -> usize {
        match self {
            Self::Map { height, width, .. } => height * width,
            Self::Tokens { count, .. } => count,
            Self::Vector { .. } => 1,
        }
    }

    /// The same positions with another number of features.
    #[must_use]
    pub const fn with_features(self, features: usize) -> Self {
        match self {
            Self::Map { height, width, .. } => Self::map(features, height, width),
            Self::Tokens { count, .. } => Self::tokens(count, features),
            Self::Vector { .. } => Self::vector(features),
        }
    }

    /// Whether the shape holds no value.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Extents as a list: `[c, h, w]`, `[count, features]` or `[n]`.
    pub fn dims(self) -> Vec<usize> {
        match self {
            Self::Map { channels, height, width } => vec![channels, height, width],
            Self::Tokens { count, features } => vec![count, features],
            Self::Vector { features } => vec![features],
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}
