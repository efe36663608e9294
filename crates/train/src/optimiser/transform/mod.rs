//! The transformations that optimisers are chains of, a file per family.

mod adafactor;
mod adam;
mod adaptive;
mod averaging;
mod clip;
mod momentum;
mod muon;
mod sign;
mod trust;
mod weights;

pub use adafactor::ScaleByAdafactor;
pub use adam::{ScaleByAdaBelief, ScaleByAdam, ScaleByAdamax, ScaleByNadam, ScaleByRadam, ScaleByYogi};
pub use adaptive::{ScaleByAdadelta, ScaleByAdagrad, ScaleByRms};
pub use averaging::{Lookahead, ScheduleFree};
pub use clip::{AdaptiveClip, ClipByNorm, ClipByValue};
pub use momentum::{Ema, Momentum};
pub use muon::{Orthogonalise, RateOfMatrix};
pub use sign::{ScaleByLion, ScaleByRprop};
pub use trust::ScaleByTrustRatio;
pub use weights::{AddDecayedWeights, ScaleBy, ScaleByLearningRate};

use super::{Clock, Step};
use gradus_tensor::{Cell, Tensor};

/// One link of an optimiser's chain: maps the updates so far (at first the gradients) to new ones, which are added to the
/// parameters at the end.
///
/// A link of one's own needs no state, as here, or keeps cells that it makes in [`init`](Transform::init), shows in
/// [`state`](Transform::state) and assigns through the [`Step`].
///
/// ```
/// use gradus_nn::{Linear, Module};
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::{Optimiser, ScaleByLearningRate, Step, Transform};
///
/// /// Steps of one size, whatever the gradient.
/// struct Signs;
/// impl Transform for Signs {
///     fn transform(&self, updates: Vec<Tensor>, _: &mut Step<'_>) -> Vec<Tensor> {
///         updates.iter().map(Tensor::sign).collect()
///     }
/// }
///
/// let model = Linear::from_tensors(Tensor::new([[1.0, 2.0]], &Device::cpu()), None);
/// let mut optimiser = Optimiser::new(&model, 0.5, vec![Box::new(Signs), Box::new(ScaleByLearningRate)]);
/// optimiser.apply(vec![Tensor::new([[10.0, -0.1]], &Device::cpu())])?;
/// assert_eq!(model.weight.tensor().to_vec::<f32>()?, [0.5, 2.5]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub trait Transform: Send {
    /// Makes the state that is kept from step to step, if there is any; called once, before everything else.
    fn init(&mut self, _parameters: &[Tensor]) {}

    /// The numbers of a step that may differ from those of the step before: all that depends on the learning rate, a schedule
    /// or the count. [`transform`](Transform::transform) gets them from [`Step::numbers`].
    fn numbers(&self, _clock: &mut Clock<'_>) -> Vec<f64> {
        Vec::new()
    }

    /// Updates in, updates out, one per parameter. What it records is used for later steps too, with their numbers.
    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor>;

    /// The tensors that are kept from step to step: what they are, for which parameter, and where; see [`state_of`].
    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        Vec::new()
    }

    /// The numbers that are kept from step to step, on the host: their names, and what they are at first. Steps change them
    /// through [`Clock::remember`].
    fn remembered(&self) -> &'static [(&'static str, f64)] {
        &[]
    }

    /// The weights to evaluate with, where these are not the parameters themselves (given as they are now).
    fn evaluation_weights(&self, _parameters: &[Tensor]) -> Option<Vec<Tensor>> {
        None
    }
}

/// Cells of one name, one for each parameter in order, as [`Transform::state`] gives them.
pub fn state_of<'a>(
    name: &'static str,
    cells: impl IntoIterator<Item = &'a Cell>,
) -> impl Iterator<Item = (&'static str, usize, Cell)> {
    cells.into_iter().enumerate().map(move |(index, cell)| (name, index, cell.clone()))
}

/// Cells that start at a value, one per parameter; those of f16 parameters are f32.
fn filled(parameters: &[Tensor], value: f64) -> Vec<Cell> {
    parameters.iter().map(|p| Cell::buffer(p.widened().zeros_like() + value)).collect()
}

/// Cells that start at zero.
fn zeros(parameters: &[Tensor]) -> Vec<Cell> {
    parameters.iter().map(|p| Cell::buffer(p.widened().zeros_like())).collect()
}

/// The running mean of `value` in a cell: `decay · old + (1 − decay) · value`, assigned and returned.
fn running_mean(cell: &Cell, value: &Tensor, decay: f64, step: &mut Step<'_>) -> Tensor {
    let mean = cell.tensor() * decay + value * (1.0 - decay);
    step.assign(cell, &mean);
    mean
}

/// What a running mean that started at 0 has to be divided by: `1 − decay^steps`.
fn correction(decay: f64, steps: f64) -> f64 {
    1.0 - decay.powf(steps)
}

/// The Euclidean norm of all elements, as one number.
fn norm(tensor: &Tensor) -> Tensor {
    tensor.square().sum(..).sqrt()
}
