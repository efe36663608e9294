//! gradus trains neural networks on any GPU that wgpu reaches, and on the CPU.
//!
//! ```
//! use gradus::prelude::*;
//!
//! let device = Device::best()?;
//! let model = Linear::new(1, 1, &Init::new(42, &device));
//! let mut optimiser = Sgd::new(0.1).of(&model);
//! let x = Tensor::randn([100, 1], Key::new(0), &device);
//! let y = &x * 3.0 + 1.0;
//! for _ in 0..100 {
//!     optimiser.step(&mse_loss(&model.forward(&x), &y))?;
//! }
//! assert!((model.weight.tensor().item::<f32>()? - 3.0).abs() < 1e-2);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! The [prelude] holds what most programs use; the modules below hold everything, by crate.

pub use gradus_autograd as autograd;
pub use gradus_data as data;
pub use gradus_ir as ir;
pub use gradus_nn as nn;
pub use gradus_tensor as tensor;
/// The wgpu backend; below it, [`device`](gradus_tensor::gpu::device) knows adapters and wgpu itself.
#[cfg(feature = "gpu")]
pub use gradus_tensor::gpu;
pub use gradus_train as train;

pub use gradus_autograd::{
    Grad, GradCheck, Outputs, Randomness, Vmap, checkpoint, custom_gradient, grad, gradcheck, value_and_grad, vmap,
};
pub use gradus_tensor::{
    Attention, Axes, Ceilings, Cell, Compiled, Conv, CustomError, CustomInput, CustomOp, CustomOpBuilder, CustomOutput,
    DType, Device, DeviceOptions, Element, Error, ErrorKind, Floor, KernelRun, KernelSummary, Key, Operand, PadMode,
    Placement, Pool, Profile, Result, Rng, Shape, Spatial, Stats, Tensor, Unique, assign, cat, compile, einsum, eval,
    f16, no_grad, stack,
};

/// What most programs use: `use gradus::prelude::*`.
pub mod prelude {
    pub use crate::data::{
        CsvOptions, Dataset, Frame, FrameOptions, InMemory, Loader, Shuffled, Standardiser, Table, TensorDataset,
    };
    pub use crate::nn::*;
    pub use crate::train::{
        Adam, AdamW, Checkpoints, LossScale, Muon, Optimiser, Progress, Schedule, Sgd, TensorBatches, Trainer,
    };
    pub use crate::{
        Attention, Conv, DType, Device, Key, Pool, Rng, Shape, Tensor, cat, checkpoint, einsum, eval, grad, no_grad,
        stack, value_and_grad, vmap,
    };
}

/// The README's program, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
