//! Optimisers that look at signs alone.

use super::{Chain, Common, Rule, common_settings};
use crate::Schedule;
use crate::optimiser::{Optimiser, ScaleByLion, ScaleByRprop, Select, Transform};
use gradus_nn::{Module, Param};
use std::sync::Arc;

/// Steps of one size in the direction of the signs of a momentum (Chen et al. 2023). Its learning rate should be 3 to 10 times
/// smaller than AdamW's, its weight decay larger by as much.
#[derive(Clone, Debug)]
pub struct Lion {
    common: Common<Lion>,
    betas: (f64, f64),
}

impl Lion {
    /// Decay rates 0.9 and 0.99, no weight decay.
    pub fn new(learning_rate: f64) -> Lion {
        Lion { common: Common::new(learning_rate), betas: (0.9, 0.99) }
    }

    /// How much of the momentum is in the sign's mix, and the decay rate of the momentum.
    pub fn betas(self, beta1: f64, beta2: f64) -> Lion {
        Lion { betas: (beta1, beta2), ..self }
    }

    fn links(&self) -> Chain {
        self.common.decoupled(vec![Box::new(ScaleByLion::new(self.betas.0, self.betas.1))])
    }
}

/// Steps of each element's own size, which follow the signs of the gradient (Riedmiller, Braun 1993): for full batches. See
/// [`ScaleByRprop`]. Neither schedules nor later changes of the learning rate have an effect.
#[derive(Clone, Debug)]
pub struct Rprop {
    common: Common<Rprop>,
    factors: (f64, f64),
    sizes: (f64, f64),
}

impl Rprop {
    /// The learning rate is the size of the first step. Sizes shrink by 0.5 and grow by 1.2, between 10⁻⁶ and 50.
    pub fn new(learning_rate: f64) -> Rprop {
        Rprop { common: Common::new(learning_rate), factors: (0.5, 1.2), sizes: (1e-6, 50.0) }
    }

    /// What sizes are multiplied by where the gradient changes its sign, and where it keeps it.
    pub fn factors(self, shrink: f64, grow: f64) -> Rprop {
        Rprop { factors: (shrink, grow), ..self }
    }

    /// The bounds of sizes.
    pub fn sizes(self, least: f64, most: f64) -> Rprop {
        Rprop { sizes: (least, most), ..self }
    }

    fn links(&self) -> Chain {
        let link: Box<dyn Transform> = Box::new(ScaleByRprop::new(self.common.learning_rate, self.factors, self.sizes));
        self.common.decay().into_iter().chain([link]).collect()
    }
}

common_settings! {
    Lion: "Shrinks each parameter by this much of the learning rate, apart from the gradient.";
    Rprop: "Adds this much of each parameter to its gradient (an L2 penalty).";
}
