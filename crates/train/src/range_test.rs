//! The learning-rate range test.

use crate::picture::{Chart, Panel};
use crate::{Optimiser, Snapshot};
use gradus_nn::Module;
use gradus_tensor::{DType, Device, Error, ErrorKind, Result, Tensor};

/// Trains for a few steps with rates that grow exponentially, to see where the loss falls fastest and where it breaks down (Smith
/// 2017, section 3.3). Model and optimiser are then put back as they were.
///
/// ```
/// use gradus_nn::Linear;
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::{RangeTest, Sgd};
///
/// let model = Linear::from_tensors(Tensor::new([[1.0]], &Device::cpu()), None);
/// let mut optimiser = Sgd::new(0.01).of(&model);
/// let loss = || model.weight.tensor().square().sum(..);
/// let curve = RangeTest::new(1e-5, 10.0, 60).run(&model, &mut optimiser, loss)?;
/// // Above a rate of 1 the square's minimum is missed by more at each step.
/// let suggestion = curve.suggestion().expect("the loss falls");
/// assert!((0.001..1.0).contains(&suggestion), "{suggestion}");
/// curve.chart().to_svg();
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RangeTest {
    low: f64,
    high: f64,
    steps: usize,
    smoothing: f64,
    limit: f64,
}

impl RangeTest {
    /// From one rate to another, such as 10⁻⁷ to 10, in so many steps, such as 100. Losses are smoothed by a running mean that keeps
    /// 0.9 of itself, and it ends early where this is four times the lowest.
    pub fn new(low: f64, high: f64, steps: usize) -> RangeTest {
        RangeTest { low, high, steps, smoothing: 0.9, limit: 4.0 }
    }

    /// How much of itself the running mean of losses keeps, from 0 to below 1.
    pub fn smoothing(self, decay: f64) -> RangeTest {
        RangeTest { smoothing: decay, ..self }
    }

    /// Which multiple of the lowest smoothed loss ends it.
    pub fn limit(self, multiple: f64) -> RangeTest {
        RangeTest { limit: multiple, ..self }
    }

    /// Takes the steps. `loss` gives the loss of the next batch; all groups of the optimiser take the same rate.
    ///
    /// # Errors
    /// If the bounds are not `0 < low < high` or there are fewer than two steps, or a step fails; model and optimiser are put back
    /// in any case.
    #[track_caller]
    pub fn run(
        self,
        model: &(impl Module + ?Sized),
        optimiser: &mut Optimiser,
        mut loss: impl FnMut() -> Tensor,
    ) -> Result<RangeCurve> {
        let sound = self.low > 0.0 && self.high > self.low && self.high.is_finite() && self.steps >= 2;
        if !sound || !(0.0..1.0).contains(&self.smoothing) {
            let found = format!("{self:?}");
            let expected = "rates 0 < low < high, two steps at least, and a smoothing in 0..1";
            return Err(Error::new("range_test", ErrorKind::Argument { argument: "range", expected, found }));
        }
        let before = Snapshot::of(model)?;
        let mut state = optimiser.state();
        // Copies: what is held is not updated in place.
        state.tensors.iter_mut().for_each(|(_, tensor)| *tensor = &*tensor * 1.0);
        gradus_tensor::eval(state.tensors.iter().map(|(_, tensor)| tensor))?;
        let schedules = optimiser.take_schedules();
        let points = self.points(optimiser, &mut loss);
        optimiser.put_schedules(schedules);
        let restored = before.restore().and_then(|()| optimiser.load_state(&state));
        let points = points?;
        restored?;
        Ok(RangeCurve { points })
    }

    fn points(&self, optimiser: &mut Optimiser, loss: &mut dyn FnMut() -> Tensor) -> Result<Vec<RangePoint>> {
        let growth = (self.high / self.low).powf(1.0 / (self.steps - 1) as f64);
        let (mut mean, mut lowest) = (0.0, f64::INFINITY);
        let mut points = Vec::with_capacity(self.steps);
        for step in 0..self.steps {
            let rate = self.low * growth.powf(step as f64);
            optimiser.set_learning_rate(rate);
            let loss = loss();
            optimiser.step(&loss)?;
            let loss = loss.to_device(&Device::cpu()).to_dtype(DType::F64).item::<f64>()?;
            mean = mean * self.smoothing + loss * (1.0 - self.smoothing);
            let smoothed = mean / (1.0 - self.smoothing.powf(step as f64 + 1.0));
            points.push(RangePoint { rate, loss, smoothed });
            lowest = f64::min(lowest, smoothed);
            // From one below zero by as much.
            let margin = (self.limit - 1.0) * lowest.abs();
            if !loss.is_finite() || smoothed > lowest + margin {
                break;
            }
        }
        Ok(points)
    }
}

/// A step of a [`RangeTest`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangePoint {
    /// The learning rate of the step.
    pub rate: f64,
    /// The loss before it.
    pub loss: f64,
    /// The running mean of losses.
    pub smoothed: f64,
}

/// What a [`RangeTest`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeCurve {
    points: Vec<RangePoint>,
}

