//! Loss scaling for gradients of f16, and steps that are skipped.

use super::Optimiser;
use gradus_tensor::{Cell, DType, Device, Error, ErrorKind, Result, Tensor};

/// The least and the largest scale. Beyond them its own reciprocal, or a loss of some size, would leave f32.
const LIMITS: [f64; 2] = [1.0 / 16_777_216.0, 16_777_216.0];

/// By what losses are multiplied before gradients are taken, so that small gradients of f16 do not vanish (Micikevicius et al.,
/// "Mixed precision training", 2018, section 3.2). Gradients are divided by it as soon as they are f32.
///
/// Scales are within 2⁻²⁴ ..= 2²⁴, and powers of two round nothing.
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, autocast, mse_loss};
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::{LossScale, Sgd};
///
/// let device = Device::cpu();
/// let model = Linear::new(1, 1, &Init::new(0, &device));
/// let mut optimiser = Sgd::new(0.1).of(&model);
/// optimiser.scale_losses(LossScale::dynamic().interval(50));
/// let (x, y) = (Tensor::new([[0.0], [1.0]], &device), Tensor::new([[1.0], [3.0]], &device));
/// for _ in 0..200 {
///     let loss = autocast(|| mse_loss(&model.forward(&x), &y));
///     optimiser.step(&loss)?;
/// }
/// assert!((model.weight.tensor().item::<f32>()? - 2.0).abs() < 0.02);
/// // With the first scale the gradient is beyond f16.
/// assert!(optimiser.skipped_steps()? > 0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    initial: f64,
    growth: f64,
    backoff: f64,
    interval: u32,
}

impl LossScale {
    /// A scale that starts at 2¹⁶, is halved by a step whose gradients are not finite, and doubled by 2,000 good ones in a row:
    /// PyTorch's `GradScaler`.
    pub fn dynamic() -> LossScale {
        LossScale { initial: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000 }
    }

    /// A scale that stays as it is.
    pub fn fixed(scale: f64) -> LossScale {
        LossScale { initial: scale, growth: 1.0, backoff: 1.0, ..LossScale::dynamic() }
    }

    /// The same with another first scale.
    pub fn initial(self, scale: f64) -> LossScale {
        LossScale { initial: scale, ..self }
    }

    /// The same, multiplied by another factor (1 or more) when it grows.
    pub fn growth(self, factor: f64) -> LossScale {
        LossScale { growth: factor, ..self }
    }

    /// The same, multiplied by another factor (up to 1) after an overflow.
    pub fn backoff(self, factor: f64) -> LossScale {
        LossScale { backoff: factor, ..self }
    }

    /// The same with another number of good steps in a row after which it grows (at least 1).
    pub fn interval(self, steps: u32) -> LossScale {
        LossScale { interval: steps.max(1), ..self }
    }

    #[track_caller]
    fn check(&self) -> Result<()> {
        let LossScale { initial, growth, backoff, .. } = *self;
        let wrong = |argument, expected, found: f64| {
            Err(Error::new("scale_losses", ErrorKind::Argument { argument, expected, found: found.to_string() }))
        };
        if !(LIMITS[0]..=LIMITS[1]).contains(&initial) {
            return wrong("the initial scale", "within 2⁻²⁴ ..= 2²⁴", initial);
        }
        if !(growth >= 1.0 && growth.is_finite()) {
            return wrong("growth", "a number of at least 1", growth);
        }
        if !(backoff > 0.0 && backoff <= 1.0) {
            return wrong("backoff", "above 0, and at most 1", backoff);
        }
        Ok(())
    }
}

/// Steps without finite gradients, which are left out. All of it lives on the device: to know on the host whether a step
/// was good would mean to wait for it.
pub(super) struct Skipping {
    /// How many there were.
    skipped: Cell,
    scaling: Option<Scaling>,
}

struct Scaling {
    settings: LossScale,
    scale: Cell,
    /// How many steps in a row were good since the scale changed.
    good: Cell,
}

/// A cell of a single number.
fn number(value: f64, dtype: DType, device: &Device) -> Cell {
    Cell::buffer(Tensor::full([0usize; 0], value, (device, dtype)))
}

impl Skipping {
    fn new(device: &Device) -> Skipping {
        Skipping { skipped: number(0.0, DType::I32, device), scaling: None }
    }

    /// What is kept, by name.
    pub(super) fn cells(&self) -> Vec<(String, Cell)> {
        let mut cells = vec![("skipped_steps".to_string(), self.skipped.clone())];
        if let Some(Scaling { scale, good, .. }) = &self.scaling {
            cells.push(("loss_scale.scale".into(), scale.clone()));
            cells.push(("loss_scale.good_steps".into(), good.clone()));
        }
        cells
    }

