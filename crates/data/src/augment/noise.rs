//! Noise.

use super::{Augment, argument, float};
use gradus_tensor::{Key, Tensor};

/// Adds normal random numbers of mean 0 to a batch of any shape: images, or rows of a table.
///
/// ```
/// use gradus_data::augment::{Augment, GaussianNoise};
/// use gradus_tensor::{Device, Key, Tensor};
/// let x = Tensor::zeros([1000], &Device::cpu());
/// let deviation = GaussianNoise::new(0.1).apply(&x, Key::new(0)).std(.., 0).item::<f32>()?;
/// assert!((deviation - 0.1).abs() < 0.01);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianNoise {
    deviation: f64,
}

impl GaussianNoise {
    /// With this standard deviation.
    pub fn new(deviation: f64) -> GaussianNoise {
        GaussianNoise { deviation }
    }
}

impl Augment for GaussianNoise {
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        const OP: &str = "GaussianNoise";
        Tensor::build(x.device(), || {
            if let Some(error) = x.error() {
                return Err(error.clone());
            }
            float(OP, x)?;
            if !(self.deviation >= 0.0 && self.deviation.is_finite()) {
                return Err(argument(OP, "deviation", self.deviation.to_string(), "a number from 0 on"));
            }
            Ok(x + Tensor::randn(x.shape(), key, x) * self.deviation)
        })
    }
}
