//! Tables of numbers, categories and texts, with missing values.

use crate::{DataError, FrameOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// A table whose columns have names and kinds, and may miss values. A [`ColumnPlan`](crate::ColumnPlan) makes a matrix of it.
///
/// ```
/// use gradus_data::{Frame, FrameOptions};
/// let text = "species,mass,note\nAdelie,3750,\nGentoo,NA,shy\nAdelie,3800,bold\n";
/// let frame = Frame::from_reader(text.as_bytes(), "penguins.csv", &FrameOptions::default())?;
/// assert_eq!((frame.rows(), frame.names().collect::<Vec<_>>()), (3, vec!["species", "mass", "note"]));
/// assert!(frame.numbers("mass")?[1].is_nan());
/// let species = frame.categories("species")?;
/// assert_eq!((species.vocabulary(), species.labels("species")?), (&["Adelie".into(), "Gentoo".into()][..], vec![0, 1, 0]));
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    columns: Vec<Column>,
    rows: usize,
}

/// A column of a [`Frame`].
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its cells.
    pub cells: Cells,
}

/// The cells of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    /// Numbers; NaN where one is missing. Integers are exact up to 2⁵³.
    Numbers(Vec<f64>),
    /// Categories.
    Categories(Categories),
    /// Texts, such as notes, identifiers and dates.
    Texts(Vec<Option<String>>),
}

/// One of a few texts per row, by its number in a vocabulary; `None` where it is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Categories {
    codes: Vec<Option<u32>>,
    /// Shared by all rows of a file, however many frames they are read as.
    vocabulary: Arc<[String]>,
}

impl Categories {
    /// Categories by the number of their text in a vocabulary.
    ///
    /// # Errors
    /// If a number is not in the vocabulary, or a text in it twice.
    pub fn new(codes: Vec<Option<u32>>, vocabulary: Vec<String>) -> Result<Categories, DataError> {
        let texts: BTreeSet<&String> = vocabulary.iter().collect();
        if texts.len() < vocabulary.len() {
            let expected = "texts that all differ";
            return Err(DataError::Argument { argument: "a vocabulary", found: "with a text twice".into(), expected });
        }
        if let Some(code) = codes.iter().flatten().find(|&&code| code as usize >= vocabulary.len()) {
            let found = format!("{code} for a vocabulary of {}", vocabulary.len());
            return Err(DataError::Argument { argument: "a category", found, expected: "less than that" });
        }
        Ok(Categories { codes, vocabulary: vocabulary.into() })
    }

    /// Categories whose numbers come from this vocabulary.
    pub(crate) fn of_codes(codes: Vec<Option<u32>>, vocabulary: Arc<[String]>) -> Categories {
        debug_assert!(codes.iter().flatten().all(|&code| (code as usize) < vocabulary.len()));
        Categories { codes, vocabulary }
    }

    /// The categories of texts. Their vocabulary is sorted, so that it does not depend on the order of rows.
    pub fn of_texts<'a>(texts: impl IntoIterator<Item = Option<&'a str>>) -> Categories {
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let mut codes: Vec<Option<u32>> = Vec::new();
        for text in texts {
            codes.push(text.map(|text| {
                let next = numbers.len() as u32;
                *numbers.entry(text).or_insert(next)
            }));
        }
        // Numbered in the order in which they came, until now.
        let mut place = vec![0; numbers.len()];
        numbers.values().enumerate().for_each(|(sorted, &came)| place[came as usize] = sorted as u32);
        let vocabulary = numbers.into_keys().map(String::from).collect();
        codes.iter_mut().flatten().for_each(|code| *code = place[*code as usize]);
        Categories { codes, vocabulary }
    }

    /// Each row's number in the vocabulary.
    pub fn codes(&self) -> &[Option<u32>] {
        &self.codes
    }

    /// The texts that there may be.
    pub fn vocabulary(&self) -> &[String] {
        &self.vocabulary
    }

    pub(crate) fn shared_vocabulary(&self) -> Arc<[String]> {
        self.vocabulary.clone()
    }

    /// The text of a row; `None` if it is missing or there is no such row.
    pub fn text(&self, row: usize) -> Option<&str> {
        let code = (*self.codes.get(row)?)?;
        Some(&self.vocabulary[code as usize])
    }

    /// The numbers of all rows: classes to learn. Errors call the column `column`.
    ///
    /// # Errors
    /// [`DataError::ColumnKind`] if one is missing.
    pub fn labels(&self, column: &str) -> Result<Vec<u32>, DataError> {
        let missing = || DataError::ColumnKind {
            column: column.into(),
            found: "rows without a category",
            expected: "a category in each",
        };
        self.codes.iter().map(|code| code.ok_or_else(missing)).collect()
    }
}

