//! Initialisation: what new parameters start as.

mod lsuv;
mod orthogonal;
mod truncated;

pub use lsuv::lsuv;

use gradus_tensor::{DType, Device, Error, ErrorKind, Key, Placement, Rng, Shape, Tensor};

/// Where new layers live and where their first weights come from: a device, a dtype and a source of keys.
#[derive(Clone, Debug)]
pub struct Init {
    rng: Rng,
    device: Device,
    dtype: DType,
}

impl Init {
    /// Seeded initialisation on a device, in f32.
    pub fn new(seed: u64, device: &Device) -> Init {
        Init { rng: Rng::new(seed), device: device.clone(), dtype: DType::F32 }
    }

    /// The same in another float dtype.
    pub fn dtype(mut self, dtype: DType) -> Init {
        self.dtype = dtype;
        self
    }

    /// The source of keys.
    pub fn rng(&self) -> &Rng {
        &self.rng
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The float dtype.
    pub fn float_dtype(&self) -> DType {
        self.dtype
    }

    /// A new tensor.
    #[track_caller]
    pub fn tensor(&self, shape: impl Into<Shape>, initializer: Initializer) -> Tensor {
        initializer.tensor(shape, self.rng.key(), (&self.device, self.dtype))
    }
}

/// How a tensor starts. Fans are those of a weight `[out, in, …]`: fan-in is `in` times the extents after it, fan-out
/// `out` times them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initializer {
    /// 0 everywhere.
    Zeros,
    /// 1 everywhere.
    Ones,
    /// One number everywhere.
    Constant(f64),
    /// Uniform in [low, high).
    Uniform {
        /// The lower end.
        low: f64,
        /// The upper end.
        high: f64,
    },
    /// Normal.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
    },
    /// Normal, drawn again until it lies in low ..= high. The standard deviation is that of the normal distribution; what is
    /// left of it has a smaller one (0.88 times, between ±2 deviations).
    TruncatedNormal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
        /// The least number.
        low: f64,
        /// The largest number.
        high: f64,
    },
    /// Rows (or columns, if there are more rows than columns) that are orthogonal and of length gain, all such matrices equally
    /// likely (Saxe et al. 2014). A weight `[out, in, …]` counts as a matrix of `out` rows. It is computed on the CPU, in f64, now.
    Orthogonal {
        /// √2 for ReLU.
        gain: f64,
    },
    /// Uniform in ±gain √(6 / (fan-in + fan-out)) (Glorot, Bengio 2010).
    XavierUniform {
        /// 1 for linear layers, 5/3 for tanh.
        gain: f64,
    },
    /// Normal with standard deviation gain √(2 / (fan-in + fan-out)).
    XavierNormal {
        /// 1 for linear layers, 5/3 for tanh.
        gain: f64,
    },
    /// Uniform in ±gain √(3 / fan-in) (He et al. 2015).
    KaimingUniform {
        /// √2 for ReLU.
        gain: f64,
    },
    /// Normal with standard deviation gain / √fan-in.
    KaimingNormal {
        /// √2 for ReLU.
        gain: f64,
    },
    /// Uniform in ±gain √(3 / fan-out): keeps the variance of gradients instead of that of outputs.
    KaimingUniformFanOut {
        /// √2 for ReLU.
        gain: f64,
    },
    /// Normal with standard deviation gain / √fan-out.
    KaimingNormalFanOut {
        /// √2 for ReLU.
        gain: f64,
    },
}

/// What follows a layer, for the gain of its weights: how much larger they are to be, so that variances stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nonlinearity {
    /// Nothing, or sigmoid: 1.
    Linear,
    /// tanh: 5/3.
    Tanh,
    /// ReLU: √2.
    Relu,
    /// Leaky ReLU: √(2 / (1 + slope²)).
    LeakyRelu {
        /// The slope below zero.
        slope: f64,
    },
    /// SELU: 3/4.
    Selu,
}

