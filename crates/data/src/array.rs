//! Arrays on the host: what files hold, and what batches are made of.

use crate::elements::{Elements, map_elements, with_elements};
use crate::{DataError, Dataset};
use gradus_tensor::{Placement, Tensor};

/// An array in the host's memory, row-major: what a file of numbers holds, or an item or a batch of a data set. Pixels stay
/// bytes until they are on the device.
///
/// ```
/// use gradus_data::Array;
/// use gradus_tensor::Device;
/// let array = Array::new([3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(array.select([2, 0])?.to_tensor(&Device::cpu()).to_vec::<f32>().unwrap(), [5.0, 6.0, 1.0, 2.0]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    elements: Elements,
}

impl Array {
    /// An array of as many elements as its extents say.
    ///
    /// # Errors
    /// If there are more or fewer.
    pub fn new(shape: impl Into<Vec<usize>>, elements: impl Into<Elements>) -> Result<Array, DataError> {
        let (shape, elements) = (shape.into(), elements.into());
        let expected = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent.max(1)));
        let expected = expected.map(|product| if shape.contains(&0) { 0 } else { product });
        if expected != Some(elements.len()) {
            let found = format!("{} elements for the extents {shape:?}", elements.len());
            let expected = "as many elements as the product of the extents";
            return Err(DataError::Argument { argument: "elements", found, expected });
        }
        Ok(Array { shape, elements })
    }

    /// An array whose maker has counted its elements.
    pub(crate) fn counted(shape: Vec<usize>, elements: Elements) -> Array {
        debug_assert_eq!(shape.iter().product::<usize>(), elements.len());
        Array { shape, elements }
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The elements, row-major, without copying them.
    pub fn into_elements(self) -> Elements {
        self.elements
    }

    /// How many rows there are: the extent of the first axis.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Row number `row`, without the first axis.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn row(&self, row: usize) -> Result<Array, DataError> {
        let mut array = self.select([row])?;
        array.shape.remove(0);
        Ok(array)
    }

    /// Some of the rows, in this order.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Result<Array, DataError> {
        let rows: Vec<usize> = rows.into_iter().collect();
        if let Some(&row) = rows.iter().find(|&&row| row >= self.rows()) {
            return Err(DataError::NoRow { row, rows: self.rows() });
        }
        let per_row: usize = self.shape.iter().skip(1).product();
        let chosen = map_elements!(&self.elements, all => {
            let mut picked = Vec::with_capacity(rows.len() * per_row);
            rows.iter().for_each(|&row| picked.extend_from_slice(&all[row * per_row..(row + 1) * per_row]));
            picked
        });
        let shape = std::iter::once(rows.len()).chain(self.shape.iter().skip(1).copied()).collect();
        Ok(Array::counted(shape, chosen))
    }

    /// The arrays as rows of one, along a new first axis. No arrays give no elements: f32, `[0]`.
    ///
    /// # Errors
    /// [`DataError::Uneven`] if they differ in shape or type.
    pub fn stack(arrays: &[Array]) -> Result<Array, DataError> {
        let Some(first) = arrays.first() else { return Ok(Array::counted(vec![0], Elements::F32(Vec::new()))) };
        let alike = |array: &Array| array.shape == first.shape && array.type_name() == first.type_name();
        if let Some(position) = arrays.iter().position(|array| !alike(array)) {
            let told = |array: &Array| format!("{} {:?}", array.type_name(), array.shape);
            let (found, expected) = (told(&arrays[position]), told(first));
            return Err(DataError::Uneven { position, found, expected });
        }
        let mut stacked = map_elements!(&first.elements, one => Vec::with_capacity(one.len() * arrays.len()));
        for array in arrays {
            match (&mut stacked, &array.elements) {
                (Elements::U8(all), Elements::U8(one)) => all.extend_from_slice(one),
                (Elements::Bool(all), Elements::Bool(one)) => all.extend_from_slice(one),
                (Elements::I32(all), Elements::I32(one)) => all.extend_from_slice(one),
                (Elements::U32(all), Elements::U32(one)) => all.extend_from_slice(one),
                (Elements::F16(all), Elements::F16(one)) => all.extend_from_slice(one),
                (Elements::F32(all), Elements::F32(one)) => all.extend_from_slice(one),
                (Elements::F64(all), Elements::F64(one)) => all.extend_from_slice(one),
                _ => unreachable!("all arrays have the type of the first"),
            }
        }
        let shape = std::iter::once(arrays.len()).chain(first.shape.iter().copied()).collect();
        Ok(Array::counted(shape, stacked))
    }

    /// The array as a tensor. Bytes become elements of the placement's dtype (f32 unless it names one) on the device; what else
    /// there is has a dtype of its own, unless the placement names another.
    #[track_caller]
    pub fn to_tensor(&self, on: impl Into<Placement>) -> Tensor {
        let (on, shape) = (on.into(), &self.shape[..]);
        match &self.elements {
            Elements::U8(bytes) => Tensor::from_bytes(bytes, shape, on),
            Elements::Bool(v) => Tensor::from_vec(v.clone(), shape, on),
            Elements::I32(v) => Tensor::from_vec(v.clone(), shape, on),
            Elements::U32(v) => Tensor::from_vec(v.clone(), shape, on),
            Elements::F16(v) => Tensor::from_vec(v.clone(), shape, on),
            Elements::F32(v) => Tensor::from_vec(v.clone(), shape, on),
            Elements::F64(v) => Tensor::from_vec(v.clone(), shape, on),
        }
    }

    fn type_name(&self) -> &'static str {
        self.elements.type_name()
    }

    /// How much memory the elements take, in bytes.
    pub fn bytes(&self) -> usize {
        with_elements!(&self.elements, v => size_of_val(&v[..]))
    }
}

/// The rows.
impl Dataset for Array {
    type Item = Array;

    fn len(&self) -> usize {
        self.rows()
    }

    fn get(&self, index: usize) -> Result<Array, DataError> {
        self.row(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_tensor::{DType, Device};

    #[test]
    fn rows_and_stacks() {
        let array = Array::new([2, 1, 2], vec![1u8, 2, 3, 250]).unwrap();
        assert_eq!(Array::stack(&[array.row(0).unwrap(), array.row(1).unwrap()]).unwrap(), array);
        assert_eq!(array.select([]).unwrap().shape(), [0, 1, 2]);
        assert_eq!(array.row(2).unwrap_err().to_string(), "there is no row 2 (counted from 0) among 2");
        let tensor = array.to_tensor((&Device::cpu(), DType::I32));
        assert_eq!(tensor.to_vec::<i32>().unwrap(), [1, 2, 3, 250]);

        let narrow = Array::new([1], vec![1u8]).unwrap();
        let error = Array::stack(&[array.clone(), array.clone(), narrow]).unwrap_err().to_string();
        assert_eq!(error, "item 2 of a batch (from 0) is u8 [1], expected u8 [2, 1, 2] as the first");
        let floats = Array::new([2, 1, 2], vec![0.0f32; 4]).unwrap();
        assert!(Array::stack(&[array, floats]).is_err());
        assert_eq!(Array::stack(&[]).unwrap().shape(), [0]);
        assert!(Array::new([2], vec![1.0f64]).is_err());
        assert!(Array::new([usize::MAX, 2], vec![true]).is_err());
        let scalar = Array::new([], vec![7i32]).unwrap();
        assert_eq!((scalar.rows(), Array::stack(std::slice::from_ref(&scalar)).unwrap().shape()), (0, &[1][..]));
    }
}
