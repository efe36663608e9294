//! What an optimiser keeps from step to step, to be saved and loaded.

use super::Optimiser;
use super::group::Link;
use super::loss_scale::Skipping;
use gradus_tensor::{Cell, Error, ErrorKind, Result, Tensor, assign};
use std::collections::{HashMap, HashSet};

/// What an optimiser keeps from step to step: with a model's parameters, buffers and random keys, enough to go on from
/// there with the same bits.
#[derive(Clone, Debug)]
pub struct OptimiserState {
    /// How many steps were taken.
    pub steps: u64,
    /// The learning rate of each group.
    pub learning_rates: Vec<f64>,
    /// Numbers by name: which group, which one of the links of its chain that keep something, and what, as in
    /// `0.0.momentum_product`.
    pub numbers: Vec<(String, f64)>,
    /// Tensors by name: which one of the links that keep something, what, and for which parameter, as in
    /// `0.mean.layers.0.weight`. Those of links that all groups share begin with `shared`. Where steps may be skipped there is
    /// `skipped_steps`, where losses are scaled `loss_scale.scale` and `loss_scale.good_steps`.
    pub tensors: Vec<(String, Tensor)>,
}

#[track_caller]
fn misfit(expected: &'static str, found: String) -> Error {
    Error::new("load_state", ErrorKind::Argument { argument: "state", expected, found })
}

/// The tensors of a saved state beside the cells of their names, on the cells' devices.
///
/// # Errors
/// If a name is missing, or one too many.
#[track_caller]
pub(crate) fn matched(cells: &[(String, Cell)], tensors: &[(String, Tensor)]) -> Result<Vec<(Cell, Tensor)>> {
    let saved: HashMap<&str, &Tensor> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut values = Vec::with_capacity(cells.len());
    for (name, cell) in cells {
        let Some(tensor) = saved.get(name.as_str()) else {
            return Err(misfit("a tensor for each name", format!("none for {name}")));
        };
        values.push((cell.clone(), tensor.to_device(cell.tensor().device())));
    }
    let own: HashSet<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
    match tensors.iter().find(|(name, _)| !own.contains(name.as_str())) {
        Some((name, _)) => Err(misfit("tensors that belong to it alone", name.clone())),
        None => Ok(values),
    }
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
        let mut numbers = Vec::new();
        for (chain, place, link, _) in self.links() {
            for ((name, _), value) in link.transform.remembered().iter().zip(&link.remembered) {
                numbers.push((format!("{chain}.{place}.{name}"), *value));
            }
        }
        OptimiserState { steps: self.steps, learning_rates: self.learning_rates(), numbers, tensors }
    }

    /// Goes back (or on) to a state. Its tensors may lie on any device, and tensors and numbers be in any order.
    ///
    /// # Errors
    /// If a tensor, a number or a group's learning rate is missing, is one too many, or a tensor has another shape or dtype
    /// than the optimiser's own; everything is then as before.
    #[track_caller]
    pub fn load_state(&mut self, state: &OptimiserState) -> Result<()> {
        let values = matched(&self.cells(), &state.tensors)?;
        let names: Vec<String> = self.state().numbers.into_iter().map(|(name, _)| name).collect();
        let mut numbers = Vec::with_capacity(names.len());
        for name in &names {
            let Some((_, number)) = state.numbers.iter().find(|(other, _)| other == name) else {
                return Err(misfit("a number for each name", format!("none for {name}")));
            };
            numbers.push(*number);
        }
        if let Some((name, _)) = state.numbers.iter().find(|(other, _)| !names.contains(other)) {
            return Err(misfit("numbers that belong to it alone", name.clone()));
        }
        if state.learning_rates.len() != self.groups.len() {
            let found = format!("{} for {} groups", state.learning_rates.len(), self.groups.len());
            return Err(misfit("a learning rate for each group", found));
        }
        assign(values)?;
        let mut numbers = numbers.into_iter();
        self.links_mut().for_each(|link| link.remembered = numbers.by_ref().take(link.remembered.len()).collect());
        self.set_learning_rates(&state.learning_rates);
        self.steps = state.steps;
        Ok(())
    }

    /// Every link that keeps something, with its place in its chain, the chain's name, and the parameters it works on.
    fn links(&self) -> Vec<(String, usize, &Link, Vec<usize>)> {
        let shared = ("shared".to_string(), &self.shared, (0..self.parameters.len()).collect());
        let groups = self.groups.iter().enumerate();
        let groups = groups.map(|(index, group)| (index.to_string(), &group.chain, group.members.clone()));
        let mut links = Vec::new();
        for (name, chain, members) in std::iter::once(shared).chain(groups) {
            let keeping = chain.iter().filter(|link| !link.transform.state().is_empty() || !link.remembered.is_empty());
            links.extend(keeping.enumerate().map(|(place, link)| (name.clone(), place, link, members.clone())));
        }
        links
    }

    /// The cells of the chains' state by name.
    fn cells(&self) -> Vec<(String, Cell)> {
        let mut cells = self.skipping.as_ref().map_or(Vec::new(), Skipping::cells);
        for (chain, place, link, members) in self.links() {
            // A parameter is in one group, so that its path tells which.
            let shared = if chain == "shared" { "shared." } else { "" };
            for (what, index, cell) in link.transform.state() {
                let path = &self.parameters[members[index]].0;
                cells.push((format!("{shared}{place}.{what}.{path}"), cell));
            }
        }
        cells
    }
}
