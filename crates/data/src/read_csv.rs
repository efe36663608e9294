use std::io::{BufRead, BufReader, Read};

use csv_core::ReadRecordResult;

use crate::error::shortened;
use crate::gzip::unpacked;
use crate::{DataError, Table};

/// A line longer than this (millions of cells) is an error: a row is held as text while it is parsed, and a
/// compressed bomb of delimiters would otherwise cost several times its size.
const MAX_LINE_BYTES: usize = 16 << 20;

/// How a CSV file is laid out, and how much of it may be read.
///
/// ```
/// use gradus_data::CsvOptions;
///
/// let semicolons = CsvOptions { delimiter: b';', has_header: false, ..CsvOptions::default() };
/// assert_eq!(semicolons.max_bytes, 4 << 30);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// The byte between two cells; a comma by default.
    pub delimiter: u8,
    /// Whether the first line (after the skipped ones) names the columns; true by default.
    pub has_header: bool,
    /// How many leading lines to skip; none by default.
    pub skip_lines: usize,
    /// The memory guard, 4 GiB by default: neither the decompressed text nor the numbers parsed from it (8 bytes
    /// each, in a buffer that may be twice as long while it grows) may be larger. A file that is, such as a gzip
    /// bomb, is an error before the memory is spent.
    pub max_bytes: u64,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',', has_header: true, skip_lines: 0, max_bytes: 4 << 30 }
    }
}

/// Reads a table, decompressing it if it starts as gzip does; errors call it `name`.
pub(crate) fn read_csv(reader: impl Read, name: &str, options: &CsvOptions) -> Result<Table, DataError> {
    let broken = |source| DataError::Read { name: name.to_owned(), source };
    parse(unpacked(reader).map_err(broken)?, name, options)
}

fn parse(text: impl Read, name: &str, options: &CsvOptions) -> Result<Table, DataError> {
    let mut names: Option<Vec<String>> = None;
    let mut columns = 0;
    let mut rows = 0;
    let mut values = Vec::new();
    for_each_record(text, name, options, |record, line| {
        columns = record.len();
        if options.has_header && names.is_none() {
            names = Some(texts(record, name, line)?);
            return Ok(());
        }
        if (values.len() + columns) as u64 > options.max_bytes / size_of::<f64>() as u64 {
            return Err(too_large(name, options));
        }
        for i in 0..columns {
            let heading = || names.as_ref().map(|names| names[i].clone());
            values.push(number(cell(record, i, name, line)?, name, line, i, heading)?);
        }
        rows += 1;
        Ok(())
    })?;
    match rows {
        0 => Err(DataError::Empty { name: name.to_owned() }),
        rows => Ok(Table::from_values(names, rows, columns, values)),
    }
}

/// Hands on the cells of each line that is not blank, after those to skip, with the line's number. All have as many as the first.
pub(crate) fn for_each_record(
    text: impl Read,
    name: &str,
    options: &CsvOptions,
    mut use_record: impl FnMut(&Record, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut records = Records::new(text, name, options)?;
    while let Some((record, line)) = records.next()? {
        use_record(record, line)?;
    }
    Ok(())
}

/// Where a record, or blank lines before it, begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// How many bytes there are before it.
    pub(crate) byte: u64,
    /// How many lines.
    line: u64,
}

/// What some programs begin UTF-8 text with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A parser, which is dear to make; [`Records::at`] takes any that was made for these options.
pub(crate) fn parser(options: &CsvOptions) -> csv_core::Reader {
    csv_core::ReaderBuilder::new().delimiter(options.delimiter).build()
}

/// The cells of a record.
#[derive(Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    /// Where each cell ends, and a few places that are not in use.
    ends: Vec<usize>,
    len: usize,
}

impl Record {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

/// The records of a CSV text, which is read line by line. All have as many cells as the first.
pub(crate) struct Records<'a, R> {
    text: BufReader<R>,
    parser: csv_core::Reader,
    line: Vec<u8>,
    /// The line's number, from 1.
    number: u64,
    /// How many bytes come before the line.
    before: u64,
    /// How many of its bytes were parsed.
    parsed: usize,
    record: Record,
    columns: Option<usize>,
    name: &'a str,
    options: &'a CsvOptions,
}

