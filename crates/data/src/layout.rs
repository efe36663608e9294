//! How an array lies in a file, and its elements read from there.

use crate::elements::{Elements, Stored, map_elements};
use crate::{Array, DataError};
use std::io::Read;

/// More than this is not read as one array: what a few bytes may claim, and a few more unpack to.
pub(crate) const MAX_BYTES: u64 = 1 << 32;

/// What the header of a file says.
#[derive(Debug)]
pub(crate) struct Layout {
    /// What the file should be, for errors.
    pub(crate) format: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) stored: Stored,
    /// Whether the first axis is the one whose neighbours lie side by side, and not the last.
    pub(crate) columns_first: bool,
}

impl Layout {
    pub(crate) fn wrong(&self, name: &str, found: String) -> DataError {
        DataError::Malformed { name: name.into(), format: self.format, found }
    }

    /// Bytes of the elements. Also where an extent is 0, the others must make sense.
    pub(crate) fn bytes(&self, name: &str, most: u64) -> Result<u64, DataError> {
        let size = self.stored.size() as u64;
        let claimed = self.shape.iter().try_fold(size, |product, &extent| product.checked_mul(extent.max(1) as u64));
        match claimed.filter(|&bytes| bytes <= most) {
            Some(_) if self.shape.contains(&0) => Ok(0),
            Some(bytes) => Ok(bytes),
            None => Err(self.wrong(name, format!("extents {:?}, which take more than {most} bytes", self.shape))),
        }
    }

    /// All elements, which must be the last bytes there are.
    pub(crate) fn read(self, mut from: impl Read, name: &str) -> Result<Array, DataError> {
        let expected = self.bytes(name, MAX_BYTES)?;
        // The vector grows with what is there, so a header that lies costs nothing.
        let bytes = up_to(&mut from, expected + 1).map_err(|source| DataError::Read { name: name.into(), source })?;
        if bytes.len() as u64 != expected {
            let more = if bytes.len() as u64 > expected { "more than " } else { "" };
            let found = bytes.len().min(expected as usize);
            let extents = &self.shape;
            let found = format!("{more}{found} bytes of elements, expected {expected} for the extents {extents:?}");
            return Err(self.wrong(name, found));
        }
        let elements = self.stored.decode(bytes).map_err(|error| self.wrong(name, error.to_string()))?;
        let elements = if self.columns_first { rows_first(elements, &self.shape) } else { elements };
        Ok(Array::counted(self.shape, elements))
    }
}

/// At most so many bytes; the vector grows with what is there.
pub(crate) fn up_to(from: &mut impl Read, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    from.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

/// Elements whose first axis changes fastest, row-major.
fn rows_first(elements: Elements, shape: &[usize]) -> Elements {
    if elements.is_empty() || shape.iter().filter(|&&extent| extent > 1).count() < 2 {
        return elements;
    }
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, &extent| {
            let own = *stride;
            *stride *= extent;
            Some(own)
        })
        .collect();
    map_elements!(&elements, all => {
        let mut ordered = Vec::with_capacity(all.len());
        let (mut index, mut place) = (vec![0; shape.len()], 0);
        for _ in 0..all.len() {
            ordered.push(all[place]);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                place += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                place -= strides[axis] * shape[axis];
                index[axis] = 0;
            }
        }
        ordered
    })
}
