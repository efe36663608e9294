//! Rows of equal length, read from a file when they are asked for.

use crate::DataError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A file of rows, after a header. Threads may read from it at once.
#[derive(Debug)]
pub(crate) struct RowFile {
    file: Positioned,
    name: String,
    start: u64,
    row_bytes: usize,
    rows: usize,
}

impl RowFile {
    pub(crate) fn new(file: File, path: &Path, start: u64, row_bytes: usize, rows: usize) -> RowFile {
        RowFile { file: Positioned::new(file), name: path.display().to_string(), start, row_bytes, rows }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of a row.
    pub(crate) fn read(&self, row: usize) -> Result<Vec<u8>, DataError> {
        if row >= self.rows {
            return Err(DataError::NoRow { row, rows: self.rows });
        }
        let mut bytes = vec![0; self.row_bytes];
        let place = self.start + row as u64 * self.row_bytes as u64;
        let read = FileFrom { file: &self.file, place }.read_exact(&mut bytes);
        read.map_err(|source| DataError::Read { name: self.name.clone(), source })?;
        Ok(bytes)
    }
}

/// A file that is read at places.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Positioned(File);

#[cfg(unix)]
impl Positioned {
    pub(crate) fn new(file: File) -> Positioned {
        Positioned(file)
    }

    fn read_at(&self, bytes: &mut [u8], place: u64) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, bytes, place)
    }
}

/// A file that is read at places; elsewhere it has one cursor.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) struct Positioned(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl Positioned {
    pub(crate) fn new(file: File) -> Positioned {
        Positioned(std::sync::Mutex::new(file))
    }

    fn read_at(&self, bytes: &mut [u8], place: u64) -> std::io::Result<usize> {
        use std::io::{Seek, SeekFrom};
        let mut file = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        file.seek(SeekFrom::Start(place))?;
        file.read(bytes)
    }
}

/// What a file holds from a place on.
pub(crate) struct FileFrom<'a> {
    pub(crate) file: &'a Positioned,
    pub(crate) place: u64,
}

impl Read for FileFrom<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(bytes, self.place)?;
        self.place += count as u64;
        Ok(count)
    }
}
