//! Modules, layers, initialisation and losses.
//!
//! ```
//! use gradus_nn::{Init, Layer, Linear, Module, Relu, Sequential};
//! use gradus_tensor::{Device, Tensor};
//!
//! let init = Init::new(42, &Device::cpu());
//! let model = Sequential::new().then(Linear::new(4, 8, &init)).then(Relu).then(Linear::new(8, 3, &init));
//! let logits = model.forward(&Tensor::ones([2, 4], &Device::cpu()));
//! assert_eq!(logits.shape()[..], [2, 3]);
//! assert_eq!(model.parameters()[0].0, "0.weight");
//! ```

// The derive names this crate by its own name, also here.
extern crate self as gradus_nn;

mod init;
mod layers;
mod loss;
mod module;
mod penalty;

pub use gradus_nn_derive::Module;
pub use init::{Init, Initializer};
pub use layers::*;
pub use loss::{
    CrossEntropy, Reduction, bce_with_logits, bce_with_logits_reduced, cross_entropy, mse_loss, mse_loss_reduced,
};
pub use module::{Buffer, Mode, Module, Param, Visitor, Walk};
pub use penalty::{l1_penalty, l2_penalty};