impl<'a, R: Read> Records<'a, R> {
    /// The records of a text, after a byte order mark and the lines to skip.
    pub(crate) fn new(text: R, name: &'a str, options: &'a CsvOptions) -> Result<Records<'a, R>, DataError> {
        let mut records = Records::at(Place::default(), None, parser(options), text, name, options);
        records.read_line()?;
        if records.line.starts_with(BYTE_ORDER_MARK) {
            records.parsed = BYTE_ORDER_MARK.len();
        }
        let mut to_skip = options.skip_lines;
        while to_skip > 0 && !records.line.is_empty() {
            records.read_line()?;
            to_skip -= 1;
        }
        Ok(records)
    }

    /// The records of a text from a place on, at which `text` begins; each has so many cells.
    pub(crate) fn at(
        place: Place,
        columns: Option<usize>,
        mut parser: csv_core::Reader,
        text: R,
        name: &'a str,
        options: &'a CsvOptions,
    ) -> Records<'a, R> {
        parser.reset();
        // It takes a byte order mark off the first bytes that it sees, wherever in a text these are: let them be a blank line.
        parser.read_record(b"\n", &mut [0], &mut [0]);
        let (line, record) = (Vec::new(), Record::default());
        let Place { byte: before, line: number } = place;
        Records { text: BufReader::new(text), parser, line, number, before, parsed: 0, record, columns, name, options }
    }

    /// Goes to the next line, which is empty at the end.
    fn read_line(&mut self) -> Result<(), DataError> {
        self.before += self.line.len() as u64;
        self.line.clear();
        self.parsed = 0;
        let mut text = (&mut self.text).take(MAX_LINE_BYTES as u64 + 1);
        let read = text.read_until(b'\n', &mut self.line);
        let count = read.map_err(|source| DataError::Read { name: self.name.to_owned(), source })?;
        self.number += u64::from(count > 0);
        if self.before + count as u64 > self.options.max_bytes {
            return Err(too_large(self.name, self.options));
        }
        if count > MAX_LINE_BYTES {
            return Err(DataError::LineTooLong { name: self.name.to_owned(), max_bytes: MAX_LINE_BYTES });
        }
        Ok(())
    }

    /// The next record, and the number of its last line.
    pub(crate) fn next(&mut self) -> Result<Option<(&Record, u64)>, DataError> {
        let (mut bytes, mut ends) = (0, 0);
        loop {
            if self.parsed == self.line.len() {
                self.read_line()?;
            }
            let Record { bytes: to, ends: to_ends, .. } = &mut self.record;
            let (result, read, wrote, ended) =
                self.parser.read_record(&self.line[self.parsed..], &mut to[bytes..], &mut to_ends[ends..]);
            self.parsed += read;
            bytes += wrote;
            ends += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => to.resize((2 * to.len()).max(256), 0),
                ReadRecordResult::OutputEndsFull => to_ends.resize((2 * to_ends.len()).max(32), 0),
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record => break,
            }
        }
        self.record.len = ends;
        let expected = *self.columns.get_or_insert(ends);
        if ends != expected {
            let (name, line) = (self.name.to_owned(), self.number);
            return Err(DataError::Ragged { name, line, found: ends, expected });
        }
        Ok(Some((&self.record, self.number)))
    }

    /// The parser, for other records.
    pub(crate) fn into_parser(self) -> csv_core::Reader {
        self.parser
    }

    /// Where the next record begins.
    pub(crate) fn place(&self) -> Place {
        let is_parsed = self.parsed == self.line.len();
        let line = if is_parsed { self.number } else { self.number.saturating_sub(1) };
        Place { byte: self.before + self.parsed as u64, line }
    }
}

/// All cells of a line.
pub(crate) fn texts(record: &Record, name: &str, line: u64) -> Result<Vec<String>, DataError> {
    (0..record.len()).map(|i| cell(record, i, name, line).map(str::to_owned)).collect()
}

pub(crate) fn number(
    found: &str,
    name: &str,
    line: u64,
    index: usize,
    heading: impl FnOnce() -> Option<String>,
) -> Result<f64, DataError> {
    found.parse().map_err(|_| DataError::NotANumber {
        name: name.to_owned(),
        line,
        column: index + 1,
        heading: heading(),
        found: shortened(found),
    })
}

pub(crate) fn cell<'r>(record: &'r Record, index: usize, name: &str, line: u64) -> Result<&'r str, DataError> {
    let bytes = record.bytes(index).trim_ascii();
    str::from_utf8(bytes).map_err(|_| DataError::NotUtf8 {
        name: name.to_owned(),
        line,
        column: index + 1,
        found: shortened(&String::from_utf8_lossy(bytes)),
    })
}

