//! Custom gradients.

use gradus_tensor::graph::with_rule;
use gradus_tensor::{GradientRule, Tensor, no_grad};
use std::sync::Arc;

/// `forward(inputs)`, with `backward(inputs, output, cotangent)` as its gradient: one cotangent per input, `None` where
/// there is none. For functions whose own gradient is unstable, or that have none (a straight-through estimator).
///
/// ```
/// use gradus_autograd::{custom_gradient, grad};
/// use gradus_tensor::{Device, Tensor};
///
/// /// Rounds, but passes gradients on as if it did not.
/// fn straight_through_round(x: &Tensor) -> Tensor {
///     custom_gradient("round", &[x.clone()], |x| x[0].round(), |_, _, g| vec![Some(g.clone())])
/// }
/// let x = Tensor::new([0.4, 1.7], &Device::cpu()).tracked();
/// let y = straight_through_round(&x) * 3.0;
/// assert_eq!(y.to_vec::<f32>()?, [0.0, 6.0]);
/// assert_eq!(grad(&y.sum(..), [&x])?[0].to_vec::<f32>()?, [3.0, 3.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn custom_gradient<B>(
    name: &str,
    inputs: &[Tensor],
    forward: impl FnOnce(&[Tensor]) -> Tensor,
    backward: B,
) -> Tensor
where
    B: Fn(&[Tensor], &Tensor, &Tensor) -> Vec<Option<Tensor>> + Send + Sync + 'static,
{
    let output = no_grad(|| forward(inputs));
    with_rule(&output, inputs, Arc::new(Rule { name: name.to_string(), backward }))
}

struct Rule<B> {
    name: String,
    backward: B,
}

impl<B> GradientRule for Rule<B>
where
    B: Fn(&[Tensor], &Tensor, &Tensor) -> Vec<Option<Tensor>> + Send + Sync,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn backward(
        &self,
        inputs: &[Tensor],
        output: &Tensor,
        cotangent: &Tensor,
        _wanted: &[bool],
    ) -> Vec<Option<Tensor>> {
        (self.backward)(inputs, output, cotangent)
    }
}
