//! Adam and its relatives: a running mean of the gradients over a measure of their size.

use super::{Clock, Step, Transform, correction, filled, running_mean, state_of, zeros};
use crate::Schedule;
use gradus_tensor::{Cell, Tensor};

/// The two running means that all of the family keep.
#[derive(Default)]
struct Moments {
    mean: Vec<Cell>,
    square: Vec<Cell>,
}

impl Moments {
    fn zeros(parameters: &[Tensor]) -> Moments {
        Moments { mean: zeros(parameters), square: zeros(parameters) }
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("mean", &self.mean).chain(state_of("square", &self.square)).collect()
    }

    /// Each update with its cells.
    fn zip(&self, updates: Vec<Tensor>) -> impl Iterator<Item = (Tensor, &Cell, &Cell)> {
        updates.into_iter().zip(&self.mean).zip(&self.square).map(|((update, mean), square)| (update, mean, square))
    }
}

/// The corrections of both means for their start at 0.
fn corrections((beta1, beta2): (f64, f64), clock: &Clock<'_>) -> Vec<f64> {
    vec![correction(beta1, clock.count()), correction(beta2, clock.count())]
}

/// Divides the running mean of the gradients by the root of the running mean of their squares, both corrected for their
/// start at 0 (Kingma, Ba 2015, Algorithm 1).
pub struct ScaleByAdam {
    beta1: Schedule,
    beta2: f64,
    epsilon: f64,
    nesterov: bool,
    moments: Moments,
    /// The largest running means of squares so far, for AMSGrad.
    largest: Option<Vec<Cell>>,
}

impl ScaleByAdam {
    /// Decay rates of the two means (the first may be a schedule), and what is added to the denominator.
    pub fn new(beta1: impl Into<Schedule>, beta2: f64, epsilon: f64) -> ScaleByAdam {
        let moments = Moments::default();
        ScaleByAdam { beta1: beta1.into(), beta2, epsilon, nesterov: false, moments, largest: None }
    }

    /// Divides by the root of the largest mean of squares so far (AMSGrad: Reddi et al. 2018, Algorithm 2, on means that are
    /// not corrected yet, as in PyTorch).
    pub fn amsgrad(self) -> ScaleByAdam {
        ScaleByAdam { largest: Some(Vec::new()), ..self }
    }

    /// Looks ahead along the mean (Dozat 2016, without a schedule of its own, as in optax).
    pub fn nesterov(self) -> ScaleByAdam {
        ScaleByAdam { nesterov: true, ..self }
    }
}

impl Transform for ScaleByAdam {
    fn init(&mut self, parameters: &[Tensor]) {
        self.moments = Moments::zeros(parameters);
        self.largest = self.largest.take().map(|_| zeros(parameters));
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        let (beta1, count) = (self.beta1.at(clock.number() - 1), clock.count());
        let correction1 = correction(beta1, count);
        // The factors of mean and gradient.
        let (of_mean, of_gradient) = match self.nesterov {
            true => (beta1 / correction(beta1, count + 1.0), (1.0 - beta1) / correction1),
            false => (1.0 / correction1, 0.0),
        };
        vec![beta1, 1.0 - beta1, of_mean, of_gradient, correction1, correction(self.beta2, count).sqrt()]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [beta1, rest1, of_mean, of_gradient, correction1, correction2] = step.numbers();
        let update = |(index, (gradient, mean, square)): (usize, (Tensor, &Cell, &Cell))| {
            let new = mean.tensor() * beta1 + &gradient * rest1;
            step.assign(mean, &new);
            let mut square = running_mean(square, &gradient.square(), self.beta2, step);
            if let Some(largest) = &self.largest {
                square = largest[index].tensor().maximum(square);
                step.assign(&largest[index], &square);
            }
            let mean = match self.nesterov {
                true => new * of_mean + gradient * of_gradient,
                false => new / correction1,
            };
            mean / (square.sqrt() / correction2 + self.epsilon)
        };
        self.moments.zip(updates).enumerate().map(update).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        let mut state = self.moments.state();
        state.extend(state_of("largest", self.largest.iter().flatten()));
        state
    }
}