impl Cells {
    /// How many cells there are.
    pub fn len(&self) -> usize {
        match self {
            Cells::Numbers(numbers) => numbers.len(),
            Cells::Categories(categories) => categories.codes.len(),
            Cells::Texts(texts) => texts.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In how many the value is missing.
    pub fn missing(&self) -> usize {
        match self {
            Cells::Numbers(numbers) => numbers.iter().filter(|number| number.is_nan()).count(),
            Cells::Categories(categories) => categories.codes.iter().filter(|code| code.is_none()).count(),
            Cells::Texts(texts) => texts.iter().filter(|text| text.is_none()).count(),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Cells::Numbers(_) => "numbers",
            Cells::Categories(_) => "categories",
            Cells::Texts(_) => "texts",
        }
    }

    fn select(&self, rows: &[usize]) -> Cells {
        match self {
            Cells::Numbers(numbers) => Cells::Numbers(rows.iter().map(|&row| numbers[row]).collect()),
            Cells::Categories(Categories { codes, vocabulary }) => {
                let codes = rows.iter().map(|&row| codes[row]).collect();
                Cells::Categories(Categories { codes, vocabulary: vocabulary.clone() })
            }
            Cells::Texts(texts) => Cells::Texts(rows.iter().map(|&row| texts[row].clone()).collect()),
        }
    }
}

impl Frame {
    /// A frame of columns.
    ///
    /// # Errors
    /// If they differ in length, or two have one name.
    pub fn new(columns: Vec<Column>) -> Result<Frame, DataError> {
        let rows = columns.first().map_or(0, |column| column.cells.len());
        let mut names = BTreeSet::new();
        for Column { name, cells } in &columns {
            if cells.len() != rows {
                return Err(DataError::ColumnLength { column: name.clone(), found: cells.len(), expected: rows });
            }
            if !names.insert(name) {
                return Err(DataError::DuplicateColumn { name: "the frame".into(), column: name.clone() });
            }
        }
        Ok(Frame { columns, rows })
    }

    /// Reads a CSV file, compressed with gzip or not (told by its first bytes).
    ///
    /// # Errors
    /// [`DataError`] says which file, line and column is wrong, what was found and what was expected: a file that cannot be read,
    /// is empty or too large, text that is not UTF-8, rows of different lengths, two columns of one name, and cells that are not
    /// of the kind that the options give their column.
    ///
    /// ```no_run
    /// use gradus_data::{CsvOptions, Frame, FrameOptions};
    /// let csv = CsvOptions { has_header: false, ..CsvOptions::default() };
    /// let adult = Frame::read("adult.csv.gz", &FrameOptions { csv, ..FrameOptions::default() })?;
    /// assert_eq!(adult.names().next(), Some("column_0"));
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn read(path: impl AsRef<Path>, options: &FrameOptions) -> Result<Frame, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        Frame::from_reader(file, &path.display().to_string(), options)
    }

    /// Reads CSV text, compressed or not; errors call it `name`.
    ///
    /// # Errors
    /// As [`read`](Frame::read).
    pub fn from_reader(from: impl Read, name: &str, options: &FrameOptions) -> Result<Frame, DataError> {
        crate::read_frame::read_frame(from, name, options)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    #[cfg(feature = "parquet")]
    pub(crate) fn into_columns(self) -> Vec<Column> {
        self.columns
    }

    /// The names of the columns, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(|column| &column.name[..])
    }

    /// The cells of a column.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn column(&self, name: &str) -> Result<&Cells, DataError> {
        let column = self.columns.iter().find(|column| column.name == name).map(|column| &column.cells);
        column.ok_or_else(|| DataError::NoColumn {
            column: name.into(),
            columns: self.names().map(String::from).collect(),
        })
    }

    /// The numbers of a column; NaN where one is missing.
    ///
    /// # Errors
    /// If there is none of this name, or it holds something else.
    pub fn numbers(&self, name: &str) -> Result<&[f64], DataError> {
        match self.column(name)? {
            Cells::Numbers(numbers) => Ok(numbers),
            other => Err(wrong_kind(name, other, "numbers")),
        }
    }

    /// The categories of a column.
    ///
    /// # Errors
    /// If there is none of this name, or it holds something else.
    pub fn categories(&self, name: &str) -> Result<&Categories, DataError> {
        match self.column(name)? {
            Cells::Categories(categories) => Ok(categories),
            other => Err(wrong_kind(name, other, "categories")),
        }
    }