impl Nonlinearity {
    /// The gain, as PyTorch's `calculate_gain` gives it.
    ///
    /// ```
    /// use gradus_nn::{Initializer, Nonlinearity};
    /// let he = Initializer::KaimingNormal { gain: Nonlinearity::Relu.gain() };
    /// assert_eq!(he, Initializer::KaimingNormal { gain: 2f64.sqrt() });
    /// ```
    pub fn gain(self) -> f64 {
        match self {
            Nonlinearity::Linear => 1.0,
            Nonlinearity::Tanh => 5.0 / 3.0,
            Nonlinearity::Relu => 2f64.sqrt(),
            Nonlinearity::LeakyRelu { slope } => (2.0 / (1.0 + slope * slope)).sqrt(),
            Nonlinearity::Selu => 0.75,
        }
    }
}

impl Initializer {
    /// Normal of mean 0, without what lies more than two standard deviations away: what transformers start from.
    pub fn truncated_normal(std: f64) -> Initializer {
        Initializer::TruncatedNormal { mean: 0.0, std, low: -2.0 * std, high: 2.0 * std }
    }

    /// A new tensor, random where it is random by `key`.
    ///
    /// ```
    /// use gradus_nn::Initializer;
    /// use gradus_tensor::{Device, Key};
    /// let he = Initializer::KaimingNormal { gain: 2f64.sqrt() };
    /// let weight = he.tensor([256, 128], Key::new(1), &Device::cpu());
    /// let std = weight.std(.., 0).item::<f32>()?;
    /// assert!((std - (2.0f32 / 128.0).sqrt()).abs() < 2e-3);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn tensor(self, shape: impl Into<Shape>, key: Key, on: impl Into<Placement>) -> Tensor {
        let (shape, on) = (shape.into(), on.into());
        let scaled_by_fans = !matches!(
            self,
            Initializer::Zeros
                | Initializer::Ones
                | Initializer::Constant(_)
                | Initializer::Uniform { .. }
                | Initializer::Normal { .. }
                | Initializer::TruncatedNormal { .. }
        );
        if scaled_by_fans && shape.len() < 2 {
            let kind =
                ErrorKind::Rank { expected: "a weight of at least rank 2 (fans are not defined below)".into(), shape };
            return Tensor::build(&on.device, || Err(Error::new("initialise", kind)));
        }
        let (fan_in, fan_out) = fans(&shape);
        let uniform = |bound: f64| Initializer::Uniform { low: -bound, high: bound };
        let normal = |std: f64| Initializer::Normal { mean: 0.0, std };
        match self {
            Initializer::Zeros => Tensor::zeros(shape, on),
            Initializer::Ones => Tensor::ones(shape, on),
            Initializer::Constant(value) => Tensor::full(shape, value, on),
            Initializer::Uniform { low, high } => Tensor::rand(shape, key, on) * (high - low) + low,
            Initializer::Normal { mean, std } => Tensor::randn(shape, key, on) * std + mean,
            Initializer::TruncatedNormal { mean, std, low, high } => {
                truncated::tensor(shape, key, on, [mean, std], [low, high])
            }
            Initializer::Orthogonal { gain } => orthogonal::tensor(shape, key, on, gain),
            Initializer::XavierUniform { gain } => {
                uniform(gain * (6.0 / (fan_in + fan_out)).sqrt()).tensor(shape, key, on)
            }
            Initializer::XavierNormal { gain } => {
                normal(gain * (2.0 / (fan_in + fan_out)).sqrt()).tensor(shape, key, on)
            }
            Initializer::KaimingUniform { gain } => uniform(gain * (3.0 / fan_in).sqrt()).tensor(shape, key, on),
            Initializer::KaimingNormal { gain } => normal(gain / fan_in.sqrt()).tensor(shape, key, on),
            Initializer::KaimingUniformFanOut { gain } => uniform(gain * (3.0 / fan_out).sqrt()).tensor(shape, key, on),
            Initializer::KaimingNormalFanOut { gain } => normal(gain / fan_out.sqrt()).tensor(shape, key, on),
        }
    }
}

