//! Adam and its relatives.

use super::{Chain, Common, Rule, common_settings};
use crate::Schedule;
use crate::optimiser::{
    Optimiser, ScaleByAdaBelief, ScaleByAdam, ScaleByAdamax, ScaleByNadam, ScaleByRadam, ScaleByTrustRatio,
    ScaleByYogi, Select, Transform,
};
use gradus_nn::{Module, Param};
use std::sync::Arc;

/// Adam (Kingma, Ba 2015); with [`decoupled_weight_decay`](Adam::decoupled_weight_decay) AdamW.
///
/// ```
/// use gradus_nn::{Init, Linear};
/// use gradus_tensor::Device;
/// use gradus_train::{Adam, Schedule};
/// let model = Linear::new(2, 1, &Init::new(0, &Device::cpu()));
/// let optimiser = Adam::new(1e-3)
///     .decoupled_weight_decay(0.01)
///     .clip_norm(1.0)
///     .schedule(Schedule::cosine(1000, 0.0).after_warmup(100))
///     .group("*.bias", |adam| adam.decoupled_weight_decay(0.0).learning_rate(2e-3))
///     .of(&model);
/// assert_eq!(optimiser.learning_rates(), [2e-3, 1e-3]);
/// ```
#[derive(Clone, Debug)]
pub struct Adam {
    common: Common<Adam>,
    beta1: Schedule,
    beta2: f64,
    epsilon: f64,
    decoupled: bool,
    amsgrad: bool,
    nesterov: bool,
}

impl Adam {
    /// Decay rates 0.9 and 0.999, ε = 10⁻⁸.
    pub fn new(learning_rate: f64) -> Adam {
        Adam {
            common: Common::new(learning_rate),
            beta1: 0.9.into(),
            beta2: 0.999,
            epsilon: 1e-8,
            decoupled: false,
            amsgrad: false,
            nesterov: false,
        }
    }

    /// The decay rates of the running means of gradients and of their squares; the first may be a schedule of the steps.
    pub fn betas(self, beta1: impl Into<Schedule>, beta2: f64) -> Adam {
        Adam { beta1: beta1.into(), beta2, ..self }
    }

    /// What is added to the denominator.
    pub fn epsilon(self, epsilon: f64) -> Adam {
        Adam { epsilon, ..self }
    }

    /// Shrinks each parameter by this much of the learning rate, apart from the gradient: AdamW (Loshchilov, Hutter 2019).
    pub fn decoupled_weight_decay(self, rate: impl Into<Schedule>) -> Adam {
        Adam { decoupled: true, ..self }.weight_decay(rate)
    }

    /// Divides by the largest mean of squares so far: AMSGrad (Reddi et al. 2018).
    pub fn amsgrad(self) -> Adam {
        Adam { amsgrad: true, ..self }
    }

    /// Looks ahead along the mean: what optax calls NAdam. PyTorch's is [`NAdam`].
    pub fn nesterov(self) -> Adam {
        Adam { nesterov: true, ..self }
    }

    fn links(&self) -> Chain {
        let mut link = ScaleByAdam::new(self.beta1.clone(), self.beta2, self.epsilon);
        link = if self.amsgrad { link.amsgrad() } else { link };
        link = if self.nesterov { link.nesterov() } else { link };
        let links: Chain = vec![Box::new(link)];
        if self.decoupled { self.common.decoupled(links) } else { self.common.coupled(links) }
    }
}

/// Adam with decoupled weight decay (Loshchilov, Hutter 2019).
#[derive(Clone, Debug)]
pub struct AdamW {
    common: Common<AdamW>,
    beta1: Schedule,
    beta2: f64,
    epsilon: f64,
    amsgrad: bool,
}

impl AdamW {
    /// Decay rates 0.9 and 0.999, ε = 10⁻⁸, weight decay 0.01.
    pub fn new(learning_rate: f64) -> AdamW {
        let common = Common::new(learning_rate);
        AdamW { common, beta1: 0.9.into(), beta2: 0.999, epsilon: 1e-8, amsgrad: false }.weight_decay(0.01)
    }

    /// The decay rates of the running means of gradients and of their squares; the first may be a schedule of the steps.
    pub fn betas(self, beta1: impl Into<Schedule>, beta2: f64) -> AdamW {
        AdamW { beta1: beta1.into(), beta2, ..self }
    }

