//! Mirrored images.

use super::{Augment, extents};
use gradus_tensor::{Key, Tensor};

/// Mirrors images, left to right, with a probability.
///
/// ```
/// use gradus_data::augment::{Augment, HorizontalFlip};
/// use gradus_tensor::{Device, Key, Tensor};
/// let x = Tensor::new([[[[1.0, 2.0, 3.0]]]], &Device::cpu());
/// assert_eq!(HorizontalFlip::new(1.0).apply(&x, Key::new(0)).to_vec::<f32>()?, [3.0, 2.0, 1.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HorizontalFlip {
    probability: f64,
}

/// Mirrors images, top to bottom, with a probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerticalFlip {
    probability: f64,
}

impl HorizontalFlip {
    /// With this probability.
    pub fn new(probability: f64) -> HorizontalFlip {
        HorizontalFlip { probability }
    }
}

impl VerticalFlip {
    /// With this probability.
    pub fn new(probability: f64) -> VerticalFlip {
        VerticalFlip { probability }
    }
}

/// An image is mirrored where its number, uniform in [0, 1), is below the probability.
fn flipped(op: &'static str, x: &Tensor, axis: isize, probability: f64, key: Key) -> Tensor {
    Tensor::build(x.device(), || {
        let [n, ..] = extents(op, x)?;
        Ok(Tensor::bernoulli([n, 1, 1, 1], probability, key, x.device()).where_(x.flip(axis), x))
    })
}

impl Augment for HorizontalFlip {
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        flipped("HorizontalFlip", x, 3, self.probability, key)
    }
}

impl Augment for VerticalFlip {
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        flipped("VerticalFlip", x, 2, self.probability, key)
    }
}
