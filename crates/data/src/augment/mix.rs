//! Two examples in one: mixup and CutMix.

use super::{argument, extents, float, grid};
use gradus_tensor::{DType, Device, Error, ErrorKind, Key, Result, Tensor};
use std::f64::consts::TAU;

/// Mixes each example of a batch with another one: `λ a + (1 − λ) b` (Zhang et al.: "mixup: Beyond empirical risk minimization",
/// 2018). λ is from Beta(α, α), one for the batch, or one for each example. Examples are of any shape: images, rows of a table.
///
/// ```
/// use gradus_data::augment::Mixup;
/// use gradus_tensor::{Device, Key, Tensor};
/// let (x, y) = (Tensor::rand([4, 10], Key::new(0), &Device::cpu()), Tensor::new([0, 1, 2, 1], &Device::cpu()));
/// let mixed = Mixup::new(0.2).apply(&x, Key::new(1));
/// assert_eq!(mixed.inputs.shape(), x.shape());
/// // Labels of classes become probabilities, which cross-entropy takes too.
/// assert_eq!(mixed.soft_labels(&y, 3).shape()[..], [4, 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixup {
    alpha: f64,
    per_example: bool,
}

/// Replaces a rectangle of each image by that of another one (Yun et al.: "CutMix", 2019), of (1 − λ) of the area before it is
/// cut at the edges, where λ is from Beta(α, α). There is one rectangle for the batch, or one for each image.
///
/// ```
/// use gradus_data::augment::CutMix;
/// use gradus_tensor::{Device, Key, Tensor};
/// let (x, y) = (Tensor::rand([4, 3, 8, 8], Key::new(0), &Device::cpu()), Tensor::new([0, 1, 2, 1], &Device::cpu()));
/// let mixed = CutMix::new(1.0).apply(&x, Key::new(1));
/// let (own, other) = mixed.labels(&y);
/// assert_eq!((own.shape(), other.shape(), mixed.weight.shape()), (y.shape(), y.shape(), y.shape()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CutMix {
    alpha: f64,
    per_example: bool,
}

/// A batch of mixed examples, and how to mix what belongs to them.
#[derive(Clone, Debug)]
pub struct Mixed {
    /// The mixed examples.
    pub inputs: Tensor,
    /// Which example each was mixed with, `[n]` (i32).
    pub partner: Tensor,
    /// How much each is still itself, in 0 ..= 1, `[n]` (f32); its partner is the rest.
    pub weight: Tensor,
}

impl Mixed {
    /// The labels of the examples and those of their partners: for a loss that is the sum of both, weighted.
    #[track_caller]
    pub fn labels(&self, labels: &Tensor) -> (Tensor, Tensor) {
        (labels.clone(), labels.index_select(0, &self.partner))
    }

    /// Classes `[n]` (i32 or u32) as probabilities `[n, classes]` (f32): the weight at the example's own class, the rest at its
    /// partner's.
    #[track_caller]
    pub fn soft_labels(&self, labels: &Tensor, classes: usize) -> Tensor {
        self.blend(&labels.one_hot(classes, DType::F32))
    }

    /// What belongs to the examples, `[n, …]` of a float dtype, mixed as they are: targets of a regression, or probabilities.
    #[track_caller]
    pub fn blend(&self, targets: &Tensor) -> Tensor {
        mixed(targets, &self.partner, &self.weight)
    }
}

/// `w x + (1 − w) x[partner]`.
fn mixed(x: &Tensor, partner: &Tensor, weight: &Tensor) -> Tensor {
    Tensor::build(x.device(), || {
        if let Some(error) = x.error().or(weight.error()) {
            return Err(error.clone());
        }
        float("mixup", x)?;
        let (other, wide) = (x.index_select(0, partner).widened(), x.widened());
        let mut of_rows = vec![1; x.rank()];
        if let (Some(first), &[n]) = (of_rows.first_mut(), &weight.shape()[..]) {
            *first = n;
        }
        let weight = weight.reshape(of_rows).to_dtype(wide.dtype());
        Ok((&other + (wide - &other) * weight).to_dtype(x.dtype()))
    })
}

impl Mixup {
    /// With the parameter of the Beta distribution, above 0: of a small one most examples stay nearly themselves, 1 makes all
    /// mixtures equally likely.
    pub fn new(alpha: f64) -> Mixup {
        Mixup { alpha, per_example: false }
    }

    /// A λ for each example.
    pub fn per_example(self) -> Mixup {
        Mixup { per_example: true, ..self }
    }

