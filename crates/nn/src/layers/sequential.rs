//! Layers in a row.

use crate::{Layer, Module, Walk};
use gradus_tensor::Tensor;

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
        self.0.push(Box::new(layer));
        self
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
        let mut x = x.clone();
        for (i, layer) in self.0.iter().enumerate() {
            let sound = x.error().is_none();
            x = layer.forward(&x);
            if sound {
                // An error that begins here says in which layer.
                x = x.in_module(&i.to_string());
            }
        }
        x
    }
}
