//! Layers in a row.

use crate::{Layer, Module, Walk, cast_input, watch};
use gradus_tensor::{Error, ErrorKind, Tensor};

/// Layers one after the other. Parameters are found under the layers' positions, as in `0.weight`.
#[derive(Default)]
pub struct Sequential(Vec<Box<dyn Layer + Send + Sync>>);

impl Sequential {
    /// No layers: the identity.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// These layers and then another.
    pub fn then(mut self, layer: impl Layer + Send + Sync + 'static) -> Sequential {
        self.push(layer);
        self
    }

    /// Puts a layer behind these.
    pub fn push(&mut self, layer: impl Layer + Send + Sync + 'static) {
        self.0.push(Box::new(layer));
    }

    /// The layers.
    pub fn layers(&self) -> &[Box<dyn Layer + Send + Sync>] {
        &self.0
    }
}

impl Module for Sequential {
    fn visit(&self, walk: &mut Walk<'_>) {
        self.0.visit(walk);
    }
}

impl Layer for Sequential {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let mut x = x.clone();
        for (i, layer) in self.0.iter().enumerate() {
            let sound = x.error().is_none();
            x = layer.forward(&x);
            if sound {
                // An error that begins here says in which layer.
                x = x.in_module(&i.to_string());
            }
        }
        call.output(x)
    }
}

/// A layer and a way around it: `y = x + layer(x)` (He et al., "Deep residual learning", 2016). The layer must keep the shape: here,
/// broadcasting would hide a mistake. Parameters are found under `0`.
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, Module, Residual};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let init = Init::new(0, &device);
/// let block = Residual(Linear::new(4, 4, &init));
/// assert_eq!(block.parameters()[0].0, "0.weight");
/// assert!(Residual(Linear::new(4, 1, &init)).forward(&Tensor::ones([2, 4], &device)).error().is_some());
/// ```
#[derive(Clone, Debug, Module)]
pub struct Residual<L>(pub L);

impl<L: Layer> Layer for Residual<L> {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let (call, x) = (watch(self), &cast_input(x));
        let y = self.0.forward(x);
        if y.error().is_none() && x.error().is_none() && y.shape() != x.shape() {
            let (what, expected, found) = ("what the layer gives", x.shape().clone(), y.shape().clone());
            let error = Error::new("residual", ErrorKind::Shape { what, expected, found });
            return Tensor::build(x.device(), || Err(error));
        }
        call.output(x + y)
    }
}