    /// What is kept after a step whose gradients are finite, or not.
    pub(super) fn after(&self, finite: &Tensor) -> Vec<(Cell, Tensor)> {
        let skipped = self.skipped.tensor() + finite.logical_not().to_dtype(DType::I32);
        let mut assignments = vec![(self.skipped.clone(), skipped)];
        if let Some(Scaling { settings, scale, good }) = &self.scaling {
            let (old, count) = (scale.tensor(), good.tensor() + 1);
            let grows = count.ge(settings.interval);
            let grown = (&old * settings.growth).minimum(LIMITS[1]);
            let shrunk = (&old * settings.backoff).maximum(LIMITS[0]);
            let goes_on = finite.logical_and(grows.logical_not());
            assignments.push((scale.clone(), finite.where_(grows.where_(grown, old), shrunk)));
            assignments.push((good.clone(), goes_on.where_(count, 0)));
        }
        assignments
    }
}

/// A scale, multiplied to a loss and divided out of its gradients.
pub(super) struct Scaled(Tensor);

impl Scaled {
    /// The loss, in f32 where it is f16, times the scale.
    #[track_caller]
    pub(super) fn up(&self, loss: &Tensor) -> Tensor {
        let loss = loss.widened();
        &loss * self.0.to_dtype(loss.dtype())
    }

    /// A gradient of it, without the scale; what overflowed stays so.
    #[track_caller]
    pub(super) fn down(&self, gradient: &Tensor) -> Tensor {
        let gradient = gradient.widened();
        &gradient * self.0.recip().to_dtype(gradient.dtype())
    }
}

impl Optimiser {
    /// From now on losses are scaled before their gradients are taken ([`step`](Optimiser::step),
    /// [`gradients`](Optimiser::gradients), [`accumulate`](Optimiser::accumulate)), and steps without finite gradients are
    /// [skipped](Optimiser::skip_non_finite). Gradients that come back are without the scale.
    ///
    /// Scale and counts live on the device and are part of the [`state`](Optimiser::state): no step waits for another, and the
    /// scale is no part of a plan. A scale that does not make sense is an error of the first step.
    pub fn scale_losses(&mut self, scale: LossScale) {
        let Some((_, parameter)) = self.parameters.first() else { return };
        let tensor = parameter.master();
        let device = tensor.device();
        let skipping = self.skipping.get_or_insert_with(|| Skipping::new(device));
        let (first, good) = (number(scale.initial, DType::F32, device), number(0.0, DType::I32, device));
        skipping.scaling = Some(Scaling { settings: scale, scale: first, good });
        self.routines.forget();
    }

    /// Whether steps with a gradient that is not finite (an infinite loss, an overflow in f16) leave parameters and the state's
    /// tensors as they are. They are counted as steps all the same. It is off at first, as it costs a look at all gradients;
    /// where [losses are scaled](Optimiser::scale_losses) it is on.
    pub fn skip_non_finite(&mut self, skip: bool) {
        let scales = self.skipping.as_ref().is_some_and(|skipping| skipping.scaling.is_some());
        self.skipping = match (self.skipping.take(), self.parameters.first()) {
            (skipping, _) if scales => skipping,
            (None, Some((_, parameter))) if skip => Some(Skipping::new(parameter.master().device())),
            (skipping, _) => skipping.filter(|_| skip),
        };
        self.routines.forget();
    }

    /// How many steps were skipped since their gradients were not finite, read from the device; 0 where none would be.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn skipped_steps(&self) -> Result<u64> {
        let Some(skipping) = &self.skipping else { return Ok(0) };
        Ok(u64::try_from(skipping.skipped.tensor().item::<i32>()?).unwrap_or(0))
    }

    /// By what the next loss is multiplied, read from the device; 1 where [losses are not scaled](Optimiser::scale_losses).
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn loss_scale(&self) -> Result<f64> {
        match self.skipping.as_ref().and_then(|skipping| skipping.scaling.as_ref()) {
            Some(scaling) => Ok(f64::from(scaling.scale.tensor().item::<f32>()?)),
            None => Ok(1.0),
        }
    }

    /// The scale of the next loss, if there is one.
    #[track_caller]
    pub(super) fn scaled(&self) -> Result<Option<Scaled>> {
        let Some(scaling) = self.skipping.as_ref().and_then(|skipping| skipping.scaling.as_ref()) else {
            return Ok(None);
        };
        scaling.settings.check()?;
        Ok(Some(Scaled(scaling.scale.tensor())))
    }
}
