use serde::{Deserialize, Serialize};

use super::Provenance;
use crate::{Graph, Pattern, Preprocess};

/// The JSON at the start of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub graph: Graph,
    pub labels: Vec<String>,
    pub preprocess: Preprocess,
    pub provenance: Provenance,
    pub tensors: Vec<Entry>,
}

/// One tensor: its name, its form and where its bytes are.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub values: Section,
    pub form: Form,
}

/// How numbers are stored.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dtype {
    /// Little-endian IEEE 754 single precision.
    F32,
}

/// Start in the file and length in bytes.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Section(pub u64, pub u64);

/// How the values are to be read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Form {
    Dense {
        shape: Vec<usize>,
    },
    Csr {
        rows: usize,
        cols: usize,
        index: Section,
        count: u8,
        gap: u8,
        #[serde(default, skip_serializing_if = "Pattern::is_unstructured")]
        pattern: Pattern,
    },
}
