//! Data sets of tensors, and batches of them.

use gradus_tensor::{Error, ErrorKind, Key, Result, Tensor};

/// Tensors that belong together row by row, such as images and labels.
///
/// ```
/// use gradus_data::TensorDataset;
/// use gradus_tensor::{Device, Key, Tensor};
/// let device = Device::cpu();
/// let data = TensorDataset::new([Tensor::zeros([10, 3], &device), Tensor::arange(10, &device)])?;
/// let mut seen = 0;
/// for [x, y] in data.batches(4).shuffled(Key::new(7)) {
///     assert_eq!(x.shape()[0], y.shape()[0]);
///     seen += y.numel();
/// }
/// assert_eq!(seen, 10);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TensorDataset<const N: usize> {
    tensors: [Tensor; N],
    rows: usize,
}

impl<const N: usize> TensorDataset<N> {
    /// A data set of tensors with equal first extents.
    ///
    /// # Errors
    /// If the first extents differ, a tensor has no axis, or one carries an error.
    #[track_caller]
    pub fn new(tensors: [Tensor; N]) -> Result<TensorDataset<N>> {
        let mut rows = None;
        for tensor in &tensors {
            if let Some(error) = tensor.error() {
                return Err(error.clone());
            }
            let Some(&extent) = tensor.shape().first() else {
                let kind = ErrorKind::Rank { expected: "at least rank 1".into(), shape: tensor.shape().clone() };
                return Err(Error::new("TensorDataset", kind));
            };
            let first = *rows.get_or_insert(extent);
            if extent != first {
                let (expected, found) = (tensor.shape().with(0, first), tensor.shape().clone());
                return Err(Error::new("TensorDataset", ErrorKind::Shape { what: "a tensor", expected, found }));
            }
        }
        Ok(TensorDataset { tensors, rows: rows.unwrap_or(0) })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The whole tensors.
    pub fn tensors(&self) -> &[Tensor; N] {
        &self.tensors
    }

    /// Batches of `size` rows (at least 1), in order; the last may be smaller.
    pub fn batches(&self, size: usize) -> Batches<'_, N> {
        Batches { data: self, size: size.max(1), order: None, rows: self.rows, next: 0, drop_last: false }
    }
}

/// An iterator over the batches of a [`TensorDataset`].
#[derive(Clone, Debug)]
pub struct Batches<'a, const N: usize> {
    data: &'a TensorDataset<N>,
    size: usize,
    order: Option<Vec<usize>>,
    /// How many come.
    rows: usize,
    next: usize,
    drop_last: bool,
}

impl<const N: usize> Batches<'_, N> {
    /// In random order; the same key gives the same order. Give each epoch a key of its own.
    pub fn shuffled(self, key: Key) -> Self {
        let order = key.shuffled(self.data.rows);
        self.ordered(order)
    }

    /// These rows, in this order, such as a sampler's; a row that there is not is an error when a batch is computed.
    ///
    /// ```
    /// use gradus_data::{Sampler, TensorDataset, Weighted};
    /// use gradus_tensor::{Device, Key, Tensor};
    /// let data = TensorDataset::new([Tensor::arange(3, &Device::cpu())])?;
    /// let sampler = Weighted::with_replacement(&[0.0, 0.0, 1.0], 4, Key::new(7)).unwrap();
    /// let [batch] = data.batches(4).ordered(sampler.order(0)).next().unwrap();
    /// assert_eq!(batch.to_vec::<i32>()?, [2, 2, 2, 2]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    pub fn ordered(self, order: Vec<usize>) -> Self {
        Batches { rows: order.len(), order: Some(order), ..self }
    }

    /// Leaves out a last batch that is smaller than the others.
    pub fn drop_last(mut self) -> Self {
        self.drop_last = true;
        self
    }

    /// How many batches are left.
    pub fn count_left(&self) -> usize {
        let rows = self.rows - self.next;
        if self.drop_last { rows / self.size } else { rows.div_ceil(self.size) }
    }
}

impl<const N: usize> Iterator for Batches<'_, N> {
    type Item = [Tensor; N];

    fn next(&mut self) -> Option<[Tensor; N]> {
        if self.count_left() == 0 {
            return None;
        }
        let (start, end) = (self.next, (self.next + self.size).min(self.rows));
        self.next = end;
        let select: Box<dyn Fn(&Tensor) -> Tensor> = match &self.order {
            None => Box::new(move |x| x.slice(0, start as isize..end as isize)),
            Some(order) => {
                let rows: Vec<u32> =
                    order[start..end].iter().map(|&row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
                let device = self.data.tensors[0].device();
                let index = Tensor::from_vec(rows, [end - start], device);
                Box::new(move |x| x.index_select(0, &index))
            }
        };
        Some(std::array::from_fn(|i| select(&self.data.tensors[i])))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count_left(), Some(self.count_left()))
    }
}

impl<const N: usize> ExactSizeIterator for Batches<'_, N> {}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_tensor::Device;

    #[test]
    fn every_row_comes_once_and_rows_stay_together() {
        let device = Device::cpu();
        let y = Tensor::arange(11, &device);
        let data = TensorDataset::new([&y * 10, y]).unwrap();
        for drop_last in [false, true] {
            let batches = data.batches(4).shuffled(Key::new(3));
            let batches = if drop_last { batches.drop_last() } else { batches };
            assert_eq!(batches.len(), if drop_last { 2 } else { 3 });
            let mut seen = Vec::new();
            for [tens, ones] in batches {
                let (tens, ones) = (tens.to_vec::<i32>().unwrap(), ones.to_vec::<i32>().unwrap());
                assert_eq!(tens, ones.iter().map(|i| i * 10).collect::<Vec<_>>());
                seen.extend(ones);
            }
            let in_order: Vec<i32> = (0..11).collect();
            assert_ne!(seen, in_order[..seen.len()]);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), if drop_last { 8 } else { 11 });
        }
    }

    #[test]
    fn uneven_tensors_are_refused() {
        let device = Device::cpu();
        let error = TensorDataset::new([Tensor::zeros([3], &device), Tensor::zeros([4, 2], &device)]).unwrap_err();
        assert!(error.to_string().contains("[4, 2]"), "{error}");
    }
}
