//! Activation functions as layers, for [`Sequential`](crate::Sequential).

use crate::{Layer, Module};
use gradus_tensor::Tensor;

macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident $function:expr;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Module)]
        pub struct $name;

        impl Layer for $name {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                let f: fn(&Tensor) -> Tensor = $function;
                f(x)
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
    /// Merges all axes but the first.
    Flatten |x| if x.rank() > 1 { x.flatten_range(1, -1) } else { x.clone() };
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
        x.leaky_relu(self.slope)
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
        x.elu(self.alpha)
    }
}
