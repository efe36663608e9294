//! CIFAR-10 and CIFAR-100: images of 32 × 32 pixels in binary records.

use crate::elements::Elements;
use crate::gzip::unpacked;
use crate::layout::{MAX_BYTES, up_to};
use crate::row_file::RowFile;
use crate::{Array, DataError, Dataset};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// An image: red, green and blue, row by row.
const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;

/// Which of the two (Krizhevsky: "Learning Multiple Layers of Features from Tiny Images", 2009).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CifarKind {
    /// CIFAR-10: a byte with one of 10 classes, then the pixels.
    Ten,
    /// CIFAR-100: a byte with one of 20 coarse classes, one with one of 100 fine classes, then the pixels.
    Hundred,
}

impl CifarKind {
    /// How many classes there are.
    pub fn classes(self) -> usize {
        match self {
            CifarKind::Ten => 10,
            CifarKind::Hundred => 100,
        }
    }

    fn labels(self) -> usize {
        match self {
            CifarKind::Ten => 1,
            CifarKind::Hundred => 2,
        }
    }

    fn record(self) -> usize {
        self.labels() + PIXELS
    }

    fn format(self) -> &'static str {
        match self {
            CifarKind::Ten => "a file of CIFAR-10's binary version",
            CifarKind::Hundred => "a file of CIFAR-100's binary version",
        }
    }

    /// What the labels of a record say, if they are classes.
    fn class(self, record: &[u8], name: &str, row: usize) -> Result<u32, DataError> {
        let limits: &[u8] = match self {
            CifarKind::Ten => &[10],
            CifarKind::Hundred => &[20, 100],
        };
        if let Some((label, limit)) = record.iter().zip(limits).find(|(label, limit)| label >= limit) {
            return Err(
                self.wrong(name, format!("the label {label} in record {row} (from 0), expected less than {limit}"))
            );
        }
        Ok(record[self.labels() - 1].into())
    }

    fn wrong(self, name: &str, found: String) -> DataError {
        DataError::Malformed { name: name.into(), format: self.format(), found }
    }

    fn records(self, bytes: u64, name: &str) -> Result<usize, DataError> {
        let record = self.record() as u64;
        if bytes == 0 || !bytes.is_multiple_of(record) {
            return Err(self.wrong(name, format!("{bytes} bytes, expected a multiple of {record} that is not 0")));
        }
        Ok((bytes / record) as usize)
    }
}

/// Images and classes of CIFAR's binary version, in memory: items are an image (u8, `[3, 32, 32]`) and its class (of
/// CIFAR-100 the fine one).
///
/// ```no_run
/// use gradus_data::{Cifar, CifarKind};
/// let train = Cifar::read(CifarKind::Ten, (1..=5).map(|i| format!("data_batch_{i}.bin")))?;
/// assert_eq!(train.images().shape(), [50_000, 3, 32, 32]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Cifar {
    images: Array,
    labels: Vec<u32>,
}

impl Cifar {
    /// Reads files, gzip or not, one after the other.
    ///
    /// # Errors
    /// If one cannot be opened or read, is no whole number of records, or has labels that are no classes; or if all are larger
    /// than 4 GiB.
    pub fn read<P: AsRef<Path>>(kind: CifarKind, paths: impl IntoIterator<Item = P>) -> Result<Cifar, DataError> {
        let mut all = Cifar::none();
        for path in paths {
            let path = path.as_ref();
            let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
            all.append(kind, file, &path.display().to_string())?;
        }
        Ok(all)
    }

    /// Reads one file's bytes, gzip or not; errors call it `name`.
    ///
    /// # Errors
    /// As [`read`](Cifar::read).
    pub fn from_reader(kind: CifarKind, from: impl Read, name: &str) -> Result<Cifar, DataError> {
        let mut all = Cifar::none();
        all.append(kind, from, name)?;
        Ok(all)
    }

    /// The images: u8, `[n, 3, 32, 32]`.
    pub fn images(&self) -> &Array {
        &self.images
    }

