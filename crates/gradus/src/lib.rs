//! gradus trains neural networks on any GPU that wgpu reaches, and on the CPU.
//!
//! The textbook loop, whole: initialise, forward, loss, optimise, iterate.
//!
//! ```
//! use gradus::prelude::*;
//!
//! #[derive(Module)]
//! struct Net {
//!     hidden: Linear,
//!     dropout: Dropout,
//!     output: Linear,
//! }
//!
//! impl Layer for Net {
//!     fn forward(&self, x: &Tensor) -> Tensor {
//!         self.output.forward(&self.dropout.forward(&self.hidden.forward(x).relu()))
//!     }
//! }
//!
//! fn main() -> gradus::Result<()> {
//!     let device = Device::best()?;
//!     let init = Init::new(42, &device);
//!     let net = Net {
//!         hidden: Linear::new(2, 32, &init),
//!         dropout: Dropout::new(0.1, &init),
//!         output: Linear::new(32, 2, &init),
//!     };
//!     // Is a point inside a circle?
//!     let points = Tensor::rand([512, 2], Key::new(1), &device) * 2.0 - 1.0;
//!     let inside = points.square().sum(1).lt(0.5).to_dtype(DType::I32);
//!     let data = TensorDataset::new([points, inside])?;
//!
//!     let mut optimiser = Adam::new(1e-2).of(&net);
//!     for epoch in 0..20 {
//!         for [x, y] in data.batches(64).shuffled(Key::new(2).fold_in(epoch)) {
//!             optimiser.step(&cross_entropy(&net.forward(&x), &y))?;
//!         }
//!     }
//!     net.eval();
//!     let [x, y] = data.tensors();
//!     let right = net.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..).item::<f32>()?;
//!     println!("{:.1} % right", 100.0 * right);
//! #   assert!(right > 0.9, "{right}");
//!     Ok(())
//! }
//! ```

pub use gradus_autograd as autograd;
pub use gradus_data as data;
pub use gradus_ir as ir;
pub use gradus_nn as nn;
pub use gradus_tensor as tensor;
pub use gradus_train as train;

pub use gradus_autograd::{Grad, GradCheck, custom_gradient, grad, gradcheck, value_and_grad};
pub use gradus_tensor::{
    Axes, Cell, DType, Device, Element, Error, ErrorKind, Key, Operand, Placement, Result, Rng, Shape, Tensor, assign,
    cat, eval, no_grad, stack,
};

/// What most programs use: `use gradus::prelude::*`.
pub mod prelude {
    pub use crate::data::{CsvOptions, Standardiser, Table, TensorDataset};
    pub use crate::nn::*;
    pub use crate::train::{Adam, Optimiser, Progress, Sgd};
    pub use crate::{DType, Device, Key, Rng, Shape, Tensor, cat, eval, grad, no_grad, stack, value_and_grad};
}