    /// The texts of a column.
    ///
    /// # Errors
    /// If there is none of this name, or it holds something else.
    pub fn texts(&self, name: &str) -> Result<&[Option<String>], DataError> {
        match self.column(name)? {
            Cells::Texts(texts) => Ok(texts),
            other => Err(wrong_kind(name, other, "texts")),
        }
    }

    /// Some of the rows, in this order. Vocabularies stay as they are.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn select_rows(&self, rows: &[usize]) -> Result<Frame, DataError> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.rows) {
            return Err(DataError::NoRow { row, rows: self.rows });
        }
        let chosen = |column: &Column| Column { name: column.name.clone(), cells: column.cells.select(rows) };
        Ok(Frame { columns: self.columns.iter().map(chosen).collect(), rows: rows.len() })
    }

    /// Also these rows of a frame with the same columns and vocabularies.
    #[cfg(feature = "parquet")]
    pub(crate) fn append_rows(&mut self, other: &Frame, rows: &[usize]) -> Result<(), DataError> {
        for (to, from) in self.columns.iter_mut().zip(&other.columns) {
            match (&mut to.cells, &from.cells) {
                (Cells::Numbers(to), Cells::Numbers(from)) => to.extend(rows.iter().map(|&row| from[row])),
                (Cells::Categories(to), Cells::Categories(from)) => {
                    to.codes.extend(rows.iter().map(|&row| from.codes[row]))
                }
                (Cells::Texts(to), Cells::Texts(from)) => to.extend(rows.iter().map(|&row| from[row].clone())),
                (expected, found) => return Err(wrong_kind(&to.name, found, expected.kind())),
            }
        }
        self.rows += rows.len();
        Ok(())
    }

    /// The frame without some of its columns, such as the one to predict.
    ///
    /// # Errors
    /// If there is none of one of these names.
    pub fn without(&self, names: &[&str]) -> Result<Frame, DataError> {
        names.iter().try_for_each(|name| self.column(name).map(|_| ()))?;
        let kept = self.columns.iter().filter(|column| !names.contains(&&column.name[..]));
        Ok(Frame { columns: kept.cloned().collect(), rows: self.rows })
    }
}

fn wrong_kind(column: &str, found: &Cells, expected: &'static str) -> DataError {
    DataError::ColumnKind { column: column.into(), found: found.kind(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_do_not_depend_on_the_order_of_rows() {
        let (one, other) = ([Some("b"), None, Some("a"), Some("b")], [Some("a"), Some("b")]);
        let (one, other) = (Categories::of_texts(one), Categories::of_texts(other));
        assert_eq!((one.vocabulary(), one.codes()), (other.vocabulary(), &[Some(1), None, Some(0), Some(1)][..]));
        assert_eq!((one.text(0), one.text(1), one.text(9)), (Some("b"), None, None));
        assert!(one.labels("kind").unwrap_err().to_string().contains("column `kind` holds rows without a category"));
        assert!(Categories::new(vec![Some(1)], vec!["a".into()]).is_err());
        assert!(Categories::new(vec![], vec!["a".into(), "a".into()]).is_err());
    }

    #[test]
    fn columns_by_name() {
        let column = |name: &str, cells| Column { name: name.into(), cells };
        let x = column("x", Cells::Numbers(vec![1.0, f64::NAN]));
        let note = column("note", Cells::Texts(vec![None, Some("it".into())]));
        let frame = Frame::new(vec![x.clone(), note]).unwrap();
        assert_eq!((frame.column("x").unwrap().missing(), frame.column("note").unwrap().missing()), (1, 1));
        assert_eq!(frame.select_rows(&[1, 1]).unwrap().texts("note").unwrap(), [Some("it".into()), Some("it".into())]);
        assert_eq!(frame.without(&["x"]).unwrap().names().collect::<Vec<_>>(), ["note"]);
        assert_eq!(frame.numbers("note").unwrap_err().to_string(), "column `note` holds texts, expected numbers");
        assert_eq!(frame.numbers("y").unwrap_err().to_string(), "there is no column `y` among x, note");
        assert!(frame.without(&["y"]).is_err() && frame.select_rows(&[2]).is_err());
        assert!(matches!(Frame::new(vec![x.clone(), x.clone()]), Err(DataError::DuplicateColumn { .. })));
        let short = column("y", Cells::Numbers(vec![]));
        assert!(matches!(Frame::new(vec![x, short]), Err(DataError::ColumnLength { found: 0, expected: 2, .. })));
    }
}
