//! Optimisers: chains of small transformations of the gradients, and the step that applies them.

mod average;
mod group;
mod lbfgs;
mod line_search;
mod loss_scale;
mod named;
mod sam;
mod select;
mod state;
mod step;
mod transform;

pub use average::{WeightAverage, WeightAverageState};
pub use group::Group;
pub use lbfgs::{Lbfgs, LbfgsOptimiser, LbfgsProgress, LbfgsState, LbfgsStatus};
pub use loss_scale::LossScale;
pub use named::*;
pub use sam::Sam;
pub use select::Select;
pub use state::OptimiserState;
pub(crate) use state::matched;
pub use step::{Clock, Step};
pub use transform::*;

use crate::Schedule;
use crate::prune::masked;
use gradus_autograd::Grad;
use gradus_nn::{Module, Param};
use gradus_tensor::graph::{Live, Routine};
use gradus_tensor::{Cell, Error, ErrorKind, Result, Tensor, assign, eval};
use group::{Link, Numbers, pass};
use loss_scale::Skipping;

/// Updates parameters from gradients: `p ← p + u`, where `u` is what a chain of transformations makes of the gradient. For
/// parameters of f16 gradients, updates and state are f32, and the new parameter is rounded.
///
/// A step is one run: the state of all links and the parameters are assigned together, in place, or not at all. Learning rates
/// and everything else that changes from step to step are numbers of the plan, so that all steps share it.
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
    /// What all gradients pass through together, before their groups' chains.
    shared: Vec<Link>,
    /// None of them is empty.
    groups: Vec<Group>,
    /// Which elements of each parameter are not pruned, where some are.
    kept: Vec<Option<Tensor>>,
    skipping: Option<Skipping>,
    accumulated: Option<Accumulated>,
    steps: u64,
    routines: Routines,
}

/// What is known of earlier steps.
#[derive(Default)]
struct Routines {
    of_loss: Routine,
    of_gradients: Routine,
}

impl Routines {
    fn forget(&mut self) {
        self.of_loss.forget();
        self.of_gradients.forget();
    }
}

/// Sums of gradients, and of how many losses.
struct Accumulated {
    sums: Vec<Cell>,
    losses: u64,
}

impl Optimiser {
    /// An optimiser of a model's parameters (but for those that are frozen now) with a chain of transformations; the last one
    /// usually scales by the learning rate.
    #[track_caller]
    pub fn new(model: &(impl Module + ?Sized), learning_rate: f64, chain: Vec<Box<dyn Transform>>) -> Optimiser {
        Optimiser::of_parameters(model.trainable_parameters(), learning_rate, chain)
    }

    /// An optimiser of some parameters, given with their paths; of those that are frozen now it leaves its hands.
    #[track_caller]
    pub fn of_parameters(
        parameters: Vec<(String, Param)>,
        learning_rate: f64,
        chain: Vec<Box<dyn Transform>>,
    ) -> Optimiser {
        Optimiser::with_groups(parameters, Vec::new(), vec![Group::of_the_rest(learning_rate, chain)])
    }

    /// An optimiser of parameters in groups. All gradients pass through the chain `shared` together (clipping by their common
    /// norm stands there), and then each through the chain of the first group that has its parameter. Parameters that are in
    /// no group, or frozen now, are left alone; groups without parameters do nothing.
    ///
    /// ```
    /// use gradus_nn::{Init, Linear, Module};
    /// use gradus_tensor::Device;
    /// use gradus_train::{AddDecayedWeights, ClipByNorm, Group, Optimiser, ScaleByAdam, ScaleByLearningRate};
    ///
    /// let model = Linear::new(2, 1, &Init::new(0, &Device::cpu()));
    /// let adam = || Box::new(ScaleByAdam::new(0.9, 0.999, 1e-8));
    /// let decay = Box::new(AddDecayedWeights { rate: 0.01.into() });
    /// let optimiser = Optimiser::with_groups(
    ///     model.parameters(),
    ///     vec![Box::new(ClipByNorm { limit: 1.0 })],
    ///     vec![
    ///         Group::of_paths("*.bias", 2e-3, vec![adam(), Box::new(ScaleByLearningRate)]),
    ///         Group::of_the_rest(1e-3, vec![adam(), decay, Box::new(ScaleByLearningRate)]),
    ///     ],
    /// );
    /// assert_eq!(optimiser.learning_rates(), [2e-3, 1e-3]);
    /// ```
    #[track_caller]
    pub fn with_groups(
        parameters: Vec<(String, Param)>,
        shared: Vec<Box<dyn Transform>>,
        mut groups: Vec<Group>,
    ) -> Optimiser {
        let mut kept = Vec::with_capacity(parameters.len());
        for (path, parameter) in parameters.into_iter().filter(|(_, parameter)| !parameter.is_frozen()) {
            if let Some(group) = groups.iter_mut().find(|group| group.has(&path, &parameter)) {
                group.members.push(kept.len());
                kept.push((path, parameter));
            }
        }
        let tensors: Vec<Tensor> = kept.iter().map(|(_, parameter)| parameter.tensor()).collect();
        let mut shared: Vec<Link> = shared.into_iter().map(Link::new).collect();
        shared.iter_mut().for_each(|link| link.transform.init(&tensors));
        for Group { chain, members, .. } in &mut groups {
            let own: Vec<Tensor> = members.iter().map(|&member| tensors[member].clone()).collect();
            chain.iter_mut().for_each(|link| link.transform.init(&own));
        }
        Optimiser {
            kept: vec![None; kept.len()],
            parameters: kept,
            shared,
            groups,
            skipping: None,
            accumulated: None,
            steps: 0,
            routines: Routines::default(),
        }
    }

