//! CSV files whose rows are read by position.

use crate::frame::Frame;
use crate::gzip::MAGIC;
use crate::read_csv::{Place, Records, cell, parser, texts, too_large};
use crate::read_frame::{Builder, named_kinds};
use crate::row_file::{FileFrom, Positioned};
use crate::settle::{Kind, Settling};
use crate::{CsvOptions, DataError, FrameOptions};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// The most places of rows that are kept: 4 MiB, however long the file is.
const MOST_PLACES: usize = 1 << 18;

/// Passing over so many rows costs less than going to another place.
const NEAR: usize = 32;

/// A CSV file, the kinds of its columns, and where some of its rows begin.
pub(crate) struct CsvFile {
    file: Positioned,
    name: String,
    options: FrameOptions,
    /// Those that no thread uses.
    parsers: Mutex<Vec<csv_core::Reader>>,
    columns: Vec<(String, Kind)>,
    index: Index,
}

/// Where every so many rows a row begins.
struct Index {
    places: Vec<Place>,
    /// A power of two.
    every: usize,
    rows: usize,
    most: usize,
}

impl Index {
    fn new(most: usize) -> Index {
        Index { places: Vec::new(), every: 1, rows: 0, most }
    }

    /// One more row. When there are too many places, every second one goes.
    fn push(&mut self, place: Place) {
        if self.rows.is_multiple_of(self.every) {
            if self.places.len() == self.most {
                let mut keep = [true, false].into_iter().cycle();
                self.places.retain(|_| keep.next().unwrap_or(true));
                self.every *= 2;
            }
            if self.rows.is_multiple_of(self.every) {
                self.places.push(place);
            }
        }
        self.rows += 1;
    }

    /// The last row before `row`, or itself, of which the place is known.
    fn before(&self, row: usize) -> (usize, Place) {
        (row / self.every * self.every, self.places[row / self.every])
    }
}

impl CsvFile {
    pub(crate) fn open(path: &Path, options: &FrameOptions) -> Result<CsvFile, DataError> {
        CsvFile::open_with(path, options, MOST_PLACES)
    }

    fn open_with(path: &Path, options: &FrameOptions, most_places: usize) -> Result<CsvFile, DataError> {
        let name = path.display().to_string();
        let broken = |source| DataError::Read { name: name.clone(), source };
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        let mut magic = Vec::new();
        (&file).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(broken)?;
        if magic == MAGIC {
            let found = "gzip, in which no row can be found by its place: unpack it, or read it whole (Frame::read)";
            return Err(DataError::Malformed { name, format: "a CSV file to read rows from", found: found.into() });
        }
        let file = Positioned::new(file);

        // Of any length: what is kept is counted instead.
        let csv = CsvOptions { max_bytes: u64::MAX, ..options.csv.clone() };
        let mut records = Records::new(FileFrom { file: &file, place: 0 }, &name, &csv)?;
        let (missing, mut left) = (options.missing(), options.csv.max_bytes);
        let (mut columns, mut index) = (Vec::new(), Index::new(most_places));
        let mut has_header = csv.has_header;
        loop {
            let place = records.place();
            let Some((record, line)) = records.next()? else { break };
            if columns.is_empty() {
                let header = has_header.then(|| texts(record, &name, line)).transpose()?;
                let named = named_kinds(header, record.len(), &name, options)?.into_iter();
                columns = named.map(|(column, kind)| Settling::new(column, kind)).collect::<Result<Vec<_>, _>>()?;
                if std::mem::take(&mut has_header) {
                    continue;
                }
            }
            for (i, column) in columns.iter_mut().enumerate() {
                let text = cell(record, i, &name, line)?;
                let text = (!missing.contains(text)).then_some(text);
                let kept = column.look(text, options.most_categories, (&name, line, i))? as u64;
                left = left.checked_sub(kept).ok_or_else(|| too_large(&name, &options.csv))?;
            }
            index.push(place);
        }
        if index.rows == 0 {
            return Err(DataError::Empty { name });
        }
        let columns = columns.into_iter().map(Settling::settle).collect::<Result<_, _>>()?;
        Ok(CsvFile { file, name, parsers: Mutex::default(), options: options.clone(), columns, index })
    }

