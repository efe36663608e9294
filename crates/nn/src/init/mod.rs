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
