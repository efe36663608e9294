//! Averages of weights over the course of training.

use super::Swapped;
use super::state::matched;
use gradus_nn::{Module, Param};
use gradus_tensor::{Cell, Result, Tensor, assign};

/// An average of a model's weights over training: exponential ([`ema`](WeightAverage::ema)), or plain over the last part of it
/// ([`mean`](WeightAverage::mean); stochastic weight averaging, Izmailov et al. 2018). Buffers such as running statistics are
/// not averaged.
///
/// ```
/// use gradus_nn::Linear;
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::{Sgd, WeightAverage};
///
/// let model = Linear::from_tensors(Tensor::new([[1.0]], &Device::cpu()), None);
/// let weight = || model.weight.tensor();
/// let (mut optimiser, mut average) = (Sgd::new(1.0).of(&model), WeightAverage::mean(&model));
/// for _ in 0..4 {
///     optimiser.step(&weight().sum(..))?; // 0, −1, −2, −3
///     average.update()?;
/// }
/// assert_eq!(average.evaluate(|| weight().item::<f32>())?, -1.5);
/// assert_eq!(weight().item::<f32>()?, -3.0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub struct WeightAverage {
    parameters: Vec<(String, Param)>,
    averages: Vec<Cell>,
    kind: Kind,
    updates: u64,
}

enum Kind {
    Ema { decay: f64, warm_up: bool },
    Mean,
}

/// What a [`WeightAverage`] keeps, to be saved and loaded.
#[derive(Clone, Debug)]
pub struct WeightAverageState {
    /// How many updates there were.
    pub updates: u64,
    /// The averages by the paths of their parameters.
    pub tensors: Vec<(String, Tensor)>,
}

impl WeightAverage {
    /// An exponential average that keeps `decay` (such as 0.999) of itself at each update. The first update copies the weights.
    #[track_caller]
    pub fn ema(model: &(impl Module + ?Sized), decay: f64) -> WeightAverage {
        WeightAverage::new(model.parameters(), Kind::Ema { decay, warm_up: false })
    }

    /// The mean of the weights of all updates.
    #[track_caller]
    pub fn mean(model: &(impl Module + ?Sized)) -> WeightAverage {
        WeightAverage::new(model.parameters(), Kind::Mean)
    }

    #[track_caller]
    fn new(parameters: Vec<(String, Param)>, kind: Kind) -> WeightAverage {
        let copy = |(_, parameter): &(String, Param)| Cell::buffer(parameter.tensor().widened().detach() * 1.0);
        let averages = parameters.iter().map(copy).collect();
        WeightAverage { parameters, averages, kind, updates: 0 }
    }

    /// Lets an exponential average forget faster at first: update n keeps no more than n / (n + 9) of it, counted from 1.
    pub fn warm_up(mut self) -> WeightAverage {
        if let Kind::Ema { warm_up, .. } = &mut self.kind {
            *warm_up = true;
        }
        self
    }

    /// Takes the present weights into the average, in one run.
    ///
    /// # Errors
    /// If the run fails; the average is then as before.
    #[track_caller]
    pub fn update(&mut self) -> Result<()> {
        let number = self.updates as f64 + 1.0;
        let share = match self.kind {
            _ if self.updates == 0 => 1.0,
            Kind::Ema { decay, warm_up: true } => 1.0 - decay.min(number / (number + 9.0)),
            Kind::Ema { decay, warm_up: false } => 1.0 - decay,
            Kind::Mean => 1.0 / number,
        };
        let pairs = self.averages.iter().zip(&self.parameters);
        let assignments: Vec<(Cell, Tensor)> = pairs
            .map(|(cell, (_, parameter))| {
                let mixed = cell.tensor() * (1.0 - share) + parameter.tensor().detach().widened() * share;
                (cell.clone(), mixed)
            })
            .collect();
        assign(assignments)?;
        self.updates += 1;
        Ok(())
    }

    /// How many updates there were.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The averages with the paths of their parameters; those of f16 are f32.
    pub fn weights(&self) -> Vec<(String, Tensor)> {
        self.cells().into_iter().map(|(path, cell)| (path, cell.tensor())).collect()
    }

    fn cells(&self) -> Vec<(String, Cell)> {
        self.parameters.iter().zip(&self.averages).map(|((path, _), cell)| (path.clone(), cell.clone())).collect()
    }

    /// The parameters' cells, and the averages in their dtype.
    fn values(&self) -> Vec<(Cell, Tensor)> {
        let pairs = self.parameters.iter().zip(&self.averages);
        pairs.map(|((_, p), average)| (p.cell().clone(), average.tensor().to_dtype(p.tensor().dtype()))).collect()
    }

    /// Runs `body` with the averages in the model, and puts the weights back.
    ///
    /// # Errors
    /// As `body`.
    #[track_caller]
    pub fn evaluate<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let _swapped = Swapped::new(self.values())?;
        body()
    }

    /// Puts the averages into the model for good.
    ///
    /// # Errors
    /// If the run fails; the model is then as before.
    #[track_caller]
    pub fn apply(&self) -> Result<()> {
        // A copy, so that later updates in place do not touch the model.
        assign(self.values().into_iter().map(|(cell, average)| (cell, average * 1.0)))
    }

    /// What it keeps.
    pub fn state(&self) -> WeightAverageState {
        WeightAverageState { updates: self.updates, tensors: self.weights() }
    }

    /// Goes back (or on) to a state.
    ///
    /// # Errors
    /// If a name is missing or one too many, or a tensor has another shape or dtype; everything is then as before.
    #[track_caller]
    pub fn load_state(&mut self, state: &WeightAverageState) -> Result<()> {
        assign(matched(&self.cells(), &state.tensors)?)?;
        self.updates = state.updates;
        Ok(())
    }
}
