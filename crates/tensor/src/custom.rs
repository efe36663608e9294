//! Ops that a user writes.

use crate::error::{Error, Result};
use crate::graph::with_rule;
use crate::tensor::{here, recorded_at};
use crate::{Device, GradientRule, Tensor, no_grad};
use gradus_ir::op::Op;
use gradus_ir::op::custom::{
    CpuFunction, Custom, CustomError, CustomInput, CustomOutput, Definition, GridFunction, ShapeFunction, Wgsl,
};
use gradus_ir::{DType, Error as ErrorKind, Shape};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

type GradientFunction = Box<dyn Fn(&[Tensor], &Tensor, &Tensor) -> Vec<Option<Tensor>> + Send + Sync>;

/// An op of your own: a function for the CPU, WGSL for GPUs, or both, and a gradient.
///
/// To everything around it, it is an op like any other: lazy, differentiable if it has a gradient, planned once for a loop.
/// It is always a kernel of its own, whose operands are stored, row-major arrays: nothing is fused into it. Define it once and
/// [`apply`](CustomOp::apply) it often; it must always give the same for the same operands, since what is equal is computed
/// once.
///
/// ```
/// use gradus_tensor::{CustomOp, DType, Device, Tensor};
///
/// // y[i] = x[i] · factors[i mod n], where n is the number of factors.
/// let cycle = CustomOp::define("cycle")
///     .input("x", DType::F32)
///     .input("factors", DType::F32)
///     .output(DType::F32, |shapes| match &shapes[1][..] {
///         &[n] if shapes[0].numel().is_multiple_of(n) => Ok(shapes[0].clone()),
///         _ => Err("x must take a vector of factors a whole number of times".into()),
///     })
///     .cpu(|inputs, output| {
///         let (x, factors) = (inputs[0].values::<f32>()?, inputs[1].values::<f32>()?);
///         for ((y, x), factor) in output.values::<f32>()?.iter_mut().zip(x).zip(factors.iter().cycle()) {
///             *y = x * factor;
///         }
///         Ok(())
///     })
///     .wgsl(
///         "@compute @workgroup_size(64)
///          fn main(@builtin(global_invocation_id) id: vec3<u32>) {
///              let i = flat_index(id);
///              if i < output_len() {
///                  output[i] = x[i] * factors[i % factors_shape(0u)];
///              }
///          }",
///     )
///     .gradient(|inputs, _output, cotangent| {
///         let (x, factors) = (&inputs[0], &inputs[1]);
///         let repeats = x.numel() / factors.numel();
///         let repeated = factors.repeat(0, repeats).reshape(x.shape());
///         let of_factors = (cotangent * x).reshape([repeats, factors.numel()]).sum(0);
///         vec![Some(cotangent * repeated), Some(of_factors)]
///     })
///     .build()?;
///
/// let device = Device::cpu();
/// let x = Tensor::new([[1.0, 2.0], [3.0, 4.0]], &device);
/// let y = cycle.apply(&[&x, &Tensor::new([1.0, 10.0], &device)]);
/// assert_eq!(y.to_vec::<f32>()?, [1.0, 20.0, 3.0, 40.0]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// # The function for the CPU
///
/// It gets the operands and the output as slices of the declared dtypes, and sets every element of the output, which
/// means nothing before. It may use threads. An `Err`, or a panic in it, becomes the error of the evaluation.
///
/// # WGSL
///
/// The text has functions, constants, workgroup memory, and one entry point marked `@compute`. gradus puts in front of it:
///
/// | declaration | what it is |
/// | --- | --- |
/// | `x` for an input `x` | `array<f32>`, `array<i32>` or `array<u32>`, to read; booleans are u32, 0 or 1 |
/// | `output` | the same, to be written: each element once, as it means nothing before |
/// | `x_len()`, `output_len()` | the number of elements (`arrayLength` may count padding) |
/// | `x_rank()`, `x_shape(axis)`, … | the number of axes, and the extent of an axis; 1 of an axis that is not there |
/// | `flat_index(id)` | the number of an invocation, from its `global_invocation_id`: long grids are folded |
///
/// There are as many workgroups as give every element of the output an invocation of its own; the last ones may have none, so
/// compare with `output_len()`. [`workgroups`](CustomOpBuilder::workgroups) gives another number. Lengths and extents
/// are numbers of the run, not of the text, so that other shapes need no other pipeline on adapters where making one is
/// dear. Some software adapters end the loops of an invocation after 65,535 steps in total, without a word: leave long sums to
/// many invocations.
///
/// The text is checked when the op is built (in builds with the feature `gpu`; others do not look at it), and errors name line
/// and column. What it does is checked too: an index out of range reads or writes some element of the same array and
/// harms nothing else, and a loop without an end ends at some time. Its memory is all that it sees, but what it
/// computes is its own affair.
///
/// # Gradients and transformations
///
/// [`gradient`](CustomOpBuilder::gradient) is recorded as any tensor code is: if all its ops are differentiable, so is the gradient.
/// Without one, `grad` through the op is an error. `vmap` runs the op once for each example, and says so once, as a
/// warning of the crate `tracing`. `gradcheck` and the reference interpreter run the CPU function as it is, in f32 if
/// that is what it declares: give `GradCheck` a step of 10⁻² and a tolerance of 10⁻³ then, or declare f64 for the test.
#[derive(Clone)]
pub struct CustomOp {
    op: Custom,
    rule: Option<Arc<Rule>>,
}

