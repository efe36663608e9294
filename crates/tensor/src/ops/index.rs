//! Indexing by tensors of integers.

use crate::tensor::first_failed;
use crate::{DType, Element, Tensor};
use gradus_ir::op::{Op, ScatterMode};
use gradus_ir::{Error as ErrorKind, Shape};

impl Tensor {
    /// `y[…, i, …] = x[…, index[…, i, …], …]` along `axis`: index (i32 or u32) has this tensor's rank, and its extents but
    /// for the axis. An index out of range is an error when the value is read.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let logits = Tensor::new([[0.1, 0.9], [0.8, 0.2]], &device);
    /// let picked = logits.gather(1, &Tensor::new([[1], [0]], &device));
    /// assert_eq!(picked.to_vec::<f32>()?, [0.9, 0.8]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn gather(&self, axis: isize, index: &Tensor) -> Tensor {
        match self.axis(axis) {
            Ok(axis) => Tensor::record(Op::Gather(axis), &[self, index], None),
            Err(kind) => self.fail("gather", kind),
        }
    }

    /// A copy with `updates` added at the places that [`gather`](Tensor::gather) with this index would read; updates of
    /// one place add up, in a fixed order.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let votes = Tensor::new([2, 0, 2], &device);
    /// let counts = Tensor::new([0, 0, 0], &device).scatter_add(0, &votes, &Tensor::new([1, 1, 1], &device));
    /// assert_eq!(counts.to_vec::<i32>()?, [1, 0, 2]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn scatter_add(&self, axis: isize, index: &Tensor, updates: &Tensor) -> Tensor {
        self.scatter(ScatterMode::Add, axis, index, updates)
    }

    /// A copy with `updates` set at the places that [`gather`](Tensor::gather) with this index would read; the last
    /// update of a place wins.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let x = Tensor::new([[1, 2, 3], [4, 5, 6]], &device);
    /// let set = x.scatter_set(1, &Tensor::new([[2], [0]], &device), &Tensor::new([[7], [8]], &device));
    /// assert_eq!(set.to_vec::<i32>()?, [1, 2, 7, 8, 5, 6]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn scatter_set(&self, axis: isize, index: &Tensor, updates: &Tensor) -> Tensor {
        self.scatter(ScatterMode::Set, axis, index, updates)
    }

    #[track_caller]
    fn scatter(&self, mode: ScatterMode, axis: isize, index: &Tensor, updates: &Tensor) -> Tensor {
        match self.axis(axis) {
            Ok(axis) => Tensor::record(Op::Scatter(mode, axis), &[self, index, updates], None),
            Err(kind) => self.fail("scatter", kind),
        }
    }

    /// The positions of an axis that a vector of indices names, in its order.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let x = Tensor::new([[1, 2], [3, 4], [5, 6]], &device);
    /// let rows = x.index_select(0, &Tensor::new([2, 0], &device));
    /// assert_eq!(rows.to_vec::<i32>()?, [5, 6, 1, 2]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn index_select(&self, axis: isize, index: &Tensor) -> Tensor {
        if let Some(failed) = first_failed([self, index]) {
            return failed;
        }
        let axis = match self.axis(axis) {
            Ok(axis) => axis,
            Err(kind) => return self.fail("index_select", kind),
        };
        if index.rank() != 1 {
            let kind = ErrorKind::Rank { expected: "an index of rank 1".into(), shape: index.shape().clone() };
            return self.fail("index_select", kind);
        }
        let count = index.numel();
        let aligned: Shape = (0..self.rank()).map(|a| if a == axis { count } else { 1 }).collect();
        let index = index.reshape(aligned).expand_to(&self.shape().with(axis, count));
        Tensor::record(Op::Gather(axis), &[self, &index], None)
    }

    /// 1 at each index and 0 elsewhere, along a new last axis of extent `classes`. An index out of range gives zeros.
    ///
    /// ```
    /// # use gradus_tensor::{Device, DType, Tensor};
    /// let labels = Tensor::new([2, 0], &Device::cpu());
    /// assert_eq!(labels.one_hot(3, DType::F32).to_vec::<f32>()?, [0., 0., 1., 1., 0., 0.]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn one_hot(&self, classes: usize, dtype: DType) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        let shape = self.shape().with_inserted(self.rank(), classes);
        let class = Tensor::source(Op::Iota(shape.len() - 1), None, shape, self.dtype(), self.device());
        self.unsqueeze(-1).eq(class).to_dtype(dtype)
    }

    /// The elements where a bool tensor of the same shape is true, as a vector: the mask is read now, so the result has
    /// a shape.
    ///
    /// # Errors
    /// As reading the mask.
    #[track_caller]
    pub fn masked_select(&self, mask: &Tensor) -> crate::Result<Tensor> {
        self.node()?;
        let chosen: Vec<i32> = mask
            .broadcast_to(self.shape())
            .to_vec::<bool>()?
            .into_iter()
            .enumerate()
            .filter_map(|(i, chosen)| chosen.then_some(i as i32))
            .collect();
        let count = chosen.len();
        let index = Tensor::upload(i32::wrap(chosen), Shape::new(&[count]), self.device());
        Ok(self.flatten().index_select(0, &index))
    }
}
