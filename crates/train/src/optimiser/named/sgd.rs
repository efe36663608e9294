//! Gradient descent.

use super::{Chain, Common, Rule, common_settings, scale};
use crate::Schedule;
use crate::optimiser::{Momentum, Optimiser, ScaleByTrustRatio, Select, Transform};
use gradus_nn::{Module, Param};
use std::sync::Arc;

/// Gradient descent, with momentum if wanted.
///
/// Plain gradient descent: `Sgd::new(0.01)`. See [`Optimiser`] for an example.
#[derive(Clone, Debug)]
pub struct Sgd {
    common: Common<Sgd>,
    momentum: Schedule,
    dampening: f64,
    nesterov: bool,
}

impl Sgd {
    /// `p ← p − learning_rate · gradient`.
    pub fn new(learning_rate: f64) -> Sgd {
        Sgd { common: Common::new(learning_rate), momentum: 0.0.into(), dampening: 0.0, nesterov: false }
    }

    /// Keeps this much of the last update: a number, or a schedule of the steps.
    pub fn momentum(self, decay: impl Into<Schedule>) -> Sgd {
        Sgd { momentum: decay.into(), ..self }
    }

    /// Takes this much less of the gradient into the momentum.
    pub fn dampening(self, dampening: f64) -> Sgd {
        Sgd { dampening, ..self }
    }

    /// Looks ahead along the momentum.
    pub fn nesterov(self) -> Sgd {
        Sgd { nesterov: true, ..self }
    }

    fn links(&self) -> Chain {
        let momentum = || Momentum::new(self.momentum.clone(), self.dampening, self.nesterov);
        let momentum = (!self.momentum.is(0.0)).then(|| Box::new(momentum()) as Box<dyn Transform>);
        self.common.coupled(momentum.into_iter().collect())
    }
}

/// Gradient descent whose steps are a share of each parameter's norm, for large batches (You, Gitman, Ginsburg 2017; as in
/// optax, whose momentum follows the learning rate).
#[derive(Clone, Debug)]
pub struct Lars {
    common: Common<Lars>,
    momentum: Schedule,
    nesterov: bool,
    trust: f64,
    epsilon: f64,
}

impl Lars {
    /// Momentum 0.9, a trust coefficient of 0.001, and no weight decay.
    pub fn new(learning_rate: f64) -> Lars {
        let common = Common::new(learning_rate);
        Lars { common, momentum: 0.9.into(), nesterov: false, trust: 1e-3, epsilon: 0.0 }
    }

    /// Keeps this much of the last update: a number, or a schedule of the steps.
    pub fn momentum(self, decay: impl Into<Schedule>) -> Lars {
        Lars { momentum: decay.into(), ..self }
    }

    /// Looks ahead along the momentum.
    pub fn nesterov(self) -> Lars {
        Lars { nesterov: true, ..self }
    }

    /// The share of a parameter's norm that a step of learning rate 1 takes.
    pub fn trust(self, coefficient: f64) -> Lars {
        Lars { trust: coefficient, ..self }
    }

    /// What is added to the norm of an update.
    pub fn epsilon(self, epsilon: f64) -> Lars {
        Lars { epsilon, ..self }
    }

    fn links(&self) -> Chain {
        let trust = ScaleByTrustRatio { coefficient: self.trust, epsilon: self.epsilon };
        let momentum = Momentum::new(self.momentum.clone(), 0.0, self.nesterov);
        let links: Chain = vec![Box::new(trust), scale(), Box::new(momentum)];
        self.common.decay().into_iter().chain(links).collect()
    }
}

common_settings! {
    Sgd: "Adds this much of each parameter to its gradient (an L2 penalty).";
    Lars: "Adds this much of each parameter to its gradient (an L2 penalty).";
}
