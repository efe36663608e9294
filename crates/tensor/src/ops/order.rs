//! Along an axis, in order: sums and products so far, recurrences, sorting, and searching in what is sorted.

use crate::tensor::first_failed;
use crate::{Operand, Result, Tensor};
use gradus_ir::op::{Op, ScanOp};
use gradus_ir::{DType, Data, Error as ErrorKind, Shape};

impl Tensor {
    /// The sum of the elements so far, along an axis; integers wrap.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([[1, 2, 3], [4, 5, 6]], &Device::cpu());
    /// assert_eq!(x.cumsum(1).to_vec::<i32>()?, [1, 3, 6, 4, 9, 15]);
    /// assert_eq!(x.cumsum(0).to_vec::<i32>()?, [1, 2, 3, 5, 7, 9]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn cumsum(&self, axis: isize) -> Tensor {
        self.scan(ScanOp::Sum, axis)
    }

    /// The product of the elements so far, along an axis; integers wrap. Its gradient is right where elements are 0.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([2.0, 0.5, 4.0], &Device::cpu());
    /// assert_eq!(x.cumprod(0).to_vec::<f32>()?, [2.0, 1.0, 4.0]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn cumprod(&self, axis: isize) -> Tensor {
        self.scan(ScanOp::Prod, axis)
    }

    #[track_caller]
    fn scan(&self, op: ScanOp, axis: isize) -> Tensor {
        match self.axis(axis) {
            Ok(axis) => Tensor::record(Op::Scan(op, axis), &[self], None),
            Err(kind) => self.fail(op.name(), kind),
        }
    }

    /// `y[i] = decay[i] · y[i − 1] + x[i]` along an axis, where `y[−1]` is 0 and x is this tensor, of floats. Decay is a number,
    /// or a tensor that broadcasts with this one. It is computed in parallel, also along the axis, and differentiable in both.
    ///
    /// Exponential moving averages, discounted returns (from the last step on) and state-space models are such recurrences:
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let rewards = Tensor::new([0.0, 0.0, 1.0], &Device::cpu());
    /// let returns = rewards.flip(0).linear_recurrence(0.5, 0).flip(0);
    /// assert_eq!(returns.to_vec::<f32>()?, [0.25, 0.5, 1.0]);
    /// // A state that decays by its own rate at each step, as the input says.
    /// let decay = Tensor::new([1.0, 0.0, 0.5], &Device::cpu());
    /// let state = Tensor::new([4.0, 2.0, 1.0], &Device::cpu()).linear_recurrence(&decay, 0);
    /// assert_eq!(state.to_vec::<f32>()?, [4.0, 2.0, 2.0]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn linear_recurrence(&self, decay: impl Into<Operand>, axis: isize) -> Tensor {
        let op = ScanOp::Recurrence;
        let (x, decay) = self.broadcast_with(op.name(), decay.into());
        match x.axis(axis) {
            Ok(axis) => Tensor::record(Op::Scan(op, axis), &[&decay, &x], None),
            Err(kind) => x.fail(op.name(), kind),
        }
    }

    /// The indices (i32) that put the elements along an axis into order. Equal ones keep theirs. NaN counts as the largest:
    /// it comes last, or first if `descending`. [`gather`](Tensor::gather) with them gives the elements, and other tensors in
    /// the same order.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let scores = Tensor::new([0.2, 0.9, 0.5], &device);
    /// let order = scores.argsort(0, true);
    /// assert_eq!(order.to_vec::<i32>()?, [1, 2, 0]);
    /// let names = Tensor::new([10, 20, 30], &device).gather(0, &order);
    /// assert_eq!(names.to_vec::<i32>()?, [20, 30, 10]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn argsort(&self, axis: isize, descending: bool) -> Tensor {
        match self.axis(axis) {
            Ok(axis) => self.order(axis, descending, self.shape()[axis]),
            Err(kind) => self.fail("argsort", kind),
        }
    }

    #[track_caller]
    fn order(&self, axis: usize, descending: bool, kept: usize) -> Tensor {
        Tensor::record(Op::Argsort { axis, descending, kept }, &[self], None)
    }

    /// The elements along an axis in order, as [`argsort`](Tensor::argsort) finds it. Gradients go back to where each element
    /// came from.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([3.0, 1.0, 2.0], &Device::cpu());
    /// assert_eq!(x.sort(0, false).to_vec::<f32>()?, [1.0, 2.0, 3.0]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn sort(&self, axis: isize, descending: bool) -> Tensor {
        match self.axis(axis) {
            Ok(_) => self.gather(axis, &self.argsort(axis, descending).detach()),
            Err(kind) => self.fail("sort", kind),
        }
    }

    /// The `k` largest elements along an axis (or the smallest, unless `largest`), the best first, and their indices (i32). Of
    /// equal ones the earlier come first; NaN counts as the largest.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]], &Device::cpu());
    /// let (values, indices) = x.topk(2, 1, true);
    /// assert_eq!(values.to_vec::<f32>()?, [0.7, 0.2, 0.5, 0.4]);
    /// assert_eq!(indices.to_vec::<i32>()?, [1, 2, 0, 2]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn topk(&self, k: usize, axis: isize, largest: bool) -> (Tensor, Tensor) {
        let wrong = match self.axis(axis) {
            Err(kind) => kind,
            Ok(at) if k > self.shape()[at] => {
                let found = format!("{k} of an axis of extent {}", self.shape()[at]);
                ErrorKind::Argument { argument: "k", expected: "at most as many as there are", found }
            }
            Ok(at) => {
                let indices = self.order(at, largest, k);
                return (self.gather(axis, &indices.detach()), indices);
            }
        };
        let failed = self.fail("topk", wrong);
        (failed.clone(), failed)
    }

    /// Where each of `values` would be inserted into this vector, which is in ascending order, so that it stays in order: the
    /// index (i32) before elements that are equal to it, or after them if `after_equal`. With boundaries in this tensor it is
    /// the number of the bucket that a value falls into. NaN belongs at the end.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let ages = Tensor::new([3.0, 18.0, 40.0, 99.0], &device);
    /// let bounds = Tensor::new([18.0, 65.0], &device);
    /// assert_eq!(bounds.searchsorted(&ages, false).to_vec::<i32>()?, [0, 0, 1, 2]);
    /// assert_eq!(bounds.searchsorted(&ages, true).to_vec::<i32>()?, [0, 1, 1, 2]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn searchsorted(&self, values: &Tensor, after_equal: bool) -> Tensor {
        if let Some(failed) = first_failed([self, values]) {
            return failed;
        }
        let &[extent] = &self.shape()[..] else {
            let kind = ErrorKind::Rank { expected: "a vector in order".into(), shape: self.shape().clone() };
            return self.fail("searchsorted", kind);
        };
        let flat = values.flatten();
        let mut found = Tensor::zeros(flat.shape(), (self.device(), DType::I32));
        if extent == 0 {
            return found.reshape(values.shape());
        }
        let (last, count) = (found.constant(extent as f64 - 1.0), found.constant(extent as f64));
        // Steps of halving length, each taken if the element before its end comes before the value.
        for step in (0..=extent.ilog2()).rev().map(|bits| (1u64 << bits) as f64) {
            let end = &found + found.constant(step);
            let element = self.gather(0, &(&end - found.constant(1.0)).minimum(&last));
            let before = if after_equal { element.le(&flat) } else { element.lt(&flat) };
            let at_end = if after_equal { flat.ne(&flat) } else { flat.ne(&flat).logical_and(element.eq(&element)) };
            let is_taken = end.le(&count).logical_and(before.logical_or(at_end));
            found = Tensor::select(&is_taken, &end, &found);
        }
        found.reshape(values.shape())
    }

    /// The different values of a tensor, in ascending order. The values are read now, so that the result has a shape.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([[5, 2], [2, 9]], &Device::cpu());
    /// let unique = x.unique()?;
    /// assert_eq!(unique.values.to_vec::<i32>()?, [2, 5, 9]);
    /// assert_eq!(unique.inverse.to_vec::<i32>()?, [1, 0, 0, 2]);
    /// assert_eq!(unique.counts.to_vec::<i32>()?, [2, 1, 1]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As reading the tensor.
    #[track_caller]
    pub fn unique(&self) -> Result<Unique> {
        let flat = self.flatten();
        let order = flat.argsort(0, false).detach();
        let sorted = flat.gather(0, &order);
        let count = flat.numel();
        let (before, after) = (sorted.slice(0, ..count.max(1) as isize - 1), sorted.slice(0, count.min(1) as isize..));
        let both_nan = before.ne(&before).logical_and(after.ne(&after));
        let differs = before.ne(&after).logical_and(both_nan.logical_not()).to_vec::<bool>()?;
        // Where each value is met first, and which one each sorted element is.
        let mut starts: Vec<i32> = if count == 0 { Vec::new() } else { vec![0] };
        let mut which: Vec<i32> = vec![0; count.min(1)];
        for (at, differs) in (1..).zip(differs) {
            if differs {
                starts.push(at);
            }
            which.push(starts.len() as i32 - 1);
        }
        let ends = starts.iter().skip(1).copied().chain([count as i32]);
        let counts: Vec<i32> = starts.iter().zip(ends).map(|(start, end)| end - start).collect();
        let vector = |numbers: Vec<i32>| {
            let shape = Shape::new(&[numbers.len()]);
            Tensor::upload(Data::I32(numbers), shape, self.device())
        };
        Ok(Unique {
            values: sorted.index_select(0, &vector(starts)),
            // The order of the order says where each element went.
            inverse: vector(which).gather(0, &order.argsort(0, false)).reshape(self.shape()),
            counts: vector(counts),
        })
    }
}

/// What [`Tensor::unique`] finds.
#[derive(Clone, Debug)]
pub struct Unique {
    /// The different values, in ascending order; one NaN for all of them.
    pub values: Tensor,
    /// For each element the index (i32) of its value, in the tensor's shape.
    pub inverse: Tensor,
    /// How often each value occurs (i32).
    pub counts: Tensor,
}
