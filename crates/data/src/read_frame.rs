//! Frames from CSV text: the kinds of columns are given, or told by their cells.

use crate::error::shortened;
use crate::frame::{Categories, Cells, Column};
use crate::gzip::unpacked;
use crate::read_csv::{cell, for_each_record, number, texts, too_large};
use crate::settle::Kind;
use crate::{CsvOptions, DataError, Frame};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

/// How a CSV file with columns of several kinds is read.
///
/// ```
/// use gradus_data::{ColumnKind, Frame, FrameOptions};
/// let kinds = [("size".into(), ColumnKind::Categories(vec!["S".into(), "M".into(), "L".into()]))];
/// let options = FrameOptions { kinds: kinds.into(), ..FrameOptions::default() };
/// let frame = Frame::from_reader("size,price\nL,9\nS,\n".as_bytes(), "shirts.csv", &options)?;
/// assert_eq!(frame.categories("size")?.codes(), [Some(2), Some(0)]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameOptions {
    /// How the file is laid out.
    pub csv: CsvOptions,
    /// The columns' names, in place of those in the header, if there is one. Without either they are `column_0`, `column_1`, …
    pub names: Option<Vec<String>>,
    /// What stands for a missing value, without the space around it: by default nothing at all, `NA`, `N/A`, `n/a`, `NaN`,
    /// `nan`, `NULL`, `null`, `None`, and `?`.
    pub missing: Vec<String>,
    /// The kinds of columns, by name. Others are told by their cells: a column of numbers and missing values holds numbers,
    /// another one categories if there are few, or else texts.
    pub kinds: BTreeMap<String, ColumnKind>,
    /// The most different texts of a column that is told to hold categories; 256 by default.
    pub most_categories: usize,
}

impl Default for FrameOptions {
    fn default() -> FrameOptions {
        let missing = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?"].map(String::from).into();
        FrameOptions { csv: CsvOptions::default(), names: None, missing, kinds: BTreeMap::new(), most_categories: 256 }
    }
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Numbers.
    Number,
    /// Categories, however many; their vocabulary is sorted.
    Category,
    /// One of these categories, numbered in this order. Another one is an error.
    Categories(Vec<String>),
    /// Texts.
    Text,
}

pub(crate) fn read_frame(from: impl Read, name: &str, options: &FrameOptions) -> Result<Frame, DataError> {
    let text = unpacked(from).map_err(|source| DataError::Read { name: name.into(), source })?;
    let missing = options.missing();
    let mut columns: Vec<Builder> = Vec::new();
    let mut has_header = options.csv.has_header;
    // What cells take beside their text.
    let mut left = options.csv.max_bytes;
    for_each_record(text, name, &options.csv, |record, line| {
        if columns.is_empty() {
            let header = has_header.then(|| texts(record, name, line)).transpose()?;
            let named = named_kinds(header, record.len(), name, options)?;
            columns =
                named.into_iter().map(|(column, kind)| Builder::new(column, kind)).collect::<Result<_, DataError>>()?;
            if std::mem::take(&mut has_header) {
                return Ok(());
            }
        }
        let cost = (columns.len() * (size_of::<Option<u32>>() + size_of::<usize>())) as u64;
        left = left.checked_sub(cost).ok_or_else(|| too_large(name, &options.csv))?;
        for (i, column) in columns.iter_mut().enumerate() {
            let text = cell(record, i, name, line)?;
            column.push((!missing.contains(text)).then_some(text), name, line, i)?;
        }
        Ok(())
    })?;
    if columns.first().is_none_or(|column| column.rows() == 0) {
        return Err(DataError::Empty { name: name.into() });
    }
    Frame::new(columns.into_iter().map(|column| column.finish(options.most_categories)).collect())
}

impl FrameOptions {
    pub(crate) fn missing(&self) -> BTreeSet<&str> {
        self.missing.iter().map(String::as_str).collect()
    }
}

/// The names of a file's columns, with their kinds if they are given.
pub(crate) fn named_kinds<'a>(
    header: Option<Vec<String>>,
    count: usize,
    name: &str,
    options: &'a FrameOptions,
) -> Result<Vec<(String, Option<&'a ColumnKind>)>, DataError> {
    let names = match options.names.clone().or(header) {
        Some(names) if names.len() != count => {
            let found = format!("{} for {count} columns of {name}", names.len());
            return Err(DataError::Argument { argument: "FrameOptions::names", found, expected: "one for each" });
        }
        Some(names) => names,
        None => vec![String::new(); count],
    };
    let named = |(i, name): (usize, String)| if name.is_empty() { format!("column_{i}") } else { name };
    let names: Vec<String> = names.into_iter().enumerate().map(named).collect();
    let mut seen = BTreeSet::new();
    if let Some(column) = names.iter().find(|column| !seen.insert(*column)) {
        return Err(DataError::DuplicateColumn { name: name.into(), column: shortened(column) });
    }
    if let Some(column) = options.kinds.keys().find(|column| !seen.contains(column)) {
        return Err(DataError::NoColumn { column: column.clone(), columns: names });
    }
    Ok(names.into_iter().map(|name| (options.kinds.get(&name), name)).map(|(kind, name)| (name, kind)).collect())
}