    /// The parameters that it updates, with their paths.
    pub fn parameters(&self) -> &[(String, Param)] {
        &self.parameters
    }

    /// The parameters' present tensors.
    fn tensors(&self) -> Vec<Tensor> {
        self.parameters.iter().map(|(_, parameter)| parameter.master()).collect()
    }

    /// The gradients of a loss, one per parameter in the order of [`parameters`](Optimiser::parameters): for steps of several
    /// losses, whose gradients are added before [`apply`](Optimiser::apply).
    ///
    /// # Errors
    /// As [`step`](Optimiser::step), as far as gradients are concerned.
    #[track_caller]
    pub fn gradients(&self, loss: &Tensor) -> Result<Vec<Tensor>> {
        let Some(scaled) = self.scaled()? else { return Grad::of(loss).wrt(&self.tensors()) };
        let gradients = Grad::of(&scaled.up(loss)).wrt(&self.tensors())?;
        Ok(gradients.iter().map(|gradient| scaled.down(gradient)).collect())
    }

    /// One step down the gradient of `loss`, computed in one run with everything that is held. The loss can be read
    /// afterwards: it keeps the value from before the step.
    ///
    /// # Errors
    /// If the gradient cannot be taken (a parameter is not reached, the loss carries an error, …) or the run fails;
    /// parameters and the optimiser's state are then as before.
    #[track_caller]
    pub fn step(&mut self, loss: &Tensor) -> Result<()> {
        let mut routine = std::mem::take(&mut self.routines.of_loss);
        let taken = self.take(&mut routine, vec![loss.clone()], |optimiser, _| optimiser.gradients(loss));
        self.routines.of_loss = routine;
        taken
    }

