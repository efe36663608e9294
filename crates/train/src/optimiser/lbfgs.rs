//! L-BFGS for full batches.

use super::line_search::{Point, strong_wolfe};
use super::state::matched;
use gradus_autograd::grad;
use gradus_nn::{Module, Param};
use gradus_tensor::{Cell, DType, Device, Error, ErrorKind, Result, Tensor, assign, cat, eval, stack};
use std::collections::VecDeque;

/// Settings of L-BFGS (Nocedal, Wright 2006, Algorithm 7.5) with a line search for the strong Wolfe conditions. For losses that
/// are the same at each call: full batches, no dropout.
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, mse_loss};
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::Lbfgs;
///
/// let device = Device::cpu();
/// let model = Linear::new(1, 1, &Init::new(0, &device));
/// let (x, y) = (Tensor::new([[0.0], [1.0], [2.0]], &device), Tensor::new([[1.0], [3.0], [5.0]], &device));
/// let mut optimiser = Lbfgs::new().of(&model);
/// let progress = optimiser.minimise(20, || mse_loss(&model.forward(&x), &y))?;
/// assert!(progress.loss < 1e-8, "{progress:?}");
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lbfgs {
    history: usize,
    evaluations: usize,
    gradient_tolerance: f64,
    change_tolerance: f64,
}

impl Default for Lbfgs {
    fn default() -> Lbfgs {
        Lbfgs::new()
    }
}

impl Lbfgs {
    /// A history of ten steps, up to 25 evaluations for a step, and an end where no element of the gradient is larger than 10⁻⁷,
    /// or the loss changes by a share of less than 10⁻⁹.
    pub fn new() -> Lbfgs {
        Lbfgs { history: 10, evaluations: 25, gradient_tolerance: 1e-7, change_tolerance: 1e-9 }
    }

    /// From how many steps the curvature is estimated, at least one.
    pub fn history(self, steps: usize) -> Lbfgs {
        Lbfgs { history: steps.max(1), ..self }
    }

    /// How often the line search of one step may evaluate the loss.
    pub fn evaluations(self, most: usize) -> Lbfgs {
        Lbfgs { evaluations: most.max(1), ..self }
    }

    /// It has converged where no element of the gradient is larger.
    pub fn gradient_tolerance(self, tolerance: f64) -> Lbfgs {
        Lbfgs { gradient_tolerance: tolerance, ..self }
    }

    /// It has converged where a step changes the loss by a smaller share.
    pub fn change_tolerance(self, tolerance: f64) -> Lbfgs {
        Lbfgs { change_tolerance: tolerance, ..self }
    }

    /// The optimiser of a model's parameters.
    #[track_caller]
    pub fn of(self, model: &(impl Module + ?Sized)) -> LbfgsOptimiser {
        self.of_parameters(model.trainable_parameters())
    }

    /// The optimiser of some parameters, given with their paths: all of one device, and of one dtype.
    pub fn of_parameters(self, parameters: Vec<(String, Param)>) -> LbfgsOptimiser {
        let mut optimiser = LbfgsOptimiser { settings: self, parameters, pairs: VecDeque::new(), steps: 0, last: None };
        optimiser.forget();
        optimiser
    }
}

/// L-BFGS of some parameters, made by [`Lbfgs::of`].
pub struct LbfgsOptimiser {
    settings: Lbfgs,
    parameters: Vec<(String, Param)>,
    /// As many as the history has, the oldest first. Those that are not there yet are blank, so that all steps share their plan.
    pairs: VecDeque<Pair>,
    steps: u64,
    /// What is known of the point where the last step ended, and the versions of the parameters there.
    last: Option<(Evaluation, Vec<u64>)>,
}

/// A step, the change of the gradient that it made, and their product.
struct Pair {
    step: Tensor,
    change: Tensor,
    /// Infinite for a blank pair, which then has no share in anything.
    product: f64,
    /// The square of the change.
    square: f64,
}