/// The categories that a column may hold, by number and by text.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    texts: Arc<[String]>,
    numbers: BTreeMap<String, u32>,
}

impl Vocabulary {
    /// # Errors
    /// If two texts are equal.
    pub(crate) fn new(texts: Vec<String>) -> Result<Vocabulary, DataError> {
        let numbers = texts.iter().cloned().zip(0..).collect();
        // Checks that all differ.
        let texts = Categories::new(Vec::new(), texts)?.shared_vocabulary();
        Ok(Vocabulary { texts, numbers })
    }

    #[cfg(feature = "parquet")]
    pub(crate) fn number(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The number of a cell's text.
    pub(crate) fn read(
        &self,
        text: &str,
        name: &str,
        line: u64,
        index: usize,
        heading: &str,
    ) -> Result<u32, DataError> {
        self.numbers.get(text).copied().ok_or_else(|| DataError::NotACategory {
            name: name.into(),
            line,
            column: index + 1,
            heading: heading.into(),
            found: shortened(text),
            known: self.texts.to_vec(),
        })
    }

    pub(crate) fn categories(&self, codes: Vec<Option<u32>>) -> Categories {
        Categories::of_codes(codes, self.texts.clone())
    }
}

/// A column in the making.
pub(crate) struct Builder {
    name: String,
    cells: Building,
}

enum Building {
    Any(Texts),
    Category(Texts),
    Text(Texts),
    Numbers(Vec<f64>),
    Known(Vec<Option<u32>>, Arc<Vocabulary>),
}

/// Texts, one after the other.
#[derive(Default)]
struct Texts {
    text: String,
    /// Where each ends; `None` if it is missing.
    ends: Vec<Option<usize>>,
}

impl Texts {
    fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let text = &self.text[start..end?];
            start = end?;
            Some(text)
        })
    }
}

impl Builder {
    /// # Errors
    /// If the categories that are given are not all different.
    pub(crate) fn new(name: String, kind: Option<&ColumnKind>) -> Result<Builder, DataError> {
        let cells = match kind {
            None => Building::Any(Texts::default()),
            Some(ColumnKind::Category) => Building::Category(Texts::default()),
            Some(ColumnKind::Text) => Building::Text(Texts::default()),
            Some(ColumnKind::Number) => Building::Numbers(Vec::new()),
            Some(ColumnKind::Categories(texts)) => {
                Building::Known(Vec::new(), Arc::new(Vocabulary::new(texts.clone())?))
            }
        };
        Ok(Builder { name, cells })
    }

    /// A column whose kind is settled.
    pub(crate) fn settled(name: String, kind: &Kind) -> Builder {
        let cells = match kind {
            Kind::Numbers => Building::Numbers(Vec::new()),
            Kind::Texts => Building::Text(Texts::default()),
            Kind::Categories(vocabulary) => Building::Known(Vec::new(), vocabulary.clone()),
        };
        Builder { name, cells }
    }

    fn rows(&self) -> usize {
        match &self.cells {
            Building::Any(texts) | Building::Category(texts) | Building::Text(texts) => texts.ends.len(),
            Building::Numbers(numbers) => numbers.len(),
            Building::Known(codes, _) => codes.len(),
        }
    }

