//! gradus trains neural networks on any GPU that wgpu reaches, and on the CPU.

pub use gradus_autograd as autograd;
pub use gradus_data as data;
pub use gradus_ir as ir;
pub use gradus_nn as nn;
pub use gradus_tensor as tensor;
pub use gradus_train as train;

pub use gradus_autograd::{Grad, custom_gradient, grad, gradcheck, value_and_grad};
pub use gradus_tensor::{
    Axes, Cell, DType, Device, Element, Error, ErrorKind, Key, Operand, Placement, Result, Rng, Shape, Tensor, assign,
    cat, eval, no_grad, stack,
};
