//! Pooling: windows summed up by their largest element or their mean.

use super::window::Spatial;
use crate::rule::GradientRule;
use crate::{Axes, DType, Shape, Tensor};
use gradus_ir::Error as ErrorKind;
use gradus_ir::op::{Op, PadAxis, SliceAxis};
use std::sync::Arc;

/// How a pooling walks: windows of a size, a stride (the size, unless another is given), padding on both sides.
///
/// ```
/// # use gradus_tensor::{Device, Pool, Tensor};
/// let x = Tensor::ones([8, 16, 28, 28], &Device::cpu());
/// assert_eq!(x.max_pool(&Pool::new(2)).shape()[..], [8, 16, 14, 14]);
/// assert_eq!(x.avg_pool(&Pool::new(3).stride(2).padding(1)).shape()[..], [8, 16, 14, 14]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    size: Spatial,
    stride: Option<Spatial>,
    padding: Spatial,
    dilation: Spatial,
}

impl Pool {
    /// Windows of this size, side by side.
    pub fn new(size: impl Into<Spatial>) -> Pool {
        Pool { size: size.into(), stride: None, padding: Spatial::All(0), dilation: Spatial::All(1) }
    }

    /// The distance between two windows.
    pub fn stride(self, stride: impl Into<Spatial>) -> Pool {
        Pool { stride: Some(stride.into()), ..self }
    }

    /// Places on both sides of each spatial axis that no maximum chooses, and that count as zeros in a mean.
    pub fn padding(self, padding: impl Into<Spatial>) -> Pool {
        Pool { padding: padding.into(), ..self }
    }

    /// The distance between two elements of a window.
    pub fn dilation(self, dilation: impl Into<Spatial>) -> Pool {
        Pool { dilation: dilation.into(), ..self }
    }
}

/// The most parts of an axis that differ in size.
const MOST_PARTS: usize = 1 << 16;

/// Windows over the spatial axes of `[batch, channels, spatial…]`.
struct Walk {
    size: Vec<usize>,
    stride: Vec<usize>,
    dilation: Vec<usize>,
    pads: Vec<PadAxis>,
}

impl Walk {
    fn new(x: &Tensor, pool: &Pool) -> Result<Walk, ErrorKind> {
        let axes = spatial_axes(x)?;
        let size = pool.size.resolve("size", axes)?;
        let padding = pool.padding.resolve("padding", axes)?;
        if let Some(i) = (0..axes).find(|&i| padding[i] > size[i] / 2) {
            let found = format!("{} for windows of {}", padding[i], size[i]);
            return Err(ErrorKind::Argument { argument: "padding", expected: "at most half a window", found });
        }
        let stride = pool.stride.as_ref().unwrap_or(&pool.size).resolve("stride", axes)?;
        // A step that is never made may be as long as it likes.
        let longest = |i: usize| x.shape()[2 + i].saturating_add(padding[i]).saturating_add(padding[i]).max(1);
        let stride = stride.iter().enumerate().map(|(i, &stride)| stride.min(longest(i))).collect();
        let pads = padding.iter().map(|&pad| PadAxis { low: pad, high: pad, interior: 0 }).collect();
        Ok(Walk { size, stride, dilation: pool.dilation.resolve("dilation", axes)?, pads })
    }

    #[track_caller]
    fn windows(&self, x: &Tensor) -> Tensor {
        if x.error().is_some() {
            return x.clone();
        }
        x.spatial_windows(&self.size, &self.stride, &self.dilation)
    }

    /// What stands at each place of the windows, if these are so small that a few strided parts side by side are faster than
    /// a reduction of each window.
    #[track_caller]
    fn taps(&self, x: &Tensor, windows: &Tensor) -> Option<Vec<Tensor>> {
        const FEW: usize = 16;
        let counts = &windows.shape()[x.rank() - self.size.len()..x.rank()];
        let count = self.size.iter().fold(1, |count: usize, &size| count.saturating_mul(size));
        (count <= FEW).then(|| self.offsets().iter().map(|offsets| self.tap(x, offsets, counts)).collect())
    }

    /// What stands at a place of every window, as a strided part.
    #[track_caller]
    fn tap(&self, x: &Tensor, offsets: &[usize], counts: &[usize]) -> Tensor {
        let first = x.rank() - offsets.len();
        let slice = |axis: usize| match axis.checked_sub(first) {
            None => SliceAxis { start: 0, step: 1, len: x.shape()[axis] },
            Some(i) => {
                let (start, step) = (offsets[i] * self.dilation[i], self.stride[i] as isize);
                SliceAxis { start, step, len: counts[i] }
            }
        };
        Tensor::record(Op::Slice((0..x.rank()).map(slice).collect()), &[x], None)
    }

    /// The offsets of a window's places, in order.
    fn offsets(&self) -> Vec<Vec<usize>> {
        self.size.iter().fold(vec![Vec::new()], |all, &size| {
            all.iter().flat_map(|o: &Vec<usize>| (0..size).map(|k| [&o[..], &[k]].concat())).collect()
        })
    }