/// Adam whose first mean looks ahead, with a momentum that grows towards β₁ (Dozat 2016; as in PyTorch, the momentum of step t
/// is β₁ (1 − 0.96^(t · decay) / 2)).
pub struct ScaleByNadam {
    betas: (f64, f64),
    epsilon: f64,
    momentum_decay: f64,
    moments: Moments,
}

impl ScaleByNadam {
    /// Decay rates of the two means, what is added to the denominator, and how fast the momentum grows.
    pub fn new(betas: (f64, f64), epsilon: f64, momentum_decay: f64) -> ScaleByNadam {
        ScaleByNadam { betas, epsilon, momentum_decay, moments: Moments::default() }
    }
}

impl Transform for ScaleByNadam {
    fn init(&mut self, parameters: &[Tensor]) {
        self.moments = Moments::zeros(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        let ((beta1, beta2), count) = (self.betas, clock.count());
        let momentum = |count: f64| beta1 * (1.0 - 0.5 * 0.96_f64.powf(count * self.momentum_decay));
        let (now, next) = (momentum(count), momentum(count + 1.0));
        // Rounded to f32, as PyTorch keeps it, so that both take the same steps to all their digits.
        let product = f64::from(clock.recall(0) as f32 * now as f32);
        clock.remember(0, product);
        vec![(1.0 - now) / (1.0 - product), next / (1.0 - product * next), correction(beta2, count)]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let ((beta1, beta2), [of_gradient, of_mean, correction2]) = (self.betas, step.numbers());
        let update = |(gradient, mean, square): (Tensor, &Cell, &Cell)| {
            let mean = running_mean(mean, &gradient, beta1, step);
            let square = running_mean(square, &gradient.square(), beta2, step);
            (gradient * of_gradient + mean * of_mean) / ((square / correction2).sqrt() + self.epsilon)
        };
        self.moments.zip(updates).map(update).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        self.moments.state()
    }

    fn remembered(&self) -> &'static [(&'static str, f64)] {
        &[("momentum_product", 1.0)]
    }
}

/// Adam that takes the plain mean while there are too few gradients to know their variance, and then corrects for how
/// uncertain it is (Liu et al. 2020, Algorithm 2).
pub struct ScaleByRadam {
    betas: (f64, f64),
    epsilon: f64,
    moments: Moments,
}

impl ScaleByRadam {
    /// Decay rates of the two means, and what is added to the denominator.
    pub fn new(betas: (f64, f64), epsilon: f64) -> ScaleByRadam {
        ScaleByRadam { betas, epsilon, moments: Moments::default() }
    }

    /// The rectification of step t, once the variance can be estimated.
    fn rectification(beta2: f64, count: f64) -> Option<f64> {
        let limit = 2.0 / (1.0 - beta2) - 1.0;
        let power = beta2.powf(count);
        let length = limit - 2.0 * count * power / (1.0 - power);
        let ratio = (length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length);
        (length > 5.0).then(|| ratio.sqrt())
    }
}

