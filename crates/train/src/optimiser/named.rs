//! The known optimisers, as chains.

use super::{
    AddDecayedWeights, ClipByNorm, ClipByValue, Momentum, Optimiser, ScaleByAdam, ScaleByLearningRate, Transform,
};
use gradus_nn::Module;

/// Clipping that comes before everything else.
#[derive(Clone, Copy, Debug, Default)]
struct Clipping {
    norm: Option<f64>,
    value: Option<f64>,
}

impl Clipping {
    fn chain(self) -> Vec<Box<dyn Transform>> {
        let norm = self.norm.map(|limit| Box::new(ClipByNorm { limit }) as Box<dyn Transform>);
        let value = self.value.map(|limit| Box::new(ClipByValue { limit }) as Box<dyn Transform>);
        norm.into_iter().chain(value).collect()
    }
}

/// Gradient descent, with momentum if wanted.
///
/// Plain gradient descent: `Sgd::new(0.01)`. See [`Optimiser`] for an example.
#[derive(Clone, Debug)]
pub struct Sgd {
    learning_rate: f64,
    momentum: f64,
    dampening: f64,
    nesterov: bool,
    weight_decay: f64,
    clipping: Clipping,
}

impl Sgd {
    /// `p ← p − learning_rate · gradient`.
    pub fn new(learning_rate: f64) -> Sgd {
        Sgd {
            learning_rate,
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            clipping: Clipping::default(),
        }
    }

    /// Keeps this much of the last update.
    pub fn momentum(mut self, decay: f64) -> Sgd {
        self.momentum = decay;
        self
    }

    /// Takes this much less of the gradient into the momentum.
    pub fn dampening(mut self, dampening: f64) -> Sgd {
        self.dampening = dampening;
        self
    }

    /// Looks ahead along the momentum.
    pub fn nesterov(mut self) -> Sgd {
        self.nesterov = true;
        self
    }

    /// Adds this much of each parameter to its gradient.
    pub fn weight_decay(mut self, rate: f64) -> Sgd {
        self.weight_decay = rate;
        self
    }

    /// Limits the norm of all gradients together.
    pub fn clip_norm(mut self, limit: f64) -> Sgd {
        self.clipping.norm = Some(limit);
        self
    }

    /// Limits every element of the gradients.
    pub fn clip_value(mut self, limit: f64) -> Sgd {
        self.clipping.value = Some(limit);
        self
    }

    /// The optimiser of a model's parameters.
    #[track_caller]
    pub fn of(self, model: &(impl Module + ?Sized)) -> Optimiser {
        let mut chain = self.clipping.chain();
        if self.weight_decay != 0.0 {
            chain.push(Box::new(AddDecayedWeights { rate: self.weight_decay }));
        }
        if self.momentum != 0.0 {
            chain.push(Box::new(Momentum::new(self.momentum, self.dampening, self.nesterov)));
        }
        chain.push(Box::new(ScaleByLearningRate));
        Optimiser::new(model, self.learning_rate, chain)
    }
}

/// Adam (Kingma, Ba 2015); with [`decoupled_weight_decay`](Adam::decoupled_weight_decay) AdamW.
///
/// ```
/// use gradus_nn::{Init, Linear};
/// use gradus_tensor::Device;
/// use gradus_train::Adam;
/// let model = Linear::new(2, 1, &Init::new(0, &Device::cpu()));
/// let optimiser = Adam::new(1e-3).decoupled_weight_decay(0.01).of(&model);
/// assert_eq!(optimiser.learning_rate(), 1e-3);
/// ```
#[derive(Clone, Debug)]
pub struct Adam {
    learning_rate: f64,
    betas: (f64, f64),
    epsilon: f64,
    weight_decay: f64,
    decoupled: bool,
    clipping: Clipping,
}

impl Adam {
    /// Decay rates 0.9 and 0.999, ε = 10⁻⁸.
    pub fn new(learning_rate: f64) -> Adam {
        Adam {
            learning_rate,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
            clipping: Clipping::default(),
        }
    }

    /// The decay rates of the running means of gradients and of their squares.
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Adam {
        self.betas = (beta1, beta2);
        self
    }

    /// What is added to the denominator.
    pub fn epsilon(mut self, epsilon: f64) -> Adam {
        self.epsilon = epsilon;
        self
    }

    /// Adds this much of each parameter to its gradient (an L2 penalty).
    pub fn weight_decay(mut self, rate: f64) -> Adam {
        (self.weight_decay, self.decoupled) = (rate, false);
        self
    }

    /// Shrinks each parameter by this much of the learning rate, apart from the gradient: AdamW (Loshchilov, Hutter 2019).
    pub fn decoupled_weight_decay(mut self, rate: f64) -> Adam {
        (self.weight_decay, self.decoupled) = (rate, true);
        self
    }

    /// Limits the norm of all gradients together.
    pub fn clip_norm(mut self, limit: f64) -> Adam {
        self.clipping.norm = Some(limit);
        self
    }

    /// Limits every element of the gradients.
    pub fn clip_value(mut self, limit: f64) -> Adam {
        self.clipping.value = Some(limit);
        self
    }

    /// The optimiser of a model's parameters.
    #[track_caller]
    pub fn of(self, model: &(impl Module + ?Sized)) -> Optimiser {
        let mut chain = self.clipping.chain();
        let decay = || Box::new(AddDecayedWeights { rate: self.weight_decay }) as Box<dyn Transform>;
        if self.weight_decay != 0.0 && !self.decoupled {
            chain.push(decay());
        }
        chain.push(Box::new(ScaleByAdam::new(self.betas.0, self.betas.1, self.epsilon)));
        if self.weight_decay != 0.0 && self.decoupled {
            chain.push(decay());
        }
        chain.push(Box::new(ScaleByLearningRate));
        Optimiser::new(model, self.learning_rate, chain)
    }
}
