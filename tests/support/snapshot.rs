//! Host copies of all that a training is made of, to be compared bit by bit and to go on from.

use gradus::nn::{Module, Visitor, Walk};
use gradus::tensor::RngState;
use gradus::train::{Optimiser, OptimiserState};
use gradus::{Device, Result, Rng, Shape, Tensor};

/// A tensor of f32 on the host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostCopy {
    name: String,
    shape: Shape,
    pub(crate) bits: Vec<u32>,
}

impl HostCopy {
    fn of(name: String, tensor: &Tensor) -> Result<HostCopy> {
        let bits = tensor.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect();
        Ok(HostCopy { name, shape: tensor.shape().clone(), bits })
    }

    fn tensor(&self, device: &Device) -> Tensor {
        Tensor::from_vec(self.bits.iter().copied().map(f32::from_bits).collect(), self.shape.clone(), device)
    }
}

/// A model's parameters, where its random numbers stand, and its optimiser's state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) parameters: Vec<HostCopy>,
    rngs: Vec<RngState>,
    moments: Vec<HostCopy>,
    steps: u64,
    learning_rates: Vec<f64>,
    numbers: Vec<(String, f64)>,
}

impl Snapshot {
    pub(crate) fn take(model: &impl Module, optimiser: &Optimiser) -> Result<Snapshot> {
        let state = optimiser.state();
        let parameters = model.parameters().into_iter();
        Ok(Snapshot {
            parameters: parameters.map(|(path, p)| HostCopy::of(path, &p.tensor())).collect::<Result<_>>()?,
            rngs: rngs(model).iter().map(Rng::state).collect(),
            moments: state.tensors.into_iter().map(|(name, t)| HostCopy::of(name, &t)).collect::<Result<_>>()?,
            steps: state.steps,
            learning_rates: state.learning_rates,
            numbers: state.numbers,
        })
    }

    /// Whether all but the random numbers stands where another does.
    pub(crate) fn is_like(&self, other: &Snapshot) -> bool {
        Snapshot { rngs: other.rngs.clone(), ..self.clone() } == *other
    }

    /// Brings a model of the same parts, and its optimiser, to where this was taken.
    pub(crate) fn restore(&self, model: &impl Module, optimiser: &mut Optimiser, device: &Device) -> Result<()> {
        for ((_, parameter), copy) in model.parameters().into_iter().zip(&self.parameters) {
            parameter.set(copy.tensor(device))?;
        }
        for (rng, &state) in rngs(model).iter().zip(&self.rngs) {
            rng.set_state(state);
        }
        let tensors = self.moments.iter().map(|copy| (copy.name.clone(), copy.tensor(device))).collect();
        let (learning_rates, numbers) = (self.learning_rates.clone(), self.numbers.clone());
        optimiser.load_state(&OptimiserState { steps: self.steps, learning_rates, numbers, tensors })
    }
}

/// The sources of random keys of a model.
fn rngs(model: &impl Module) -> Vec<Rng> {
    struct Collect(Vec<Rng>);
    impl Visitor for Collect {
        fn rng(&mut self, _: &str, rng: &Rng) {
            self.0.push(rng.clone());
        }
    }
    let mut collect = Collect(Vec::new());
    model.visit(&mut Walk::new(&mut collect));
    collect.0
}
