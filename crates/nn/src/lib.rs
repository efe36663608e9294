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

mod autocast;
mod init;
mod layers;
mod loss;
mod module;
mod parameter;
mod parts;
mod pattern;
mod penalty;
mod profiled;
mod reparametrise;
mod state;
mod summary;
mod watch;

pub use autocast::{autocast, cast_input};
pub use gradus_nn_derive::Module;
pub use init::{Init, Initializer, Nonlinearity, lsuv};
pub use layers::*;
pub use loss::{
    BinaryCrossEntropy, CosineEmbedding, CrossEntropy, FocalLoss, GaussianNll, KlDivergence, MultiMargin, NllLoss,
    PoissonNll, Reduction, TripletMargin, bce_loss, bce_loss_reduced, bce_with_logits, bce_with_logits_reduced,
    cross_entropy, hinge_loss, hinge_loss_reduced, huber_loss, huber_loss_reduced, l1_loss, l1_loss_reduced, mse_loss,
    mse_loss_reduced, nll_loss, smooth_l1_loss, smooth_l1_loss_reduced, soft_margin_loss, soft_margin_loss_reduced,
    squared_hinge_loss, squared_hinge_loss_reduced, weighted_mse_loss, weighted_mse_loss_reduced,
};
pub use module::{Identity as ModuleIdentity, Module, Visitor, Walk};
pub use parameter::{Buffer, Mode, Param};
pub use pattern::path_matches;
pub use penalty::{elastic_net_penalty, l1_penalty, l2_penalty, max_norm};
pub use reparametrise::{spectral_norm, weight_norm};
pub use state::{Loaded, Misfits, StateError, StateLoader};
pub use summary::{LayerSummary, Summary, summary};
pub use watch::{Watched, watch};