    pub(crate) fn rows(&self) -> usize {
        self.index.rows
    }

    /// Rows that there are, in ascending order; one may come several times.
    pub(crate) fn read_ascending(&self, rows: &[usize]) -> Result<Frame, DataError> {
        let (csv, missing) = (&self.options.csv, self.options.missing());
        let mut builders: Vec<Builder> =
            self.columns.iter().map(|(column, kind)| Builder::settled(column.clone(), kind)).collect();
        let mut reader: Option<(usize, Records<'_, FileFrom<'_>>)> = None;
        let mut rows = rows.iter().copied().peekable();
        while let Some(row) = rows.next() {
            // Reading on is best, unless a known place is much nearer.
            let (known, place) = self.index.before(row);
            let (mut at, mut records) = match reader.take() {
                Some((at, records)) if at + NEAR >= known => (at, records),
                other => {
                    let used = other.map(|(_, records)| records.into_parser());
                    let parser = used.or_else(|| self.parsers().pop()).unwrap_or_else(|| parser(csv));
                    let text = FileFrom { file: &self.file, place: place.byte };
                    (known, Records::at(place, Some(self.columns.len()), parser, text, &self.name, csv))
                }
            };
            let (record, line) = loop {
                let is_it = at == row;
                at += 1;
                if is_it {
                    break records.next()?.ok_or_else(|| self.changed(row))?;
                }
                records.next()?.ok_or_else(|| self.changed(row))?;
            };
            let times = 1 + std::iter::from_fn(|| rows.next_if_eq(&row)).count();
            for (i, builder) in builders.iter_mut().enumerate() {
                let text = cell(record, i, &self.name, line)?;
                let text = (!missing.contains(text)).then_some(text);
                (0..times).try_for_each(|_| builder.push(text, &self.name, line, i))?;
            }
            reader = Some((at, records));
        }
        self.parsers().extend(reader.map(|(_, records)| records.into_parser()));
        Frame::new(builders.into_iter().map(|builder| builder.finish(0)).collect())
    }

    fn parsers(&self) -> MutexGuard<'_, Vec<csv_core::Reader>> {
        self.parsers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn changed(&self, row: usize) -> DataError {
        let found = format!("no row {row} (counted from 0), which there was when it was opened");
        DataError::Malformed { name: self.name.clone(), format: "a CSV file", found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ColumnKind, FrameFile};
    use gradus_tensor::Key;
    use proptest::prelude::*;

    /// As text: NaN is not equal to itself.
    fn text(frame: &Frame) -> String {
        format!("{frame:?}")
    }

    /// All rows one by one and many at once, whatever places are kept, or the same error.
    fn compare(bytes: &[u8], options: &FrameOptions) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.csv");
        std::fs::write(&path, bytes).unwrap();
        let whole = Frame::read(&path, options);
        for most in [2, 4, 1 << 10] {
            let file = CsvFile::open_with(&path, options, most);
            let (whole, file) = match (&whole, file) {
                (Ok(whole), Ok(file)) => (whole, file),
                (Err(expected), Err(found)) => {
                    assert_eq!(found.to_string(), expected.to_string());
                    continue;
                }
                (whole, file) => panic!("{bytes:?}: whole {:?}, by rows {:?}", whole.is_ok(), file.err()),
            };
            assert!(file.rows() == whole.rows() && file.index.places.len() <= most);
            for row in 0..whole.rows() {
                let expected = text(&whole.select_rows(&[row]).unwrap());
                assert_eq!(text(&file.read_ascending(&[row]).unwrap()), expected, "row {row} of {bytes:?}");
            }
            let rows: Vec<usize> = (0..whole.rows()).filter(|row| row % 3 != 1).flat_map(|row| [row, row]).collect();
            assert_eq!(text(&file.read_ascending(&rows).unwrap()), text(&whole.select_rows(&rows).unwrap()));
        }
    }

