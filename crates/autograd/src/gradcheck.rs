//! Gradients against finite differences.

use crate::Grad;
use gradus_tensor::graph::{Trace, trace};
use gradus_tensor::{Data, Error, ErrorKind, Key, Result, Tensor, reference};

/// Checks the gradients of `f` at `inputs` against finite differences, up to the given order (2: also the gradients of
/// gradients). `f` is recorded once; all arithmetic is then done by the f64 reference interpreter, with f32 promoted to
/// f64, so that it is the derivative rules that are checked and not rounding.
///
/// `f` must be smooth near the inputs, and must not read values.
///
/// ```
/// use gradus_autograd::gradcheck;
/// use gradus_tensor::{Device, Tensor};
/// let x = Tensor::new([[0.3, -1.2], [2.0, 0.1]], &Device::cpu());
/// gradcheck(|x| x[0].matmul(&x[0]).tanh().sum(..), &[x], 2)?;
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::GradCheck`] names the first element that differs; other errors are those of `f` and of `grad`.
#[track_caller]
pub fn gradcheck(f: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor], order: usize) -> Result<()> {
    GradCheck::default().order(order).check(f, inputs)
}

/// A gradient check with other steps or tolerances than [`gradcheck`]'s.
#[derive(Clone, Copy, Debug)]
pub struct GradCheck {
    order: usize,
    step: f64,
    tolerance: f64,
}

impl Default for GradCheck {
    fn default() -> GradCheck {
        GradCheck { order: 1, step: 1e-4, tolerance: 1e-6 }
    }
}

impl GradCheck {
    /// Derivatives up to this order (at least 1).
    pub fn order(mut self, order: usize) -> GradCheck {
        self.order = order.max(1);
        self
    }

    /// The distance of finite differences, relative to max(1, |x|).
    pub fn step(mut self, step: f64) -> GradCheck {
        self.step = step;
        self
    }

    /// The difference allowed, relative to the largest derivative of the input (and at least 1).
    pub fn tolerance(mut self, tolerance: f64) -> GradCheck {
        self.tolerance = tolerance;
        self
    }

    /// Checks `f` at `inputs`.
    ///
    /// # Errors
    /// As [`gradcheck`].
    #[track_caller]
    pub fn check(self, f: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]) -> Result<()> {
        let leaves: Vec<Tensor> = inputs.iter().map(Tensor::tracked).collect();
        let mut value = weighted(&f(&leaves), 0);
        for order in 1..=self.order {
            // Floats that the value depends on; gradients of the others are zero, and so must the differences be.
            let targets: Vec<&Tensor> = leaves.iter().filter(|t| t.dtype().is_float()).collect();
            let gradients = Grad::of(&value).allow_unused().wrt(targets.iter().copied())?;
            self.compare(&value, &gradients, &leaves, order)?;
            let parts: Vec<Tensor> = gradients.iter().enumerate().map(|(i, g)| weighted(g, order * 100 + i)).collect();
            value = parts.into_iter().reduce(|a, b| a + b).unwrap_or(value);
        }
        Ok(())
    }

    #[track_caller]
    fn compare(&self, value: &Tensor, gradients: &[Tensor], leaves: &[Tensor], order: usize) -> Result<()> {
        let loss = Promoted::new(trace(std::slice::from_ref(value), leaves)?)?;
        let analytic = Promoted::new(trace(gradients, leaves)?)?;
        let at = leaves.iter().map(Tensor::to_data).collect::<Result<Vec<Data>>>()?;
        let gradients = analytic.run(&at)?;
        let floats = (0..at.len()).filter(|&i| leaves[i].dtype().is_float());
        for (input, gradient) in floats.zip(gradients) {
            let centre: Vec<f64> = (0..at[input].len()).filter_map(|e| Some(at[input].get(e)?.to_f64())).collect();
            let scale = gradient.iter().fold(1.0, |m: f64, g| m.max(g.abs()));
            let tolerance = self.tolerance * scale;
            for (element, &analytic) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut values = centre.clone();
                    values[element] += by;
                    let mut at = at.clone();
                    at[input] = Data::F64(values);
                    Ok::<f64, Error>(loss.run(&at)?[0][0])
                };
                // The five-point stencil: its error falls with the fourth power of the step.
                let h = self.step * centre[element].abs().max(1.0);
                let numeric = (8.0 * (moved(h)? - moved(-h)?) - (moved(2.0 * h)? - moved(-2.0 * h)?)) / (12.0 * h);
                if (numeric - analytic).abs() > tolerance || numeric.is_nan() != analytic.is_nan() {
                    let kind = ErrorKind::GradCheck { order, input, element, analytic, numeric, tolerance };
                    return Err(Error::new("gradcheck", kind));
                }
            }
        }
        Ok(())
    }
}

/// A tensor as one number: the sum of its elements with fixed, different weights.
#[track_caller]
fn weighted(tensor: &Tensor, stream: usize) -> Tensor {
    let weights = Tensor::rand(tensor.shape(), Key::new(stream as u64), tensor) + 0.5;
    (tensor * weights).sum(..)
}

/// A graph whose floats are all f64, ready for the reference.
struct Promoted {
    trace: Trace,
    /// The data of all inputs.
    inputs: Vec<Data>,
}

impl Promoted {
    fn new(mut trace: Trace) -> Result<Promoted> {
        trace.graph = trace.graph.promoted();
        Ok(Promoted { inputs: trace.inputs.iter().map(Tensor::to_data).collect::<Result<_>>()?, trace })
    }

    /// Runs it with the first inputs replaced.
    fn run(&self, first: &[Data]) -> Result<Vec<Vec<f64>>> {
        let inputs: Vec<Data> = first.iter().chain(&self.inputs[first.len()..]).cloned().collect();
        let results = reference::run(&self.trace.graph, &inputs, &self.trace.scalars)?;
        Ok(results.into_iter().map(|array| array.values).collect())
    }
}