impl Pair {
    fn is_blank(&self) -> bool {
        self.product.is_infinite()
    }
}

/// The loss and its gradient, flat.
#[derive(Clone)]
struct Evaluation {
    loss: f64,
    /// The relative rounding of the loss.
    rounding: f64,
    gradient: Tensor,
}

/// What came of a step of [`LbfgsOptimiser`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LbfgsProgress {
    /// The loss after the step.
    pub loss: f64,
    /// How often the loss was evaluated.
    pub evaluations: usize,
    /// Whether to go on.
    pub state: LbfgsStatus,
}

/// How an optimisation by L-BFGS stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbfgsStatus {
    /// The step made the loss smaller.
    Descending,
    /// The gradient or the change of the loss is below its tolerance.
    Converged,
    /// No lower point was found in the direction of descent: the loss is at the limit of its precision, not finite, or not the
    /// same at each call. The parameters are as before the step.
    Stalled,
}

/// What L-BFGS keeps from step to step, to be saved and loaded.
#[derive(Clone, Debug)]
pub struct LbfgsState {
    /// How many steps were taken.
    pub steps: u64,
    /// The steps of the history and the changes of the gradient, the oldest first: `0.step`, `0.change`, `1.step`, ….
    pub tensors: Vec<(String, Tensor)>,
}

impl LbfgsOptimiser {
    /// Steps until it no longer descends, at most `steps`; the evaluations of all steps come back together.
    ///
    /// # Errors
    /// As [`step`](LbfgsOptimiser::step).
    #[track_caller]
    pub fn minimise(&mut self, steps: usize, mut loss: impl FnMut() -> Tensor) -> Result<LbfgsProgress> {
        let mut evaluations = 0;
        for _ in 0..steps.max(1) - 1 {
            let progress = self.step(&mut loss)?;
            evaluations += progress.evaluations;
            if progress.state != LbfgsStatus::Descending {
                return Ok(LbfgsProgress { evaluations, ..progress });
            }
        }
        let progress = self.step(&mut loss)?;
        Ok(LbfgsProgress { evaluations: evaluations + progress.evaluations, ..progress })
    }

