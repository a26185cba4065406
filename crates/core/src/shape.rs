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

    /// A feature vector `[features]`.
    pub const fn vector(features: usize) -> Self {
        Self::Vector { features }
    }

    /// Number of values.
    pub const fn len(self) -> usize {
        match self {
            Self::Map { channels, height, width } => channels * height * width,
            Self::Vector { features } => features,
        }
    }

    /// Whether the shape holds no value.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Extents as a list: `[c, h, w]` or `[n]`.
    pub fn dims(self) -> Vec<usize> {
        match self {
            Self::Map { channels, height, width } => vec![channels, height, width],
            Self::Vector { features } => vec![features],
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}
