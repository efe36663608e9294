//! Penalties on weights, to add to a loss.

use crate::Param;
use gradus_tensor::Tensor;

/// Σ |w| over parameters: drives weights to exactly zero (lasso). `None` of no parameters.
#[track_caller]
pub fn l1_penalty<'a>(parameters: impl IntoIterator<Item = &'a Param>) -> Option<Tensor> {
    total(parameters, |w| w.abs().sum(..))
}

/// Σ w² over parameters: keeps weights small (ridge). `None` of no parameters.
///
/// ```
/// use gradus_nn::{Init, Linear, l2_penalty};
/// use gradus_tensor::{Device, Tensor};
/// let layer = Linear::from_tensors(Tensor::new([[3.0, 4.0]], &Device::cpu()), None);
/// let penalty = l2_penalty([&layer.weight]).map(|p| p.item::<f32>()).transpose()?;
/// assert_eq!(penalty, Some(25.0));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn l2_penalty<'a>(parameters: impl IntoIterator<Item = &'a Param>) -> Option<Tensor> {
    total(parameters, |w| w.square().sum(..))
}

#[track_caller]
fn total<'a>(parameters: impl IntoIterator<Item = &'a Param>, term: impl Fn(&Tensor) -> Tensor) -> Option<Tensor> {
    let parameters: Vec<Tensor> = parameters.into_iter().map(|p| p.tensor()).collect();
    let dtype = parameters.first()?.dtype();
    parameters.iter().map(|w| term(&w.widened())).reduce(|a, b| a + b).map(|total| total.to_dtype(dtype))
}
