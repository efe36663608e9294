//! Initialisation: what new parameters start as.

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
}

impl Initializer {
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
            Initializer::XavierUniform { gain } => {
                uniform(gain * (6.0 / (fan_in + fan_out)).sqrt()).tensor(shape, key, on)
            }
            Initializer::XavierNormal { gain } => {
                normal(gain * (2.0 / (fan_in + fan_out)).sqrt()).tensor(shape, key, on)
            }
            Initializer::KaimingUniform { gain } => uniform(gain * (3.0 / fan_in).sqrt()).tensor(shape, key, on),
            Initializer::KaimingNormal { gain } => normal(gain / fan_in.sqrt()).tensor(shape, key, on),
        }
    }
}

/// Fan-in and fan-out of a weight `[out, in, …]`, at least 1 so that empty weights have finite bounds.
fn fans(shape: &Shape) -> (f64, f64) {
    let receptive: usize = shape.iter().skip(2).product();
    let extent = |axis: usize| (shape.get(axis).copied().unwrap_or(1) * receptive).max(1) as f64;
    (extent(1), extent(0))
}
