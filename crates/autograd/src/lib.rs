//! Gradients, of any order: `grad` walks the recorded graph from a loss and records more of it.
//!
//! ```
//! use gradus_autograd::grad;
//! use gradus_tensor::{Device, Tensor};
//!
//! let x = Tensor::new([1.0, 2.0, 3.0], &Device::cpu()).tracked();
//! let loss = (&x * &x * &x).sum(..);
//! let first = grad(&loss, [&x])?;
//! assert_eq!(first[0].to_vec::<f32>()?, [3.0, 12.0, 27.0]);
//! let second = grad(&first[0].sum(..), [&x])?;
//! assert_eq!(second[0].to_vec::<f32>()?, [6.0, 12.0, 18.0]);
//! # Ok::<(), gradus_tensor::Error>(())
//! ```

mod attention;
mod batch;
mod checkpoint;
mod custom;
mod formula;
mod grad;
mod gradcheck;
mod outputs;
mod rules;
mod scan;
mod vmap;
mod windows;

pub use checkpoint::checkpoint;
pub use custom::custom_gradient;
pub use grad::{Grad, grad, value_and_grad};
pub use gradcheck::{GradCheck, gradcheck};
pub use outputs::Outputs;
pub use vmap::{Randomness, Vmap, vmap};
