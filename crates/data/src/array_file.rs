//! Arrays that are larger than memory.

use crate::layout::{Layout, MAX_BYTES};
use crate::row_file::RowFile;
use crate::{Array, DataError, Dataset, idx, npy};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// The array of an IDX or npy file, of which rows are read when they are asked for: for files that are larger than memory.
/// They must not be compressed, and npy files be in C's order.
///
/// ```
/// use gradus_data::{ArrayFile, Dataset, Elements};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("pairs.idx");
/// std::fs::write(&path, [0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6])?;
/// let pairs = ArrayFile::open_idx(&path)?;
/// assert_eq!(pairs.shape(), [3, 2]);
/// assert_eq!(pairs.get(1)?.elements(), &Elements::U8(vec![3, 4]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ArrayFile {
    rows: RowFile,
    layout: Layout,
}

impl ArrayFile {
    /// Opens an IDX file.
    ///
    /// # Errors
    /// If it cannot be opened or read, is no IDX file (nor is a compressed one), has another length than it says, or rows of
    /// more than 4 GiB.
    pub fn open_idx(path: impl AsRef<Path>) -> Result<ArrayFile, DataError> {
        ArrayFile::open(path.as_ref(), |file, name| {
            let layout = idx::header(file, name)?;
            let bytes = 4 + 4 * layout.shape.len() as u64;
            Ok((layout, bytes))
        })
    }

    /// Opens NumPy's npy file.
    ///
    /// # Errors
    /// As [`open_idx`](ArrayFile::open_idx), and if it is in Fortran's order, so that rows do not lie in one piece.
    pub fn open_npy(path: impl AsRef<Path>) -> Result<ArrayFile, DataError> {
        ArrayFile::open(path.as_ref(), |file, name| npy::header(file, name))
    }

    fn open(
        path: &Path,
        header: impl Fn(&mut BufReader<&File>, &str) -> Result<(Layout, u64), DataError>,
    ) -> Result<ArrayFile, DataError> {
        let failed = |source| DataError::Open { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let name = path.display().to_string();
        let (mut layout, start) = header(&mut BufReader::new(&file), &name)?;
        if layout.columns_first && layout.shape.len() > 1 {
            let found = "Fortran's order, expected C's, in which a row lies in one piece (Array::read_npy reads both)";
            return Err(layout.wrong(&name, found.into()));
        }
        if layout.shape.is_empty() {
            return Err(layout.wrong(&name, "a single number, expected rows".into()));
        }
        let (expected, length) = (layout.bytes(&name, u64::MAX - start)?, file.metadata().map_err(failed)?.len());
        if length != start + expected {
            let extents = &layout.shape;
            let found = format!("{length} bytes, expected {} for the extents {extents:?}", start + expected);
            return Err(layout.wrong(&name, found));
        }
        let rows = layout.shape.remove(0);
        let row_bytes = layout.bytes(&name, MAX_BYTES)? as usize;
        let file = RowFile::new(file, path, start, row_bytes, rows);
        layout.shape.insert(0, rows);
        Ok(ArrayFile { rows: file, layout })
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }
}

/// The rows.
impl Dataset for ArrayFile {
    type Item = Array;

    fn len(&self) -> usize {
        self.rows.rows()
    }

    fn get(&self, index: usize) -> Result<Array, DataError> {
        let elements = self.layout.stored.decode(self.rows.read(index)?);
        let elements = elements.map_err(|error| self.layout.wrong(self.rows.name(), error.to_string()))?;
        Ok(Array::counted(self.layout.shape[1..].to_vec(), elements))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_whole_array() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it");
        let numbers: Vec<u8> = (0..24u16).flat_map(|n| (n * 1000).to_be_bytes()).collect();
        let header = "{'shape': (4, 3, 2), 'fortran_order': False, 'descr': '>u2'}";
        let length = (header.len() as u16).to_le_bytes();
        let npy = [&b"\x93NUMPY\x01\0"[..], &length, header.as_bytes(), &numbers].concat();
        let idx = [&[0, 0, 0x0b, 3, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2][..], &numbers].concat();
        for (bytes, is_npy) in [(npy, true), (idx, false)] {
            let open = || if is_npy { ArrayFile::open_npy(&path) } else { ArrayFile::open_idx(&path) };
            std::fs::write(&path, &bytes).unwrap();
            let whole = if is_npy { Array::read_npy(&path) } else { Array::read_idx(&path) }.unwrap();
            let file = open().unwrap();
            assert_eq!((file.shape(), Dataset::len(&file)), (&[4, 3, 2][..], 4));
            for row in [3, 0, 2] {
                assert_eq!(file.get(row).unwrap(), whole.row(row).unwrap());
            }
            assert!(matches!(file.get(4), Err(DataError::NoRow { row: 4, rows: 4 })));
            for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat()] {
                std::fs::write(&path, wrong).unwrap();
                let error = open().unwrap_err().to_string();
                assert!(error.contains(&format!("{} bytes, expected {}", wrong.len(), bytes.len())), "{error}");
            }
            // A file that shrinks later.
            assert!(matches!(file.get(3), Ok(_) | Err(DataError::Read { .. })));
        }
        let fortran = b"\x93NUMPY\x01\0\x37\0{'descr': '|u1', 'fortran_order': True, 'shape': (1,1)}\x07";
        std::fs::write(&path, fortran).unwrap();
        assert!(ArrayFile::open_npy(&path).unwrap_err().to_string().contains("Fortran's order"));
        let claims = b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        std::fs::write(&path, claims).unwrap();
        assert!(ArrayFile::open_idx(&path).unwrap_err().to_string().contains("which take more than"));
    }
}
