//! Penalties on weights, to add to a loss, and limits, to apply after a step.

use crate::Param;
use gradus_tensor::{Axes, Error, ErrorKind, Result, Tensor, assign};

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

/// Σ ratio · |w| + (1 − ratio) / 2 · w² over parameters: between lasso (1) and ridge (0), as scikit-learn weighs them (Zou, Hastie,
/// "Regularization and variable selection via the elastic net", 2005). `None` of no parameters.
///
/// ```
/// use gradus_nn::{Init, Linear, Module, elastic_net_penalty};
/// use gradus_tensor::{Device, Tensor};
/// let layer = Linear::from_tensors(Tensor::new([[3.0, -4.0]], &Device::cpu()), None);
/// let weights: Vec<_> = layer.parameters_matching("weight").into_iter().map(|(_, weight)| weight).collect();
/// let penalty = elastic_net_penalty(&weights, 0.5).map(|p| p.item::<f32>()).transpose()?;
/// assert_eq!(penalty, Some(0.5 * 7.0 + 0.25 * 25.0));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn elastic_net_penalty<'a>(parameters: impl IntoIterator<Item = &'a Param>, ratio: f64) -> Option<Tensor> {
    total(parameters, |w| (w.abs() * ratio + w.square() * (0.5 * (1.0 - ratio))).sum(..))
}

#[track_caller]
fn total<'a>(parameters: impl IntoIterator<Item = &'a Param>, term: impl Fn(&Tensor) -> Tensor) -> Option<Tensor> {
    let parameters: Vec<Tensor> = parameters.into_iter().map(Param::master).collect();
    let dtype = parameters.first()?.dtype();
    parameters.iter().map(|w| term(&w.widened())).reduce(|a, b| a + b).map(|total| total.to_dtype(dtype))
}

/// Shrinks each row of a weight `[out, …]` (what leads to one output) whose Euclidean norm is larger than `limit` to this norm
/// (Srebro, Shraibman 2005; Srivastava et al. 2014, with dropout). To be called after each step; all parameters are assigned in one
/// run.
///
/// ```
/// use gradus_nn::{Linear, max_norm};
/// use gradus_tensor::{Device, Tensor};
/// let layer = Linear::from_tensors(Tensor::new([[3.0, 4.0], [0.3, 0.4]], &Device::cpu()), None);
/// max_norm([&layer.weight], 1.0)?;
/// let weight = layer.weight.tensor().to_vec::<f32>()?;
/// assert!(weight.iter().zip([0.6, 0.8, 0.3, 0.4]).all(|(w, expected)| (w - expected).abs() < 1e-6));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// # Errors
/// If the limit is not greater than 0, a parameter has no axes, or the run fails; all parameters are then as before.
#[track_caller]
pub fn max_norm<'a>(parameters: impl IntoIterator<Item = &'a Param>, limit: f64) -> Result<()> {
    if limit.is_nan() || limit <= 0.0 {
        let (expected, found) = ("greater than 0", limit.to_string());
        return Err(Error::new("max_norm", ErrorKind::Argument { argument: "limit", expected, found }));
    }
    let limited = |parameter: &'a Param| {
        let w = parameter.cell().tensor();
        if w.rank() == 0 {
            let kind = ErrorKind::Rank { expected: "a weight [out, …]".into(), shape: w.shape().clone() };
            return Err(Error::new("max_norm", kind));
        }
        let wide = w.widened();
        let row = Axes::from((1..w.rank()).collect::<Vec<_>>());
        // A row of zeros has no norm to divide by.
        let norm = wide.square().sum_keepdim(row).sqrt().maximum(limit);
        Ok((parameter.cell().clone(), (wide * (limit / norm)).to_dtype(w.dtype())))
    };
    assign(parameters.into_iter().map(limited).collect::<Result<Vec<_>>>()?)
}
