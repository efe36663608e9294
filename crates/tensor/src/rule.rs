//! Custom gradients.

use crate::Tensor;

/// The derivative of a custom op, in place of that of the ops that computed it.
pub trait GradientRule: Send + Sync {
    /// The name in messages.
    fn name(&self) -> &str;
    /// The cotangents of `inputs`, given the output and its cotangent; `None` where there is none. Those that are not
    /// `wanted` are not looked at.
    fn backward(&self, inputs: &[Tensor], output: &Tensor, cotangent: &Tensor, wanted: &[bool]) -> Vec<Option<Tensor>>;
}
