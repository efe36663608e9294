//! Ops that a user defines: their types, and code for each kind of device.

use super::Type;
use crate::{DType, Data, Element, Error, Result, Shape};
use smallvec::SmallVec;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a CPU function may fail with: any error, or text.
pub type CustomError = Box<dyn std::error::Error + Send + Sync>;
/// Gives the output's shape for operands of these shapes, or says what is wrong with them.
pub type ShapeFunction = Box<dyn Fn(&[&Shape]) -> Result<Shape, String> + Send + Sync>;
/// Computes the output on the host.
pub type CpuFunction = Box<dyn Fn(&[CustomInput<'_>], &mut CustomOutput<'_>) -> Result<(), CustomError> + Send + Sync>;
/// Gives the number of workgroups for operands of these shapes and this output's.
pub type GridFunction = Box<dyn Fn(&[&Shape], &Shape) -> [u32; 3] + Send + Sync>;

/// A user's op. Clones are one op; two that were defined apart differ, whatever they do. It must always give the same for
/// the same operands: what is equal is computed once.
#[derive(Clone)]
pub struct Custom(Arc<Inner>);

struct Inner {
    definition: Definition,
    was_looped: AtomicBool,
}

/// What makes up a [`Custom`] op.
pub struct Definition {
    /// The name in messages and plans.
    pub name: &'static str,
    /// Names and dtypes of the operands; at least one.
    pub inputs: Vec<(String, DType)>,
    /// The output's dtype.
    pub dtype: DType,
    /// The output's shape.
    pub shape: ShapeFunction,
    /// How the CPU computes it.
    pub cpu: Option<CpuFunction>,
    /// How GPUs compute it.
    pub wgsl: Option<Wgsl>,
}

/// A custom op's code for GPUs.
pub struct Wgsl {
    /// Functions and one entry point. The backend adds the declarations of the arrays.
    pub text: String,
    /// The entry point's workgroup size.
    pub workgroup: [u32; 3],
    /// How many workgroups there are; without it, enough for an invocation for each element of the output.
    pub grid: Option<GridFunction>,
}

impl Custom {
    /// A new op.
    pub fn new(definition: Definition) -> Custom {
        Custom(Arc::new(Inner { definition, was_looped: AtomicBool::new(false) }))
    }

    /// Checks operands and gives the output's type.
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type> {
        if operands.len() != self.inputs.len() {
            return Err(Error::Operands { expected: self.inputs.len(), found: operands.len() });
        }
        for ((name, expected), operand) in self.inputs.iter().zip(operands) {
            if operand.dtype != *expected {
                let (name, expected, found) = (name.clone(), *expected, operand.dtype);
                return Err(Error::OperandDType { name, expected, found });
            }
        }
        let shapes: SmallVec<[&Shape; 3]> = operands.iter().map(|ty| &ty.shape).collect();
        let of_shapes = |reason: String| {
            let listed: Vec<String> = shapes.iter().map(|shape| shape.to_string()).collect();
            format!("{reason} (operands of shape {})", listed.join(", "))
        };
        let shape = self.guarded("shape function", || (self.shape)(&shapes).map_err(of_shapes))?;
        if shape.checked_numel().is_none() {
            return Err(Error::TooLarge { shape });
        }
        Ok(Type { shape, dtype: self.dtype })
    }

    /// Runs the CPU function; a panic in it is an error.
    pub fn run_on_cpu(&self, inputs: &[CustomInput<'_>], output: &mut CustomOutput<'_>) -> Result<()> {
        let Some(cpu) = &self.cpu else {
            return Err(Error::Backend(format!("{} has no CPU function", self.name)));
        };
        self.guarded("CPU function", || cpu(inputs, output))
    }

    /// The number of workgroups, if the user decides on it.
    pub fn grid(&self, inputs: &[&Shape], output: &Shape) -> Result<Option<[u32; 3]>> {
        match self.wgsl.as_ref().and_then(|wgsl| wgsl.grid.as_ref()) {
            Some(grid) => self.guarded("workgroups function", || Ok::<_, String>(Some(grid(inputs, output)))),
            None => Ok(None),
        }
    }

    /// Notes that a transformation runs it once for each example; says whether this is the first time.
    pub fn note_loop(&self) -> bool {
        !self.0.was_looped.swap(true, Ordering::Relaxed)
    }

    /// What a function of the user gives. It may panic half-way: what it has written is not looked at then.
    fn guarded<R, E: fmt::Display>(&self, function: &'static str, call: impl FnOnce() -> Result<R, E>) -> Result<R> {
        let reason = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().map(|said| said.to_string());
                let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
                format!("it panicked: {}", said.unwrap_or_default())
            }
        };
        Err(Error::Custom { op: self.name, function, reason })
    }
}

impl std::ops::Deref for Custom {
    type Target = Definition;

    fn deref(&self) -> &Definition {
        &self.0.definition
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Custom({})", self.name)
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Custom) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// An operand of a custom op on the host: whole and row-major.
#[derive(Clone, Copy, Debug)]
pub struct CustomInput<'a> {
    shape: &'a Shape,
    data: &'a Data,
}

impl<'a> CustomInput<'a> {
    /// An array of this shape.
    pub fn new(shape: &'a Shape, data: &'a Data) -> CustomInput<'a> {
        CustomInput { shape, data }
    }

    /// The shape.
    pub fn shape(&self) -> &'a Shape {
        self.shape
    }

    /// The elements.
    ///
    /// # Errors
    /// If `T` is not the type of the declared dtype.
    pub fn values<T: Element>(&self) -> Result<&'a [T]> {
        T::slice(self.data).ok_or(Error::DType { expected: T::DTYPE.name(), found: self.data.dtype() })
    }
}

/// The output of a custom op on the host: row-major.
#[derive(Debug)]
pub struct CustomOutput<'a> {
    shape: &'a Shape,
    data: &'a mut Data,
}

impl<'a> CustomOutput<'a> {
    /// An array of this shape.
    pub fn new(shape: &'a Shape, data: &'a mut Data) -> CustomOutput<'a> {
        CustomOutput { shape, data }
    }

    /// The shape.
    pub fn shape(&self) -> &'a Shape {
        self.shape
    }

    /// The elements, each of which is to be set: what they are at first has no meaning.
    ///
    /// # Errors
    /// If `T` is not the type of the declared dtype.
    pub fn values<T: Element>(&mut self) -> Result<&mut [T]> {
        let found = self.data.dtype();
        T::slice_mut(self.data).ok_or(Error::DType { expected: T::DTYPE.name(), found })
    }
}
