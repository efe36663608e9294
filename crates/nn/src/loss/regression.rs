//! Losses between numbers.

use super::{Reduction, fail, paired, unequal};
use crate::autocast::widened_input;
use gradus_tensor::{Error, ErrorKind, Tensor};

/// The mean of (prediction − target)².
///
/// Shapes must be equal. The classic bug, targets `[100]` against predictions `[100, 1]`, which broadcasting would turn
/// into `[100, 100]` wrong differences, is an error that names both shapes:
///
/// ```
/// use gradus_nn::mse_loss;
/// use gradus_tensor::{Device, Key, Tensor};
/// let device = Device::cpu();
/// let x = Tensor::rand([100, 1], Key::new(0), &device);
/// let target = (&x * 3.0).squeeze(1) + Tensor::randn([100], Key::new(1), &device) * 0.1;
/// let prediction = &x * 2.5 + 0.1;
/// let error = mse_loss(&prediction, &target).item::<f32>().unwrap_err().to_string();
/// assert!(error.contains("[100]") && error.contains("[100, 1]"), "{error}");
/// assert!(mse_loss(&prediction.squeeze(1), &target).item::<f32>().is_ok());
/// ```
#[track_caller]
pub fn mse_loss(prediction: &Tensor, target: &Tensor) -> Tensor {
    mse_loss_reduced(prediction, target, Reduction::Mean)
}

/// [`mse_loss`] with another reduction.
#[track_caller]
pub fn mse_loss_reduced(prediction: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    let (prediction, target) = (&widened_input(prediction), &widened_input(target));
    match unequal("mse_loss", prediction, "the target", target) {
        Some(failed) => failed,
        None => {
            let difference = prediction - target;
            let losses = difference.widened().square();
            reduction.apply(losses).to_dtype(difference.dtype())
        }
    }
}

/// Σ weight · (prediction − target)² / Σ weight. All three have equal shapes.
///
/// ```
/// use gradus_nn::weighted_mse_loss;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let [prediction, target] = [[1.0, 5.0], [0.0, 1.0]].map(|values| Tensor::new(values, &device));
/// let loss = weighted_mse_loss(&prediction, &target, &Tensor::new([3.0, 1.0], &device));
/// assert_eq!(loss.item::<f32>()?, (3.0 * 1.0 + 1.0 * 16.0) / 4.0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn weighted_mse_loss(prediction: &Tensor, target: &Tensor, weight: &Tensor) -> Tensor {
    weighted_mse_loss_reduced(prediction, target, weight, Reduction::Mean)
}

/// [`weighted_mse_loss`] with another reduction.
#[track_caller]
pub fn weighted_mse_loss_reduced(
    prediction: &Tensor,
    target: &Tensor,
    weight: &Tensor,
    reduction: Reduction,
) -> Tensor {
    let op = "weighted_mse_loss";
    let (prediction, target) = (&widened_input(prediction), &widened_input(target));
    let weight = &widened_input(weight);
    let failed = unequal(op, prediction, "the target", target);
    if let Some(failed) = failed.or_else(|| unequal(op, prediction, "the weight", weight)) {
        return failed;
    }
    let weight = weight.widened();
    let losses = (prediction - target).widened().square() * &weight;
    reduction.apply_weighted(losses, &weight).to_dtype(prediction.dtype())
}

/// The mean of |prediction − target|; its gradient is 0 where they are equal.
///
/// ```
/// use gradus_nn::l1_loss;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let loss = l1_loss(&Tensor::new([1.0, 5.0], &device), &Tensor::new([0.0, 7.0], &device));
/// assert_eq!(loss.item::<f32>()?, 1.5);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn l1_loss(prediction: &Tensor, target: &Tensor) -> Tensor {
    l1_loss_reduced(prediction, target, Reduction::Mean)
}

/// [`l1_loss`] with another reduction.
#[track_caller]
pub fn l1_loss_reduced(prediction: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    paired("l1_loss", [prediction, target], reduction, |p, t| (p - t).abs())
}

/// The mean of Huber's loss (1964) of the difference d: d²/2 where |d| < δ, and δ (|d| − δ/2) beyond. δ is greater than 0; 1 is
/// usual.
///
/// ```
/// use gradus_nn::huber_loss_reduced;
/// use gradus_nn::Reduction;
/// use gradus_tensor::{Device, Tensor};
/// let (x, zero) = (Tensor::new([0.5, -4.0], &Device::cpu()), Tensor::zeros([2], &Device::cpu()));
/// assert_eq!(huber_loss_reduced(&x, &zero, 1.0, Reduction::None).to_vec::<f32>()?, [0.125, 3.5]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn huber_loss(prediction: &Tensor, target: &Tensor, delta: f64) -> Tensor {
    huber_loss_reduced(prediction, target, delta, Reduction::Mean)
}

/// [`huber_loss`] with another reduction.
#[track_caller]
pub fn huber_loss_reduced(prediction: &Tensor, target: &Tensor, delta: f64, reduction: Reduction) -> Tensor {
    // Not `delta <= 0.0`, which NaN passes.
    if delta.is_nan() || delta <= 0.0 {
        return out_of_range(prediction, "huber_loss", "delta", "greater than 0", delta);
    }
    paired("huber_loss", [prediction, target], reduction, |p, t| {
        let size = (p - t).abs();
        // No square of what is large: it might overflow, and its gradient then be NaN.
        let near = size.minimum(delta);
        near.square() * 0.5 + (size - near) * delta
    })
}

/// The mean of Huber's loss divided by its δ, here called β (Girshick, "Fast R-CNN", 2015): d²/(2β) where |d| < β, and
/// |d| − β/2 beyond. With β = 0 it is [`l1_loss`]; 1 is usual.
#[track_caller]
pub fn smooth_l1_loss(prediction: &Tensor, target: &Tensor, beta: f64) -> Tensor {
    smooth_l1_loss_reduced(prediction, target, beta, Reduction::Mean)
}

/// [`smooth_l1_loss`] with another reduction.
#[track_caller]
pub fn smooth_l1_loss_reduced(prediction: &Tensor, target: &Tensor, beta: f64, reduction: Reduction) -> Tensor {
    if beta == 0.0 {
        return l1_loss_reduced(prediction, target, reduction);
    }
    if beta.is_nan() || beta < 0.0 {
        return out_of_range(prediction, "smooth_l1_loss", "beta", "at least 0", beta);
    }
    paired("smooth_l1_loss", [prediction, target], reduction, |p, t| {
        let size = (p - t).abs();
        let near = size.minimum(beta);
        near.square() * (0.5 / beta) + (size - near)
    })
}

#[track_caller]
fn out_of_range(
    prediction: &Tensor,
    op: &'static str,
    argument: &'static str,
    expected: &'static str,
    found: f64,
) -> Tensor {
    fail(prediction, Error::new(op, ErrorKind::Argument { argument, expected, found: found.to_string() }))
}