impl Transform for ScaleByRadam {
    fn init(&mut self, parameters: &[Tensor]) {
        self.moments = Moments::zeros(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        let ((beta1, beta2), count) = (self.betas, clock.count());
        // One expression for both kinds of steps, so that they share their plan: mean · a / (b · size + c).
        let (a, b, c) = match ScaleByRadam::rectification(beta2, count) {
            Some(rectification) => (correction(beta2, count).sqrt() * rectification, 1.0, 0.0),
            None => (1.0, 0.0, 1.0),
        };
        vec![a / correction(beta1, count), b, c]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let ((beta1, beta2), [a, b, c]) = (self.betas, step.numbers());
        let update = |(gradient, mean, square): (Tensor, &Cell, &Cell)| {
            let mean = running_mean(mean, &gradient, beta1, step);
            let square = running_mean(square, &gradient.square(), beta2, step);
            mean * a / ((square.sqrt() + self.epsilon) * b + c)
        };
        self.moments.zip(updates).map(update).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        self.moments.state()
    }
}

/// Divides the corrected mean of the gradients by the largest of them, which decays (Kingma, Ba 2015, Algorithm 2).
pub struct ScaleByAdamax {
    betas: (f64, f64),
    epsilon: f64,
    moments: Moments,
}

impl ScaleByAdamax {
    /// Decay rates of mean and largest gradient, and what is added to each gradient's magnitude.
    pub fn new(betas: (f64, f64), epsilon: f64) -> ScaleByAdamax {
        ScaleByAdamax { betas, epsilon, moments: Moments::default() }
    }
}

impl Transform for ScaleByAdamax {
    fn init(&mut self, parameters: &[Tensor]) {
        self.moments = Moments::zeros(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        vec![correction(self.betas.0, clock.count())]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let ((beta1, beta2), [correction]) = (self.betas, step.numbers());
        let update = |(gradient, mean, largest): (Tensor, &Cell, &Cell)| {
            let mean = running_mean(mean, &gradient, beta1, step);
            let size = (largest.tensor() * beta2).maximum(gradient.abs() + self.epsilon);
            step.assign(largest, &size);
            mean / correction / size
        };
        self.moments.zip(updates).map(update).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        let moments = &self.moments;
        state_of("mean", &moments.mean).chain(state_of("largest", &moments.square)).collect()
    }
}

/// Divides the corrected mean of the gradients by how far they are from it (Zhuang et al. 2020, Algorithm 2; as in optax, with
/// its second ε inside of the root and not in the running mean).
pub struct ScaleByAdaBelief {
    betas: (f64, f64),
    epsilon: f64,
    epsilon_root: f64,
    moments: Moments,
}

impl ScaleByAdaBelief {
    /// Decay rates of the two means, and what is added to the denominator, outside and inside of the root.
    pub fn new(betas: (f64, f64), epsilon: f64, epsilon_root: f64) -> ScaleByAdaBelief {
        ScaleByAdaBelief { betas, epsilon, epsilon_root, moments: Moments::default() }
    }
}

impl Transform for ScaleByAdaBelief {
    fn init(&mut self, parameters: &[Tensor]) {
        self.moments = Moments::zeros(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        corrections(self.betas, clock)
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let ((beta1, beta2), [correction1, correction2]) = (self.betas, step.numbers());
        let update = |(gradient, mean, square): (Tensor, &Cell, &Cell)| {
            let mean = running_mean(mean, &gradient, beta1, step);
            let square = running_mean(square, &(gradient - &mean).square(), beta2, step);
            (mean / correction1) / ((square / correction2 + self.epsilon_root).sqrt() + self.epsilon)
        };
        self.moments.zip(updates).map(update).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        self.moments.state()
    }
}

/// Adam whose mean of squares moves by no more than a share of the new square, so that it forgets slowly (Zaheer et al. 2018,
/// Algorithm 2; corrected for the start, as in optax).
pub struct ScaleByYogi {
    betas: (f64, f64),
    epsilon: f64,
    initial: f64,
    moments: Moments,
}

impl ScaleByYogi {
    /// Decay rates of the two means, what is added to the denominator, and where both means start.
    pub fn new(betas: (f64, f64), epsilon: f64, initial: f64) -> ScaleByYogi {
        ScaleByYogi { betas, epsilon, initial, moments: Moments::default() }
    }
}

impl Transform for ScaleByYogi {
    fn init(&mut self, parameters: &[Tensor]) {
        let start = || filled(parameters, self.initial);
        self.moments = Moments { mean: start(), square: start() };
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        corrections(self.betas, clock)
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let ((beta1, beta2), [correction1, correction2]) = (self.betas, step.numbers());
        let update = |(gradient, mean, cell): (Tensor, &Cell, &Cell)| {
            let mean = running_mean(mean, &gradient, beta1, step);
            let (old, new) = (cell.tensor(), gradient.square());
            let square = &old - (&old - &new).sign() * new * (1.0 - beta2);
            step.assign(cell, &square);
            (mean / correction1) / ((square / correction2).sqrt() + self.epsilon)
        };
        self.moments.zip(updates).map(update).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        self.moments.state()
    }
}
