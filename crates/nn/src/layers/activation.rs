//! Activation functions as layers, for [`Sequential`](crate::Sequential).

use crate::{Init, Initializer, Layer, Module, Param, Walk, cast_input, watch};
use gradus_tensor::{Error, ErrorKind, Tensor};

macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident $function:expr;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Module)]
        pub struct $name;

        impl Layer for $name {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                let f: fn(&Tensor) -> Tensor = $function;
                watch(self).output(f(x))
            }
        })*
    };
}
activations! {
    /// [`Tensor::relu`].
    Relu Tensor::relu;
    /// [`Tensor::relu6`].
    Relu6 Tensor::relu6;
    /// [`Tensor::sigmoid`].
    Sigmoid Tensor::sigmoid;
    /// [`Tensor::tanh`].
    Tanh Tensor::tanh;
    /// [`Tensor::gelu`].
    Gelu Tensor::gelu;
    /// [`Tensor::gelu_tanh`].
    GeluTanh Tensor::gelu_tanh;
    /// [`Tensor::silu`].
    Silu Tensor::silu;
    /// [`Tensor::mish`].
    Mish Tensor::mish;
    /// [`Tensor::selu`].
    Selu Tensor::selu;
    /// [`Tensor::softsign`].
    Softsign Tensor::softsign;
    /// [`Tensor::hardtanh`].
    Hardtanh Tensor::hardtanh;
    /// [`Tensor::hardsigmoid`].
    Hardsigmoid Tensor::hardsigmoid;
    /// [`Tensor::hardswish`].
    Hardswish Tensor::hardswish;
    /// [`Tensor::log_sigmoid`].
    LogSigmoid Tensor::log_sigmoid;
    /// [`Tensor::tanhshrink`].
    Tanhshrink Tensor::tanhshrink;
    /// [`Tensor::log_softmax`] over the last axis.
    LogSoftmax |x| x.log_softmax(-1);
    /// [`Tensor::softmax`] over the last axis.
    Softmax |x| x.softmax(-1);
    /// Half of the last axis times the sigmoid of the other: [`Tensor::glu`].
    Glu |x| x.glu(-1);
    /// Merges all axes but the first.
    Flatten |x| if x.rank() > 1 { x.flatten_range(1, -1) } else { x.clone() };
    /// Gives what it gets.
    Identity Tensor::clone;
}

/// An activation function by name, for layers that leave the choice to whoever makes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// [`Tensor::relu`].
    #[default]
    Relu,
    /// [`Tensor::gelu`].
    Gelu,
    /// [`Tensor::gelu_tanh`].
    GeluTanh,
    /// [`Tensor::silu`].
    Silu,
    /// [`Tensor::tanh`].
    Tanh,
    /// [`Tensor::sigmoid`].
    Sigmoid,
}

impl Module for Activation {
    fn visit(&self, _walk: &mut Walk<'_>) {}
}

impl Layer for Activation {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(match self {
            Activation::Relu => x.relu(),
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::Silu => x.silu(),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => x.sigmoid(),
        })
    }
}

/// [`Tensor::leaky_relu`].
#[derive(Clone, Copy, Debug, Module)]
pub struct LeakyRelu {
    /// The slope below zero.
    pub slope: f64,
}

impl Default for LeakyRelu {
    /// Slope 0.01.
    fn default() -> LeakyRelu {
        LeakyRelu { slope: 0.01 }
    }
}

impl Layer for LeakyRelu {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(x.leaky_relu(self.slope))
    }
}

/// [`Tensor::elu`].
#[derive(Clone, Copy, Debug, Module)]
pub struct Elu {
    /// What it tends to, negated.
    pub alpha: f64,
}

impl Default for Elu {
    /// α = 1.
    fn default() -> Elu {
        Elu { alpha: 1.0 }
    }
}

impl Layer for Elu {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(x.elu(self.alpha))
    }
}

/// [`Tensor::celu`].
#[derive(Clone, Copy, Debug, Module)]
pub struct Celu {
    /// What it tends to, negated.
    pub alpha: f64,
}

impl Default for Celu {
    /// α = 1.
    fn default() -> Celu {
        Celu { alpha: 1.0 }
    }
}

impl Layer for Celu {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(x.celu(self.alpha))
    }
}

/// [`Tensor::softplus`].
#[derive(Clone, Copy, Debug, Module)]
pub struct Softplus {
    /// How sharp the bend is.
    pub beta: f64,
    /// Where β x is larger, it is the identity.
    pub threshold: f64,
}

impl Default for Softplus {
    /// β = 1, threshold 20.
    fn default() -> Softplus {
        Softplus { beta: 1.0, threshold: 20.0 }
    }
}

impl Layer for Softplus {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(x.softplus(self.beta, self.threshold))
    }
}

/// x where positive, and weight · x elsewhere (He et al. 2015), with one learned weight, or one for each channel (axis 1): `weight [1]`
/// or `[channels]`. It starts as 0.25.
///
/// ```
/// use gradus_nn::{Init, Layer, PRelu};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = PRelu::per_channel(2, &Init::new(0, &device));
/// assert_eq!(layer.forward(&Tensor::new([[-4.0, 3.0]], &device)).to_vec::<f32>()?, [-1.0, 3.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct PRelu {
    /// `[1]` or `[channels]`.
    pub weight: Param,
}

impl PRelu {
    /// One weight for all.
    #[track_caller]
    pub fn new(init: &Init) -> PRelu {
        PRelu::per_channel(1, init)
    }

    /// A weight for each channel.
    #[track_caller]
    pub fn per_channel(channels: usize, init: &Init) -> PRelu {
        PRelu { weight: Param::new(init.tensor([channels], Initializer::Constant(0.25))) }
    }
}

impl Layer for PRelu {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let weight = self.weight.tensor();
        // A weight that is no single one lies along axis 1.
        let along = if weight.numel() == 1 { 0 } else { x.rank().saturating_sub(2) };
        let weight = (0..along).fold(weight, |weight, _| weight.unsqueeze(-1));
        let y = cast_input(x).prelu(&weight);
        // A weight of another length than the channels would broadcast to something larger.
        if y.error().is_none() && y.shape() != x.shape() {
            let (what, expected, found) = ("the input", y.shape().clone(), x.shape().clone());
            let error = Error::new("prelu", ErrorKind::Shape { what, expected, found });
            return Tensor::build(x.device(), || Err(error));
        }
        call.output(y)
    }
}
