//! Frames from Parquet and Arrow files.

use crate::frame::{Categories, Cells, Column, Frame};
use crate::layout::{MAX_BYTES, up_to};
use crate::loader::guarded;
use crate::settle::Settling;
use crate::{ColumnKind, DataError};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrowPrimitiveType, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::{FileDecoder, StreamDecoder, read_footer_length};
use arrow_schema::{DataType, Schema, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

pub(crate) const PARQUET: &str = "a Parquet file";
const ARROW: &str = "an Arrow file";
/// The most different texts of a column that holds categories, as when CSV is read.
pub(crate) const MOST_CATEGORIES: usize = 256;

/// With the feature `parquet`.
///
/// | in the file | in the frame |
/// | --- | --- |
/// | integers, floats, booleans (0 and 1) | numbers; integers exact up to 2⁵³ |
/// | dates | numbers: days since 1970 |
/// | timestamps | numbers: seconds since 1970 |
/// | dictionaries of texts | categories |
/// | texts | categories if there are 256 different ones at most, or else texts |
/// | nulls | missing |
///
/// Whatever else there is (lists, structures, decimals, binary) is an error.
impl Frame {
    /// Reads a Parquet file whose columns are not compressed, or by Snappy.
    ///
    /// # Errors
    /// If it cannot be opened, is no Parquet file, is compressed in another way, holds columns that a frame has not, or unpacks
    /// to more than 4 GiB.
    pub fn read_parquet(path: impl AsRef<Path>) -> Result<Frame, DataError> {
        read_parquet(path.as_ref(), None)
    }

    /// Reads some columns of a Parquet file, and nothing else of it.
    ///
    /// # Errors
    /// As [`read_parquet`](Frame::read_parquet), and if there is no such column.
    ///
    /// ```no_run
    /// use gradus_data::Frame;
    /// let trips = Frame::read_parquet_columns("trips.parquet", &["distance", "fare"])?;
    /// println!("{} rows", trips.rows());
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn read_parquet_columns(path: impl AsRef<Path>, columns: &[&str]) -> Result<Frame, DataError> {
        read_parquet(path.as_ref(), Some(columns))
    }

    /// Reads an Arrow file or stream (IPC, also known as Feather 2) that is not compressed.
    ///
    /// # Errors
    /// If it cannot be opened or read, is no Arrow file, is compressed, holds columns that a frame has not, or is larger than 4
    /// GiB.
    pub fn read_arrow(path: impl AsRef<Path>) -> Result<Frame, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        Frame::from_arrow(file, &path.display().to_string())
    }

    /// Reads the bytes of an Arrow file or stream; errors call them `name`.
    ///
    /// # Errors
    /// As [`read_arrow`](Frame::read_arrow).
    pub fn from_arrow(mut from: impl Read, name: &str) -> Result<Frame, DataError> {
        let bytes = up_to(&mut from, MAX_BYTES + 1).map_err(|source| DataError::Read { name: name.into(), source })?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(wrong(name, ARROW, format!("more than {MAX_BYTES} bytes")));
        }
        safely(name, ARROW, || {
            let is_file = bytes.starts_with(b"ARROW1");
            let mut frame = FrameBuilder::new(name, ARROW);
            // Nothing is compressed, and what is not null takes a bit at least.
            let most_rows = 8 * bytes.len();
            let buffer = Buffer::from_vec(bytes);
            if is_file {
                read_file(&mut frame, buffer, most_rows)
            } else {
                read_stream(&mut frame, buffer, most_rows)
            }?;
            frame.finish()
        })
    }
}

pub(crate) fn wrong(name: &str, format: &'static str, found: impl Display) -> DataError {
    DataError::Malformed { name: name.into(), format, found: crate::error::shortened(&found.to_string()) }
}

/// What reading gives; a panic of a reader is an error of the file.
pub(crate) fn safely<T>(
    name: &str,
    format: &'static str,
    read: impl FnOnce() -> Result<T, DataError>,
) -> Result<T, DataError> {
    guarded(String::new, read).map_err(|error| match error {
        DataError::Panicked { message, .. } => wrong(name, format, message),
        other => other,
    })
}

