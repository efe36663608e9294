//! Matrix products. (What solves equations is not here: see the crate's documentation.)

use crate::Tensor;
use crate::tensor::first_failed;
use gradus_ir::op::Op;
use gradus_ir::{Error as ErrorKind, Shape};
use std::borrow::Cow;

impl Tensor {
    /// The matrix product over the last two axes; leading axes are batches and broadcast. A vector on the left is a
    /// row, one on the right a column, and that axis is gone in the result.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let (a, b) = (Tensor::ones([5, 2, 3], &device), Tensor::ones([3, 4], &device));
    /// assert_eq!(a.matmul(&b).shape()[..], [5, 2, 4]);
    /// ```
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        if let Some(failed) = first_failed([self, other]) {
            return failed;
        }
        let (left, right) = (self.shape(), other.shape());
        let misfit =
            |reason: &str| ErrorKind::Contract { left: left.clone(), right: right.clone(), reason: reason.into() };
        if left.is_empty() || right.is_empty() {
            return self.fail("matmul", misfit("a single number is no matrix"));
        }
        let a = if left.len() == 1 { Cow::Owned(self.unsqueeze(0)) } else { Cow::Borrowed(self) };
        let b = if right.len() == 1 { Cow::Owned(other.unsqueeze(1)) } else { Cow::Borrowed(other) };
        let (m, k) = (a.shape()[a.rank() - 2], a.shape()[a.rank() - 1]);
        let n = b.shape()[b.rank() - 1];
        if k != b.shape()[b.rank() - 2] {
            let rows = b.shape()[b.rank() - 2];
            return self.fail("matmul", misfit(&format!("{k} columns on the left against {rows} rows on the right")));
        }
        let a_batch = Shape::new(&a.shape()[..a.rank() - 2]);
        let b_batch = Shape::new(&b.shape()[..b.rank() - 2]);
        let Some(batch) = a_batch.broadcast(&b_batch) else {
            let reason = format!("batch extents {a_batch} and {b_batch} do not broadcast");
            return self.fail("matmul", misfit(&reason));
        };
        let product = if b_batch.is_empty() {
            // One right matrix for all batches: the batches are more rows.
            a.contract(&b.t(), 0)
        } else {
            let with = |rows: usize, columns: usize| batch.iter().copied().chain([rows, columns]).collect::<Shape>();
            a.expand_to(&with(m, k)).contract(&b.expand_to(&with(k, n)).t(), batch.len())
        };
        let squeezed = batch.iter().copied();
        match (left.len(), right.len()) {
            (1, 1) => product.reshape(squeezed.collect::<Vec<_>>()),
            (1, _) => product.reshape(squeezed.chain([n]).collect::<Vec<_>>()),
            (_, 1) => product.reshape(squeezed.chain([m]).collect::<Vec<_>>()),
            _ => product,
        }
    }

    /// `[batch…, m, k] · [batch…, n, k]ᵀ`, summed over the last axis of both.
    #[track_caller]
    fn contract(&self, other: &Tensor, batch: usize) -> Tensor {
        Tensor::record(Op::Contract { batch, contracted: 1 }, &[self, other], None)
    }

    /// The sum of products of two vectors.
    #[track_caller]
    pub fn dot(&self, other: &Tensor) -> Tensor {
        if self.error().is_none() && other.error().is_none() && (self.rank(), other.rank()) != (1, 1) {
            let shape = if self.rank() == 1 { other.shape() } else { self.shape() }.clone();
            return self.fail("dot", ErrorKind::Rank { expected: "two vectors".into(), shape });
        }
        self.matmul(other)
    }
}
