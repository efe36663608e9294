//! Dropout.

use crate::{Init, Layer, Mode, Module, watch};
use gradus_tensor::{Error, ErrorKind, Result, Rng, Shape, Tensor};

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

    /// The same layer with another probability.
    pub fn probability(self, p: f64) -> Dropout {
        Dropout { probability: p, ..self }
    }

    /// Whether it changes anything now (or would be an error).
    pub(super) fn is_active(&self) -> bool {
        self.mode.is_training() && self.probability != 0.0
    }

    /// What it does to `x` now.
    #[track_caller]
    fn plan(&self, op: &'static str) -> Result<Plan> {
        let p = self.probability;
        if !(0.0..=1.0).contains(&p) {
            let (expected, found) = ("a probability in 0..=1", p.to_string());
            return Err(Error::new(op, ErrorKind::Argument { argument: "p", expected, found }));
        }
        Ok(match self.mode.is_training() {
            false => Plan::Keep,
            true if p == 0.0 => Plan::Keep,
            true if p == 1.0 => Plan::Drop,
            true => Plan::Draw { keep: 1.0 - p },
        })
    }

    /// Sets the parts of `x` that share an element of a mask of this shape to zero, or scales them.
    #[track_caller]
    fn drop_parts(&self, op: &'static str, x: &Tensor, mask: impl FnOnce(&Tensor) -> Shape) -> Tensor {
        if x.error().is_some() {
            return x.clone();
        }
        match self.plan(op) {
            Err(error) => Tensor::build(x.device(), || Err(error)),
            Ok(Plan::Keep) => x.clone(),
            Ok(Plan::Drop) => x.zeros_like(),
            Ok(Plan::Draw { keep }) => {
                let kept = Tensor::bernoulli(mask(x), keep, self.rng.key(), x.device());
                kept.where_(x * (1.0 / keep), 0.0)
            }
        }
    }
}

/// What dropout does now.
enum Plan {
    Keep,
    Drop,
    Draw { keep: f64 },
}

impl Layer for Dropout {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(self.drop_parts("dropout", x, |x| x.shape().clone()))
    }
}

/// [`Dropout`] of whole channels of `[batch, channels, …]`: neighbours in an image are so alike that dropping single ones drops little
/// (Tompson et al. 2015).
///
/// ```
/// use gradus_nn::{Dropout2d, Init, Layer};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let y = Dropout2d::new(0.5, &Init::new(0, &device)).forward(&Tensor::ones([8, 16, 3, 3], &device));
/// let of_channels = y.mean([2, 3]).to_vec::<f32>()?;
/// assert!(of_channels.iter().all(|mean| *mean == 0.0 || *mean == 2.0));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Dropout2d(Dropout);

impl Dropout2d {
    /// Dropout with probability `p` in 0 ..= 1 (anything else is an error of the forward pass).
    pub fn new(p: f64, init: &Init) -> Dropout2d {
        Dropout2d(Dropout::new(p, init))
    }
}

impl Layer for Dropout2d {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(self.0.drop_parts("dropout2d", x, |x| leading(x, 2)))
    }
}

/// Stochastic depth (Huang et al. 2016): [`Dropout`] of whole examples, for a branch beside a residual connection, so that the
/// block is the identity for some examples in training.
///
/// ```
/// use gradus_nn::{DropPath, Init, Layer, Linear, Residual, Sequential};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let init = Init::new(0, &device);
/// let block = Residual(Sequential::new().then(Linear::new(4, 4, &init)).then(DropPath::new(1.0, &init)));
/// let x = Tensor::ones([2, 4], &device);
/// assert_eq!(block.forward(&x).to_vec::<f32>()?, x.to_vec::<f32>()?);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct DropPath(Dropout);

impl DropPath {
    /// A branch that is dropped with probability `p` in 0 ..= 1 (anything else is an error of the forward pass).
    pub fn new(p: f64, init: &Init) -> DropPath {
        DropPath(Dropout::new(p, init))
    }
}

impl Layer for DropPath {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        watch(self).output(self.0.drop_parts("drop_path", x, |x| leading(x, 1)))
    }
}

/// The first axes of a shape, with the others of extent 1.
fn leading(x: &Tensor, axes: usize) -> Shape {
    x.shape().iter().enumerate().map(|(axis, &extent)| if axis < axes { extent } else { 1 }).collect()
}

/// Dropout for networks of [`Selu`](crate::Selu): drops to the value that SELU tends to, and scales and shifts so that mean 0 and
/// variance 1 stay (Klambauer et al., "Self-normalizing neural networks", 2017).
#[derive(Clone, Debug, Module)]
pub struct AlphaDropout(Dropout);

impl AlphaDropout {
    /// Dropout with probability `p` in 0 ..= 1 (anything else is an error of the forward pass).
    pub fn new(p: f64, init: &Init) -> AlphaDropout {
        AlphaDropout(Dropout::new(p, init))
    }
}

impl Layer for AlphaDropout {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        /// −λα of SELU.
        const LEAST: f64 = -1.758_099_340_847_376_6;
        if x.error().is_some() {
            return x.clone();
        }
        let call = watch(self);
        call.output(match self.0.plan("alpha_dropout") {
            Err(error) => Tensor::build(x.device(), || Err(error)),
            Ok(Plan::Keep) => x.clone(),
            Ok(Plan::Drop) => x.zeros_like(),
            Ok(Plan::Draw { keep }) => {
                let kept = Tensor::bernoulli(x.shape(), keep, self.0.rng.key(), x.device());
                let scale = (keep * (1.0 + (1.0 - keep) * LEAST * LEAST)).sqrt().recip();
                let shift = -scale * (1.0 - keep) * LEAST;
                kept.where_(x * scale, scale * LEAST) + shift
            }
        })
    }
}