fn read_parquet(path: &Path, columns: Option<&[&str]>) -> Result<Frame, DataError> {
    let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
    let name = &path.display().to_string();
    let failed = |error: &dyn Display| wrong(name, PARQUET, error);
    safely(name, PARQUET, || {
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| failed(&error))?;
        let mask = project(&metadata, columns)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata).with_projection(mask);
        let mut frame = FrameBuilder::new(name, PARQUET);
        let reader = builder.with_batch_size(8192).build().map_err(|error| failed(&error))?;
        frame.start(&arrow_array::RecordBatchReader::schema(&reader))?;
        for batch in reader {
            frame.append(&batch.map_err(|error| failed(&error))?)?;
        }
        frame.finish()
    })
}

/// These columns, or all.
pub(crate) fn project(metadata: &ArrowReaderMetadata, columns: Option<&[&str]>) -> Result<ProjectionMask, DataError> {
    let Some(columns) = columns else { return Ok(ProjectionMask::all()) };
    let fields = metadata.schema().fields();
    if let Some(column) = columns.iter().find(|column| !fields.iter().any(|field| field.name() == **column)) {
        let columns = fields.iter().map(|field| field.name().clone()).collect();
        return Err(DataError::NoColumn { column: column.to_string(), columns });
    }
    let roots = (0..fields.len()).filter(|&i| columns.contains(&&fields[i].name()[..]));
    Ok(ProjectionMask::roots(metadata.parquet_schema(), roots))
}

/// A file has a list of its batches at its end.
fn read_file(frame: &mut FrameBuilder, buffer: Buffer, most_rows: usize) -> Result<(), DataError> {
    let name = frame.name;
    let failed = |error: &dyn Display| wrong(name, ARROW, error);
    let outside = || wrong(name, ARROW, "a block outside of it");
    let end = buffer.len().checked_sub(10).ok_or_else(outside)?;
    let trailer = <[u8; 10]>::try_from(&buffer[end..]).map_err(|error| failed(&error))?;
    let length = read_footer_length(trailer).map_err(|error| failed(&error))?;
    let start = end.checked_sub(length).ok_or_else(outside)?;
    let footer = arrow_ipc::root_as_footer(&buffer[start..end]).map_err(|error| failed(&error))?;
    let schema = footer.schema().ok_or_else(|| failed(&"no schema"))?;
    let schema = Arc::new(arrow_ipc::convert::try_fb_to_schema(schema).map_err(|error| failed(&error))?);
    let mut decoder = FileDecoder::new(schema.clone(), footer.version());
    let block = |block: &arrow_ipc::Block| {
        let length = u64::try_from(block.bodyLength()).ok()?.checked_add(block.metaDataLength().try_into().ok()?)?;
        let offset = u64::try_from(block.offset()).ok()?;
        let is_inside = offset.checked_add(length)? <= buffer.len() as u64;
        is_inside.then(|| buffer.slice_with_length(offset as usize, length as usize))
    };
    for place in footer.dictionaries().iter().flatten() {
        let bytes = block(place).ok_or_else(outside)?;
        decoder.read_dictionary(place, &bytes).map_err(|error| failed(&error))?;
    }
    frame.start(&schema)?;
    for place in footer.recordBatches().iter().flatten() {
        let bytes = block(place).ok_or_else(outside)?;
        let batch = decoder.read_record_batch(place, &bytes).map_err(|error| wrong(name, ARROW, error))?;
        if let Some(batch) = batch {
            check_rows(name, &batch, most_rows)?;
            frame.append(&batch)?;
        }
    }
    Ok(())
}

/// A stream has one batch after the other.
fn read_stream(frame: &mut FrameBuilder, mut buffer: Buffer, most_rows: usize) -> Result<(), DataError> {
    let name = frame.name;
    let mut decoder = StreamDecoder::new();
    let mut has_started = false;
    loop {
        let left = buffer.len();
        let batch = decoder.decode(&mut buffer).map_err(|error| wrong(name, ARROW, error))?;
        if let (false, Some(schema)) = (has_started, decoder.schema()) {
            frame.start(&schema)?;
            has_started = true;
        }
        match batch {
            Some(batch) => {
                check_rows(name, &batch, most_rows)?;
                frame.append(&batch)?;
            }
            None if buffer.is_empty() || buffer.len() == left => break,
            None => {}
        }
    }
    decoder.finish().map_err(|error| wrong(name, ARROW, error))?;
    if has_started { Ok(()) } else { Err(wrong(name, ARROW, "no schema")) }
}

