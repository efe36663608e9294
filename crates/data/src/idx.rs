//! IDX files: the arrays that MNIST and its kin come in.

use crate::elements::{ByteOrder, Kind, Stored};
use crate::gzip::unpacked;
use crate::layout::{Layout, up_to};
use crate::{Array, DataError};
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub(crate) const FORMAT: &str = "an IDX file";

impl Array {
    /// Reads an IDX file (<http://yann.lecun.com/exdb/mnist>, "the IDX file format"), gzip or not: two zero bytes, a type, a
    /// number of axes, their extents as big-endian words, and the elements, row-major and big-endian. Bytes stay bytes; i8, i16
    /// and i32 become i32.
    ///
    /// # Errors
    /// If it cannot be opened or read, is no IDX file, is shorter or longer than it says, or larger than 4 GiB.
    pub fn read_idx(path: impl AsRef<Path>) -> Result<Array, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        Array::from_idx(file, &path.display().to_string())
    }

    /// Reads what starts as an IDX file does, or as gzip does; errors call it `name`.
    ///
    /// # Errors
    /// As [`read_idx`](Array::read_idx).
    ///
    /// ```
    /// use gradus_data::Array;
    /// use gradus_tensor::Device;
    /// let file = [0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 255];
    /// let array = Array::from_idx(&file[..], "three.idx")?;
    /// assert_eq!(array.shape(), [1, 3]);
    /// assert_eq!(array.to_tensor(&Device::cpu()).to_vec::<f32>().unwrap(), [7.0, 8.0, 255.0]);
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn from_idx(from: impl Read, name: &str) -> Result<Array, DataError> {
        let mut from = unpacked(from).map_err(|source| DataError::Read { name: name.into(), source })?;
        header(&mut from, name)?.read(from, name)
    }
}

/// What an IDX file starts with.
pub(crate) fn header(mut from: impl Read, name: &str) -> Result<Layout, DataError> {
    let broken = |source| DataError::Read { name: name.into(), source };
    let not_idx = |found: String| DataError::Malformed { name: name.into(), format: FORMAT, found };
    let header = up_to(&mut from, 4).map_err(broken)?;
    let [0, 0, kind, axes] = header[..] else {
        return Err(not_idx(format!("the first bytes {header:02x?}, expected 00 00, a type and a number of axes")));
    };
    let kind = match kind {
        0x08 => Kind::U8,
        0x09 => Kind::I8,
        0x0b => Kind::I16,
        0x0c => Kind::I32,
        0x0d => Kind::F32,
        0x0e => Kind::F64,
        other => return Err(not_idx(format!("type {other:#04x}, expected 08, 09, 0b, 0c, 0d or 0e"))),
    };
    let words = up_to(&mut from, 4 * axes as u64).map_err(broken)?;
    if words.len() < 4 * axes as usize {
        return Err(not_idx(format!("{} bytes of extents for {axes} axes", words.len())));
    }
    let shape = words.as_chunks().0.iter().map(|&word| u32::from_be_bytes(word) as usize).collect();
    Ok(Layout { format: FORMAT, shape, stored: Stored { kind, order: ByteOrder::Big }, columns_first: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use gradus_tensor::{DType, Device};
    use proptest::prelude::*;
    use std::io::Write;

    fn file(kind: u8, shape: &[u32], bytes: &[u8]) -> Vec<u8> {
        let extents = shape.iter().flat_map(|extent| extent.to_be_bytes());
        [0, 0, kind, shape.len() as u8].into_iter().chain(extents).chain(bytes.iter().copied()).collect()
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_type_is_read_packed_or_not() {
        let device = Device::cpu();
        let numbers = [-2i8, 1, 127];
        let cases: [(u8, Vec<u8>, DType); 5] = [
            (0x09, numbers.iter().map(|&n| n as u8).collect(), DType::I32),
            (0x0b, numbers.iter().flat_map(|&n| (n as i16).to_be_bytes()).collect(), DType::I32),
            (0x0c, numbers.iter().flat_map(|&n| (n as i32).to_be_bytes()).collect(), DType::I32),
            (0x0d, numbers.iter().flat_map(|&n| (n as f32).to_be_bytes()).collect(), DType::F32),
            (0x0e, numbers.iter().flat_map(|&n| (n as f64).to_be_bytes()).collect(), DType::F64),
        ];
        for (kind, bytes, dtype) in cases {
            let plain = file(kind, &[3, 1], &bytes);
            let array = Array::from_idx(&plain[..], "plain").unwrap();
            assert_eq!(array, Array::from_idx(&zipped(&plain)[..], "zipped").unwrap());
            let tensor = array.to_tensor(&device);
            assert_eq!((&tensor.shape()[..], tensor.dtype()), (&[3, 1][..], dtype));
            assert_eq!(tensor.to_dtype(DType::F32).to_vec::<f32>().unwrap(), [-2.0, 1.0, 127.0]);
        }
        let labels = Array::from_idx(&file(0x08, &[2], &[3, 200])[..], "labels").unwrap();
        assert_eq!(labels.select([1, 0, 1]).unwrap().to_tensor(&device).to_vec::<f32>().unwrap(), [200.0, 3.0, 200.0]);
        assert_eq!(labels.select([2]).unwrap_err().to_string(), "there is no row 2 (counted from 0) among 2");
        assert_eq!(labels.to_tensor((&device, DType::I32)).to_vec::<i32>().unwrap(), [3, 200]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let says = |bytes: &[u8], what: &str| {
            let error = Array::from_idx(bytes, "file").unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        says(b"", "the first bytes []");
        says(b"PK\x03\x04", "expected 00 00");
        says(&file(0x07, &[1], &[0]), "type 0x07");
        says(&file(0x08, &[1], &[0])[..6], "2 bytes of extents for 1 axes");
        says(&file(0x08, &[2, 2], &[0; 3]), "3 bytes of elements, expected 4");
        says(&file(0x08, &[2, 2], &[0; 5]), "more than 4 bytes");
        says(&file(0x08, &[u32::MAX, u32::MAX, u32::MAX], &[]), "which take more than");
        says(&file(0x08, &[u32::MAX], &[0; 9]), "9 bytes of elements, expected 4294967295");
        says(&zipped(&file(0x08, &[9], &[0; 9]))[..20], "cannot read file");
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0u8..16, axes in 0u8..4) {
            let _ = Array::from_idx(&bytes[..], "random");
            let _ = Array::from_idx(&[&[0, 0, kind, axes], &bytes[..]].concat()[..], "nearly");
        }
    }
}