    /// The examples `[n, …]`, mixed. Keys 0 and 1 of this one give λ, key 2 who is mixed with whom.
    #[track_caller]
    pub fn apply(&self, x: &Tensor, key: Key) -> Mixed {
        const OP: &str = "Mixup";
        let parts = count(OP, x).and_then(|n| {
            float(OP, x)?;
            let weight = beta(OP, self.alpha, if self.per_example { n } else { 1 }, key, x.device())?;
            Ok((partners(n, key, x.device()), weight.broadcast_to([n])))
        });
        match parts {
            Ok((partner, weight)) => Mixed { inputs: mixed(x, &partner, &weight), partner, weight },
            Err(error) => failed(x, error),
        }
    }
}

impl CutMix {
    /// With the parameter of the Beta distribution, above 0.
    pub fn new(alpha: f64) -> CutMix {
        CutMix { alpha, per_example: false }
    }

    /// A λ and a rectangle for each image.
    pub fn per_example(self) -> CutMix {
        CutMix { per_example: true, ..self }
    }

    /// The images `[n, channels, height, width]`, mixed; the weight is the part of the area that is an image's own. Keys 0 and 1 of
    /// this one give λ, key 2 who is mixed with whom, 3 and 4 the middle of the rectangle, anywhere in the image.
    #[track_caller]
    pub fn apply(&self, x: &Tensor, key: Key) -> Mixed {
        const OP: &str = "CutMix";
        let parts = extents(OP, x).and_then(|[n, _, h, w]| {
            let count = if self.per_example { n } else { 1 };
            let lambda = beta(OP, self.alpha, count, key, x.device())?.reshape([count, 1, 1, 1]);
            let side = (1.0f64 - lambda).sqrt();
            // From a whole row to another, as far from the middle either way, within the image.
            let between = |extent: usize, number| {
                let middle = (Tensor::rand([count, 1, 1, 1], key.fold_in(number), x.device()) * extent as f64).floor();
                let half = (&side * (extent as f64 / 2.0)).floor();
                ((&middle - &half).clamp(0.0, extent as f64), (middle + half).clamp(0.0, extent as f64))
            };
            let ((top, bottom), (left, right)) = (between(h, 3), between(w, 4));
            let (row, column) = grid(h, w, DType::F32, x);
            let of_rows = row.ge(&top).logical_and(row.lt(&bottom));
            let cut = of_rows.logical_and(column.ge(&left).logical_and(column.lt(&right)));
            let partner = partners(n, key, x.device());
            let inputs = cut.where_(x.index_select(0, &partner), x);
            let area = (bottom - top) * (right - left) / ((h * w) as f64);
            let weight = (1.0f64 - area).reshape([count]).broadcast_to([n]);
            Ok(Mixed { inputs, partner, weight })
        });
        parts.unwrap_or_else(|error| failed(x, error))
    }
}

fn failed(x: &Tensor, error: Error) -> Mixed {
    let failed = Tensor::build(x.device(), || Err(error));
    Mixed { inputs: failed.clone(), partner: failed.clone(), weight: failed }
}

/// How many examples there are.
fn count(op: &'static str, x: &Tensor) -> Result<usize> {
    if let Some(error) = x.error() {
        return Err(error.clone());
    }
    let wrong = || ErrorKind::Rank { expected: "at least rank 1".into(), shape: x.shape().clone() };
    x.shape().first().copied().ok_or_else(|| Error::new(op, wrong()))
}

/// All examples in random order.
fn partners(n: usize, key: Key, device: &Device) -> Tensor {
    Tensor::rand([n], key.fold_in(2), device).argsort(0, false)
}

/// Numbers from Beta(α, α), `[count]`, without a loop that ends at random: with U and V uniform, √(ν (U^(−2/ν) − 1)) cos 2πV has
/// Student's distribution of ν degrees of freedom for any ν (Bailey: "Polar generation of random variates with the
/// t-distribution", 1994), and if T has that of 2α, ½ + ½ T / √(2α + T²) has the wanted one (Devroye: "Non-uniform random variate
/// generation", 1986, IX.4). With q = U^(1/α) and c = cos 2πV this is ½ + ½ c √((1 − q) / (q + c² (1 − q))).
fn beta(op: &'static str, alpha: f64, count: usize, key: Key, device: &Device) -> Result<Tensor> {
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(argument(op, "alpha", alpha.to_string(), "a number above 0"));
    }
    let u = Tensor::rand([count], key.fold_in(0), device);
    let c = (Tensor::rand([count], key.fold_in(1), device) * TAU).cos();
    // 1 − u is never 0, but the power may be, and c with it.
    let q = ((1.0f64 - u).log() / alpha).exp();
    let rest = 1.0f64 - &q;
    let spread = (&rest / (q + c.square() * &rest).maximum(1e-30)).sqrt();
    Ok(((c * spread).clamp(-1.0, 1.0) + 1.0) * 0.5)
}
