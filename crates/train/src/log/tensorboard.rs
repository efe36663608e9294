//! Event files for TensorBoard: records of protocol-buffer messages, which are few enough to be written by hand.
//!
//! The messages are `Event`, `Summary` and `HistogramProto` of TensorFlow's `event.proto`, `summary.proto` and `histogram.proto`;
//! numbers in comments below are their field numbers.

use super::record::{frame, unframe};
use super::{Log, LogError, now};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes an event file into a folder, for `tensorboard --logdir FOLDER`. Every run has a file of its own: one that goes on adds
/// another to the folder.
///
/// ```
/// use gradus_train::log::{Log, TensorBoard, Value, read_events};
///
/// let folder = tempfile::tempdir()?;
/// let mut board = TensorBoard::create(folder.path())?;
/// board.scalars(3, &[("loss/train", 0.25)])?;
/// let events = read_events(board.path())?;
/// assert_eq!(events[0].step, 3);
/// assert_eq!(events[0].values, [("loss/train".to_string(), Value::Scalar(0.25))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

/// What an event of a file holds, for one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The step.
    pub step: i64,
    /// When it was written, in seconds since 1970.
    pub time: f64,
    /// Values by tag.
    pub values: Vec<(String, Value)>,
}

/// A value of an [`Event`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number; TensorBoard has them in f32.
    Scalar(f32),
    /// Something else.
    Other,
}

impl TensorBoard {
    /// A new file in a folder, which is created if it is missing.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn create(folder: impl AsRef<Path>) -> Result<TensorBoard, LogError> {
        static FILES: AtomicU64 = AtomicU64::new(0);

        let (time, number) = (now(), FILES.fetch_add(1, Ordering::Relaxed));
        let name = format!("events.out.tfevents.{:010}.gradus.{}.{number}", time as u64, process::id());
        let path = folder.as_ref().join(name);
        let opened = fs::create_dir_all(folder.as_ref()).and_then(|()| {
            // A file that is there belongs to another run.
            OpenOptions::new().create_new(true).append(true).open(&path)
        });
        let file = opened.map_err(|source| LogError::Io { path: path.clone(), source })?;
        let mut board = TensorBoard { path, file };
        let mut event = event(time, 0);
        event.bytes(3, b"brain.Event:2");
        board.write(&event)?;
        Ok(board)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, event: &Message) -> Result<(), LogError> {
        // One write for a record: there is no moment at which half of it is in a buffer of this process.
        let written = self.file.write_all(&frame(&event.0));
        written.map_err(|source| LogError::Io { path: self.path.clone(), source })
    }

    fn summary(&mut self, step: u64, values: impl IntoIterator<Item = Message>) -> Result<(), LogError> {
        let mut summary = Message::default();
        values.into_iter().for_each(|value| summary.message(1, &value));
        let mut event = event(now(), step);
        event.message(5, &summary);
        self.write(&event)
    }
}

impl Log for TensorBoard {
    fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<(), LogError> {
        let value = |&(tag, number): &(&str, f64)| {
            let mut value = tagged(tag);
            value.float(2, number as f32);
            value
        };
        self.summary(step, scalars.iter().map(value))
    }

    /// In 30 buckets of equal width. Values that are not finite are left out.
    fn histogram(&mut self, step: u64, name: &str, values: &[f64]) -> Result<(), LogError> {
        let mut value = tagged(name);
        value.message(5, &histogram(values));
        self.summary(step, [value])
    }

    /// As Markdown.
    fn text(&mut self, step: u64, name: &str, text: &str) -> Result<(), LogError> {
        let mut tensor = Message::default();
        // TensorProto: dtype (1) is DT_STRING, tensor_shape (2) that of a single value, string_val (8).
        tensor.number(1, 7);
        tensor.message(2, &Message::default());
        tensor.bytes(8, text.as_bytes());
        let (mut plugin, mut metadata) = (Message::default(), Message::default());
        plugin.bytes(1, b"text");
        metadata.message(1, &plugin);
        let mut value = tagged(name);
        value.message(8, &tensor);
        value.message(9, &metadata);
        self.summary(step, [value])
    }
}