    /// The classes.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn none() -> Cifar {
        let [c, h, w] = SHAPE;
        Cifar { images: Array::counted(vec![0, c, h, w], Elements::U8(Vec::new())), labels: Vec::new() }
    }

    fn append(&mut self, kind: CifarKind, from: impl Read, name: &str) -> Result<(), DataError> {
        let broken = |source| DataError::Read { name: name.into(), source };
        let most = MAX_BYTES.saturating_sub(self.images.bytes() as u64);
        let bytes = up_to(&mut unpacked(from).map_err(broken)?, most + 1).map_err(broken)?;
        if bytes.len() as u64 > most {
            return Err(kind.wrong(name, format!("more than {MAX_BYTES} bytes, those of earlier files included")));
        }
        kind.records(bytes.len() as u64, name)?;
        let none = Array::counted(vec![0], Elements::U8(Vec::new()));
        let Elements::U8(mut pixels) = std::mem::replace(&mut self.images, none).into_elements() else {
            unreachable!()
        };
        for (row, record) in bytes.chunks_exact(kind.record()).enumerate() {
            self.labels.push(kind.class(record, name, row)?);
            pixels.extend_from_slice(&record[kind.labels()..]);
        }
        let [c, h, w] = SHAPE;
        self.images = Array::counted(vec![self.labels.len(), c, h, w], Elements::U8(pixels));
        Ok(())
    }
}

impl Dataset for Cifar {
    type Item = (Array, u32);

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn get(&self, index: usize) -> Result<(Array, u32), DataError> {
        Ok((self.images.row(index)?, self.labels[index]))
    }
}

/// The images and classes of one uncompressed file of CIFAR's binary version, read when they are asked for.
#[derive(Debug)]
pub struct CifarFile {
    kind: CifarKind,
    rows: RowFile,
}

impl CifarFile {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be opened or is no whole number of records.
    pub fn open(kind: CifarKind, path: impl AsRef<Path>) -> Result<CifarFile, DataError> {
        let path = path.as_ref();
        let failed = |source| DataError::Open { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let records = kind.records(file.metadata().map_err(failed)?.len(), &path.display().to_string())?;
        Ok(CifarFile { kind, rows: RowFile::new(file, path, 0, kind.record(), records) })
    }
}

impl Dataset for CifarFile {
    type Item = (Array, u32);

    fn len(&self) -> usize {
        self.rows.rows()
    }

    fn get(&self, index: usize) -> Result<(Array, u32), DataError> {
        let mut record = self.rows.read(index)?;
        let class = self.kind.class(&record, self.rows.name(), index)?;
        record.drain(..self.kind.labels());
        Ok((Array::counted(SHAPE.to_vec(), Elements::U8(record)), class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_images_and_classes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch.bin");
        for kind in [CifarKind::Ten, CifarKind::Hundred] {
            let record = |class: u8, first: u8| {
                let labels = if kind == CifarKind::Ten { vec![class] } else { vec![19, class] };
                [labels, (0..PIXELS).map(|i| first.wrapping_add((i / 1024) as u8)).collect()].concat()
            };
            let bytes = [record(3, 10), record(9, 20)].concat();
            std::fs::write(&path, &bytes).unwrap();
            let (all, lazy) = (Cifar::read(kind, [&path, &path]).unwrap(), CifarFile::open(kind, &path).unwrap());
            assert_eq!((all.images().shape(), all.labels()), (&[4, 3, 32, 32][..], &[3, 9, 3, 9][..]));
            assert_eq!((Dataset::len(&lazy), lazy.get(1).unwrap()), (2, all.get(3).unwrap()));
            let (image, _) = all.get(1).unwrap();
            let Elements::U8(pixels) = image.elements() else { panic!() };
            assert_eq!((pixels[1023], pixels[1024], pixels[3071]), (20, 21, 22));

            let says = |bytes: &[u8], what: &str| {
                let error = Cifar::from_reader(kind, bytes, "it").unwrap_err().to_string();
                assert!(error.contains(what), "{error}");
            };
            says(&bytes[1..], "bytes, expected a multiple of 307");
            says(&[], "found 0 bytes");
            let limit = kind.classes() as u8;
            says(&record(limit, 0), &format!("the label {limit} in record 0 (from 0), expected less than {limit}"));
            std::fs::write(&path, record(limit, 0)).unwrap();
            assert!(CifarFile::open(kind, &path).unwrap().get(0).is_err());
        }
    }
}
