//! Larger and smaller images, and what lies around them.

use super::window::Spatial;
use crate::Tensor;
use gradus_ir::Error as ErrorKind;

/// What stands around a tensor when it is padded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// A number.
    Constant(f64),
    /// The elements next to the edge, mirrored at it; the edge itself is not repeated.
    Reflect,
    /// The element at the edge.
    Replicate,
    /// The other side, as if the axis went round.
    Circular,
}

impl Tensor {
    /// The tensor with `low` elements before and `high` after those of an axis.
    ///
    /// ```
    /// # use gradus_tensor::{Device, PadMode, Tensor};
    /// let x = Tensor::new([1, 2, 3], &Device::cpu());
    /// assert_eq!(x.pad_with(0, 2, 1, PadMode::Reflect).to_vec::<i32>()?, [3, 2, 1, 2, 3, 2]);
    /// assert_eq!(x.pad_with(0, 1, 1, PadMode::Circular).to_vec::<i32>()?, [3, 1, 2, 3, 1]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn pad_with(&self, axis: isize, low: usize, high: usize, mode: PadMode) -> Tensor {
        let position = match self.axis(axis) {
            Ok(position) => position,
            Err(kind) => return self.fail("pad_with", kind),
        };
        let len = self.shape()[position];
        let most = match mode {
            PadMode::Constant(_) => usize::MAX,
            PadMode::Reflect => len.saturating_sub(1),
            PadMode::Circular => len,
            PadMode::Replicate => {
                if len == 0 {
                    0
                } else {
                    usize::MAX
                }
            }
        };
        if most == usize::MAX && low.saturating_add(high).saturating_add(len) > isize::MAX as usize {
            let shape = self.shape().with(position, low.saturating_add(high).saturating_add(len));
            return self.fail("pad_with", ErrorKind::TooLarge { shape });
        }
        if low.max(high) > most {
            let found = format!("{} around an axis of {len}", low.max(high));
            return self
                .fail("pad_with", ErrorKind::Argument { argument: "padding", expected: "less than there is", found });
        }
        let (axis, n) = (position as isize, len as isize);
        let (low, high) = (low as isize, high as isize);
        let edge = |at: isize, times: isize| {
            let one = self.slice(axis, at..at + 1);
            one.expand_to(&one.shape().with(position, times as usize))
        };
        let (before, after) = match mode {
            PadMode::Constant(number) => {
                let part = |len: isize| {
                    let shape = self.shape().with(position, len as usize);
                    Tensor::zeros(shape, self).constant(number)
                };
                (part(low), part(high))
            }
            PadMode::Reflect => {
                (self.slice(axis, 1..1 + low).flip(axis), self.slice(axis, n - 1 - high..n - 1).flip(axis))
            }
            PadMode::Replicate => (edge(0, low), edge(n - 1, high)),
            PadMode::Circular => (self.slice(axis, n - low..n), self.slice(axis, ..high)),
        };
        let parts: Vec<&Tensor> = [(low, &before), (n, self), (high, &after)]
            .into_iter()
            .filter_map(|(len, part)| (len > 0).then_some(part))
            .collect();
        if parts.is_empty() { self.clone() } else { crate::cat(&parts, axis) }
    }

    /// The spatial axes of `[batch, channels, spatial…]` at another size, each place with the element that lies nearest
    /// below: output `i` of `m` shows input `⌊i · n / m⌋`.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([[[1, 2]]], &Device::cpu());
    /// assert_eq!(x.resize_nearest(4).to_vec::<i32>()?, [1, 1, 2, 2]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn resize_nearest(&self, size: impl Into<Spatial>) -> Tensor {
        self.resized("resize_nearest", &size.into(), |x, axis, to| {
            let from = x.shape()[axis];
            if to.is_multiple_of(from) {
                let spread = x.shape().with_inserted(axis + 1, to / from);
                return x.unsqueeze(axis as isize + 1).expand_to(&spread).reshape(x.shape().with(axis, to));
            }
            if from.max(to) > i32::MAX as usize {
                return x.fail("resize_nearest", ErrorKind::TooLarge { shape: x.shape().with(axis, to) });
            }
            let index: Vec<i32> = (0..to).map(|i| (i * from / to) as i32).collect();
            x.index_select(axis as isize, &Tensor::new(index, x.device()))
        })
    }

    /// The spatial axes of `[batch, channels, spatial…]` at another size, each place a mean of its two neighbours along every
    /// axis, weighted by how near they are. With `align_corners` the outermost elements of input and output lie on each other;
    /// without, the edges of the outermost ones do (output `i` lies at `(i + ½) n / m − ½`).
    #[track_caller]
    pub fn resize_linear(&self, size: impl Into<Spatial>, align_corners: bool) -> Tensor {
        if self.error().is_none() && !self.dtype().is_float() {
            let kind = ErrorKind::DType { expected: "a float dtype", found: self.dtype() };
            return self.fail("resize_linear", kind);
        }
        // Places and weights of f16 would be off by whole elements in images of a thousand.
        let wide = self.widened().resized("resize_linear", &size.into(), |x, axis, to| {
            let from = x.shape()[axis];
            // How near input j lies to output i: 1 − |place(i) − j|, where this is positive.
            let index = |len: usize| Tensor::arange(len, x.device()).to_dtype(x.dtype());
            let (i, last) = (index(to), (from - 1) as f64);
            let (scale, shift) = match align_corners {
                true => (last / (to.max(2) - 1) as f64, 0.0),
                false => (from as f64 / to as f64, 0.5 * from as f64 / to as f64 - 0.5),
            };
            let place = (&i * i.constant(scale) + i.constant(shift)).clamp(0.0, last).unsqueeze(1);
            let distance = (place - index(from).unsqueeze(0)).abs();
            let weights = (distance.constant(1.0) - &distance).relu();
            // A product, for its gradient is one too, where that of two gathers would scatter.
            x.transpose(axis as isize, -1).matmul(&weights.t()).transpose(axis as isize, -1)
        });
        if wide.error().is_some() { wide } else { wide.to_dtype(self.dtype()) }
    }

    #[track_caller]
    fn resized(&self, op: &'static str, size: &Spatial, along: impl Fn(&Tensor, usize, usize) -> Tensor) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        if self.rank() < 3 {
            let expected = "[batch, channels, spatial…]".into();
            return self.fail(op, ErrorKind::Rank { expected, shape: self.shape().clone() });
        }
        match size.resolve("size", self.rank() - 2) {
            Ok(size) if size.contains(&0) || self.shape()[2..].contains(&0) => {
                let found = format!("{size:?} from {}", self.shape());
                self.fail(op, ErrorKind::Argument { argument: "size", expected: "at least 1, of something", found })
            }
            Ok(size) => size.iter().enumerate().fold(self.clone(), |x, (i, &to)| {
                let is_done = x.error().is_some() || x.shape()[2 + i] == to;
                if is_done { x } else { along(&x, 2 + i, to) }
            }),
            Err(kind) => self.fail(op, kind),
        }
    }
}
