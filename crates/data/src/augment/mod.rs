//! Random changes of batches, computed on their device: more data than there is.
//!
//! Images are `[n, channels, height, width]` of a float dtype; each image of a batch is changed in its own way. All that is
//! random follows from a key: one key gives the same changes on every device. Give each batch a key of its own, such as
//! `key.fold_in(step)`. Nothing is read back, so that changes become part of what the device does next anyway.
//!
//! ```
//! use gradus_data::augment::{Augment, ColourJitter, Compose, HorizontalFlip, Normalise, RandomCrop};
//! use gradus_tensor::{Device, Key, Tensor};
//! let augment = Compose::new()
//!     .then(RandomCrop::new(32, 32).padding(4))
//!     .then(HorizontalFlip::new(0.5))
//!     .then(ColourJitter::new().brightness(0.2).contrast(0.2))
//!     .then(Normalise::new([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]));
//! let images = Tensor::rand([8, 3, 32, 32], Key::new(0), &Device::cpu());
//! let changed = augment.apply(&images, Key::new(1));
//! assert_eq!(changed.shape(), images.shape());
//! ```

mod affine;
mod colour;
mod crop;
mod erase;
mod flip;
mod mix;
mod noise;

pub use affine::RandomAffine;
pub use colour::{ColourJitter, Normalise};
pub use crop::{CropPadding, RandomCrop};
pub use erase::RandomErase;
pub use flip::{HorizontalFlip, VerticalFlip};
pub use mix::{CutMix, Mixed, Mixup};
pub use noise::GaussianNoise;

use gradus_tensor::{DType, Error, ErrorKind, Key, Result, Tensor};
use std::fmt;
use std::sync::Arc;

/// A random change of a batch. A function of a batch and a key is one too.
pub trait Augment: Send + Sync {
    /// The batch, changed as this key says. A batch of the wrong rank or dtype gives a tensor that carries the error.
    #[track_caller]
    fn apply(&self, x: &Tensor, key: Key) -> Tensor;
}

impl<F: Fn(&Tensor, Key) -> Tensor + Send + Sync> Augment for F {
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        self(x, key)
    }
}

/// Changes one after the other, each with a key of its own: number `i` gets `key.fold_in(i)`.
#[derive(Clone, Default)]
pub struct Compose {
    steps: Vec<Arc<dyn Augment>>,
}

impl Compose {
    /// No change.
    pub fn new() -> Compose {
        Compose::default()
    }

    /// These changes, and then another.
    ///
    /// ```
    /// use gradus_data::augment::{Augment, Compose};
    /// use gradus_tensor::{Device, Key, Tensor};
    /// let halves = Compose::new().then(|x: &Tensor, _| x * 0.5).then(|x: &Tensor, _| x + 1.0);
    /// let x = Tensor::new([2.0, 4.0], &Device::cpu());
    /// assert_eq!(halves.apply(&x, Key::new(0)).to_vec::<f32>()?, [2.0, 3.0]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    pub fn then(mut self, step: impl Augment + 'static) -> Compose {
        self.steps.push(Arc::new(step));
        self
    }
}

impl Augment for Compose {
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        let numbered = self.steps.iter().zip(0..);
        numbered.fold(x.clone(), |x, (step, number)| step.apply(&x, key.fold_in(number)))
    }
}

impl fmt::Debug for Compose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compose({} steps)", self.steps.len())
    }
}

/// The extents of a batch of images, none of which is 0, whose pixels i32 can number.
fn extents(op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    if let Some(error) = x.error() {
        return Err(error.clone());
    }
    let wrong = |expected: &str| ErrorKind::Rank { expected: expected.into(), shape: x.shape().clone() };
    let Ok(extents) = <[usize; 4]>::try_from(&x.shape()[..]) else {
        return Err(Error::new(op, wrong("images [n, channels, height, width]")));
    };
    let [_, _, h, w] = extents;
    match h.checked_mul(w) {
        Some(pixels) if pixels > 0 && pixels <= i32::MAX as usize => Ok(extents),
        _ => Err(Error::new(op, wrong("images of at least 1 and less than 2³¹ pixels"))),
    }
}

/// An error unless the dtype is a float.
fn float(op: &'static str, x: &Tensor) -> Result<()> {
    match x.dtype() {
        dtype if dtype.is_float() => Ok(()),
        found => Err(Error::new(op, ErrorKind::DType { expected: "a float dtype", found })),
    }
}

/// An error of an argument.
fn argument(op: &'static str, argument: &'static str, found: String, expected: &'static str) -> Error {
    Error::new(op, ErrorKind::Argument { argument, expected, found })
}

/// A uniform number in `low ..= high` for each of n images, `[n, 1, 1, 1]` (f32).
fn uniform(n: usize, low: f64, high: f64, key: Key, x: &Tensor) -> Tensor {
    Tensor::rand([n, 1, 1, 1], key, x.device()) * (high - low) + low
}

/// A number of 0 … `last` for each image, as equally likely as 24 bits allow, `[n, 1, 1, 1]` (i32); `last` may differ too.
fn integers(n: usize, last: &Tensor, key: Key) -> Tensor {
    let place = Tensor::rand([n, 1, 1, 1], key, last.device()) * (last + 1.0);
    // Rounding up must not reach one too many.
    place.floor().minimum(last).to_dtype(DType::I32)
}

/// The index along the rows `[1, 1, h, 1]` and columns `[1, 1, 1, w]` of images.
fn grid(h: usize, w: usize, dtype: DType, x: &Tensor) -> (Tensor, Tensor) {
    let along = |count: usize| Tensor::arange(count, (x.device(), dtype));
    (along(h).reshape([1, 1, h, 1]), along(w).reshape([1, 1, 1, w]))
}

/// The pixels at rows `[n, 1, …]` and columns (i32) that broadcast to `[n, 1, h', w']`: `[n, c, h', w']`. What lies outside is
/// the nearest pixel of the edge.
fn pixels(x: &Tensor, rows: &Tensor, columns: &Tensor, [h, w]: [usize; 2]) -> Tensor {
    Tensor::build(x.device(), || {
        let [n, c, from_h, from_w] = x.dims()?;
        let index = rows.clamp(0, from_h as i64 - 1) * from_w as i64 + columns.clamp(0, from_w as i64 - 1);
        let index = index.broadcast_to([n, 1, h, w]).reshape([n, 1, h * w]).broadcast_to([n, c, h * w]);
        Ok(x.reshape([n, c, from_h * from_w]).gather(2, &index).reshape([n, c, h, w]))
    })
}

/// Where rows and columns (of a dtype that fits) lie inside of images.
fn inside(rows: &Tensor, columns: &Tensor, [h, w]: [usize; 2]) -> Tensor {
    let within = |index: &Tensor, extent: usize| index.ge(0).logical_and(index.lt(extent as i64));
    within(rows, h).logical_and(within(columns, w))
}
