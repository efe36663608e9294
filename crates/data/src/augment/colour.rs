//! Brightness, contrast, saturation, and normal pixels.

use super::{Augment, argument, extents, float, uniform};
use gradus_tensor::{Key, Tensor};

/// Changes each image's brightness, then its contrast, then its saturation, each by a random factor. Images have values of 0 … 1
/// (and are kept in them), and one channel, or three: red, green and blue.
///
/// ```
/// use gradus_data::augment::{Augment, ColourJitter};
/// use gradus_tensor::{Device, Key, Tensor};
/// let x = Tensor::rand([2, 3, 8, 8], Key::new(0), &Device::cpu());
/// let jitter = ColourJitter::new().brightness(0.4).contrast(0.4).saturation(0.4);
/// assert_eq!(jitter.apply(&x, Key::new(1)).shape(), x.shape());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ColourJitter {
    brightness: Option<f64>,
    contrast: Option<f64>,
    saturation: Option<f64>,
}

impl ColourJitter {
    /// No change, until more is said.
    pub fn new() -> ColourJitter {
        ColourJitter::default()
    }

    /// Values are multiplied by a factor that is uniform in `max(0, 1 − by)` … `1 + by`.
    pub fn brightness(self, by: f64) -> ColourJitter {
        ColourJitter { brightness: Some(by), ..self }
    }

    /// Differences from the image's mean grey are multiplied by a factor that is uniform in `max(0, 1 − by)` … `1 + by`.
    pub fn contrast(self, by: f64) -> ColourJitter {
        ColourJitter { contrast: Some(by), ..self }
    }

    /// Differences from the pixel's grey are multiplied by a factor that is uniform in `max(0, 1 − by)` … `1 + by`.
    pub fn saturation(self, by: f64) -> ColourJitter {
        ColourJitter { saturation: Some(by), ..self }
    }
}

impl Augment for ColourJitter {
    /// The keys 0, 1 and 2 of this one give the factors of brightness, contrast and saturation.
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        const OP: &str = "ColourJitter";
        Tensor::build(x.device(), || {
            let [n, c, ..] = extents(OP, x)?;
            float(OP, x)?;
            if c != 1 && c != 3 {
                return Err(argument(OP, "the number of channels", c.to_string(), "1 (grey) or 3 (red, green, blue)"));
            }
            let factor = |by: f64, number| {
                if by >= 0.0 && by.is_finite() {
                    Ok(uniform(n, (1.0 - by).max(0.0), 1.0 + by, key.fold_in(number), x))
                } else {
                    Err(argument(OP, "a range of factors", by.to_string(), "a number from 0 on"))
                }
            };
            let mut y = x.widened();
            if let Some(by) = self.brightness {
                y = (y * factor(by, 0)?).clamp(0.0, 1.0);
            }
            if let Some(by) = self.contrast {
                y = around(&grey(&y).mean_keepdim([1, 2, 3]), &y, &factor(by, 1)?);
            }
            if let Some(by) = self.saturation {
                y = around(&grey(&y), &y, &factor(by, 2)?);
            }
            Ok(y.to_dtype(x.dtype()))
        })
    }
}

/// The distances of values from others, multiplied.
fn around(middle: &Tensor, x: &Tensor, factor: &Tensor) -> Tensor {
    (middle + (x - middle) * factor).clamp(0.0, 1.0)
}

/// Luma (ITU-R BT.601), `[n, 1, h, w]`.
fn grey(x: &Tensor) -> Tensor {
    if x.shape().get(1) != Some(&3) {
        return x.clone();
    }
    let channel = |c: isize| x.slice(1, c..c + 1);
    channel(0) * 0.299 + channel(1) * 0.587 + channel(2) * 0.114
}

/// Subtracts a mean from each channel and divides by a standard deviation. There is nothing random in it.
///
/// ```
/// use gradus_data::augment::{Augment, Normalise};
/// use gradus_tensor::{Device, Key, Tensor};
/// let x = Tensor::new([[[[0.5, 1.0]], [[0.5, 1.0]]]], &Device::cpu());
/// let normal = Normalise::new([0.5, 0.0], [0.5, 2.0]).apply(&x, Key::new(0));
/// assert_eq!(normal.to_vec::<f32>()?, [0.0, 1.0, 0.25, 0.5]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Normalise {
    means: Vec<f64>,
    deviations: Vec<f64>,
}

impl Normalise {
    /// With the mean and standard deviation of each channel.
    pub fn new(means: impl Into<Vec<f64>>, deviations: impl Into<Vec<f64>>) -> Normalise {
        Normalise { means: means.into(), deviations: deviations.into() }
    }

    /// Of ImageNet, for images of 0 … 1: what most published models were trained with.
    pub fn imagenet() -> Normalise {
        Normalise::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    }
}

impl Augment for Normalise {
    fn apply(&self, x: &Tensor, _: Key) -> Tensor {
        const OP: &str = "Normalise";
        Tensor::build(x.device(), || {
            let [_, c, ..] = extents(OP, x)?;
            float(OP, x)?;
            let Normalise { means, deviations } = self;
            if means.len() != c || deviations.len() != c {
                let found = format!("{} means and {} deviations for {c} channels", means.len(), deviations.len());
                return Err(argument(OP, "statistics", found, "one for each"));
            }
            if !deviations.iter().all(|deviation| *deviation > 0.0) {
                return Err(argument(OP, "deviations", format!("{deviations:?}"), "numbers above 0"));
            }
            let channel = Tensor::arange(c, x).reshape([1, c, 1, 1]);
            let of_channels = |numbers: &Vec<f64>| match numbers[..] {
                // Images have few channels, whose numbers travel with a launch: nothing is uploaded.
                [first, ref others @ ..] if c <= 4 => {
                    let all = Tensor::full([1, c, 1, 1], first, x);
                    others.iter().zip(1..).fold(all, |all, (&number, i)| channel.eq(i).where_(number, all))
                }
                _ => Tensor::new(numbers.clone(), x).reshape([1, c, 1, 1]),
            };
            Ok((x - of_channels(means)) / of_channels(deviations))
        })
    }
}
