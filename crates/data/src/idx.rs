//! IDX files: the arrays that MNIST and its kin come in.

use crate::DataError;
use crate::gzip::unpacked;
use gradus_tensor::{Data, Placement, Tensor};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// More than this is not read: what a few bytes may claim, and a few more unpack to.
const MAX_BYTES: u64 = 1 << 32;

/// The array of an IDX file (<http://yann.lecun.com/exdb/mnist>, "the IDX file format"), gzip or not: two zero bytes, a type,
/// a number of axes, their extents as big-endian words, and the elements, row-major and big-endian.
///
/// ```
/// use gradus_data::IdxArray;
/// use gradus_tensor::Device;
/// let file = [0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 255];
/// let array = IdxArray::from_reader(&file[..], "three.idx")?;
/// assert_eq!(array.shape(), [1, 3]);
/// assert_eq!(array.to_tensor(&Device::cpu()).to_vec::<f32>().unwrap(), [7.0, 8.0, 255.0]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct IdxArray {
    shape: Vec<usize>,
    values: Values,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    Bytes(Vec<u8>),
    Others(Data),
}

impl IdxArray {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be opened or read, is no IDX file, is shorter or longer than it says, or larger than 4 GiB.
    pub fn read(path: impl AsRef<Path>) -> Result<IdxArray, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        IdxArray::from_reader(file, &path.display().to_string())
    }

    /// Reads what starts as an IDX file does, or as gzip does; errors call it `name`.
    ///
    /// # Errors
    /// As [`read`](IdxArray::read).
    pub fn from_reader(from: impl Read, name: &str) -> Result<IdxArray, DataError> {
        parse(unpacked(from).map_err(|source| DataError::Read { name: name.into(), source })?, name)
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many rows there are: the extent of the first axis.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Some of the rows, in this order.
    ///
    /// # Errors
    /// If there is no such row.
    ///
    /// ```
    /// use gradus_data::IdxArray;
    /// let file = [0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9];
    /// let array = IdxArray::from_reader(&file[..], "three.idx")?;
    /// assert_eq!(array.select([2, 0])?.shape(), [2]);
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Result<IdxArray, DataError> {
        let rows: Vec<usize> = rows.into_iter().collect();
        if let Some(&row) = rows.iter().find(|&&row| row >= self.rows()) {
            return Err(DataError::NoRow { row, rows: self.rows() });
        }
        let per_row: usize = self.shape.iter().skip(1).product();
        fn picked<T: Copy>(all: &[T], rows: &[usize], per_row: usize) -> Vec<T> {
            rows.iter().flat_map(|&row| &all[row * per_row..(row + 1) * per_row]).copied().collect()
        }
        let values = match &self.values {
            Values::Bytes(bytes) => Values::Bytes(picked(bytes, &rows, per_row)),
            Values::Others(Data::I32(numbers)) => Values::Others(Data::I32(picked(numbers, &rows, per_row))),
            Values::Others(Data::F32(numbers)) => Values::Others(Data::F32(picked(numbers, &rows, per_row))),
            Values::Others(Data::F64(numbers)) => Values::Others(Data::F64(picked(numbers, &rows, per_row))),
            Values::Others(other) => unreachable!("IDX has no {}", other.dtype()),
        };
        let shape = std::iter::once(rows.len()).chain(self.shape.iter().skip(1).copied()).collect();
        Ok(IdxArray { shape, values })
    }

    /// The elements as a tensor. Bytes become elements of the placement's dtype (f32 unless it names one) on the device; what
    /// else IDX knows becomes i32 (from i8 and i16 too), f32 or f64.
    #[track_caller]
    pub fn to_tensor(&self, on: impl Into<Placement>) -> Tensor {
        let on = on.into();
        let shape = self.shape.clone();
        match &self.values {
            Values::Bytes(bytes) => Tensor::from_bytes(bytes, shape, on),
            Values::Others(Data::I32(numbers)) => Tensor::from_vec(numbers.clone(), shape, on),
            Values::Others(Data::F32(numbers)) => Tensor::from_vec(numbers.clone(), shape, on),
            Values::Others(Data::F64(numbers)) => Tensor::from_vec(numbers.clone(), shape, on),
            Values::Others(other) => unreachable!("IDX has no {}", other.dtype()),
        }
    }
}