    /// What is added to the denominator.
    pub fn epsilon(self, epsilon: f64) -> AdamW {
        AdamW { epsilon, ..self }
    }

    /// Divides by the largest mean of squares so far (Reddi et al. 2018).
    pub fn amsgrad(self) -> AdamW {
        AdamW { amsgrad: true, ..self }
    }

    fn links(&self) -> Chain {
        let link = ScaleByAdam::new(self.beta1.clone(), self.beta2, self.epsilon);
        self.common.decoupled(vec![Box::new(if self.amsgrad { link.amsgrad() } else { link })])
    }
}

/// Defines optimisers with two decay rates and an ε, and nothing else but what is common.
macro_rules! with_betas {
    ($($(#[$doc:meta])* $name:ident $link:ident, $decay:ident, $epsilon:literal;)*) => {
        $(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            common: Common<$name>,
            betas: (f64, f64),
            epsilon: f64,
        }

        impl $name {
            #[doc = concat!("Decay rates 0.9 and 0.999, ε = ", stringify!($epsilon), ", no weight decay.")]
            pub fn new(learning_rate: f64) -> $name {
                $name { common: Common::new(learning_rate), betas: (0.9, 0.999), epsilon: $epsilon }
            }

            /// The decay rates of the running means of gradients and of their sizes.
            pub fn betas(self, beta1: f64, beta2: f64) -> $name {
                $name { betas: (beta1, beta2), ..self }
            }

            /// What is added to the denominator.
            pub fn epsilon(self, epsilon: f64) -> $name {
                $name { epsilon, ..self }
            }

            fn links(&self) -> Chain {
                self.common.$decay(vec![Box::new($link::new(self.betas, self.epsilon))])
            }
        }
        )*
    };
}
with_betas! {
    /// Adam that rectifies the variance of its first steps, and so needs no warm-up (Liu et al. 2020); see [`ScaleByRadam`].
    RAdam ScaleByRadam, coupled, 1e-8;
    /// Adam with the largest gradient in place of the mean of squares (Kingma, Ba 2015, section 7.1); see [`ScaleByAdamax`].
    Adamax ScaleByAdamax, coupled, 1e-8;
}

/// Adam with Nesterov's momentum, which grows with the steps (Dozat 2016; as in PyTorch); see [`ScaleByNadam`]. What optax calls
/// so is [`Adam::nesterov`].
#[derive(Clone, Debug)]
pub struct NAdam {
    common: Common<NAdam>,
    betas: (f64, f64),
    epsilon: f64,
    momentum_decay: f64,
}

impl NAdam {
    /// Decay rates 0.9 and 0.999, ε = 10⁻⁸, momentum decay 0.004, no weight decay.
    pub fn new(learning_rate: f64) -> NAdam {
        NAdam { common: Common::new(learning_rate), betas: (0.9, 0.999), epsilon: 1e-8, momentum_decay: 4e-3 }
    }

    /// The decay rates of the running means of gradients and of their squares.
    pub fn betas(self, beta1: f64, beta2: f64) -> NAdam {
        NAdam { betas: (beta1, beta2), ..self }
    }

    /// What is added to the denominator.
    pub fn epsilon(self, epsilon: f64) -> NAdam {
        NAdam { epsilon, ..self }
    }

    /// How fast the momentum grows from half of β₁ to β₁.
    pub fn momentum_decay(self, momentum_decay: f64) -> NAdam {
        NAdam { momentum_decay, ..self }
    }

    fn links(&self) -> Chain {
        self.common.coupled(vec![Box::new(ScaleByNadam::new(self.betas, self.epsilon, self.momentum_decay))])
    }
}

/// Adam that goes far where gradients are as expected (Zhuang et al. 2020); see [`ScaleByAdaBelief`].
#[derive(Clone, Debug)]
pub struct AdaBelief {
    common: Common<AdaBelief>,
    betas: (f64, f64),
    epsilon: f64,
    epsilon_root: f64,
}

impl AdaBelief {
    /// Decay rates 0.9 and 0.999, ε = 10⁻¹⁶ outside and inside of the root, no weight decay.
    pub fn new(learning_rate: f64) -> AdaBelief {
        AdaBelief { common: Common::new(learning_rate), betas: (0.9, 0.999), epsilon: 1e-16, epsilon_root: 1e-16 }
    }

    /// The decay rates of the running means of gradients and of their squared surprise.
    pub fn betas(self, beta1: f64, beta2: f64) -> AdaBelief {
        AdaBelief { betas: (beta1, beta2), ..self }
    }

    /// What is added to the denominator, outside and inside of the root.
    pub fn epsilons(self, epsilon: f64, epsilon_root: f64) -> AdaBelief {
        AdaBelief { epsilon, epsilon_root, ..self }
    }

    fn links(&self) -> Chain {
        let link = ScaleByAdaBelief::new(self.betas, self.epsilon, self.epsilon_root);
        self.common.decoupled(vec![Box::new(link)])
    }
}

/// Adam whose mean of squares changes slowly (Zaheer et al. 2018); see [`ScaleByYogi`].
#[derive(Clone, Debug)]
pub struct Yogi {
    common: Common<Yogi>,
    betas: (f64, f64),
    epsilon: f64,
    initial: f64,
}

impl Yogi {
    /// Decay rates 0.9 and 0.999, ε = 10⁻³, means that start at 10⁻⁶, no weight decay.
    pub fn new(learning_rate: f64) -> Yogi {
        Yogi { common: Common::new(learning_rate), betas: (0.9, 0.999), epsilon: 1e-3, initial: 1e-6 }
    }

    /// The decay rates of the running means of gradients and of their squares.
    pub fn betas(self, beta1: f64, beta2: f64) -> Yogi {
        Yogi { betas: (beta1, beta2), ..self }
    }

    /// What is added to the denominator.
    pub fn epsilon(self, epsilon: f64) -> Yogi {
        Yogi { epsilon, ..self }
    }

    /// Where both means start.
    pub fn initial(self, initial: f64) -> Yogi {
        Yogi { initial, ..self }
    }

    fn links(&self) -> Chain {
        self.common.decoupled(vec![Box::new(ScaleByYogi::new(self.betas, self.epsilon, self.initial))])
    }
}

/// Adam whose steps are scaled to each parameter's norm, for large batches (You et al. 2020, Algorithm 2).
#[derive(Clone, Debug)]
pub struct Lamb {
    common: Common<Lamb>,
    betas: (f64, f64),
    epsilon: f64,
}

impl Lamb {
    /// Decay rates 0.9 and 0.999, ε = 10⁻⁶, no weight decay.
    pub fn new(learning_rate: f64) -> Lamb {
        Lamb { common: Common::new(learning_rate), betas: (0.9, 0.999), epsilon: 1e-6 }
    }

    /// The decay rates of the running means of gradients and of their squares.
    pub fn betas(self, beta1: f64, beta2: f64) -> Lamb {
        Lamb { betas: (beta1, beta2), ..self }
    }

    /// What is added to the denominator.
    pub fn epsilon(self, epsilon: f64) -> Lamb {
        Lamb { epsilon, ..self }
    }

    fn links(&self) -> Chain {
        let adam: Box<dyn Transform> = Box::new(ScaleByAdam::new(self.betas.0, self.betas.1, self.epsilon));
        let trust: Box<dyn Transform> = Box::new(ScaleByTrustRatio { coefficient: 1.0, epsilon: 0.0 });
        [adam].into_iter().chain(self.common.decay()).chain([trust, super::scale()]).collect()
    }
}

common_settings! {
    Adam: "Adds this much of each parameter to its gradient (an L2 penalty), unless the decay is decoupled.";
    AdamW: "Shrinks each parameter by this much of the learning rate, apart from the gradient.";
    RAdam: "Adds this much of each parameter to its gradient (an L2 penalty).";
    Adamax: "Adds this much of each parameter to its gradient (an L2 penalty).";
    NAdam: "Adds this much of each parameter to its gradient (an L2 penalty).";
    AdaBelief: "Shrinks each parameter by this much of the learning rate, apart from the gradient.";
    Yogi: "Shrinks each parameter by this much of the learning rate, apart from the gradient.";
    Lamb: "Adds this much of each parameter to its update, before that is scaled to the parameter's norm.";
}