fn check_rows(name: &str, batch: &RecordBatch, most: usize) -> Result<(), DataError> {
    let rows = batch.num_rows();
    if rows <= most { Ok(()) } else { Err(wrong(name, ARROW, format!("{rows} rows, more than its bytes can hold"))) }
}

/// A frame in the making.
pub(crate) struct FrameBuilder<'a> {
    name: &'a str,
    format: &'static str,
    columns: Vec<(String, Building)>,
    /// Bytes that it may still take.
    left: u64,
}

enum Building {
    Numbers(Vec<f64>),
    Texts { texts: Vec<Option<String>>, are_categories: bool },
}

impl FrameBuilder<'_> {
    pub(crate) fn new<'a>(name: &'a str, format: &'static str) -> FrameBuilder<'a> {
        FrameBuilder { name, format, columns: Vec::new(), left: MAX_BYTES }
    }

    /// The columns of a file, of which this is a part.
    pub(crate) fn settling(&self) -> Result<Vec<Settling>, DataError> {
        let settling = |(name, building): &(String, Building)| match building {
            Building::Numbers(_) => Settling::new(name.clone(), Some(&ColumnKind::Number)),
            Building::Texts { are_categories: true, .. } => Settling::new(name.clone(), Some(&ColumnKind::Category)),
            Building::Texts { .. } => Ok(Settling::of_texts(name.clone())),
        };
        self.columns.iter().map(settling).collect()
    }

    pub(crate) fn start(&mut self, schema: &Schema) -> Result<(), DataError> {
        for field in schema.fields() {
            let texts = |are_categories| Building::Texts { texts: Vec::new(), are_categories };
            let building = match field.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => texts(false),
                DataType::Dictionary(_, values) if is_text(values) => texts(true),
                other if is_number(other) => Building::Numbers(Vec::new()),
                other => {
                    let found = format!("column `{}` of {other}, expected numbers, times or texts", field.name());
                    return Err(wrong(self.name, self.format, found));
                }
            };
            if self.columns.iter().any(|(name, _)| name == field.name()) {
                return Err(DataError::DuplicateColumn { name: self.name.into(), column: field.name().clone() });
            }
            self.columns.push((field.name().clone(), building));
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, batch: &RecordBatch) -> Result<(), DataError> {
        if batch.num_columns() != self.columns.len() {
            return Err(wrong(self.name, self.format, "batches of different columns"));
        }
        for ((_, building), array) in self.columns.iter_mut().zip(batch.columns()) {
            let text = match building {
                Building::Numbers(numbers) => {
                    append_numbers(numbers, array);
                    0
                }
                Building::Texts { texts, .. } => append_texts(texts, array),
            };
            let cost = (array.len() * size_of::<Option<String>>()) as u64 + text as u64;
            let left = self.left.checked_sub(cost);
            self.left = left.ok_or_else(|| wrong(self.name, self.format, format!("more than {MAX_BYTES} bytes")))?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Frame, DataError> {
        let column = |(name, building)| {
            let cells = match building {
                Building::Numbers(numbers) => Cells::Numbers(numbers),
                Building::Texts { texts, are_categories } => {
                    let few = || texts.iter().flatten().collect::<BTreeSet<_>>().len() <= MOST_CATEGORIES;
                    match are_categories || few() {
                        true => Cells::Categories(Categories::of_texts(texts.iter().map(Option::as_deref))),
                        false => Cells::Texts(texts),
                    }
                }
            };
            Column { name, cells }
        };
        Frame::new(self.columns.into_iter().map(column).collect())
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_number(data_type: &DataType) -> bool {
    let others = [DataType::Null, DataType::Boolean, DataType::Date32, DataType::Date64];
    data_type.is_integer()
        || data_type.is_floating()
        || others.contains(data_type)
        || matches!(data_type, DataType::Timestamp(..))
}

fn append_numbers(numbers: &mut Vec<f64>, array: &dyn Array) {
    fn all<T: ArrowPrimitiveType>(numbers: &mut Vec<f64>, array: &dyn Array, number: impl Fn(T::Native) -> f64) {
        numbers.extend(array.as_primitive::<T>().iter().map(|value| value.map_or(f64::NAN, &number)));
    }
    const DAY: f64 = 86_400e3;
    match array.data_type() {
        DataType::Int8 => all::<Int8Type>(numbers, array, f64::from),
        DataType::Int16 => all::<Int16Type>(numbers, array, f64::from),
        DataType::Int32 => all::<Int32Type>(numbers, array, f64::from),
        DataType::Int64 => all::<Int64Type>(numbers, array, |n| n as f64),
        DataType::UInt8 => all::<UInt8Type>(numbers, array, f64::from),
        DataType::UInt16 => all::<UInt16Type>(numbers, array, f64::from),
        DataType::UInt32 => all::<UInt32Type>(numbers, array, f64::from),
        DataType::UInt64 => all::<UInt64Type>(numbers, array, |n| n as f64),
        DataType::Float16 => all::<Float16Type>(numbers, array, f64::from),
        DataType::Float32 => all::<Float32Type>(numbers, array, f64::from),
        DataType::Float64 => all::<Float64Type>(numbers, array, |n| n),
        DataType::Date32 => all::<Date32Type>(numbers, array, f64::from),
        DataType::Date64 => all::<Date64Type>(numbers, array, |n| n as f64 / DAY),
        DataType::Timestamp(TimeUnit::Second, _) => all::<TimestampSecondType>(numbers, array, |n| n as f64),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            all::<TimestampMillisecondType>(numbers, array, |n| n as f64 / 1e3)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            all::<TimestampMicrosecondType>(numbers, array, |n| n as f64 / 1e6)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            all::<TimestampNanosecondType>(numbers, array, |n| n as f64 / 1e9)
        }
        DataType::Boolean => {
            let number = |value: Option<bool>| value.map_or(f64::NAN, |value| f64::from(u8::from(value)));
            numbers.extend(array.as_boolean().iter().map(number));
        }
        // Nulls, and nothing else: `start` lets no other type pass.
        _ => numbers.extend(std::iter::repeat_n(f64::NAN, array.len())),
    }
}

/// Tells how many bytes they have.
fn append_texts(texts: &mut Vec<Option<String>>, array: &dyn Array) -> usize {
    let before = texts.len();
    let owned = |text: Option<&str>| text.map(String::from);
    match array.data_type() {
        DataType::Utf8 => texts.extend(array.as_string::<i32>().iter().map(owned)),
        DataType::LargeUtf8 => texts.extend(array.as_string::<i64>().iter().map(owned)),
        DataType::Utf8View => texts.extend(array.as_string_view().iter().map(owned)),
        _ => {
            let dictionary = array.as_any_dictionary();
            let mut values = Vec::new();
            append_texts(&mut values, dictionary.values());
            let keys = if values.is_empty() { vec![0; array.len()] } else { dictionary.normalized_keys() };
            let text = |(row, key): (usize, usize)| match dictionary.keys().is_null(row) {
                true => None,
                false => values.get(key).cloned().flatten(),
            };
            texts.extend(keys.into_iter().enumerate().map(text));
        }
    }
    texts[before..].iter().flatten().map(String::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{
        ArrayRef, BooleanArray, Date32Array, DictionaryArray, Float32Array, Int64Array, ListArray, NullArray,
        StringArray, TimestampMillisecondArray, UInt8Array,
    };
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;

    fn batch() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from(vec![Some(1), None, Some(-3)]))),
            ("small", Arc::new(UInt8Array::from(vec![1, 2, 255]))),
            ("mass", Arc::new(Float32Array::from(vec![Some(0.5), Some(-1.5), None]))),
            ("wild", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ("day", Arc::new(Date32Array::from(vec![0, 1, -1]))),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![1500, 0, -500]))),
            ("kind", Arc::new(StringArray::from(vec![Some("b"), Some("a"), None]))),
            ("site", Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("y"), None, Some("x")]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn check(frame: &Frame) {
        let same = |column: &str, expected: [f64; 3]| {
            let found = frame.numbers(column).unwrap();
            assert!(found.iter().zip(expected).all(|(a, b)| *a == b || a.is_nan() && b.is_nan()), "{column} {found:?}");
        };
        same("id", [1.0, f64::NAN, -3.0]);
        same("small", [1.0, 2.0, 255.0]);
        same("mass", [0.5, -1.5, f64::NAN]);
        same("wild", [1.0, 0.0, f64::NAN]);
        same("day", [0.0, 1.0, -1.0]);
        same("at", [1.5, 0.0, -0.5]);
        assert_eq!(frame.categories("kind").unwrap().codes(), [Some(1), Some(0), None]);
        let site = frame.categories("site").unwrap();
        assert_eq!((site.vocabulary(), site.codes()), (&["x".into(), "y".into()][..], &[Some(1), None, Some(0)][..]));
    }

    fn parquet(batch: &RecordBatch, compression: Compression) -> Vec<u8> {
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn arrow(batch: &RecordBatch) -> [Vec<u8>; 2] {
        let mut file = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        file.write(batch).unwrap();
        let mut stream = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        stream.write(batch).unwrap();
        [file.into_inner().unwrap(), stream.into_inner().unwrap()]
    }

    #[test]
    fn columns_of_every_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.parquet");
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
            std::fs::write(&path, parquet(&batch(), compression)).unwrap();
            check(&Frame::read_parquet(&path).unwrap());
            let some = Frame::read_parquet_columns(&path, &["kind", "id"]).unwrap();
            assert_eq!(some.names().collect::<Vec<_>>(), ["id", "kind"]);
            let error = Frame::read_parquet_columns(&path, &["none"]).unwrap_err().to_string();
            assert!(error.contains("no column `none` among id, small"), "{error}");
        }
        for bytes in arrow(&batch()) {
            check(&Frame::from_arrow(&bytes[..], "it.arrow").unwrap());
        }
    }

    #[test]
    fn what_a_frame_has_not() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)])]);
        let lists = RecordBatch::try_from_iter([("lists", Arc::new(list) as ArrayRef)]).unwrap();
        let error = Frame::from_arrow(&arrow(&lists)[0][..], "it").unwrap_err().to_string();
        assert!(error.starts_with("it is not an Arrow file as it should be: found column `lists` of List"), "{error}");
        // Rows that no byte stands for.
        let nulls =
            RecordBatch::try_from_iter_with_nullable([("no", Arc::new(NullArray::new(1 << 40)) as ArrayRef, true)]);
        let error = Frame::from_arrow(&arrow(&nulls.unwrap())[0][..], "it").unwrap_err().to_string();
        assert!(error.contains("1099511627776 rows, more than its bytes can hold"), "{error}");
        for bytes in [&b""[..], b"ARROW1", b"ARROW1\0\0nothing here but ARROW1", b"PAR1PAR1"] {
            assert!(matches!(Frame::from_arrow(bytes, "it"), Err(DataError::Malformed { .. })));
        }
        assert!(matches!(Frame::read_parquet("no such file"), Err(DataError::Open { .. })));
    }

    /// Valid files, changed at random; the other formats are in `tests/malformed.rs`.
    #[test]
    fn changed_files_are_answered() {
        let cases = std::env::var("GRADUS_FUZZ").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.parquet");
        let seeds = [&arrow(&batch())[..], &[parquet(&batch(), Compression::SNAPPY)]].concat();
        // The panics of readers are caught, and say nothing here.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let mut outcome = Ok(());
        for case in 0..cases {
            let mut drawn = 0;
            let mut below = |limit: usize| {
                drawn += 1;
                gradus_tensor::Key::new(case).fold_in(drawn).value() as usize % limit.max(1)
            };
            let kind = below(seeds.len());
            let mut bytes = seeds[kind].clone();
            for _ in 0..1 + below(3) {
                let at = below(bytes.len());
                match below(4) {
                    0 => bytes.truncate(at),
                    1 if at < bytes.len() => bytes[at] ^= 1 << below(8),
                    2 if at < bytes.len() => bytes[at] = 0xff,
                    _ => {
                        let end = (at + 8).min(bytes.len());
                        bytes[at..end].fill([0xff, 0x7f, 0][below(3)]);
                    }
                }
            }
            outcome = std::panic::catch_unwind(|| {
                let frame = if kind < 2 {
                    Frame::from_arrow(&bytes[..], "it")
                } else {
                    std::fs::write(&path, &bytes).unwrap();
                    if let Ok(file) = crate::FrameFile::open_parquet(&path, None, 1) {
                        let _ = file.select_rows(&[file.rows().saturating_sub(1), 0]);
                    }
                    Frame::read_parquet(&path)
                };
                frame.is_ok_and(|frame| frame.columns().iter().all(|column| column.cells.len() == frame.rows()))
            })
            .map(|_| ())
            .map_err(|_| case);
            if outcome.is_err() {
                break;
            }
        }
        std::panic::set_hook(hook);
        assert_eq!(outcome, Ok(()), "the case that panicked");
    }
}