fn parse(mut from: impl Read, name: &str) -> Result<IdxArray, DataError> {
    let broken = |source| DataError::Read { name: name.into(), source };
    let not_idx = |found: String| DataError::NotIdx { name: name.into(), found };
    let header = up_to(&mut from, 4).map_err(broken)?;
    let [0, 0, kind, axes] = header[..] else {
        return Err(not_idx(format!("the first bytes {header:02x?}, expected 00 00, a type and a number of axes")));
    };
    let size = match kind {
        0x08 | 0x09 => 1,
        0x0b => 2,
        0x0c | 0x0d => 4,
        0x0e => 8,
        other => return Err(not_idx(format!("type {other:#04x}, expected 08, 09, 0b, 0c, 0d or 0e"))),
    };
    let words = up_to(&mut from, 4 * axes as u64).map_err(broken)?;
    if words.len() < 4 * axes as usize {
        return Err(not_idx(format!("{} bytes of extents for {axes} axes", words.len())));
    }
    let shape: Vec<usize> =
        words.chunks_exact(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]) as usize).collect();
    let elements = shape.iter().try_fold(size, |product: u64, &extent| product.checked_mul(extent as u64));
    let Some(expected) = elements.filter(|&bytes| bytes <= MAX_BYTES) else {
        return Err(not_idx(format!("extents {shape:?}, which take more than {MAX_BYTES} bytes")));
    };
    // The vector grows with what is there, so a header that lies costs nothing.
    let bytes = up_to(&mut from, expected + 1).map_err(broken)?;
    if bytes.len() as u64 != expected {
        let more = if bytes.len() as u64 > expected { "more than " } else { "" };
        let found = bytes.len().min(expected as usize);
        return Err(not_idx(format!("{more}{found} bytes of elements, expected {expected} for the extents {shape:?}")));
    }
    let values = match kind {
        0x08 => Values::Bytes(bytes),
        0x09 => Values::Others(Data::I32(bytes.iter().map(|&b| b as i8 as i32).collect())),
        0x0b => Values::Others(Data::I32(words_of(&bytes, |w: [u8; 2]| i16::from_be_bytes(w) as i32))),
        0x0c => Values::Others(Data::I32(words_of(&bytes, i32::from_be_bytes))),
        0x0d => Values::Others(Data::F32(words_of(&bytes, f32::from_be_bytes))),
        _ => Values::Others(Data::F64(words_of(&bytes, f64::from_be_bytes))),
    };
    Ok(IdxArray { shape, values })
}

/// At most so many bytes; the vector grows with what is there.
pub(crate) fn up_to(from: &mut impl Read, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    from.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

/// Words of N bytes, converted.
pub(crate) fn words_of<T, const N: usize>(bytes: &[u8], word: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| word(chunk)).collect()
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
            let array = IdxArray::from_reader(&plain[..], "plain").unwrap();
            assert_eq!(array, IdxArray::from_reader(&zipped(&plain)[..], "zipped").unwrap());
            let tensor = array.to_tensor(&device);
            assert_eq!((&tensor.shape()[..], tensor.dtype()), (&[3, 1][..], dtype));
            assert_eq!(tensor.to_dtype(DType::F32).to_vec::<f32>().unwrap(), [-2.0, 1.0, 127.0]);
        }
        let labels = IdxArray::from_reader(&file(0x08, &[2], &[3, 200])[..], "labels").unwrap();
        assert_eq!(labels.select([1, 0, 1]).unwrap().to_tensor(&device).to_vec::<f32>().unwrap(), [200.0, 3.0, 200.0]);
        assert_eq!(labels.select([2]).unwrap_err().to_string(), "there is no row 2 (counted from 0) among 2");
        assert_eq!(labels.to_tensor((&device, DType::I32)).to_vec::<i32>().unwrap(), [3, 200]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let says = |bytes: &[u8], what: &str| {
            let error = IdxArray::from_reader(bytes, "file").unwrap_err().to_string();
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
            let _ = IdxArray::from_reader(&bytes[..], "random");
            let _ = IdxArray::from_reader(&[&[0, 0, kind, axes], &bytes[..]].concat()[..], "nearly");
        }
    }
}