    /// The axes of what lies in a window.
    fn inside(&self, x: &Tensor) -> Axes {
        Axes::from((x.rank()..x.rank() + self.size.len()).collect::<Vec<_>>())
    }
}

fn spatial_axes(x: &Tensor) -> Result<usize, ErrorKind> {
    match x.rank().checked_sub(2) {
        Some(axes) if axes > 0 => Ok(axes),
        _ => Err(ErrorKind::Rank { expected: "[batch, channels, spatial…]".into(), shape: x.shape().clone() }),
    }
}

impl Tensor {
    /// The largest element of each window over the spatial axes of `[batch, channels, spatial…]`; NaN wins. The gradient
    /// goes to the first of equal elements.
    #[track_caller]
    pub fn max_pool(&self, pool: &Pool) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        let walk = match Walk::new(self, pool) {
            Ok(walk) => walk,
            Err(kind) => return self.fail("max_pool", kind),
        };
        let padded = self.pad_with_lowest(&walk.pads);
        let windows = walk.windows(&padded);
        if windows.error().is_some() {
            return windows;
        }
        let largest = match walk.taps(&padded, &windows) {
            Some(taps) => taps.into_iter().reduce(|a, b| a.maximum(&b)).unwrap_or(windows),
            None => windows.max(walk.inside(&padded)),
        };
        if !self.dtype().is_float() {
            return largest;
        }
        Tensor::record_with_rule(&[&largest, &padded], Arc::new(FirstLargest(walk)))
    }

    /// The mean of each window over the spatial axes of `[batch, channels, spatial…]`; padding counts as zeros.
    #[track_caller]
    pub fn avg_pool(&self, pool: &Pool) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        match Walk::new(self, pool) {
            Ok(walk) => {
                let padded = self.widened().pad_spatial(&walk.pads);
                let windows = walk.windows(&padded);
                if windows.error().is_some() {
                    return windows;
                }
                if !self.dtype().is_float() {
                    return windows.mean(walk.inside(&padded));
                }
                let mean = match walk.taps(&padded, &windows) {
                    Some(taps) => {
                        let places = taps.len() as f64;
                        let sum = taps.into_iter().reduce(|a, b| a + b).unwrap_or(windows);
                        &sum / sum.constant(places)
                    }
                    None => windows.mean(walk.inside(&padded)),
                };
                mean.to_dtype(self.dtype())
            }
            Err(kind) => self.fail("avg_pool", kind),
        }
    }

    /// Means over as many parts of each spatial axis as asked for, whatever its extent: part `i` of `n` reaches from
    /// `⌊i · extent / n⌋` to `⌈(i + 1) · extent / n⌉`. `adaptive_avg_pool(1)` is the mean over all positions.
    #[track_caller]
    pub fn adaptive_avg_pool(&self, parts: impl Into<Spatial>) -> Tensor {
        self.adaptive("adaptive_avg_pool", &parts.into(), Tensor::avg_pool, |part, axis| part.mean_keepdim(axis))
    }

    /// The largest elements of as many parts of each spatial axis as asked for; see
    /// [`adaptive_avg_pool`](Tensor::adaptive_avg_pool). Equal elements share the gradient where parts differ in size.
    #[track_caller]
    pub fn adaptive_max_pool(&self, parts: impl Into<Spatial>) -> Tensor {
        self.adaptive("adaptive_max_pool", &parts.into(), Tensor::max_pool, |part, axis| part.max_keepdim(axis))
    }

    #[track_caller]
    fn adaptive(
        &self,
        op: &'static str,
        parts: &Spatial,
        even: impl FnOnce(&Tensor, &Pool) -> Tensor,
        reduce: fn(&Tensor, isize) -> Tensor,
    ) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        let parts = match spatial_axes(self).and_then(|axes| parts.resolve("parts", axes)) {
            Ok(parts) if !parts.contains(&0) && !self.shape()[2..].contains(&0) => parts,
            Ok(parts) => {
                let found = format!("{parts:?} of {}", self.shape());
                return self
                    .fail(op, ErrorKind::Argument { argument: "parts", expected: "at least 1 of something", found });
            }
            Err(kind) => return self.fail(op, kind),
        };
        if parts.iter().zip(&self.shape()[2..]).all(|(&parts, &len)| len.is_multiple_of(parts)) {
            let size: Vec<usize> = parts.iter().zip(&self.shape()[2..]).map(|(&parts, &len)| len / parts).collect();
            return even(self, &Pool::new(size));
        }
        // Each is a tensor of its own.
        if let Some(&many) = parts.iter().find(|&&parts| parts > MOST_PARTS) {
            let (expected, found) = ("at most 65536, or what divides the extent", many.to_string());
            return self.fail(op, ErrorKind::Argument { argument: "parts", expected, found });
        }
        parts.iter().enumerate().fold(self.clone(), |x, (i, &parts)| {
            let (axis, len) = (2 + i as isize, self.shape()[2 + i] as u128);
            let place = |p: usize| p as u128 * len;
            let end = |p: usize| place(p + 1).div_ceil(parts as u128) as isize;
            let part = |p: usize| x.slice(axis, (place(p) / parts as u128) as isize..end(p));
            let reduced: Vec<Tensor> = (0..parts).map(|p| reduce(&part(p), axis)).collect();
            crate::cat(&reduced.iter().collect::<Vec<_>>(), axis)
        })
    }

    /// Padding that no maximum chooses.
    #[track_caller]
    fn pad_with_lowest(&self, pads: &[PadAxis]) -> Tensor {
        if pads.iter().all(|pad| *pad == PadAxis::default()) {
            return self.clone();
        }
        let (padded, first) = (self.pad_spatial(pads), self.rank() - pads.len());
        if padded.error().is_some() {
            return padded;
        }
        let outside = pads.iter().enumerate().map(|(i, pad)| {
            let index = Tensor::iota(padded.shape().clone(), first + i, self.device());
            let (from, to) = (pad.low as f64, (padded.shape()[first + i] - pad.high) as f64);
            index.lt(index.constant(from)).logical_or(index.ge(index.constant(to)))
        });
        let Some(outside) = outside.reduce(|a, b| a.logical_or(b)) else { return padded };
        let lowest = match self.dtype() {
            DType::I32 => i32::MIN as f64,
            DType::U32 | DType::Bool => 0.0,
            DType::F16 | DType::F32 | DType::F64 => f64::NEG_INFINITY,
        };
        Tensor::select(&outside, &padded.constant(lowest), &padded)
    }
}

