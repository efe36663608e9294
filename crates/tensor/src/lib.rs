//! The tensor: a promise of values that is recorded, evaluated when read, and planned once.
//!
//! ```
//! use gradus_tensor::{Device, Tensor};
//!
//! let device = Device::cpu();
//! let x = Tensor::new([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
//! let normalised = (&x - x.mean_keepdim(1)) / x.var_keepdim(1, 0).sqrt();
//! println!("{normalised}");
//! # assert!(normalised.error().is_none());
//! ```

mod cell;
mod compile;
mod debug;
mod device;
mod display;
mod error;
mod evaluate;
mod extract;
pub mod graph;
mod node;
mod open;
mod operand;
mod ops;
mod plans;
mod random;
mod rule;
mod tensor;
mod timed;
mod transform;

pub use cell::{Cell, assign};
pub use compile::{Compiled, compile};
pub use device::Device;
pub use error::{Error, Result};
pub use gradus_cpu::reference;
#[cfg(feature = "gpu")]
pub use gradus_gpu as gpu;
pub use gradus_ir::{DType, Data, Element, Error as ErrorKind, MemoryStats, Number, Shape, Stats};
#[cfg(feature = "gpu")]
pub use open::WgpuBuffer;
pub use open::{DeviceOptions, Preference};
pub use operand::{Axes, Dims, Operand, Placement, Values};
pub use ops::conv::Conv;
pub use ops::pool::Pool;
pub use ops::resize::PadMode;
pub use ops::view::{cat, stack};
pub use ops::window::Spatial;
pub use random::{Key, Rng, RngState};
pub use rule::GradientRule;
pub use tensor::{Tensor, eval, no_grad};