    /// One step with given gradients, one per parameter in the order of [`parameters`](Optimiser::parameters).
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
        let mut routine = std::mem::take(&mut self.routines.of_gradients);
        let taken = self.take(&mut routine, gradients, |_, gradients| Ok(gradients));
        self.routines.of_gradients = routine;
        taken
    }

    /// One step with gradients that are computed from `sources`, always in the same way with the same routine.
    #[track_caller]
    fn take(
        &mut self,
        routine: &mut Routine,
        sources: Vec<Tensor>,
        gradients: impl FnOnce(&Optimiser, Vec<Tensor>) -> Result<Vec<Tensor>>,
    ) -> Result<()> {
        let numbers = self.next_numbers();
        routine.assign(sources, &numbers.values, |sources, live| {
            self.updates(gradients(self, sources)?, &numbers, live)
        })?;
        self.took_step(numbers);
        Ok(())
    }

    /// The numbers of the next step.
    fn next_numbers(&self) -> Numbers {
        let mut numbers = Numbers::default();
        let rate = self.groups.first().map_or(0.0, |group| group.rate(self.steps));
        numbers.add(&self.shared, self.steps + 1, rate);
        for group in &self.groups {
            numbers.add(&group.chain, self.steps + 1, group.rate(self.steps));
        }
        numbers
    }

    /// What a step assigns: parameters and state.
    #[track_caller]
    fn updates(&self, gradients: Vec<Tensor>, numbers: &Numbers, live: &[Live]) -> Result<Vec<(Cell, Tensor)>> {
        let mut numbers = numbers.of_links(live);
        let parameters = self.tensors();
        let gradients: Vec<Tensor> = gradients.into_iter().map(|gradient| gradient.widened()).collect();
        let finite = self.skipping.as_ref().and_then(|skipping| {
            let finite = gradients.iter().map(|gradient| gradient.is_finite().all(..));
            Some((skipping, finite.reduce(|a, b| a.logical_and(b))?))
        });
        let mut step = Step::new(&parameters);
        let mut updates = pass(&self.shared, gradients, &mut numbers, &mut step);
        let mut assignments = step.into_assignments();
        for group in &self.groups {
            let own = |tensors: &[Tensor]| group.members.iter().map(|&member| tensors[member].clone()).collect();
            let (tensors, incoming): (Vec<Tensor>, Vec<Tensor>) = (own(&parameters), own(&updates));
            let mut step = Step::new(&tensors);
            let outgoing = pass(&group.chain, incoming, &mut numbers, &mut step);
            assignments.extend(step.into_assignments());
            for (&member, update) in group.members.iter().zip(outgoing) {
                updates[member] = update;
            }
        }
        let all = self.parameters.iter().zip(&parameters).zip(&self.kept).zip(updates);
        for ((((_, parameter), old), kept), update) in all {
            let new = (old.widened() + update).to_dtype(old.dtype());
            let new = match kept {
                Some(kept) => masked(kept, new),
                None => new,
            };
            assignments.push((parameter.cell().clone(), new));
        }
        if let Some((skipping, finite)) = finite {
            // Chosen on the device, so that no step waits to know.
            for (cell, new) in &mut assignments {
                *new = finite.where_(&*new, cell.tensor());
            }
            assignments.extend(skipping.after(&finite));
        }
        Ok(assignments)
    }

    /// Goes on to the next step.
    fn took_step(&mut self, numbers: Numbers) {
        self.steps += 1;
        for (link, left) in self.links_mut().zip(numbers.left) {
            link.remembered = left;
        }
    }

    /// Adds the gradients of a loss to those that the next [`step_accumulated`](Optimiser::step_accumulated) takes: large batches
    /// in small parts. They are computed now, so that each part's memory is free before the next one. What is accumulated is no
    /// part of the [`state`](Optimiser::state).
    ///
    /// ```
    /// use gradus_nn::Linear;
    /// use gradus_tensor::{Device, Tensor};
    /// use gradus_train::Sgd;
    ///
    /// let model = Linear::from_tensors(Tensor::new([[1.0]], &Device::cpu()), None);
    /// let mut optimiser = Sgd::new(1.0).of(&model);
    /// for part in [0.25, 0.75] {
    ///     optimiser.accumulate(&(model.weight.tensor().sum(..) * part))?;
    /// }
    /// optimiser.step_accumulated()?;
    /// assert_eq!(model.weight.tensor().item::<f32>()?, 0.5);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`step`](Optimiser::step); what was accumulated is then as before.
    #[track_caller]
    pub fn accumulate(&mut self, loss: &Tensor) -> Result<()> {
        let gradients: Vec<Tensor> = self.gradients(loss)?.iter().map(Tensor::widened).collect();
        match &mut self.accumulated {
            Some(Accumulated { sums, losses }) => {
                let sum = |(cell, gradient): (&Cell, Tensor)| {
                    let sum = if *losses == 0 { gradient } else { cell.tensor() + gradient };
                    (cell.clone(), sum)
                };
                assign(sums.iter().zip(gradients).map(sum).collect::<Vec<_>>())?;
                *losses += 1;
            }
            None => {
                eval(&gradients)?;
                let sums = gradients.into_iter().map(Cell::buffer).collect();
                self.accumulated = Some(Accumulated { sums, losses: 1 });
            }
        }
        Ok(())
    }

    /// One step with the mean of the gradients that were accumulated since the last one.
    ///
    /// # Errors
    /// If there are none, or the run fails; they are then kept.
    #[track_caller]
    pub fn step_accumulated(&mut self) -> Result<()> {
        let losses = self.accumulated.as_ref().map_or(0, |accumulated| accumulated.losses);
        if losses == 0 {
            let (argument, expected) = ("gradients", "accumulated ones");
            return Err(Error::new("step", ErrorKind::Argument { argument, expected, found: "none".into() }));
        }
        let sums = self.accumulated.iter().flat_map(|accumulated| &accumulated.sums);
        let gradients = sums.map(|sum| sum.tensor() * (1.0 / losses as f64)).collect();
        self.apply(gradients)?;
        if let Some(accumulated) = &mut self.accumulated {
            accumulated.losses = 0;
        }
        Ok(())
    }

    /// All links: the shared ones first, then those of each group.
    fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.shared.iter_mut().chain(self.groups.iter_mut().flat_map(|group| &mut group.chain))
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The learning rate of the last group, which is the only one unless there are more, without its schedule.
    pub fn learning_rate(&self) -> f64 {
        self.groups.last().map_or(0.0, |group| group.learning_rate)
    }

    /// The learning rates of all groups, without their schedules.
    pub fn learning_rates(&self) -> Vec<f64> {
        self.groups.iter().map(|group| group.learning_rate).collect()
    }

    /// The learning rates that the next step takes, one per group: with the schedules.
    pub fn next_learning_rates(&self) -> Vec<f64> {
        self.groups.iter().map(|group| group.rate(self.steps)).collect()
    }

    /// Changes the learning rate of all groups for the steps to come.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.groups.iter_mut().for_each(|group| group.learning_rate = learning_rate);
    }

    /// Changes the learning rates of the groups, in order, for the steps to come; of groups beyond the last number nothing.
    pub fn set_learning_rates(&mut self, learning_rates: &[f64]) {
        for (group, &learning_rate) in self.groups.iter_mut().zip(learning_rates) {
            group.learning_rate = learning_rate;
        }
    }

    /// Gives all groups this schedule, in place of their own.
    pub fn set_schedule(&mut self, schedule: impl Into<Schedule>) {
        let schedule = schedule.into();
        self.groups.iter_mut().for_each(|group| group.schedule = Some(schedule.clone()));
    }

    /// Leaves elements that are not kept at zero from now on.
    pub(crate) fn set_kept(&mut self, kept: Vec<Option<Tensor>>) {
        self.kept = kept;
        self.routines.forget();
    }

    /// The schedules of all groups, which then have none.
    pub(crate) fn take_schedules(&mut self) -> Vec<Option<Schedule>> {
        self.groups.iter_mut().map(|group| group.schedule.take()).collect()
    }

    /// Gives groups back what was taken.
    pub(crate) fn put_schedules(&mut self, schedules: Vec<Option<Schedule>>) {
        self.groups.iter_mut().zip(schedules).for_each(|(group, schedule)| group.schedule = schedule);
    }

    /// Runs `body` with the weights to evaluate with in the parameters' place, and puts the parameters back. For most
    /// optimisers these are the parameters; with [`ScheduleFree`] they are averages, with [`Lookahead`] the slow weights.
    ///
    /// # Errors
    /// If weights cannot be computed; or as `body`.
    ///
    /// ```
    /// use gradus_nn::Linear;
    /// use gradus_tensor::{Device, Tensor};
    /// use gradus_train::ScheduleFreeAdamW;
    ///
    /// let model = Linear::from_tensors(Tensor::new([[1.0]], &Device::cpu()), None);
    /// let mut optimiser = ScheduleFreeAdamW::new(0.1).of(&model);
    /// let mut weight = || model.weight.tensor();
    /// optimiser.step(&weight().square().sum(..))?;
    /// let averaged = optimiser.evaluate(|| weight().item::<f32>())?;
    /// assert!((averaged - 0.9).abs() < 1e-6, "{averaged}");
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn evaluate<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let tensors = self.tensors();
        let mut weights = Vec::new();
        for group in &self.groups {
            let own: Vec<Tensor> = group.members.iter().map(|&member| tensors[member].clone()).collect();
            let last = group.chain.iter().rev().find_map(|link| link.transform.evaluation_weights(&own));
            for (&member, weight) in group.members.iter().zip(last.into_iter().flatten()) {
                let cell = self.parameters[member].1.cell().clone();
                weights.push((cell, weight.to_dtype(tensors[member].dtype())));
            }
        }
        drop(tensors);
        let _swapped = Swapped::new(weights)?;
        body()
    }
}

/// Cells that hold other tensors for a while; dropping it puts the first ones back.
pub(crate) struct Swapped(Vec<(Cell, Tensor)>);

impl Swapped {
    #[track_caller]
    pub(crate) fn new(values: Vec<(Cell, Tensor)>) -> Result<Swapped> {
        let before = values.iter().map(|(cell, _)| (cell.clone(), cell.tensor())).collect();
        assign(values)?;
        Ok(Swapped(before))
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        // Values that were there before: nothing is computed, and only a lost device, whose values are gone anyway, can fail.
        let _ = assign(std::mem::take(&mut self.0));
    }
}