/// An `Event` with `wall_time` (1) and `step` (2).
fn event(time: f64, step: u64) -> Message {
    let mut event = Message::default();
    event.double(1, time);
    event.number(2, step);
    event
}

/// A `Summary.Value` with its `tag` (1).
fn tagged(tag: &str) -> Message {
    let mut value = Message::default();
    value.bytes(1, tag.as_bytes());
    value
}

/// A `HistogramProto`: `min`, `max`, `num`, `sum`, `sum_squares` (1 to 5), `bucket_limit` (6) and `bucket` (7).
fn histogram(values: &[f64]) -> Message {
    const BUCKETS: usize = 30;
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let (min, max) = finite.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
    let mut message = Message::default();
    let sums = [finite.iter().sum::<f64>(), finite.iter().map(|v| v * v).sum::<f64>()];
    let (min, max) = if finite.is_empty() { (0.0, 0.0) } else { (min, max) };
    for (field, number) in (1..).zip([min, max, finite.len() as f64, sums[0], sums[1]]) {
        message.double(field, number);
    }
    // Divided first: the whole range may be more than f64 holds.
    let width = (max / BUCKETS as f64) - (min / BUCKETS as f64);
    let mut counts = [0.0; BUCKETS];
    for value in finite {
        let place = if width > 0.0 { (value / width - min / width) as usize } else { 0 };
        counts[place.min(BUCKETS - 1)] += 1.0;
    }
    let limits = (1..=BUCKETS).map(|i| if i == BUCKETS { max } else { min + width * i as f64 });
    message.doubles(6, limits);
    message.doubles(7, counts);
    message
}

/// A protocol-buffer message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn number(&mut self, field: u32, number: u64) {
        self.key(field, 0);
        self.varint(number);
    }

    fn double(&mut self, field: u32, number: f64) {
        self.key(field, 1);
        self.0.extend(number.to_le_bytes());
    }

    fn float(&mut self, field: u32, number: f32) {
        self.key(field, 5);
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u32, message: &Message) {
        self.bytes(field, &message.0);
    }

    fn doubles(&mut self, field: u32, numbers: impl IntoIterator<Item = f64>) {
        let packed: Vec<u8> = numbers.into_iter().flat_map(f64::to_le_bytes).collect();
        self.bytes(field, &packed);
    }
}

/// The events of a file that hold values. A last record that is not whole, as a killed run leaves it, is left out.
///
/// # Errors
/// [`LogError::Io`], or [`LogError::Damaged`] at a record whose checksum or content is wrong.
pub fn read_events(path: impl AsRef<Path>) -> Result<Vec<Event>, LogError> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|source| LogError::Io { path: path.to_path_buf(), source })?;
    parse(&bytes, path)
}

/// The events in the bytes of a file.
fn parse(bytes: &[u8], path: &Path) -> Result<Vec<Event>, LogError> {
    let (mut events, mut rest) = (Vec::new(), bytes);
    loop {
        let at = (bytes.len() - rest.len()) as u64;
        let damaged = |reason: &str| LogError::Damaged { path: path.to_path_buf(), at, reason: reason.into() };
        let Some((data, after)) = unframe(rest).map_err(damaged)? else {
            return Ok(events);
        };
        let event = read_event(data).ok_or_else(|| damaged("a record is no event"))?;
        if !event.values.is_empty() {
            events.push(event);
        }
        rest = after;
    }
}

/// A field of a message: what it is on the wire.
enum Field<'a> {
    Number(u64),
    Double([u8; 8]),
    Bytes(&'a [u8]),
    Float([u8; 4]),
}