    /// One step: a direction from the history, and a line search along it, which calls `loss` several times.
    ///
    /// # Errors
    /// If a gradient cannot be taken or a run fails; the parameters are then as before.
    #[track_caller]
    pub fn step(&mut self, mut loss: impl FnMut() -> Tensor) -> Result<LbfgsProgress> {
        let mut evaluations = 0;
        let start = match self.last.take() {
            Some((known, versions)) if versions == self.versions() => known,
            _ => {
                evaluations += 1;
                self.evaluate(&mut loss, None)?.0
            }
        };
        let stop = |state, evaluations| Ok(LbfgsProgress { loss: start.loss, evaluations, state });
        let largest = numbers(&start.gradient.abs().max(..))?[0];
        if largest <= self.settings.gradient_tolerance {
            self.last = Some((start.clone(), self.versions()));
            return stop(LbfgsStatus::Converged, evaluations);
        }
        if !start.loss.is_finite() || !largest.is_finite() {
            return stop(LbfgsStatus::Stalled, evaluations);
        }
        let mut direction = self.direction(&start.gradient);
        let mut slope = self.slope(&start.gradient, &direction)?;
        if slope.is_nan() || slope >= 0.0 {
            // What the history says is of no use.
            self.forget();
            direction = -&start.gradient;
            direction.eval()?;
            slope = self.slope(&start.gradient, &direction)?;
        }
        // Without a history the gradient's length says nothing.
        let first = match self.is_blank() {
            true => (1.0 / numbers(&start.gradient.abs().sum(..))?[0]).min(1.0),
            false => 1.0,
        };
        let before = self.tensors();
        let from = self.flat(&before);
        from.eval()?;
        let begin = Point { at: 0.0, value: start.loss, slope, rest: start.clone() };
        let most = self.settings.evaluations;
        let mut search = |at: f64| {
            evaluations += 1;
            self.move_to(&(&from + &direction * at))?;
            let (evaluation, slope) = self.evaluate(&mut loss, Some(&direction))?;
            Ok(Point { at, value: evaluation.loss, slope, rest: evaluation })
        };
        // A sum rounds a few times.
        let noise = 8.0 * start.rounding * start.loss.abs();
        let found = strong_wolfe(&begin, noise, first, most, &mut search);
        let ended = match found {
            Ok(Some(point)) => self.move_to(&(&from + &direction * point.at)).map(|()| Some(point)),
            Ok(None) => self.restore(&before).map(|()| None),
            Err(error) => Err(error),
        };
        let Some(point) = ended.inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.restore(&before);
        })?
        else {
            // From the gradient alone there may be a way.
            let state = if self.is_blank() { LbfgsStatus::Stalled } else { LbfgsStatus::Descending };
            self.forget();
            return stop(state, evaluations);
        };
        self.remember(&start, &point, &direction)?;
        self.steps += 1;
        self.last = Some((point.rest.clone(), self.versions()));
        let change = (start.loss - point.value).abs();
        let still = change <= self.settings.change_tolerance * start.loss.abs().max(point.value.abs());
        let state = if still { LbfgsStatus::Converged } else { LbfgsStatus::Descending };
        Ok(LbfgsProgress { loss: point.value, evaluations, state })
    }

    /// Where to go: minus the gradient times the estimated inverse Hessian, by the two-loop recursion.
    fn direction(&self, gradient: &Tensor) -> Tensor {
        let mut direction = -gradient;
        let mut shares = Vec::with_capacity(self.pairs.len());
        for pair in self.pairs.iter().rev() {
            let share = pair.step.dot(&direction) * (1.0 / pair.product);
            direction = direction - &pair.change * &share;
            shares.push(share);
        }
        let last = self.pairs.back().filter(|last| !last.is_blank());
        direction = direction * last.map_or(1.0, |last| last.product / last.square);
        for (pair, share) in self.pairs.iter().zip(shares.iter().rev()) {
            let back = pair.change.dot(&direction) * (1.0 / pair.product);
            direction = direction + &pair.step * (share - back);
        }
        direction
    }

    /// Whether nothing is known of the curvature.
    fn is_blank(&self) -> bool {
        self.pairs.iter().all(Pair::is_blank)
    }

    /// Makes all pairs blank.
    fn forget(&mut self) {
        self.pairs.clear();
        self.fill_up();
    }

    /// Puts blank pairs in front of those that are there, each with buffers of its own: a plan knows which of its inputs are one.
    fn fill_up(&mut self) {
        let like = self.flat(&self.tensors());
        let zeros = || {
            let zeros = like.zeros_like();
            // One at a time. An error travels on in the tensor.
            let _ = zeros.eval();
            zeros
        };
        while self.pairs.len() < self.settings.history {
            self.pairs.push_front(Pair { step: zeros(), change: zeros(), product: f64::INFINITY, square: 1.0 });
        }
    }

    fn slope(&self, gradient: &Tensor, direction: &Tensor) -> Result<f64> {
        Ok(numbers(&gradient.dot(direction))?[0])
    }

    /// Keeps a step's pair, if the loss is curved upwards along it.
    fn remember(&mut self, start: &Evaluation, end: &Point<Evaluation>, direction: &Tensor) -> Result<()> {
        let (step, change) = (direction * end.at, &end.rest.gradient - &start.gradient);
        let products = stack(&[&step.dot(&change), &change.dot(&change)], 0);
        eval([&step, &change, &products])?;
        let [product, square] = numbers(&products)?[..] else {
            return Ok(());
        };
        if product > f64::EPSILON * square && product.is_finite() {
            self.pairs.pop_front();
            self.pairs.push_back(Pair { step, change, product, square });
        }
        Ok(())
    }

    /// The loss and its gradient where the parameters are, and the slope along a direction.
    #[track_caller]
    fn evaluate(&self, loss: &mut impl FnMut() -> Tensor, along: Option<&Tensor>) -> Result<(Evaluation, f64)> {
        let loss = loss();
        let parameters: Vec<Tensor> = self.parameters.iter().map(|(_, p)| p.tensor()).collect();
        let gradient = self.flat(&grad(&loss, &parameters)?);
        let slope = gradient.dot(along.unwrap_or(&gradient));
        eval([&loss, &gradient, &slope])?;
        let rounding = if loss.dtype() == DType::F64 { f64::EPSILON } else { f32::EPSILON.into() };
        Ok((Evaluation { loss: numbers(&loss)?[0], rounding, gradient }, numbers(&slope)?[0]))
    }

    fn tensors(&self) -> Vec<Tensor> {
        self.parameters.iter().map(|(_, parameter)| parameter.tensor().detach()).collect()
    }

    fn versions(&self) -> Vec<u64> {
        self.parameters.iter().map(|(_, parameter)| parameter.cell().version()).collect()
    }

    /// All tensors in one row.
    fn flat(&self, tensors: &[Tensor]) -> Tensor {
        let rows: Vec<Tensor> = tensors.iter().map(|tensor| tensor.widened().flatten()).collect();
        cat(&rows.iter().collect::<Vec<_>>(), 0)
    }

    fn move_to(&self, flat: &Tensor) -> Result<()> {
        let sizes: Vec<usize> = self.parameters.iter().map(|(_, p)| p.shape().numel()).collect();
        let parts = flat.split(0, &sizes);
        let values = self.parameters.iter().zip(parts).map(|((_, parameter), part)| {
            let dtype = parameter.tensor().dtype();
            (parameter.cell().clone(), part.reshape(parameter.shape()).to_dtype(dtype))
        });
        assign(values.collect::<Vec<_>>())
    }

    fn restore(&self, before: &[Tensor]) -> Result<()> {
        let values = self.parameters.iter().zip(before);
        assign(values.map(|((_, parameter), value)| (parameter.cell().clone(), value.clone())).collect::<Vec<_>>())
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What it keeps from step to step.
    pub fn state(&self) -> LbfgsState {
        let named = |(index, pair): (usize, &Pair)| {
            [(format!("{index}.step"), pair.step.clone()), (format!("{index}.change"), pair.change.clone())]
        };
        let known = self.pairs.iter().filter(|pair| !pair.is_blank());
        LbfgsState { steps: self.steps, tensors: known.enumerate().flat_map(named).collect() }
    }

    /// Goes back (or on) to a state, whose history may be no longer than this one's.
    ///
    /// # Errors
    /// If names are missing or too many, or a tensor has another shape or dtype; everything is then as before.
    #[track_caller]
    pub fn load_state(&mut self, state: &LbfgsState) -> Result<()> {
        let like = self.flat(&self.tensors()).zeros_like();
        let count = state.tensors.len() / 2;
        if count > self.settings.history {
            let (argument, expected) = ("state", "no more pairs than the history has");
            return Err(Error::new("load_state", ErrorKind::Argument { argument, expected, found: count.to_string() }));
        }
        let names = (0..count).flat_map(|index| [format!("{index}.step"), format!("{index}.change")]);
        let cells: Vec<(String, Cell)> = names.map(|name| (name, Cell::buffer(like.clone() * 1.0))).collect();
        assign(matched(&cells, &state.tensors)?)?;
        let mut pairs = VecDeque::with_capacity(count);
        for two in cells.chunks(2) {
            let (step, change) = (two[0].1.tensor(), two[1].1.tensor());
            let products = numbers(&stack(&[&step.dot(&change), &change.dot(&change)], 0))?;
            pairs.push_back(Pair { step, change, product: products[0], square: products[1] });
        }
        (self.pairs, self.steps, self.last) = (pairs, state.steps, None);
        self.fill_up();
        Ok(())
    }
}

/// The elements of a float tensor, in f64.
fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_device(&Device::cpu()).to_dtype(DType::F64).to_vec()
}
