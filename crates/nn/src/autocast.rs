//! Mixed precision: layers compute in f16, on parameters that are kept in f32.

use gradus_tensor::{DType, Tensor};
use std::cell::Cell;

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
}

/// Runs a forward pass in mixed precision (Micikevicius et al., "Mixed precision training", 2018): in `body`, parameters of f32
/// are read as f16, and what layers get is cast to f16, so that matrix products, convolutions, attention and what lies between
/// them take half the memory. Parameters themselves stay f32 (the master weights): gradients reach them through the cast.
///
/// What needs more stays in f32: sums within products and reductions, normalisations with their parameters and running
/// statistics, softmax, and [losses](crate::cross_entropy), which widen what they get and give an f32. f64 is not touched.
///
/// The scope is for what this thread records in `body`; take gradients and steps outside of it. Gradients of f16 need a loss
/// that is scaled, or small ones vanish: the optimiser's `scale_losses`. Layers of your own read parameters with
/// [`Param::tensor`](crate::Param::tensor) and pass inputs that meet them through [`cast_input`]; tensors of f32 and f16 in one
/// op are an error, as they always are. So is an evaluation on a device without f16.
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, autocast, mse_loss};
/// use gradus_tensor::{DType, Device, Tensor};
///
/// let device = Device::cpu();
/// let model = Linear::new(3, 1, &Init::new(0, &device));
/// let (x, y) = (Tensor::ones([5, 3], &device), Tensor::zeros([5, 1], &device));
/// autocast(|| {
///     let prediction = model.forward(&x);
///     assert_eq!(prediction.dtype(), DType::F16);
///     assert_eq!(mse_loss(&prediction, &y).dtype(), DType::F32);
/// });
/// assert_eq!(model.weight.tensor().dtype(), DType::F32);
/// ```
pub fn autocast<T>(body: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_ON.set(self.0);
        }
    }
    let _restore = Restore(IS_ON.replace(true));
    body()
}

/// What a layer computes with: `x`, but in an [`autocast`] f16 where it is f32.
///
/// ```
/// use gradus_nn::{autocast, cast_input};
/// use gradus_tensor::{DType, Device, Tensor};
/// let x = Tensor::ones([2], &Device::cpu());
/// assert_eq!(cast_input(&x).dtype(), DType::F32);
/// assert_eq!(autocast(|| cast_input(&x)).dtype(), DType::F16);
/// ```
#[track_caller]
pub fn cast_input(x: &Tensor) -> Tensor {
    x.to_dtype(read_as(x.dtype()))
}

/// What a dtype is read as: in an [`autocast`] f32 as f16.
pub(crate) fn read_as(dtype: DType) -> DType {
    if dtype == DType::F32 && IS_ON.get() { DType::F16 } else { dtype }
}

/// What a loss computes with: in an [`autocast`] f32 where it is f16.
#[track_caller]
pub(crate) fn widened_input(x: &Tensor) -> Tensor {
    if IS_ON.get() { x.widened() } else { x.clone() }
}
