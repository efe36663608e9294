//! What an optimiser keeps from step to step, to be saved and loaded.

use super::Optimiser;
use gradus_tensor::{Cell, Error, ErrorKind, Result, Tensor, assign};

/// What an optimiser keeps from step to step: with a model's parameters, buffers and random keys, enough to go on from
/// there with the same bits.
#[derive(Clone, Debug)]
pub struct OptimiserState {
    /// How many steps were taken.
    pub steps: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Tensors by name: which one of the links of the chain that keep something, what, and for which parameter, as in
    /// `0.mean.layers.0.weight`.
    pub tensors: Vec<(String, Tensor)>,
}

impl Optimiser {
    /// What it keeps from step to step, as it is now. While these tensors are held, a step does not update them in place.
    ///
    /// ```
    /// use gradus_nn::{Init, Linear};
    /// use gradus_tensor::Device;
    /// use gradus_train::Adam;
    ///
    /// let model = Linear::without_bias(2, 1, &Init::new(0, &Device::cpu()));
    /// let mut optimiser = Adam::new(1e-3).of(&model);
    /// let state = optimiser.state();
    /// let names: Vec<&str> = state.tensors.iter().map(|(name, _)| name.as_str()).collect();
    /// assert_eq!(names, ["0.mean.weight", "0.square.weight"]);
    /// optimiser.load_state(&state)?;
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    pub fn state(&self) -> OptimiserState {
        let tensors = self.cells().into_iter().map(|(name, cell)| (name, cell.tensor())).collect();
        OptimiserState { steps: self.steps, learning_rate: self.learning_rate, tensors }
    }

    /// Goes back (or on) to a state. Its tensors may lie on any device, and in any order.
    ///
    /// # Errors
    /// If a tensor is missing, is one too many, or has another shape or dtype than the optimiser's own; everything is
    /// then as before.
    #[track_caller]
    pub fn load_state(&mut self, state: &OptimiserState) -> Result<()> {
        let cells = self.cells();
        let misfit =
            |expected, found| Error::new("load_state", ErrorKind::Argument { argument: "state", expected, found });
        let mut values = Vec::with_capacity(cells.len());
        for (name, cell) in &cells {
            let Some((_, tensor)) = state.tensors.iter().find(|(other, _)| other == name) else {
                return Err(misfit("a tensor for each name", format!("none for {name}")));
            };
            values.push((cell.clone(), tensor.to_device(cell.tensor().device())));
        }
        if let Some((name, _)) = state.tensors.iter().find(|(other, _)| !cells.iter().any(|(name, _)| name == other)) {
            return Err(misfit("tensors of this optimiser alone", name.clone()));
        }
        assign(values)?;
        (self.steps, self.learning_rate) = (state.steps, state.learning_rate);
        Ok(())
    }

    /// The cells of the chain's state by name.
    fn cells(&self) -> Vec<(String, Cell)> {
        let links = self.chain.iter().map(|link| link.state()).filter(|state| !state.is_empty());
        let mut cells = Vec::new();
        for (link, state) in links.enumerate() {
            for (what, per_parameter) in state {
                for ((path, _), cell) in self.parameters.iter().zip(per_parameter) {
                    cells.push((format!("{link}.{what}.{path}"), cell.clone()));
                }
            }
        }
        cells
    }
}