    #[test]
    fn rows_are_those_of_the_whole_frame() {
        let plain = FrameOptions::default();
        let headless = CsvOptions { has_header: false, ..CsvOptions::default() };
        let skipping = CsvOptions { skip_lines: 2, delimiter: b';', ..CsvOptions::default() };
        let mixed = "n,note,city\n1,\"a, \"\"b\"\"\nsecond, line\",Rome\n\n?,x,N/A\n\n\n-2e3, y ,Oslo\n7,,Rome";
        compare(mixed.as_bytes(), &plain);
        compare(mixed.replace('\n', "\r\n").as_bytes(), &plain);
        compare(mixed.replace('\n', "\r").as_bytes(), &plain);
        compare(format!("\u{feff}{mixed}").as_bytes(), &plain);
        compare(mixed.as_bytes(), &FrameOptions { most_categories: 1, ..plain.clone() });
        // Byte order marks are no part of the first record, and of any other one they are.
        let marks = "\u{feff}1,\u{feff}a\n\u{feff}2,b\n\u{feff}3,c\n";
        compare(marks.as_bytes(), &FrameOptions { csv: headless.clone(), ..plain.clone() });
        let skipped = "first\nsecond\na;b\n1;2\n3;x\n\n5;y\n";
        compare(skipped.as_bytes(), &FrameOptions { csv: skipping, ..plain.clone() });
        let kinds = [
            ("column_0".to_string(), ColumnKind::Categories(vec!["b".into(), "a".into()])),
            ("column_1".into(), ColumnKind::Category),
            ("column_2".into(), ColumnKind::Text),
        ];
        let given = FrameOptions { csv: headless, kinds: kinds.into(), ..plain.clone() };
        compare(b"a,1,1\nb,3,2\n?,2,3\n", &given);
        for wrong in [&b"a,1,1\nc,2,2\n"[..], b"a,1\n", b"", b"a,1,1\nb,2\n", b"a,\xff,1\n"] {
            compare(wrong, &given);
        }
        for wrong in ["", "a,b\n", "a,a\n1,2\n"] {
            compare(wrong.as_bytes(), &plain);
        }
    }

    proptest! {
        #[test]
        fn rows_of_any_text_are_those_of_the_whole_frame(text in "[0-9a,\"\r\n ]{0,80}", has_header: bool) {
            let csv = CsvOptions { has_header, ..CsvOptions::default() };
            compare(text.as_bytes(), &FrameOptions { csv, most_categories: 3, ..FrameOptions::default() });
        }
    }

    #[test]
    fn rows_in_any_order_and_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.csv");
        let lines: String = (0..100).map(|i| format!("{i},{}\n", ["x", "y"][i % 2])).collect();
        std::fs::write(&path, format!("n,c\n{lines}")).unwrap();
        let (options, file) = (FrameOptions::default(), FrameFile::open_csv(&path, &FrameOptions::default()).unwrap());
        let rows = [Key::new(1).shuffled(100), vec![5, 5, 99]].concat();
        let expected = Frame::read(&path, &options).unwrap().select_rows(&rows).unwrap();
        assert_eq!(file.select_rows(&rows).unwrap(), expected);
        assert!(matches!(file.select_rows(&[100]), Err(DataError::NoRow { row: 100, rows: 100 })));

        // A file that changes later.
        std::fs::write(&path, format!("n,c\n{}", lines.replace("50,x", "50,z").replace("51,y", "51;y"))).unwrap();
        let says = |row: usize, what: &str| {
            let error = file.select_rows(&[row]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}", path.display())) && error.contains(what), "{error}");
        };
        says(50, "line 52, column 2 (`c`): found `z`, expected one of x, y");
        says(51, "line 53: found 1 cells, expected 2");
        std::fs::write(&path, "n,c\n").unwrap();
        says(50, "no row 50 (counted from 0), which there was when it was opened");

        let mut encoder = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, b"n\n1\n").unwrap();
        encoder.finish().unwrap();
        let error = FrameFile::open_csv(&path, &options).unwrap_err().to_string();
        assert!(error.contains("gzip, in which no row can be found by its place: unpack it"), "{error}");
        assert!(matches!(FrameFile::open_csv("no such file", &options), Err(DataError::Open { .. })));
        std::fs::write(&path, "c\na\nb\nc\n").unwrap();
        let csv = CsvOptions { max_bytes: 150, ..CsvOptions::default() };
        let error = FrameFile::open_csv(&path, &FrameOptions { csv, ..options }).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { max_bytes: 150, .. }));
    }
}
