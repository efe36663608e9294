//! Rectangles that are left out.

use super::{Augment, argument, extents, float, grid, integers, uniform};
use gradus_tensor::{DType, Key, Tensor};

/// Replaces a random rectangle of each image, with a probability (Zhong et al.: "Random erasing data augmentation", 2020).
///
/// A rectangle has a part of the image's area and a ratio of height to width, both random, its sides rounded and cut to the
/// image's; it lies anywhere inside.
///
/// ```
/// use gradus_data::augment::{Augment, RandomErase};
/// use gradus_tensor::{Device, Key, Tensor};
/// let x = Tensor::ones([1, 3, 8, 8], &Device::cpu());
/// let erased = RandomErase::new(1.0).area(0.25, 0.25).ratio(1.0, 1.0).apply(&x, Key::new(0));
/// assert_eq!(erased.sum(..).item::<f32>()?, 3.0 * (64.0 - 16.0));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomErase {
    probability: f64,
    area: (f64, f64),
    ratio: (f64, f64),
    fill: Fill,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    Value(f64),
    Noise,
}

impl RandomErase {
    /// With this probability; of 2 to 33 % of the area, three tenths to ten thirds as high as wide, filled with 0.
    pub fn new(probability: f64) -> RandomErase {
        RandomErase { probability, area: (0.02, 0.33), ratio: (0.3, 10.0 / 3.0), fill: Fill::Value(0.0) }
    }

    /// The part of the area, uniform in `low` … `high`, of 0 to 1.
    pub fn area(self, low: f64, high: f64) -> RandomErase {
        RandomErase { area: (low, high), ..self }
    }

    /// The ratio of height to width, whose logarithm is uniform between those of `low` and `high`, above 0.
    pub fn ratio(self, low: f64, high: f64) -> RandomErase {
        RandomErase { ratio: (low, high), ..self }
    }

    /// What is put in place.
    pub fn value(self, value: f64) -> RandomErase {
        RandomErase { fill: Fill::Value(value), ..self }
    }

    /// Puts normal random numbers in place, of mean 0 and variance 1.
    pub fn noise(self) -> RandomErase {
        RandomErase { fill: Fill::Noise, ..self }
    }
}

impl Augment for RandomErase {
    /// The keys 0 … 4 of this one give whether, the area, the ratio, and the first row and column; key 5 the noise.
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        const OP: &str = "RandomErase";
        Tensor::build(x.device(), || {
            let [n, _, h, w] = extents(OP, x)?;
            float(OP, x)?;
            let ((least, most), (low, high)) = (self.area, self.ratio);
            if !(least >= 0.0 && least <= most && most <= 1.0) {
                return Err(argument(OP, "area", format!("{least} to {most}"), "from 0 on to 1 at most"));
            }
            if !(low > 0.0 && low <= high && high.is_finite()) {
                return Err(argument(OP, "ratio", format!("{low} to {high}"), "from above 0 to no less"));
            }
            let chosen = Tensor::bernoulli([n, 1, 1, 1], self.probability, key.fold_in(0), x.device());
            let pixels = (h * w) as f64;
            let area = uniform(n, least * pixels, most * pixels, key.fold_in(1), x);
            let ratio = uniform(n, low.ln(), high.ln(), key.fold_in(2), x).exp();
            let height = (&area * &ratio).sqrt().round().clamp(1.0, h as f64);
            let width = (area / ratio).sqrt().round().clamp(1.0, w as f64);
            let first = |extent: usize, side: &Tensor, number| {
                integers(n, &(extent as f64 - side), key.fold_in(number)).to_dtype(DType::F32)
            };
            let (top, left) = (first(h, &height, 3), first(w, &width, 4));
            let (row, column) = grid(h, w, DType::F32, x);
            let of_rows = row.ge(&top).logical_and(row.lt(top + height));
            let of_columns = column.ge(&left).logical_and(column.lt(left + width));
            let erased = of_rows.logical_and(of_columns).logical_and(chosen);
            Ok(match self.fill {
                Fill::Value(value) => erased.where_(value, x),
                Fill::Noise => erased.where_(Tensor::randn(x.shape(), key.fold_in(5), x), x),
            })
        })
    }
}