    pub(crate) fn push(&mut self, text: Option<&str>, name: &str, line: u64, index: usize) -> Result<(), DataError> {
        match &mut self.cells {
            Building::Any(texts) | Building::Category(texts) | Building::Text(texts) => {
                texts.text.push_str(text.unwrap_or_default());
                texts.ends.push(text.map(|_| texts.text.len()));
            }
            Building::Numbers(numbers) => numbers.push(match text {
                Some(text) => number(text, name, line, index, || Some(self.name.clone()))?,
                None => f64::NAN,
            }),
            Building::Known(codes, known) => {
                codes.push(text.map(|text| known.read(text, name, line, index, &self.name)).transpose()?);
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self, most_categories: usize) -> Column {
        let owned = |texts: &Texts| Cells::Texts(texts.iter().map(|text| text.map(String::from)).collect());
        let cells = match self.cells {
            Building::Category(texts) => Cells::Categories(Categories::of_texts(texts.iter())),
            Building::Text(texts) => owned(&texts),
            Building::Numbers(numbers) => Cells::Numbers(numbers),
            Building::Known(codes, known) => Cells::Categories(known.categories(codes)),
            Building::Any(texts) => {
                let numbers: Option<Vec<f64>> =
                    texts.iter().map(|text| text.map_or(Some(f64::NAN), |text| text.parse().ok())).collect();
                match numbers {
                    Some(numbers) => Cells::Numbers(numbers),
                    None => {
                        let different: BTreeSet<&str> = texts.iter().flatten().collect();
                        match different.len() <= most_categories {
                            true => Cells::Categories(Categories::of_texts(texts.iter())),
                            false => owned(&texts),
                        }
                    }
                }
            }
        };
        Column { name: self.name, cells }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, options: &FrameOptions) -> Result<Frame, String> {
        Frame::from_reader(text.as_bytes(), "t.csv", options).map_err(|error| error.to_string())
    }

    #[test]
    fn kinds_are_told_by_cells() {
        let text = "n, \"quoted, name\" ,city,day,none\n1,\"a, \"\"b\"\"\", Rome ,2026-01-02,NA\n?,x,N/A,2026-01-03,\nNaN,null,Rome,2026-01-02,nan\n-2e3,x,Oslo,2026-01-05,?\n";
        let text = text.replace(" \"quoted, name\" ", "\"quoted, name\"");
        let frame = read(&text, &FrameOptions { most_categories: 2, ..FrameOptions::default() }).unwrap();
        let n = frame.numbers("n").unwrap();
        assert!(n[0] == 1.0 && n[1].is_nan() && n[2].is_nan() && n[3] == -2000.0);
        let quoted = frame.categories("quoted, name").unwrap();
        assert_eq!(quoted.vocabulary(), ["a, \"b\"", "x"]);
        assert_eq!(quoted.codes(), [Some(0), Some(1), None, Some(1)]);
        assert_eq!(frame.categories("city").unwrap().codes(), [Some(1), None, Some(1), Some(0)]);
        assert_eq!(frame.texts("day").unwrap()[3].as_deref(), Some("2026-01-05"));
        assert!(frame.numbers("none").unwrap().iter().all(|number| number.is_nan()));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_name() {
        let frame = read("\u{feff}n,c\n1,\u{feff}\n", &FrameOptions::default()).unwrap();
        assert_eq!(frame.names().collect::<Vec<_>>(), ["n", "c"]);
        assert_eq!(frame.categories("c").unwrap().vocabulary(), ["\u{feff}"]);
        let csv = CsvOptions { has_header: false, ..CsvOptions::default() };
        let options = FrameOptions { csv, ..FrameOptions::default() };
        assert_eq!(read("\u{feff}1\n", &options).unwrap().numbers("column_0").unwrap(), [1.0]);
    }

    #[test]
    fn kinds_are_as_they_are_given() {
        let kinds = [
            ("id".to_string(), ColumnKind::Text),
            ("class".into(), ColumnKind::Category),
            ("size".into(), ColumnKind::Categories(vec!["S".into(), "L".into()])),
            ("x".into(), ColumnKind::Number),
        ];
        let options = FrameOptions { kinds: kinds.into(), ..FrameOptions::default() };
        let frame = read("id,class,size,x\n007,3,L,1\n,1,S,\n", &options).unwrap();
        assert_eq!(frame.texts("id").unwrap(), [Some("007".into()), None]);
        assert_eq!(frame.categories("class").unwrap().vocabulary(), ["1", "3"]);
        assert_eq!(frame.categories("size").unwrap().codes(), [Some(1), Some(0)]);
        let message = |text: &str| read(text, &options).unwrap_err();
        assert_eq!(
            message("id,class,size,x\n1,2,L,1\n1,2,XL,1\n"),
            "t.csv, line 3, column 3 (`size`): found `XL`, expected one of S, L"
        );
        assert_eq!(
            message("id,class,size,x\n1,2,L,one\n"),
            "t.csv, line 2, column 4 (`x`): found `one`, expected a number"
        );
        assert_eq!(message("id,class\n1,2\n"), "there is no column `size` among id, class");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let plain = FrameOptions::default();
        assert_eq!(
            read("a,b,a\n1,2,3\n", &plain).unwrap_err(),
            "t.csv has two columns named `a`, expected a name for each"
        );
        assert_eq!(read("a,b\n1,2\n\n3\n", &plain).unwrap_err(), "t.csv, line 4: found 1 cells, expected 2");
        for empty in ["", "a,b\n"] {
            assert!(read(empty, &plain).unwrap_err().contains("t.csv is empty"));
        }
        let names = FrameOptions { names: Some(vec!["a".into()]), ..FrameOptions::default() };
        assert!(read("x,y\n1,2\n", &names).unwrap_err().contains("1 for 2 columns of t.csv"));
        let csv = CsvOptions { has_header: false, max_bytes: 100, ..CsvOptions::default() };
        let small = FrameOptions { csv, ..FrameOptions::default() };
        assert_eq!(read("1,x\n", &small).unwrap().names().collect::<Vec<_>>(), ["column_0", "column_1"]);
        assert!(read(&",\n".repeat(40), &small).unwrap_err().contains("larger than the 100 bytes"));
        assert_eq!(read("1,\n", &small).unwrap().column("column_1").unwrap().missing(), 1);
    }
}
