//! Optimisers: chains of small transformations of the gradients, and the step that applies them.

mod named;
mod state;
mod transform;

pub use named::{Adam, Sgd};
pub use state::OptimiserState;
pub use transform::{
    AddDecayedWeights, ClipByNorm, ClipByValue, Momentum, ScaleByAdam, ScaleByLearningRate, Step, Transform,
};

use gradus_autograd::Grad;
use gradus_nn::{Module, Param};
use gradus_tensor::{Error, ErrorKind, Result, Tensor, assign};

/// Updates parameters from gradients: `p ← p + u`, where `u` is what a chain of transformations makes of the gradient. For
/// parameters of f16 gradients, updates and state are f32, and the new parameter is rounded.
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, mse_loss};
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::Sgd;
///
/// let device = Device::cpu();
/// let model = Linear::new(1, 1, &Init::new(0, &device));
/// let mut optimiser = Sgd::new(0.1).momentum(0.9).of(&model);
/// let (x, y) = (Tensor::new([[0.0], [1.0]], &device), Tensor::new([[1.0], [3.0]], &device));
/// for _ in 0..200 {
///     optimiser.step(&mse_loss(&model.forward(&x), &y))?;
/// }
/// assert!((model.weight.tensor().item::<f32>()? - 2.0).abs() < 1e-2);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub struct Optimiser {
    /// With their paths.
    parameters: Vec<(String, Param)>,
    chain: Vec<Box<dyn Transform>>,
    learning_rate: f64,
    steps: u64,
}

impl Optimiser {
    /// An optimiser of a model's parameters (but for those that are frozen now) with a chain of transformations; the last one
    /// usually scales by the learning rate.
    #[track_caller]
    pub fn new(model: &(impl Module + ?Sized), learning_rate: f64, chain: Vec<Box<dyn Transform>>) -> Optimiser {
        let mut optimiser = Optimiser { parameters: model.trainable_parameters(), chain, learning_rate, steps: 0 };
        let tensors = optimiser.tensors();
        optimiser.chain.iter_mut().for_each(|link| link.init(&tensors));
        optimiser
    }

    /// The parameters' present tensors.
    fn tensors(&self) -> Vec<Tensor> {
        self.parameters.iter().map(|(_, parameter)| parameter.tensor()).collect()
    }

    /// One step down the gradient of `loss`, computed in one run with everything that is held. The loss can be read
    /// afterwards: it keeps the value from before the step.
    ///
    /// # Errors
    /// If the gradient cannot be taken (a parameter is not reached, the loss carries an error, …) or the run fails;
    /// parameters and the optimiser's state are then as before.
    #[track_caller]
    pub fn step(&mut self, loss: &Tensor) -> Result<()> {
        let parameters = self.tensors();
        let gradients = Grad::of(loss).wrt(&parameters)?;
        drop(parameters);
        self.apply(gradients)
    }

    /// One step with given gradients, one per parameter in the order of [`Module::trainable_parameters`].
    ///
    /// # Errors
    /// If there is not one gradient per parameter, or the run fails.
    #[track_caller]
    pub fn apply(&mut self, gradients: Vec<Tensor>) -> Result<()> {
        if gradients.len() != self.parameters.len() {
            let found = format!("{} for {} parameters", gradients.len(), self.parameters.len());
            let kind = ErrorKind::Argument { argument: "gradients", expected: "one per parameter", found };
            return Err(Error::new("step", kind));
        }
        let parameters = self.tensors();
        let mut step = Step::new(&parameters, self.steps + 1, self.learning_rate);
        let gradients = gradients.into_iter().map(|gradient| gradient.widened()).collect();
        let updates = self.chain.iter_mut().fold(gradients, |updates, t| t.transform(updates, &mut step));
        let mut assignments = step.into_assignments();
        for (((_, parameter), old), update) in self.parameters.iter().zip(&parameters).zip(updates) {
            let new = (old.widened() + update).to_dtype(old.dtype());
            assignments.push((parameter.cell().clone(), new));
        }
        // No handle may hold the old values, or they could not be updated in place.
        drop(parameters);
        assign(assignments)?;
        self.steps += 1;
        Ok(())
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The learning rate.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// Changes the learning rate for the steps to come.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = learning_rate;
    }
}
