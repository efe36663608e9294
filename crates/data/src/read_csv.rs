use std::io::{self, BufRead, BufReader, Read};

use csv::ByteRecord;

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
    mut use_record: impl FnMut(&ByteRecord, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut text = LineByLine::new(text, options.max_bytes);
    if let Err(error) = text.skip_lines(options.skip_lines) {
        return Err(read_error(error, &text, name, options));
    }
    let mut reader =
        csv::ReaderBuilder::new().delimiter(options.delimiter).has_headers(false).flexible(true).from_reader(text);
    let mut columns = None;
    let mut record = ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(read_error(error.into(), reader.get_ref(), name, options)),
        }
        let line = reader.get_ref().line;
        let expected = *columns.get_or_insert(record.len());
        if record.len() != expected {
            return Err(DataError::Ragged { name: name.to_owned(), line, found: record.len(), expected });
        }
        use_record(&record, line)?;
    }
}

/// All cells of a line.
pub(crate) fn texts(record: &ByteRecord, name: &str, line: u64) -> Result<Vec<String>, DataError> {
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

pub(crate) fn cell<'r>(record: &'r ByteRecord, index: usize, name: &str, line: u64) -> Result<&'r str, DataError> {
    let bytes = record[index].trim_ascii();
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

fn read_error<R>(source: io::Error, text: &LineByLine<R>, name: &str, options: &CsvOptions) -> DataError {
    match text.exceeded {
        Some(Limit::Text) => too_large(name, options),
        Some(Limit::Line) => DataError::LineTooLong { name: name.to_owned(), max_bytes: MAX_LINE_BYTES },
        None => DataError::Read { name: name.to_owned(), source },
    }
}

enum Limit {
    Text,
    Line,
}

/// Hands out at most one line per `read`, so that `line` is the one being parsed (the csv crate's own count is
/// wrong after blank lines), and fails once the text or a line is longer than allowed.
struct LineByLine<R> {
    text: BufReader<R>,
    bytes_left: u64,
    /// The number, from 1, of the line last handed out, whole or in part.
    line: u64,
    line_bytes: usize,
    line_ended: bool,
    exceeded: Option<Limit>,
}

impl<R: Read> LineByLine<R> {
    fn new(text: R, max_bytes: u64) -> Self {
        let text = BufReader::new(text);
        Self { text, bytes_left: max_bytes, line: 0, line_bytes: 0, line_ended: true, exceeded: None }
    }

    fn skip_lines(&mut self, count: usize) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut skipped = 0;
        while skipped < count && self.read(&mut buffer)? > 0 {
            skipped += usize::from(self.line_ended);
        }
        Ok(())
    }
}

impl<R: Read> Read for LineByLine<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.text.fill_buf()?;
        let available = &available[..available.len().min(buffer.len())];
        let Some(piece) = available.split_inclusive(|&byte| byte == b'\n').next() else {
            return Ok(0);
        };
        let count = piece.len();
        buffer[..count].copy_from_slice(piece);
        if self.line_ended {
            self.line += 1;
            self.line_bytes = 0;
        }
        self.line_ended = piece.ends_with(b"\n");
        self.text.consume(count);

        self.line_bytes += count;
        if self.line_bytes > MAX_LINE_BYTES {
            self.exceeded = Some(Limit::Line);
        }
        match self.bytes_left.checked_sub(count as u64) {
            Some(left) => self.bytes_left = left,
            None => self.exceeded = Some(Limit::Text),
        }
        match self.exceeded {
            Some(_) => Err(io::ErrorKind::FileTooLarge.into()),
            None => Ok(count),
        }
    }
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