/// The fields of a message in order; `None` if it is none.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Number(read_varint(&mut bytes)?),
            1 => Field::Double(take(&mut bytes, 8)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => Field::Float(take(&mut bytes, 4)?.try_into().ok()?),
            _ => return None,
        };
        fields.push((key >> 3, field));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn read_event(bytes: &[u8]) -> Option<Event> {
    let mut event = Event { step: 0, time: 0.0, values: Vec::new() };
    for field in fields(bytes)? {
        match field {
            (1, Field::Double(time)) => event.time = f64::from_le_bytes(time),
            (2, Field::Number(step)) => event.step = step as i64,
            (5, Field::Bytes(summary)) => {
                for (number, value) in fields(summary)? {
                    if let (1, Field::Bytes(value)) = (number, value) {
                        event.values.push(read_value(value)?);
                    }
                }
            }
            _ => {}
        }
    }
    Some(event)
}

fn read_value(bytes: &[u8]) -> Option<(String, Value)> {
    let (mut tag, mut value) = (String::new(), Value::Other);
    for field in fields(bytes)? {
        match field {
            (1, Field::Bytes(text)) => tag = String::from_utf8_lossy(text).into_owned(),
            (2, Field::Float(number)) => value = Value::Scalar(f32::from_le_bytes(number)),
            _ => {}
        }
    }
    Some((tag, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_format() {
        // Written by hand from the field numbers: step 300, tag "a", value 1.
        let mut value = tagged("a");
        value.float(2, 1.0);
        let mut summary = Message::default();
        summary.message(1, &value);
        let mut whole = event(0.0, 300);
        whole.message(5, &summary);
        let expected =
            [0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0xAC, 0x02, 0x2A, 10, 0x0A, 8, 0x0A, 1, b'a', 0x15, 0, 0, 0x80, 0x3F];
        assert_eq!(whole.0, expected);
    }

    #[test]
    fn a_killed_run_leaves_a_file_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(folder.path().join("new/run")).unwrap();
        for step in 0..3 {
            board.scalars(step, &[("loss", 0.5), ("learning rate", f64::NAN)]).unwrap();
            board.histogram(step, "weights", &[1.0, 2.0, f64::INFINITY, -1.0]).unwrap();
        }
        board.text(u64::MAX, "note", "*all is well*").unwrap();
        let whole = fs::read(board.path()).unwrap();
        let events = read_events(board.path()).unwrap();
        assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, -1]);
        assert_eq!(events[0].values[0], ("loss".to_string(), Value::Scalar(0.5)));
        assert_eq!(events[1].values, [("weights".to_string(), Value::Other)]);
        let mut last = 0;
        for end in 0..whole.len() {
            let count = parse(&whole[..end], board.path()).unwrap().len();
            assert!((last..=last + 1).contains(&count), "{count} events in {end} bytes");
            last = count;
        }
        assert_eq!(last, 6);
        for place in (0..whole.len()).step_by(7) {
            let mut broken = whole.clone();
            broken[place] ^= 0x10;
            assert!(matches!(parse(&broken, board.path()), Err(LogError::Damaged { .. })), "byte {place}");
        }
    }

    #[test]
    fn records_that_are_no_events_are_errors() {
        for data in [&b"\xFF"[..], b"\x0B", b"\x2A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", b"\x2A\x01\x0A", b"\x80"] {
            assert_eq!(read_event(data), None, "{data:?}");
        }
        assert_eq!(read_event(&[0xFF; 30]), None);
    }

    #[test]
    fn histograms_of_anything() {
        let counts = |values: &[f64]| -> f64 {
            let message = histogram(values);
            let fields = fields(&message.0).unwrap();
            let Some((7, Field::Bytes(packed))) = fields.last() else { panic!("no buckets") };
            packed.chunks(8).map(|chunk| f64::from_le_bytes(chunk.try_into().unwrap())).sum()
        };
        for values in [&[][..], &[1.0], &[2.0; 5], &[f64::MAX, f64::MIN], &[0.0, 1e-320], &[f64::NAN, f64::INFINITY]] {
            assert_eq!(counts(values), values.iter().filter(|value| value.is_finite()).count() as f64, "{values:?}");
        }
    }
}