impl CustomOp {
    /// Begins the definition of an op with this name, which messages and plans show.
    pub fn define(name: &'static str) -> CustomOpBuilder {
        CustomOpBuilder { name, inputs: Vec::new(), output: None, cpu: None, wgsl: None, grid: None, gradient: None }
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.op.name
    }

    /// The op on operands, in the order in which its inputs were declared.
    ///
    /// The result carries an error if their number or dtypes are not those declared, the shape function refuses them, or
    /// the op has no code for their device.
    #[track_caller]
    pub fn apply(&self, operands: &[&Tensor]) -> Tensor {
        let Some(device) = operands.first().map(|operand| operand.device()) else {
            let kind = ErrorKind::Operands { expected: self.op.inputs.len(), found: 0 };
            return Tensor::failed(Error::new(self.op.name, kind), &Device::cpu());
        };
        let missing = match device.backend().runs_wgsl() {
            true => self.op.wgsl.is_none().then_some("WGSL"),
            false => self.op.cpu.is_none().then_some("CPU function"),
        };
        if let Some(missing) = missing {
            return operands[0].fail(self.op.name, ErrorKind::NoCode { missing, device: device.to_string() });
        }
        let record = || Tensor::record(Op::Custom(self.op.clone()), operands, None);
        recorded_at(here(), || match &self.rule {
            None => record(),
            // It stands in for the op.
            Some(rule) => {
                let inputs: Vec<Tensor> = operands.iter().copied().cloned().collect();
                with_rule(&no_grad(record), &inputs, rule.clone())
            }
        })
    }
}

impl fmt::Debug for CustomOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomOp({})", self.op.name)
    }
}

/// The definition of a [`CustomOp`].
#[must_use = "build() makes the op"]
pub struct CustomOpBuilder {
    name: &'static str,
    inputs: Vec<(String, DType)>,
    output: Option<(DType, ShapeFunction)>,
    cpu: Option<CpuFunction>,
    wgsl: Option<String>,
    grid: Option<GridFunction>,
    gradient: Option<GradientFunction>,
}

impl CustomOpBuilder {
    /// Adds an input. The name is that of its array in WGSL.
    pub fn input(mut self, name: &str, dtype: DType) -> CustomOpBuilder {
        self.inputs.push((name.to_string(), dtype));
        self
    }