/// Fan-in and fan-out of a weight `[out, in, …]`, at least 1 so that empty weights have finite bounds.
fn fans(shape: &Shape) -> (f64, f64) {
    let receptive: usize = shape.iter().skip(2).product();
    let extent = |axis: usize| (shape.get(axis).copied().unwrap_or(1) * receptive).max(1) as f64;
    (extent(1), extent(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_tensor::Result;

    /// Mean and deviation of the numbers of a weight `[out, in, kernel]`, and the largest magnitude.
    fn moments(initializer: Initializer, dtype: DType) -> Result<[f64; 3]> {
        let w = initializer.tensor([64, 96, 5], Key::new(3), (&Device::cpu(), dtype)).to_dtype(DType::F64);
        Ok([w.mean(..).item()?, w.std(.., 0).item()?, w.abs().max(..).item()?])
    }

    #[test]
    fn numbers_have_the_moments_that_they_should() -> Result<()> {
        let (fan_in, fan_out): (f64, f64) = (96.0 * 5.0, 64.0 * 5.0);
        let gain = Nonlinearity::LeakyRelu { slope: 0.2 }.gain();
        // A uniform distribution's bound is √3 times its deviation.
        let uniform = 3f64.sqrt();
        let cases = [
            (Initializer::Uniform { low: -2.0, high: 4.0 }, 1.0, uniform, Some(4.0)),
            (Initializer::Normal { mean: 0.5, std: 2.0 }, 0.5, 2.0, None),
            // What is left between ±2 deviations has a deviation of √(1 − 4 φ(2) / (Φ(2) − Φ(−2))).
            (Initializer::truncated_normal(0.02), 0.0, 0.02 * 0.879_625_661, Some(0.04)),
            // The upper half: mean √(2/π), variance 1 − 2/π.
            (
                Initializer::TruncatedNormal { mean: 0.0, std: 1.0, low: 0.0, high: 50.0 },
                0.797_884_561,
                0.602_810_275,
                None,
            ),
            (Initializer::XavierUniform { gain: 1.5 }, 0.0, 1.5 * (2.0 / (fan_in + fan_out)).sqrt(), None),
            (Initializer::XavierNormal { gain: 1.5 }, 0.0, 1.5 * (2.0 / (fan_in + fan_out)).sqrt(), None),
            (Initializer::KaimingUniform { gain }, 0.0, gain / fan_in.sqrt(), Some(uniform * gain / fan_in.sqrt())),
            (Initializer::KaimingNormal { gain }, 0.0, gain / fan_in.sqrt(), None),
            (Initializer::KaimingUniformFanOut { gain }, 0.0, gain / fan_out.sqrt(), None),
            (Initializer::KaimingNormalFanOut { gain }, 0.0, gain / fan_out.sqrt(), None),
            (Initializer::Constant(0.25), 0.25, 0.0, Some(0.25)),
            (Initializer::Zeros, 0.0, 0.0, Some(0.0)),
            (Initializer::Ones, 1.0, 0.0, Some(1.0)),
        ];
        for (initializer, mean, deviation, limit) in cases {
            for dtype in [DType::F32, DType::F64] {
                let [got_mean, got_deviation, largest] = moments(initializer, dtype)?;
                // Of 30,720 numbers the mean is off by 0.006 deviations, and their deviation by 0.4 %.
                assert!((got_mean - mean).abs() <= 0.03 * deviation, "{initializer:?}: mean {got_mean}");
                let near = (got_deviation - deviation).abs() <= 0.02 * deviation;
                assert!(near, "{initializer:?}: deviation {got_deviation} in place of {deviation}");
                assert!(limit.is_none_or(|limit| largest <= limit * 1.000_001), "{initializer:?}: {largest}");
                // A limit is one that numbers come near to.
                assert!(limit.is_none_or(|limit| largest >= 0.99 * limit), "{initializer:?}: {largest}");
            }
        }
        let [_, _, largest] = moments(Initializer::truncated_normal(1.0), DType::F16)?;
        assert!(largest <= 2.0);
        Ok(())
    }

    /// The distribution itself: how many of a truncated normal's numbers lie below some points.
    #[test]
    fn truncated_normal_numbers_are_distributed_as_such() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let far = Initializer::TruncatedNormal { mean: 1.0, std: 0.5, low: 2.0, high: 3.0 };
            let w = far.tensor([100_000], Key::new(8), (&Device::cpu(), dtype)).to_dtype(DType::F64);
            assert!(w.min(..).item::<f64>()? >= 2.0 && w.max(..).item::<f64>()? <= 3.0);
            // Of what lies between 2 and 4 deviations above the mean, by tables of Φ: between 2 and 2.5, and 2 and 3.
            for (point, share) in [(2.25, 0.728_06), (2.5, 0.941_98)] {
                let below = w.lt(point).to_dtype(DType::F64).mean(..).item::<f64>()?;
                assert!((below - share).abs() < 0.005, "{below} below {point} in place of {share}");
            }
        }
        let bad = Initializer::TruncatedNormal { mean: 0.0, std: 1.0, low: 1.0, high: -1.0 };
        assert!(bad.tensor([2], Key::new(0), &Device::cpu()).error().is_some());
        let nowhere = Initializer::TruncatedNormal { mean: 0.0, std: 1.0, low: 20.0, high: 21.0 };
        assert!(nowhere.tensor([2], Key::new(0), &Device::cpu()).error().is_some());
        Ok(())
    }

    /// What PyTorch's layers start from.
    #[test]
    fn layers_start_uniform_within_the_bounds_that_they_state() -> Result<()> {
        use crate::{Bilinear, Conv2d, ConvTranspose2d, GruCell, Linear, Module, MultiHeadAttention};
        let init = Init::new(1, &Device::cpu());
        let bound = |fan: usize| 1.0 / (fan as f64).sqrt();
        let xavier = (6.0 / (4 * 64) as f64).sqrt();
        let attention = MultiHeadAttention::new(64, 4, &init);
        let layers: Vec<(Box<dyn Module>, f64)> = vec![
            (Box::new(Linear::new(50, 200, &init)), bound(50)),
            (Box::new(Bilinear::new(30, 20, 100, &init)), bound(30)),
            (Box::new(Conv2d::grouped(8, 100, 3, 2, &init)), bound(4 * 9)),
            (Box::new(ConvTranspose2d::grouped(10, 100, 3, 2, &init)), bound(50 * 9)),
            (Box::new(GruCell::new(50, 100, &init)), bound(100)),
            (Box::new(attention.out_proj.weight.clone()), bound(64)),
            (Box::new(attention.in_proj_weight.clone()), xavier),
        ];
        for (layer, bound) in layers {
            for (path, parameter) in layer.parameters() {
                let w = parameter.tensor();
                let largest = f64::from(w.abs().max(..).item::<f32>()?);
                assert!(largest <= bound * 1.000_001 && largest > 0.9 * bound, "{path}: {largest} of {bound}");
            }
        }
        assert_eq!(
            attention.in_proj_bias.map(|bias| bias.tensor().abs().max(..).item::<f32>()).transpose()?,
            Some(0.0)
        );
        Ok(())
    }

    #[test]
    fn orthogonal_weights_are_orthogonal() -> Result<()> {
        let orthogonal = Initializer::Orthogonal { gain: 3.0 };
        for shape in [&[16, 16][..], &[8, 24], &[24, 8], &[6, 2, 3, 3], &[1, 5]] {
            let w = orthogonal.tensor(shape, Key::new(1), (&Device::cpu(), DType::F64));
            let w = w.reshape([shape[0], shape[1..].iter().product()]);
            let few = w.shape()[0].min(w.shape()[1]);
            let product = if w.shape()[0] == few { w.matmul(&w.t()) } else { w.t().matmul(&w) };
            let error = (product - Tensor::eye(few, (&Device::cpu(), DType::F64)) * 9.0).abs().max(..);
            assert!(error.item::<f64>()? < 1e-12, "{shape:?}: {error}");
        }
        // All rotations are equally likely: no element is biased.
        let mean = (0..400)
            .map(|seed| orthogonal.tensor([3, 3], Key::new(seed), (&Device::cpu(), DType::F64)))
            .reduce(|a, b| a + b)
            .map_or(Ok(9.0), |sum| (sum / 400.0).abs().max(..).item::<f64>())?;
        assert!(mean < 0.3, "{mean}");
        assert!(orthogonal.tensor([4], Key::new(0), &Device::cpu()).error().is_some());
        assert_eq!(orthogonal.tensor([0, 4], Key::new(0), &Device::cpu()).shape()[..], [0, 4]);
        Ok(())
    }
}
