use std::path::PathBuf;

use crate::{CsrError, GraphError, LimitError, PatternError, PreprocessError};

/// Why bytes are no sparse model, or why a model cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system refuses; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file is unsound.
    #[error("{}: not a sound model file: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<FormatError>,
    },
    /// The first eight bytes are not those of the format.
    #[error("the file does not start like a margay model")]
    Magic,
    /// The file was written in another version of the format.
    #[error("format version {got}, this program reads {expected}")]
    Version {
        /// Version that this program reads.
        expected: u32,
        /// Version found.
        got: u32,
    },
    /// Bytes that must be zero are not.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// The file ends early.
    #[error("{expected} bytes are needed, the file has {got}")]
    Truncated {
        /// Bytes needed.
        expected: u64,
        /// Bytes there.
        got: u64,
    },
    /// The file goes on after its last section.
    #[error("{count} bytes follow the last section")]
    TrailingBytes {
        /// How many.
        count: u64,
    },
    /// The header claims to be larger than any sound one.
    #[error("a header of {got} bytes, at most {limit} are allowed")]
    HeaderTooLarge {
        /// Largest header.
        limit: u64,
        /// Size claimed.
        got: u64,
    },
    /// The header is not the JSON of a model.
    #[error("the header is not valid: {0}")]
    Header(#[source] serde_json::Error),
    /// Header or sections changed after the file was written.
    #[error("the checksum does not match: the file is damaged")]
    Checksum,
    /// The nodes form no graph.
    #[error("the graph is not valid: {0}")]
    Graph(#[from] GraphError),
    /// A number of the graph is beyond any image classifier.
    #[error("node `{node}` is too large")]
    NodeTooLarge {
        /// Name of the node.
        node: String,
    },
    /// A node has no output values.
    #[error("node `{node}` has no output values")]
    NodeEmpty {
        /// Name of the node.
        node: String,
    },
    /// The graph has too many nodes.
    #[error("a graph of {got} nodes, at most {limit} are allowed")]
    TooManyNodes {
        /// Most nodes.
        limit: usize,
        /// Nodes found.
        got: usize,
    },
    /// A block output is not a node of the graph.
    #[error("block output {index} is not a node")]
    Block {
        /// Index given.
        index: usize,
    },
    /// There is not one label per class.
    #[error("{labels} labels for {classes} classes")]
    LabelCount {
        /// Outputs of the graph.
        classes: usize,
        /// Labels given.
        labels: usize,
    },
    /// Preprocessing makes images of another size than the graph reads.
    #[error("preprocessing makes {got:?} pixels, the graph reads {expected}")]
    ImageSize {
        /// Shape that the graph reads.
        expected: crate::Shape,
        /// Height and width of preprocessing.
        got: [usize; 2],
    },
    /// Photos cannot be prepared as the model asks.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The model takes more memory or time than is allowed.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// What a normalisation adds before it divides does not keep it away from zero.
    #[error("node `{node}` has an eps of {eps}; it must be a normal number above zero in single precision")]
    Eps {
        /// Name of the node.
        node: String,
        /// The number.
        eps: f64,
    },
    /// A variance is negative.
    #[error("tensor `{name}` holds the variance {value}; none is below zero")]
    Variance {
        /// Name of the tensor.
        name: String,
        /// The number.
        value: f32,
    },
    /// A batch norm multiplies by a number that is none.
    #[error("batch norm `{node}` is no finite scale and shift at channel {channel}")]
    Scale {
        /// Name of the node.
        node: String,
        /// The channel.
        channel: usize,
    },
    /// The table of tensors is not in ascending order of names.
    #[error("tensor `{name}` is out of order or listed twice")]
    TensorOrder {
        /// Name of the later one.
        name: String,
    },
    /// The graph needs a tensor that the table lacks.
    #[error("tensor `{name}` is missing")]
    TensorMissing {
        /// Name of the tensor.
        name: String,
    },
    /// The table lists a tensor that no node of the graph uses.
    #[error("tensor `{name}` belongs to no layer")]
    TensorExtra {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the graph needs, or is sparse where it cannot be.
    #[error("tensor `{name}` has shape {got:?}, expected {expected:?}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// Shape that the graph needs: of a sparse tensor the matrix, empty where there is none.
        expected: Vec<usize>,
        /// Shape listed.
        got: Vec<usize>,
    },
    /// A section does not start at a multiple of 64 bytes.
    #[error("a section of tensor `{name}` starts at {offset}, which is no multiple of 64")]
    Misaligned {
        /// Name of the tensor.
        name: String,
        /// Start of the section.
        offset: u64,
    },
    /// A section starts before the one before it ends.
    #[error("a section of tensor `{name}` starts at {offset}, inside what comes before it")]
    Overlap {
        /// Name of the tensor.
        name: String,
        /// Start of the section.
        offset: u64,
    },
    /// A section ends after the file or its end is no 64-bit number.
    #[error("a section of tensor `{name}` at {offset} of {length} bytes ends after the file")]
    OutOfFile {
        /// Name of the tensor.
        name: String,
        /// Start of the section.
        offset: u64,
        /// Length of the section.
        length: u64,
    },
    /// A section of values has not the length that the shape asks for.
    #[error("the values of tensor `{name}` take {got} bytes, expected {expected}")]
    ValueBytes {
        /// Name of the tensor.
        name: String,
        /// Bytes the shape asks for; of a sparse tensor the next multiple of 4.
        expected: u64,
        /// Bytes listed.
        got: u64,
    },
    /// A Rice parameter is above 31.
    #[error("tensor `{name}` uses the code parameter {parameter}, at most 31 is allowed")]
    Parameter {
        /// Name of the tensor.
        name: String,
        /// The parameter.
        parameter: u8,
    },
    /// The index of a sparse tensor ends early or goes on after its last row.
    #[error("the index of tensor `{name}` ends early or late, at row {row}")]
    IndexLength {
        /// Name of the tensor.
        name: String,
        /// Row being read.
        row: usize,
    },
    /// A row claims more entries than it has columns or than there are values.
    #[error("row {row} of tensor `{name}` claims {count} entries")]
    RowCount {
        /// Name of the tensor.
        name: String,
        /// The row.
        row: usize,
        /// Entries claimed.
        count: u32,
    },
    /// A gap leads beyond the last column.
    #[error("a gap in row {row} of tensor `{name}` leads beyond its {columns} columns")]
    Gap {
        /// Name of the tensor.
        name: String,
        /// The row.
        row: usize,
        /// Columns of the tensor.
        columns: usize,
    },
    /// The rows hold fewer entries than there are values.
    #[error("the rows of tensor `{name}` hold {got} entries for {expected} values")]
    EntryCount {
        /// Name of the tensor.
        name: String,
        /// Values stored.
        expected: usize,
        /// Entries of all rows.
        got: usize,
    },
    /// A tensor holds NaN or infinite values.
    #[error("tensor `{name}` holds {count} values that are NaN or infinite")]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// How many.
        count: usize,
    },
    /// The support of a sparse tensor has not the pattern that is stated.
    #[error("tensor `{name}`: {source}")]
    Pattern {
        /// Name of the tensor.
        name: String,
        /// What is wrong.
        source: PatternError,
    },
    /// Decoded arrays are no CSR matrix.
    #[error("tensor `{name}`: {source}")]
    Csr {
        /// Name of the tensor.
        name: String,
        /// What is wrong.
        source: CsrError,
    },
}