impl RangeCurve {
    /// The steps, from the lowest rate up; fewer than asked for if the loss broke down.
    pub fn points(&self) -> &[RangePoint] {
        &self.points
    }

    /// The rate at which the smoothed loss falls fastest over the rate's logarithm, before its lowest point: a good rate to start
    /// from, or the peak of a cycle. `None` if it falls nowhere.
    pub fn suggestion(&self) -> Option<f64> {
        let finite = self.points.iter().take_while(|point| point.smoothed.is_finite()).count();
        let points = &self.points[..finite];
        let lowest = (0..finite).min_by(|&a, &b| points[a].smoothed.total_cmp(&points[b].smoothed))?;
        let slope = |i: usize| points[i + 1].smoothed - points[i - 1].smoothed;
        let steepest = (1..lowest).min_by(|&a, &b| slope(a).total_cmp(&slope(b)))?;
        (slope(steepest) < 0.0).then_some(points[steepest].rate)
    }

    /// Losses over the logarithm of the rate, with the suggestion.
    pub fn chart(&self) -> Chart {
        let line = |value: fn(&RangePoint) -> f64| self.points.iter().map(move |p| (p.rate.log10(), value(p)));
        let panel = Panel::new("").labels("log₁₀ of the learning rate", "loss");
        let mut panel = panel.line("loss", line(|p| p.loss)).line("smoothed", line(|p| p.smoothed));
        if let Some(rate) = self.suggestion() {
            let at = self.points.iter().filter(|point| point.rate == rate);
            panel = panel.points(format!("suggestion {rate:.2e}"), at.map(|p| (p.rate.log10(), p.smoothed)));
        }
        Chart::new("Learning-rate range test").panel(panel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Adam, Schedule};
    use gradus_nn::Linear;

    fn square(model: &Linear) -> Tensor {
        model.weight.tensor().square().sum(..)
    }

    #[test]
    fn model_and_optimiser_are_put_back() -> Result<()> {
        let model = Linear::from_tensors(Tensor::new([[1.0, -2.0]], &Device::cpu()), None);
        let mut optimiser = Adam::new(0.25).schedule(Schedule::constant(0.5)).of(&model);
        (0..3).try_for_each(|_| optimiser.step(&square(&model)))?;
        let weights = model.weight.tensor().to_vec::<f32>()?;
        let curve = RangeTest::new(1e-6, 1e3, 50).run(&model, &mut optimiser, || square(&model))?;
        assert_eq!(model.weight.tensor().to_vec::<f32>()?, weights);
        assert_eq!((optimiser.steps(), optimiser.learning_rate()), (3, 0.25));
        assert_eq!(optimiser.next_learning_rates(), [0.125]);
        assert!(curve.points().len() < 50, "it breaks down");
        assert!(curve.chart().to_svg().contains("suggestion"));
        // Also if it fails.
        let wrong = || square(&model).reshape([7]);
        assert!(RangeTest::new(1e-6, 1.0, 5).run(&model, &mut optimiser, wrong).is_err());
        assert_eq!(optimiser.next_learning_rates(), [0.125]);
        // It goes on as if nothing had been.
        let twin = Linear::from_tensors(Tensor::new([[1.0, -2.0]], &Device::cpu()), None);
        let mut other = Adam::new(0.25).schedule(Schedule::constant(0.5)).of(&twin);
        (0..5).try_for_each(|_| other.step(&square(&twin)))?;
        (0..2).try_for_each(|_| optimiser.step(&square(&model)))?;
        assert_eq!(model.weight.tensor().to_vec::<f32>()?, twin.weight.tensor().to_vec::<f32>()?);
        Ok(())
    }

    #[test]
    fn ranges_are_checked_and_suggestions_are_where_it_falls() {
        let model = Linear::from_tensors(Tensor::new([[1.0]], &Device::cpu()), None);
        let mut optimiser = Adam::new(0.1).of(&model);
        for range in [
            RangeTest::new(0.0, 1.0, 9),
            RangeTest::new(1.0, 1.0, 9),
            RangeTest::new(1.0, f64::NAN, 9),
            RangeTest::new(0.1, 1.0, 1),
            RangeTest::new(0.1, 1.0, 9).smoothing(1.0),
        ] {
            assert!(range.run(&model, &mut optimiser, || square(&model)).is_err(), "{range:?}");
        }
        let curve = |losses: &[f64]| RangeCurve {
            points: losses
                .iter()
                .zip(1..)
                .map(|(&l, i)| RangePoint { rate: f64::from(i), loss: l, smoothed: l })
                .collect(),
        };
        assert_eq!(curve(&[5.0, 4.5, 3.0, 2.9, 2.8, 9.0, 1.0e9]).suggestion(), Some(2.0));
        assert_eq!(curve(&[1.0, 2.0, 3.0]).suggestion(), None);
        assert_eq!(curve(&[]).suggestion(), None);
        assert_eq!(curve(&[5.0, 4.0, 1.0, 0.5, f64::NAN]).suggestion(), Some(2.0));
    }
}