/// The gradient of a maximum over windows: it goes to the first largest element.
struct FirstLargest(Walk);

impl FirstLargest {
    /// What belongs at a place of every window, among zeros.
    fn untap(&self, y: &Tensor, offsets: &[usize], extents: &[usize]) -> Tensor {
        let pads: Vec<PadAxis> = (0..offsets.len())
            .map(|i| {
                let (low, interior) = (offsets[i] * self.0.dilation[i], self.0.stride[i] - 1);
                let reach = low + (y.shape()[y.rank() - offsets.len() + i] - 1) * self.0.stride[i] + 1;
                PadAxis { low, high: extents[i] - reach, interior }
            })
            .collect();
        y.pad_spatial(&pads)
    }
}

impl FirstLargest {
    /// The gradient where windows lie side by side, without gaps, so that each element is in just one: it is read from
    /// there, which is less than to add up what comes from every place.
    fn backward_side_by_side(&self, x: &Tensor, winner: &Tensor, cotangent: &Tensor) -> Option<Tensor> {
        let Walk { size, stride, dilation, .. } = &self.0;
        let first = x.rank() - size.len();
        let counts = &winner.shape()[first..];
        let is_tiled = (0..size.len())
            .all(|i| stride[i] == size[i] && dilation[i] == 1 && counts[i] * size[i] == x.shape()[first + i]);
        if !is_tiled {
            return None;
        }
        let leading = &x.shape()[..first];
        let paired = |inner: &dyn Fn(usize) -> usize| -> Shape {
            let spatial = counts.iter().enumerate().flat_map(|(i, &count)| [count, inner(i)]);
            leading.iter().copied().chain(spatial).collect()
        };
        let (windows, places) = (paired(&|_| 1), paired(&|i| size[i]));
        let spread = |y: &Tensor| y.reshape(windows.clone()).broadcast_to(places.clone());
        // The number of a place in its window, from 1 on.
        let mut number = Tensor::zeros(places.clone(), (x.device(), DType::I32)).constant(1.0);
        let mut step = 1;
        for i in (0..size.len()).rev() {
            let along = Tensor::iota(places.clone(), first + 2 * i + 1, x.device());
            number = number + &along * along.constant(step as f64);
            step *= size[i];
        }
        let g = spread(cotangent);
        Some(Tensor::select(&spread(winner).eq(number), &g, &g.constant(0.0)).reshape(x.shape().clone()))
    }
}

impl GradientRule for FirstLargest {
    fn name(&self) -> &str {
        "max_pool"
    }

    fn backward(&self, inputs: &[Tensor], output: &Tensor, cotangent: &Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let (x, offsets) = (&inputs[0], self.0.offsets());
        let first = x.rank() - self.0.size.len();
        let (counts, extents) = (&output.shape()[first..], &x.shape()[first..]);
        // Which place won, counted from 1: where there is no window, zeros stand.
        let number = |place: usize| Tensor::zeros(output.shape(), (x.device(), DType::I32)).constant(place as f64);
        let (x, y) = (x.detach(), output.detach());
        let winner = offsets.iter().enumerate().rev().fold(number(0), |later, (place, offsets)| {
            let tap = self.0.tap(&x, offsets, counts);
            let wins = tap.eq(&y).logical_or(tap.is_nan());
            Tensor::select(&wins, &number(place + 1), &later)
        });
        if let Some(gradient) = self.backward_side_by_side(&x, &winner, cotangent) {
            return vec![Some(gradient)];
        }
        let gradients = offsets.iter().enumerate().map(|(place, offsets)| {
            let (winner, g) = (self.untap(&winner, offsets, extents), self.untap(cotangent, offsets, extents));
            Tensor::select(&winner.eq(winner.constant((place + 1) as f64)), &g, &g.constant(0.0))
        });
        vec![gradients.reduce(|a, b| a + b)]
    }
}