pub(crate) fn too_large(name: &str, options: &CsvOptions) -> DataError {
    DataError::TooLarge { name: name.to_owned(), max_bytes: options.max_bytes }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn table(text: &str, options: &CsvOptions) -> Result<Table, DataError> {
        Table::from_reader(text.as_bytes(), "t.csv", options)
    }

    fn plain() -> CsvOptions {
        CsvOptions { has_header: false, ..CsvOptions::default() }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn header_names_and_numbers() {
        let table = table("a, \"b\" ,c\r\n1,-2.5e3,\"3\"\r\nnan,inf, 6 \r\n\r\n", &CsvOptions::default()).unwrap();
        assert_eq!(table.names().unwrap(), ["a", "\"b\"", "c"]);
        assert_eq!((table.rows(), table.columns()), (2, 3));
        assert_eq!(table.row(0), [1.0, -2500.0, 3.0]);
        assert!(table.row(1)[0].is_nan());
        assert_eq!(table.column(1).collect::<Vec<_>>(), [-2500.0, f64::INFINITY]);
    }

    #[test]
    fn leading_lines_are_skipped_and_counted() {
        let options = CsvOptions { skip_lines: 1, delimiter: b';', ..plain() };
        let text = "569,30,malignant,benign\n1;2\n3;4\n";
        assert_eq!(table(text, &options).unwrap().row(1), [3.0, 4.0]);
        let all = CsvOptions { skip_lines: usize::MAX, ..plain() };
        assert!(matches!(table(text, &all), Err(DataError::Empty { .. })));
        let error = table("# ü\n1;2\n3;x\n", &options).unwrap_err();
        assert_eq!(error.to_string(), "t.csv, line 3, column 2: found `x`, expected a number");
    }

    #[test]
    fn gzip_is_told_by_its_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("misnamed.csv");
        let mut members = gzip(b"x\n1\n");
        members.extend(gzip(b"2\n"));
        std::fs::write(&path, &members).unwrap();
        let table = Table::read(&path, &CsvOptions::default()).unwrap();
        assert_eq!(table.column(0).collect::<Vec<_>>(), [1.0, 2.0]);

        std::fs::write(&path, &members[..members.len() - 9]).unwrap();
        let error = Table::read(&path, &CsvOptions::default()).unwrap_err();
        assert!(matches!(&error, DataError::Read { .. }), "{error}");
        assert!(error.to_string().contains("misnamed.csv"));

        let error = Table::read(folder.path().join("absent.csv"), &plain()).unwrap_err();
        assert!(matches!(&error, DataError::Open { .. }) && error.to_string().contains("absent.csv"));
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does() {
        for text in ["1\n\n2\n\n\nx\n", "1\r\n\r\n2\r\n\r\n\r\nx\r\n", "\n\n1\n2\n3\nx"] {
            let error = table(text, &plain()).unwrap_err();
            assert!(matches!(error, DataError::NotANumber { line: 6, .. }), "{error}");
        }
        let error = table("\"a\nb\",c\n1,2\n3\n", &CsvOptions::default()).unwrap_err();
        assert!(matches!(error, DataError::Ragged { line: 4, found: 1, expected: 2, .. }), "{error}");
    }

    #[test]
    fn errors_say_where_and_what() {
        let message = |text: &str| table(text, &CsvOptions::default()).unwrap_err().to_string();
        assert_eq!(message("a,b\n1,2\n3,\n"), "t.csv, line 3, column 2 (`b`): found ``, expected a number");
        assert_eq!(message("a,b\n1,2,3\n"), "t.csv, line 2: found 3 cells, expected 2");
        assert_eq!(message(""), "t.csv is empty: found no row of numbers, expected at least one");
        assert_eq!(message("a,b\n"), message(""));
        let long = "y".repeat(1000);
        assert!(message(&format!("a\n{long}\n")).len() < 300);

        let error = Table::from_reader(&b"a\n1\n\xff2\n"[..], "t.csv", &CsvOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "t.csv, line 3, column 1: found `\u{fffd}2`, expected UTF-8 text");
    }

    #[test]
    fn too_large_is_an_error() {
        let limited = |max_bytes| CsvOptions { max_bytes, ..plain() };
        // 48 bytes of text, 16 numbers of 8 bytes.
        let text = "10\n".repeat(16);
        assert_eq!(table(&text, &limited(128)).unwrap().rows(), 16);
        assert!(matches!(table(&text, &limited(127)), Err(DataError::TooLarge { max_bytes: 127, .. })));
        let wide = "1.000000000000000000\n".repeat(16);
        assert!(matches!(table(&wide, &limited(200)), Err(DataError::TooLarge { .. })));
        let skipping = CsvOptions { skip_lines: 3, ..limited(20) };
        assert!(matches!(table(&wide, &skipping), Err(DataError::TooLarge { .. })));

        let bomb = gzip(&vec![b','; MAX_LINE_BYTES + 1]);
        assert!(bomb.len() < 100_000);
        let error = Table::from_reader(&bomb[..], "bomb", &plain()).unwrap_err();
        assert!(matches!(error, DataError::LineTooLong { .. }), "{error}");
    }
}
