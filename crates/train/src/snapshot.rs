//! A copy of what a model holds.

use gradus_nn::{Module, Param, Visitor, Walk};
use gradus_tensor::{Cell, Result, Rng, RngState, Tensor, assign, eval};

/// A copy of a model's parameters, buffers and random states, to go back to.
///
/// ```
/// use gradus_nn::{Init, Linear};
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::{Sgd, Snapshot};
///
/// let model = Linear::from_tensors(Tensor::new([[1.0]], &Device::cpu()), None);
/// let before = Snapshot::of(&model)?;
/// Sgd::new(1.0).of(&model).step(&model.weight.tensor().sum(..))?;
/// before.restore()?;
/// assert_eq!(model.weight.tensor().item::<f32>()?, 1.0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    tensors: Vec<(String, Cell, Tensor)>,
    states: Vec<(Rng, RngState)>,
}

impl Snapshot {
    /// Copies what the model holds, in one run.
    ///
    /// # Errors
    /// If a tensor carries an error or memory is short.
    #[track_caller]
    pub fn of(model: &(impl Module + ?Sized)) -> Result<Snapshot> {
        // Copies, and not the tensors themselves: as long as these are held, they are not updated in place.
        let copy = |path: String, cell: &Cell| (path, cell.clone(), cell.tensor().detach() * 1.0);
        let parameters = model.parameters().into_iter().map(|(path, parameter)| copy(path, parameter.cell()));
        let mut tensors: Vec<(String, Cell, Tensor)> = parameters.collect();
        for (path, buffer) in model.buffers() {
            let tensor = buffer.tensor();
            let kept = if tensor.dtype().is_float() { tensor * 1.0 } else { tensor };
            tensors.push((path, buffer.cell().clone(), kept));
        }
        eval(tensors.iter().map(|(.., tensor)| tensor))?;
        Ok(Snapshot { tensors, states: random_states(model) })
    }

    /// Puts everything back.
    ///
    /// # Errors
    /// If memory is short; the model is then as before.
    #[track_caller]
    pub fn restore(&self) -> Result<()> {
        self.restore_tensors()?;
        self.states.iter().for_each(|(rng, state)| rng.set_state(*state));
        Ok(())
    }

    /// Puts parameters and buffers back, and leaves random states as they are.
    #[track_caller]
    pub(crate) fn restore_tensors(&self) -> Result<()> {
        // Copies again, so that the snapshot can be restored once more after training on.
        let copy = |tensor: &Tensor| if tensor.dtype().is_float() { tensor * 1.0 } else { tensor.clone() };
        assign(self.tensors.iter().map(|(_, cell, tensor)| (cell.clone(), copy(tensor))))
    }

    /// The copies of parameters and buffers by path.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(path, _, tensor)| (path.as_str(), tensor))
    }
}

/// The random sources of a model, and their states.
fn random_states(model: &(impl Module + ?Sized)) -> Vec<(Rng, RngState)> {
    #[derive(Default)]
    struct Collect(Vec<(Rng, RngState)>);
    impl Visitor for Collect {
        fn parameter(&mut self, _: &str, _: &Param) {}

        fn rng(&mut self, _: &str, rng: &Rng) {
            self.0.push((rng.clone(), rng.state()));
        }
    }
    let mut collect = Collect::default();
    model.visit(&mut Walk::new(&mut collect));
    collect.0
}
