//! Schedule-free optimisers.

use super::{Chain, Common, Rule, common_settings};
use crate::Schedule;
use crate::optimiser::{Optimiser, ScaleByRms, ScheduleFree, Select};
use gradus_nn::{Module, Param};
use std::sync::Arc;

/// AdamW without momentum whose weights are averaged, so that its rate needs no schedule but a warm-up (Defazio et al. 2024; as
/// in optax). The parameters are where gradients are taken; [`Optimiser::evaluate`] shows the averages. Rates may be larger
/// than AdamW's.
#[derive(Clone, Debug)]
pub struct ScheduleFreeAdamW {
    common: Common<ScheduleFreeAdamW>,
    betas: (f64, f64),
    epsilon: f64,
    power: f64,
}

impl ScheduleFreeAdamW {
    /// Decay rates 0.9 and 0.999, ε = 10⁻⁸, weights by the square of the rate, no weight decay.
    pub fn new(learning_rate: f64) -> ScheduleFreeAdamW {
        ScheduleFreeAdamW { common: Common::new(learning_rate), betas: (0.9, 0.999), epsilon: 1e-8, power: 2.0 }
    }

    /// How near to the average gradients are taken, and the decay rate of the running mean of squares.
    pub fn betas(self, beta1: f64, beta2: f64) -> ScheduleFreeAdamW {
        ScheduleFreeAdamW { betas: (beta1, beta2), ..self }
    }

    /// What is added to the denominator.
    pub fn epsilon(self, epsilon: f64) -> ScheduleFreeAdamW {
        ScheduleFreeAdamW { epsilon, ..self }
    }

    /// The power of the largest rate so far that weighs a step's weights in the average.
    pub fn power(self, power: f64) -> ScheduleFreeAdamW {
        ScheduleFreeAdamW { power, ..self }
    }

    fn links(&self) -> Chain {
        let mut chain = self.common.decoupled(vec![Box::new(ScaleByRms::new(self.betas.1, self.epsilon).corrected())]);
        chain.push(Box::new(ScheduleFree::new(self.betas.0, self.power)));
        chain
    }
}

common_settings! {
    ScheduleFreeAdamW: "Shrinks each parameter by this much of the learning rate, apart from the gradient.";
}
