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
//!
//! # Linear algebra
//!
//! Products are here: [`Tensor::matmul`], [`einsum`]. What solves equations or takes matrices apart (solve, Cholesky, QR, SVD,
//! eigenvalues) is not: these are sequential algorithms for the CPU in f64, and a library of their own, [`faer`]. Elements go
//! there by [`Tensor::to_vec`] and come back by [`Tensor::from_vec`], both row-major:
//!
//! ```
//! # use gradus_tensor::{Device, DType, Tensor};
//! # /* Not a dependency:
//! use faer::{Mat, linalg::solvers::Solve};
//!
//! fn solve(a: &[f64], b: &[f64]) -> Vec<f64> {
//!     let n = b.len();
//!     let (a, b) = (Mat::from_fn(n, n, |i, j| a[i * n + j]), Mat::from_fn(n, 1, |i, _| b[i]));
//!     let x = a.partial_piv_lu().solve(&b);
//!     (0..n).map(|i| x[(i, 0)]).collect()
//! }
//! # */
//! # fn solve(a: &[f64], b: &[f64]) -> Vec<f64> {
//! #     let [p, q, r, s] = a[..] else { panic!() };
//! #     [s * b[0] - q * b[1], p * b[1] - r * b[0]].map(|x| x / (p * s - q * r)).into()
//! # }
//!
//! let device = Device::cpu();
//! let a = Tensor::new([[2.0, 1.0], [1.0, 3.0]], (&device, DType::F64));
//! let b = Tensor::new([3.0, 5.0], (&device, DType::F64));
//! let x = Tensor::from_vec(solve(&a.to_vec()?, &b.to_vec()?), b.shape(), &device);
//! assert!((a.matmul(&x) - b).abs().max(..).item::<f64>()? < 1e-12);
//! # Ok::<(), gradus_tensor::Error>(())
//! ```
//!
//! Nothing is recorded for gradients on the way. Where they are needed, the autograd crate's `custom_gradient` takes the rule: of
//! x = A⁻¹b with cotangent g, the cotangent of b is A⁻ᵀg, and that of A is −(A⁻ᵀg)xᵀ.
//!
//! [`faer`]: https://docs.rs/faer

mod ceilings;
mod cell;
mod compile;
mod custom;
mod debug;
mod device;
mod display;
mod error;
mod evaluate;
mod extract;
pub mod graph;
mod node;
mod notes;
mod open;
mod operand;
mod ops;
mod plans;
mod profile;
mod random;
mod routine;
mod rule;
mod scope;
mod tensor;
mod timed;
mod transform;

pub use ceilings::{Ceilings, Floor};
pub use cell::{Cell, assign};
pub use compile::{Compiled, compile};
pub use custom::{CustomOp, CustomOpBuilder};
pub use debug::find_nan;
pub use device::Device;
pub use error::{Error, Result};
pub use gradus_cpu::reference;
#[cfg(feature = "gpu")]
pub use gradus_gpu as gpu;
pub use gradus_ir::KernelSummary;
pub use gradus_ir::op::custom::{CustomError, CustomInput, CustomOutput};
pub use gradus_ir::{DType, Data, Element, Error as ErrorKind, MemoryStats, Number, Shape, Stats, f16};
#[cfg(feature = "gpu")]
pub use open::WgpuBuffer;
pub use open::{DeviceOptions, Preference};
pub use operand::{Axes, Dims, Operand, Placement, Values};
pub use ops::attention::Attention;
pub use ops::conv::Conv;
pub use ops::einsum::einsum;
pub use ops::order::Unique;
pub use ops::pool::Pool;
pub use ops::resize::PadMode;
pub use ops::view::{cat, stack};
pub use ops::window::Spatial;
pub use profile::{KernelRun, Profile};
pub use random::{Key, Rng, RngState};
pub use rule::GradientRule;
pub use tensor::{Tensor, eval, no_grad};