    /// The dtype of the output, and its shape for inputs of given shapes, or what is wrong with these.
    pub fn output(
        mut self,
        dtype: DType,
        shape: impl Fn(&[&Shape]) -> Result<Shape, String> + Send + Sync + 'static,
    ) -> CustomOpBuilder {
        self.output = Some((dtype, Box::new(shape)));
        self
    }

    /// What the CPU runs.
    pub fn cpu(
        mut self,
        function: impl Fn(&[CustomInput<'_>], &mut CustomOutput<'_>) -> Result<(), CustomError> + Send + Sync + 'static,
    ) -> CustomOpBuilder {
        self.cpu = Some(Box::new(function));
        self
    }

    /// What GPUs run; see [`CustomOp`].
    pub fn wgsl(mut self, text: impl Into<String>) -> CustomOpBuilder {
        self.wgsl = Some(text.into());
        self
    }

    /// The number of workgroups for the shapes of the inputs and of the output: 1 to 65,535 in each direction on most adapters.
    /// Nothing runs where the output has no elements.
    pub fn workgroups(
        mut self,
        count: impl Fn(&[&Shape], &Shape) -> [u32; 3] + Send + Sync + 'static,
    ) -> CustomOpBuilder {
        self.grid = Some(Box::new(count));
        self
    }

    /// The gradient: from the operands, the output and its cotangent to one cotangent for each operand, `None` where
    /// there is none.
    pub fn gradient(
        mut self,
        rule: impl Fn(&[Tensor], &Tensor, &Tensor) -> Vec<Option<Tensor>> + Send + Sync + 'static,
    ) -> CustomOpBuilder {
        self.gradient = Some(Box::new(rule));
        self
    }

    /// The op.
    ///
    /// # Errors
    /// If there is no input, no output, or no code; if WGSL takes a name for something else; and
    /// [`Wgsl`](ErrorKind::Wgsl), if the text is not valid.
    #[track_caller]
    pub fn build(self) -> Result<CustomOp> {
        let (name, location) = (self.name, Location::caller());
        self.checked().map_err(|kind| Error::located(name, kind, location))
    }

    fn checked(self) -> Result<CustomOp, ErrorKind> {
        let CustomOpBuilder { name, inputs, output, cpu, wgsl, grid, gradient } = self;
        let none = |argument, expected| ErrorKind::Argument { argument, expected, found: "none".into() };
        if inputs.is_empty() {
            return Err(none("inputs", "at least one"));
        }
        let (dtype, shape) = output.ok_or(none("output", "a dtype and a shape"))?;
        if cpu.is_none() && wgsl.is_none() {
            return Err(none("code", "a CPU function, WGSL, or both"));
        }
        let wgsl = match wgsl {
            Some(text) => Some(Wgsl { workgroup: workgroup(&inputs, dtype, &text)?, text, grid }),
            None => None,
        };
        let op = Custom::new(Definition { name, inputs, dtype, shape, cpu, wgsl });
        Ok(CustomOp { op, rule: gradient.map(|function| Arc::new(Rule { name, function })) })
    }
}

/// Checks WGSL and gives its workgroup size.
#[cfg(feature = "gpu")]
fn workgroup(inputs: &[(String, DType)], output: DType, text: &str) -> Result<[u32; 3], ErrorKind> {
    gradus_gpu::check_wgsl(inputs, output, text)
}

/// Without GPUs nobody runs it.
#[cfg(not(feature = "gpu"))]
fn workgroup(_: &[(String, DType)], _: DType, _: &str) -> Result<[u32; 3], ErrorKind> {
    Ok([1; 3])
}

impl fmt::Debug for CustomOpBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomOpBuilder({})", self.name)
    }
}

struct Rule {
    name: &'static str,
    function: GradientFunction,
}

impl GradientRule for Rule {
    fn name(&self) -> &str {
        self.name
    }

    fn backward(
        &self,
        inputs: &[Tensor],
        output: &Tensor,
        cotangent: &Tensor,
        _wanted: &[bool],
    ) -> Vec<Option<Tensor>> {
        (self.function)(inputs, output, cotangent)
    }
}
