//! Optimisers that scale by the size of gradients alone.

use super::{Chain, Common, Rule, common_settings};
use crate::Schedule;
use crate::optimiser::{Momentum, Optimiser, ScaleByAdadelta, ScaleByAdafactor, ScaleByAdagrad, ScaleByRms, Select};
use gradus_nn::{Module, Param};
use std::sync::Arc;

/// Divides by the root of the running mean of squares (Tieleman, Hinton 2012), with momentum and centring (Graves 2013) if
/// wanted.
#[derive(Clone, Debug)]
pub struct RmsProp {
    common: Common<RmsProp>,
    decay: f64,
    epsilon: f64,
    momentum: Schedule,
    centred: bool,
}

impl RmsProp {
    /// A decay rate of 0.99, ε = 10⁻⁸, no momentum, no weight decay.
    pub fn new(learning_rate: f64) -> RmsProp {
        let common = Common::new(learning_rate);
        RmsProp { common, decay: 0.99, epsilon: 1e-8, momentum: 0.0.into(), centred: false }
    }

    /// The decay rate of the running mean of squares.
    pub fn decay(self, decay: f64) -> RmsProp {
        RmsProp { decay, ..self }
    }

    /// What is added to the denominator.
    pub fn epsilon(self, epsilon: f64) -> RmsProp {
        RmsProp { epsilon, ..self }
    }

    /// Keeps this much of the last update: a number, or a schedule of the steps.
    pub fn momentum(self, decay: impl Into<Schedule>) -> RmsProp {
        RmsProp { momentum: decay.into(), ..self }
    }

    /// Divides by the root of the variance instead of the mean of squares.
    pub fn centred(self) -> RmsProp {
        RmsProp { centred: true, ..self }
    }

    fn links(&self) -> Chain {
        let link = ScaleByRms::new(self.decay, self.epsilon);
        let mut links: Chain = vec![Box::new(if self.centred { link.centred() } else { link })];
        if !self.momentum.is(0.0) {
            links.push(Box::new(Momentum::new(self.momentum.clone(), 0.0, false)));
        }
        self.common.coupled(links)
    }
}

/// Divides by the root of the sum of all squares so far: for sparse features (Duchi et al. 2011).
#[derive(Clone, Debug)]
pub struct Adagrad {
    common: Common<Adagrad>,
    rate_decay: f64,
    initial: f64,
    epsilon: f64,
}

impl Adagrad {
    /// ε = 10⁻¹⁰, sums that start at 0, no decay of rate or weights.
    pub fn new(learning_rate: f64) -> Adagrad {
        Adagrad { common: Common::new(learning_rate), rate_decay: 0.0, initial: 0.0, epsilon: 1e-10 }
    }

    /// Divides the rate of step t by 1 + (t − 1) · this.
    pub fn rate_decay(self, rate_decay: f64) -> Adagrad {
        Adagrad { rate_decay, ..self }
    }

    /// Where the sums start.
    pub fn initial(self, initial: f64) -> Adagrad {
        Adagrad { initial, ..self }
    }

    /// What is added to the denominator.
    pub fn epsilon(self, epsilon: f64) -> Adagrad {
        Adagrad { epsilon, ..self }
    }

    fn links(&self) -> Chain {
        self.common.coupled(vec![Box::new(ScaleByAdagrad::new(self.epsilon, self.initial, self.rate_decay))])
    }
}

/// Steps of the size that steps had, over that of the gradients (Zeiler 2012): the learning rate is usually 1.
#[derive(Clone, Debug)]
pub struct Adadelta {
    common: Common<Adadelta>,
    decay: f64,
    epsilon: f64,
}

impl Adadelta {
    /// A decay rate of 0.9, ε = 10⁻⁶, no weight decay.
    pub fn new(learning_rate: f64) -> Adadelta {
        Adadelta { common: Common::new(learning_rate), decay: 0.9, epsilon: 1e-6 }
    }

    /// The decay rate of both running means.
    pub fn decay(self, decay: f64) -> Adadelta {
        Adadelta { decay, ..self }
    }

    /// What is added inside of both roots; it sets the size of the first steps.
    pub fn epsilon(self, epsilon: f64) -> Adadelta {
        Adadelta { epsilon, ..self }
    }

    fn links(&self) -> Chain {
        self.common.coupled(vec![Box::new(ScaleByAdadelta::new(self.decay, self.epsilon))])
    }
}

/// Little state and steps relative to the parameters' size, for large models (Shazeer, Stern 2018); see [`ScaleByAdafactor`].
#[derive(Clone, Debug)]
pub struct Adafactor {
    common: Common<Adafactor>,
    decay: f64,
    epsilons: (f64, f64),
    clip: f64,
}

impl Adafactor {
    /// The learning rate is the largest relative step, such as 0.01. An exponent of −0.8 for the decay, squares of at least
    /// 10⁻²⁴, parameters that count as at least 10⁻³, updates of a root mean square up to 1, no weight decay.
    pub fn new(learning_rate: f64) -> Adafactor {
        let (common, epsilons) = (Common::new(learning_rate), (1e-12, 1e-3));
        Adafactor { common, decay: -0.8, epsilons, clip: 1.0 }
    }

    /// The exponent d of the decay rate 1 − tᵈ.
    pub fn decay(self, exponent: f64) -> Adafactor {
        Adafactor { decay: exponent, ..self }
    }

    /// The root of what squares are at least, and the least root mean square that a parameter counts with.
    pub fn epsilons(self, of_squares: f64, of_parameters: f64) -> Adafactor {
        Adafactor { epsilons: (of_squares, of_parameters), ..self }
    }

    /// The largest root mean square of an update.
    pub fn clip(self, largest: f64) -> Adafactor {
        Adafactor { clip: largest, ..self }
    }

    fn links(&self) -> Chain {
        let link = ScaleByAdafactor::new(self.decay, self.epsilons, self.clip);
        let decay = self.common.weight_decay.clone();
        vec![Box::new(decay.into_iter().fold(link, ScaleByAdafactor::weight_decay))]
    }
}

common_settings! {
    RmsProp: "Adds this much of each parameter to its gradient (an L2 penalty).";
    Adagrad: "Adds this much of each parameter to its gradient (an L2 penalty).";
    Adadelta: "Adds this much of each parameter to its gradient (an L2 penalty).";
    Adafactor: "Shrinks each parameter by this much of the learning rate, apart from the gradient.";
}
