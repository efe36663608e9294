//! Cut-outs at random places.

use super::{Augment, argument, extents, grid, inside, integers, pixels};
use gradus_tensor::{DType, Key, Tensor};

/// Cuts a piece of a size out of each image, at a random place; images may be padded first, so that pieces of their own size
/// differ.
///
/// ```
/// use gradus_data::augment::{Augment, RandomCrop};
/// use gradus_tensor::{Device, Key, Tensor};
/// let x = Tensor::zeros([2, 3, 32, 32], &Device::cpu());
/// assert_eq!(RandomCrop::new(32, 32).padding(4).apply(&x, Key::new(0)).shape()[..], [2, 3, 32, 32]);
/// assert_eq!(RandomCrop::new(24, 28).apply(&x, Key::new(0)).shape()[..], [2, 3, 24, 28]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomCrop {
    height: usize,
    width: usize,
    padding: usize,
    mode: CropPadding,
}

/// What lies beyond the edges of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CropPadding {
    /// One value.
    Value(f64),
    /// The nearest pixel of the edge.
    Edge,
    /// The image mirrored, without the edge itself: `c b | a b c d | c b`. Images must be larger than the padding.
    Reflect,
}

impl RandomCrop {
    /// Pieces of this size, without padding.
    pub fn new(height: usize, width: usize) -> RandomCrop {
        RandomCrop { height, width, padding: 0, mode: CropPadding::Value(0.0) }
    }

    /// So many pixels beyond each edge may be in a piece; they are 0, unless [`mode`](RandomCrop::mode) says otherwise.
    pub fn padding(self, padding: usize) -> RandomCrop {
        RandomCrop { padding, ..self }
    }

    /// What lies beyond the edges.
    pub fn mode(self, mode: CropPadding) -> RandomCrop {
        RandomCrop { mode, ..self }
    }
}

impl Augment for RandomCrop {
    /// The first row and column of each image's piece come from the keys 0 and 1 of this one.
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        const OP: &str = "RandomCrop";
        Tensor::build(x.device(), || {
            let [n, _, h, w] = extents(OP, x)?;
            let RandomCrop { height, width, padding, mode } = *self;
            let room = |extent: usize, piece: usize| extent.checked_add(padding.checked_mul(2)?)?.checked_sub(piece);
            let (Some(rows), Some(columns)) = (room(h, height), room(w, width)) else {
                let found = format!("{height} × {width} of images of {h} × {w} with a padding of {padding}");
                return Err(argument(OP, "size", found, "no larger than padded images"));
            };
            if mode == CropPadding::Reflect && padding >= h.min(w) {
                let found = format!("{padding} for images of {h} × {w}");
                return Err(argument(OP, "padding", found, "less than that to reflect"));
            }
            let (row, column) = grid(height, width, DType::I32, x);
            let first = |room: usize, key| {
                let last = Tensor::full([1, 1, 1, 1], room as f64, x.device());
                integers(n, &last, key) - padding as i64
            };
            let (row, column) = (row + first(rows, key.fold_in(0)), column + first(columns, key.fold_in(1)));
            let size = [height, width];
            Ok(match mode {
                CropPadding::Edge => pixels(x, &row, &column, size),
                CropPadding::Reflect => pixels(x, &reflected(&row, h), &reflected(&column, w), size),
                // Without padding nothing is outside.
                CropPadding::Value(_) if padding == 0 => pixels(x, &row, &column, size),
                CropPadding::Value(value) => {
                    inside(&row, &column, [h, w]).where_(pixels(x, &row, &column, size), value)
                }
            })
        })
    }
}

/// The index of the pixel that stands at a place beyond an edge.
fn reflected(index: &Tensor, extent: usize) -> Tensor {
    let last = extent as i64 - 1;
    ((index.abs() - last).abs() - last).abs()
}
