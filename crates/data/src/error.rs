use std::path::PathBuf;

use thiserror::Error;

/// Why data could not be read or used.
///
/// Lines and columns are counted from 1, as an editor shows them; skipped lines and the header count too. `name` is
/// the file's path, or what [`Table::from_reader`](crate::Table::from_reader) was told.
///
/// ```
/// use gradus_data::{CsvOptions, DataError, Table};
///
/// let error = Table::from_reader("age\n41\n?\n".as_bytes(), "people.csv", &CsvOptions::default()).unwrap_err();
/// assert!(matches!(error, DataError::NotANumber { line: 3, column: 1, .. }));
/// assert_eq!(
///     error.to_string(),
///     "people.csv, line 3, column 1 (`age`): found `?`, expected a number"
/// );
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// Reading or decompressing broke off.
    #[error("cannot read {name}: {source}")]
    Read {
        /// What was read.
        name: String,
        /// What the system or the decompressor said.
        source: std::io::Error,
    },

    /// The text, or the numbers parsed from it, would take more memory than allowed.
    #[error("{name} is larger than the {max_bytes} bytes that CsvOptions::max_bytes allows")]
    TooLarge {
        /// What was read.
        name: String,
        /// The limit that was passed.
        max_bytes: u64,
    },

    /// A text is, or unpacks to, more than is read.
    #[error("{name} is larger than {max_bytes} bytes, the most that is read as one text: split it")]
    TextTooLarge {
        /// What was read.
        name: String,
        /// The most that is read.
        max_bytes: u64,
    },

    /// One line is so long that the file is hardly a table.
    #[error("{name} has a line of more than {max_bytes} bytes, expected a table with shorter lines")]
    LineTooLong {
        /// What was read.
        name: String,
        /// The limit that was passed.
        max_bytes: usize,
    },

    /// Not a safetensors file, or one that is not as it says.
    #[error("{name} is not a safetensors file as it should be: found {found}")]
    NotSafetensors {
        /// What was read.
        name: String,
        /// What was found, and what was expected.
        found: String,
    },

    /// A stored tensor is of a kind that there is no dtype for.
    #[error("{name}: tensor `{tensor}` is stored as {dtype}, which no tensor has or converts to")]
    TensorDType {
        /// What was read.
        name: String,
        /// The tensor.
        tensor: String,
        /// How it is stored.
        dtype: String,
    },

    /// A stored tensor is f16, which the device does not have.
    #[error(
        "{name}: tensor `{tensor}` is stored as F16, which {device} has not: read it with SafetensorsOptions {{ f16_as_f32: true }}"
    )]
    NoF16 {
        /// What was read.
        name: String,
        /// The tensor.
        tensor: String,
        /// The device.
        device: String,
    },

    /// An element does not fit the dtype that it is converted to.
    #[error("{name}: tensor `{tensor}` has the element {found}, expected {expected}")]
    TensorValue {
        /// What was read or written.
        name: String,
        /// The tensor.
        tensor: String,
        /// The first such element.
        found: String,
        /// What would fit.
        expected: &'static str,
    },

    /// A tensor could not be computed, or not be made on the device.
    #[error("tensor `{tensor}`: {source}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What the device says.
        source: gradus_tensor::Error,
    },

    /// A name that no tensor may have in a safetensors file.
    #[error("no tensor of a safetensors file may be named `{tensor}`")]
    TensorName {
        /// The name.
        tensor: String,
    },

    /// Writing broke off.
    #[error("cannot write {name}: {source}")]
    Write {
        /// What was written.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },

    /// A row was asked for that there is not.
    #[error("there is no row {row} (counted from 0) among {rows}")]
    NoRow {
        /// The row.
        row: usize,
        /// How many there are.
        rows: usize,
    },

    /// There is no row of numbers.
    #[error("{name} is empty: found no row of numbers, expected at least one")]
    Empty {
        /// What was read.
        name: String,
    },

    /// There is no character.
    #[error("{name} is empty: found nothing, expected text")]
    NoText {
        /// What was read.
        name: String,
    },

    /// A cell's bytes are not UTF-8 text.
    #[error("{name}, line {line}, column {column}: found `{found}`, expected UTF-8 text")]
    NotUtf8 {
        /// What was read.
        name: String,
        /// The cell's line, from 1.
        line: u64,
        /// The cell's column, from 1.
        column: usize,
        /// The cell, its undecodable bytes replaced by `�`.
        found: String,
    },

    /// A row has more or fewer cells than the header or the first row.
    #[error("{name}, line {line}: found {found} cells, expected {expected}")]
    Ragged {
        /// What was read.
        name: String,
        /// The row's line, from 1.
        line: u64,
        /// The row's number of cells.
        found: usize,
        /// The number of cells of the header, or else of the first row.
        expected: usize,
    },

    /// A cell is missing or holds something other than a number.
    #[error(
        "{name}, line {line}, column {column}{}: found `{found}`, expected a number",
        heading.as_ref().map(|heading| format!(" (`{heading}`)")).unwrap_or_default()
    )]
    NotANumber {
        /// What was read.
        name: String,
        /// The cell's line, from 1.
        line: u64,
        /// The cell's column, from 1.
        column: usize,
        /// The column's name, if the table has names.
        heading: Option<String>,
        /// The cell, cut short if it is very long.
        found: String,
    },

    /// Not a file of its format, or one that is not as it says.
    #[error("{name} is not {format} as it should be: found {found}")]
    Malformed {
        /// What was read.
        name: String,
        /// What it should be.
        format: &'static str,
        /// What was found, and what was expected.
        found: String,
    },

    /// An image could not be decoded: it is broken, of another format than PNG and JPEG, or larger than allowed.
    #[error("cannot decode the image {name}: {source}")]
    Image {
        /// What was read.
        name: String,
        /// What the decoder said.
        source: image::ImageError,
    },

    /// A folder holds no folder with an image.
    #[error("{} holds no image: found no folder (a class) with .png, .jpg or .jpeg files", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
    },

    /// An argument outside the range that makes sense.
    #[error("{argument} is {found}, expected {expected}")]
    Argument {
        /// Name of the argument.
        argument: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        expected: &'static str,
    },

    /// Items that differ too much to lie in one batch.
    #[error("item {position} of a batch (from 0) is {found}, expected {expected} as the first")]
    Uneven {
        /// The item's place in the batch, from 0.
        position: usize,
        /// Its shape and type.
        found: String,
        /// Those of the first item.
        expected: String,
    },

    /// An item could not be made.
    #[error("item {index}: {source}")]
    Item {
        /// The item's index in the data set.
        index: usize,
        /// Why.
        source: Box<DataError>,
    },

    /// A data set, or what makes a batch of its items, panicked.
    #[error("{what} panicked: {message}")]
    Panicked {
        /// What did: an item by its index, or a batch by its number.
        what: String,
        /// What the panic said.
        message: String,
    },

    /// Whatever else went wrong in a data set of the user.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),

    /// A saved state belongs to another data set or other options.
    #[error("a saved state says {found}, expected {expected}")]
    State {
        /// What the state says.
        found: String,
        /// What would fit.
        expected: String,
    },

    /// There is no column of this name.
    #[error("there is no column `{column}` among {}", cut(&columns.join(", "), 400))]
    NoColumn {
        /// The name.
        column: String,
        /// The columns that there are.
        columns: Vec<String>,
    },

    /// Two columns have one name.
    #[error("{name} has two columns named `{column}`, expected a name for each")]
    DuplicateColumn {
        /// What was read or made.
        name: String,
        /// The name.
        column: String,
    },

    /// A column is of another kind than what it is used for.
    #[error("column `{column}` holds {found}, expected {expected}")]
    ColumnKind {
        /// The column.
        column: String,
        /// What it holds.
        found: &'static str,
        /// What was expected.
        expected: &'static str,
    },

    /// Columns have different numbers of rows.
    #[error("column `{column}` has {found} rows, expected {expected}")]
    ColumnLength {
        /// The column.
        column: String,
        /// Its rows.
        found: usize,
        /// The rows of the first column.
        expected: usize,
    },

    /// A category that is not among those that are known.
    #[error("column `{column}`, row {row} (from 0): found the category `{found}`, expected one of {}", shortened(&known.join(", ")))]
    UnseenCategory {
        /// The column.
        column: String,
        /// The row, from 0.
        row: usize,
        /// The category.
        found: String,
        /// The categories that are known.
        known: Vec<String>,
    },

    /// A cell of a text file is not among the categories that were given for its column.
    #[error("{name}, line {line}, column {column} (`{heading}`): found `{found}`, expected one of {}", shortened(&known.join(", ")))]
    NotACategory {
        /// What was read.
        name: String,
        /// The cell's line, from 1.
        line: u64,
        /// The cell's column, from 1.
        column: usize,
        /// The column's name.
        heading: String,
        /// The cell, cut short if it is very long.
        found: String,
        /// The categories that were given.
        known: Vec<String>,
    },

    /// A table has another number of columns than what it is used with.
    #[error("the table has {found} columns, expected {expected}")]
    ColumnCount {
        /// The table's columns.
        found: usize,
        /// The columns that were expected.
        expected: usize,
    },
}

impl DataError {
    /// [`DataError::Other`], of an error or a text.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DataError {
        DataError::Other(error.into())
    }
}

/// The start of a text, short enough for an error message.
pub(crate) fn shortened(text: &str) -> String {
    cut(text, 60)
}

/// So many characters of a text at most.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
