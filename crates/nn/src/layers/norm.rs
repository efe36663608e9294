//! Normalisations of each example by itself.

use crate::autocast::read_as;
use crate::{Init, Initializer, Layer, Module, Param, watch};
use gradus_tensor::{Axes, Error, ErrorKind, Shape, Tensor};

/// `y = (x − mean) / √(variance + ε) · weight + bias`, over the last axes (Ba et al., "Layer normalization", 2016): `x [..., shape]`,
/// weight and bias of that shape. They start as 1 and 0.
///
/// ```
/// use gradus_nn::{Init, Layer, LayerNorm};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = LayerNorm::new(4, &Init::new(0, &device));
/// let y = layer.forward(&Tensor::new([[1.0, 2.0, 3.0, 4.0]], &device));
/// assert!(y.mean(..).item::<f32>()?.abs() < 1e-6 && (y.std(.., 0).item::<f32>()? - 1.0).abs() < 1e-4);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct LayerNorm {
    /// Of the shape of what is normalised.
    pub weight: Param,
    /// Of the same shape, if there is one.
    pub bias: Option<Param>,
    /// ε, 10⁻⁵ as in PyTorch.
    pub epsilon: f64,
}

impl LayerNorm {
    /// A layer over the last axes, of this shape.
    #[track_caller]
    pub fn new(shape: impl Into<Shape>, init: &Init) -> LayerNorm {
        let shape = shape.into();
        LayerNorm {
            weight: Param::new(init.tensor(shape.clone(), Initializer::Ones)),
            bias: Some(Param::new(init.tensor(shape, Initializer::Zeros))),
            epsilon: 1e-5,
        }
    }

    /// The same layer without its bias.
    pub fn without_bias(self) -> LayerNorm {
        LayerNorm { bias: None, ..self }
    }

    /// The same layer with another ε.
    pub fn epsilon(self, epsilon: f64) -> LayerNorm {
        LayerNorm { epsilon, ..self }
    }
}

impl Layer for LayerNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let (axes, wide) = (last_axes(&self.weight), x.widened());
        let centred = &wide - wide.mean_keepdim(axes.clone());
        let scale = (centred.square().mean_keepdim(axes) + self.epsilon).rsqrt();
        let y = centred * scale * widened_with("layer_norm", x, &self.weight);
        let y = match &self.bias {
            Some(bias) => y + widened_with("layer_norm", x, bias),
            None => y,
        };
        call.output(y.to_dtype(x.dtype()))
    }
}

/// `y = x / √(mean of x² + ε) · weight`, over the last axes (Zhang, Sennrich, "Root mean square layer normalization", 2019). The
/// weight starts as 1.
#[derive(Clone, Debug, Module)]
pub struct RmsNorm {
    /// Of the shape of what is normalised.
    pub weight: Param,
    /// ε, 10⁻⁶ by default.
    pub epsilon: f64,
}

impl RmsNorm {
    /// A layer over the last axes, of this shape.
    #[track_caller]
    pub fn new(shape: impl Into<Shape>, init: &Init) -> RmsNorm {
        RmsNorm { weight: Param::new(init.tensor(shape, Initializer::Ones)), epsilon: 1e-6 }
    }

    /// The same layer with another ε.
    pub fn epsilon(self, epsilon: f64) -> RmsNorm {
        RmsNorm { epsilon, ..self }
    }
}

impl Layer for RmsNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let wide = x.widened();
        let scale = (wide.square().mean_keepdim(last_axes(&self.weight)) + self.epsilon).rsqrt();
        let y = (wide * scale * widened_with("rms_norm", x, &self.weight)).to_dtype(x.dtype());
        call.output(y)
    }
}

/// A parameter as what it is applied to is computed: squares of f16 soon exceed its range. One that layers read as another
/// dtype than `x` becomes a tensor that carries the error.
#[track_caller]
pub(super) fn widened_with(op: &'static str, x: &Tensor, parameter: &Param) -> Tensor {
    let parameter = parameter.master();
    let (left, right) = (read_as(x.dtype()), read_as(parameter.dtype()));
    if left == right || x.error().is_some() || parameter.error().is_some() {
        return parameter.widened();
    }
    // Not in the closure, where the caller would be this line.
    let error = Error::new(op, ErrorKind::DTypes { left, right });
    Tensor::build(x.device(), || Err(error))
}

/// The axes that a weight lies along, counted from the end.
fn last_axes(weight: &Param) -> Axes {
    Axes::Listed((1..=weight.shape().len() as isize).map(|axis| -axis).collect())
}
