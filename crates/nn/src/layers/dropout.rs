//! Dropout.

use crate::{Init, Layer, Mode, Module};
use gradus_tensor::{Error, ErrorKind, Rng, Tensor};

/// In training, sets each element to zero with probability `p` and scales the others by 1/(1 − p), so that the mean
/// stays (Srivastava et al. 2014); otherwise passes everything.
///
/// Each forward pass in training takes the next key from a source of the layer's own, split from the initialiser's: the
/// same seed drops the same elements, and the source's [state](Rng::state) is part of the module's state.
#[derive(Clone, Debug, Module)]
pub struct Dropout {
    probability: f64,
    rng: Rng,
    mode: Mode,
}

impl Dropout {
    /// Dropout with probability `p` in 0 ..= 1 (anything else is an error of the forward pass).
    pub fn new(p: f64, init: &Init) -> Dropout {
        Dropout { probability: p, rng: init.rng().split(), mode: Mode::training() }
    }
}

impl Layer for Dropout {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let p = self.probability;
        if !(0.0..=1.0).contains(&p) {
            let (expected, found) = ("a probability in 0..=1", p.to_string());
            let kind = ErrorKind::Argument { argument: "p", expected, found };
            return Tensor::build(x.device(), || Err(Error::new("dropout", kind)));
        }
        if !self.mode.is_training() || p == 0.0 {
            return x.clone();
        }
        if p == 1.0 {
            return x.zeros_like();
        }
        let keep = Tensor::bernoulli(x.shape(), 1.0 - p, self.rng.key(), x.device());
        keep.where_(x * (1.0 / (1.0 - p)), 0.0)
    }
}
