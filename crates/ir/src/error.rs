//! What can go wrong, as values with named fields.

use crate::{DType, Number, Shape};
use std::fmt;

/// An error of recording, planning or running. The tensor crate adds the op and the caller's `file:line`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two shapes do not broadcast.
    #[error("shapes {left} and {right} do not broadcast: each axis, counted from the last, must be equal or 1")]
    Broadcast {
        /// Shape of the left operand.
        left: Shape,
        /// Shape of the right operand.
        right: Shape,
    },
    /// Two shapes that must be equal are not.
    #[error("{what} has shape {found}, expected {expected}")]
    Shape {
        /// Which operand.
        what: &'static str,
        /// The shape that it must have.
        expected: Shape,
        /// The shape that it has.
        found: Shape,
    },
    /// A target shape has another number of elements.
    #[error("cannot reshape {from} ({} elements) to {to} ({} elements)", from.numel(), to.numel())]
    Reshape {
        /// The shape of the operand.
        from: Shape,
        /// The shape that was asked for.
        to: Shape,
    },
    /// A shape cannot be expanded to another.
    #[error("cannot expand {from} to {to}: only axes of extent 1 expand")]
    Expand {
        /// The shape of the operand.
        from: Shape,
        /// The shape that was asked for.
        to: Shape,
    },
    /// The operands of a matrix product do not fit.
    #[error("matrix product of {left} and {right}: {reason}")]
    Contract {
        /// Shape of the left operand.
        left: Shape,
        /// Shape of the right operand.
        right: Shape,
        /// Which extents differ.
        reason: String,
    },
    /// Two dtypes differ where they must be equal.
    #[error("dtypes {left} and {right} differ: convert one with to_dtype")]
    DTypes {
        /// Dtype of the left operand.
        left: DType,
        /// Dtype of the right operand.
        right: DType,
    },
    /// The op does not take this dtype.
    #[error("does not take {found}: expected {expected}")]
    DType {
        /// What the op takes.
        expected: &'static str,
        /// What it was given.
        found: DType,
    },
    /// A Rust number does not fit the tensor's dtype.
    #[error("the number {number} does not fit dtype {dtype}: convert the tensor with to_dtype first")]
    Number {
        /// The number.
        number: Number,
        /// The tensor's dtype.
        dtype: DType,
    },
    /// Tensors on different devices.
    #[error("tensors are on different devices, {left} and {right}: move one with to_device")]
    Devices {
        /// Device of the left operand.
        left: String,
        /// Device of the right operand.
        right: String,
    },
    /// The tensor has another rank than the op needs.
    #[error("expected {expected}, found rank {} (shape {shape})", shape.len())]
    Rank {
        /// What the op needs, as in "rank 2".
        expected: String,
        /// The shape of the operand.
        shape: Shape,
    },
    /// An axis that the tensor does not have.
    #[error("axis {axis} is out of range for shape {shape} (rank {})", shape.len())]
    Axis {
        /// The axis that was asked for.
        axis: isize,
        /// The shape of the operand.
        shape: Shape,
    },
    /// An axis was named twice or more, or too few were named.
    #[error("axes {axes:?} are not {expected} of shape {shape}")]
    Axes {
        /// The axes that were given.
        axes: Vec<isize>,
        /// What they should be, as in "a permutation".
        expected: &'static str,
        /// The shape of the operand.
        shape: Shape,
    },
    /// A range that reaches past an axis.
    #[error("range {start}..{end} is out of range for axis {axis} of shape {shape}")]
    Range {
        /// First index asked for.
        start: isize,
        /// One past the last index asked for.
        end: isize,
        /// The axis.
        axis: usize,
        /// The shape of the operand.
        shape: Shape,
    },
    /// A number of elements that memory cannot hold.
    #[error("shape {shape} has more elements than memory can address")]
    TooLarge {
        /// The shape.
        shape: Shape,
    },
    /// The data's length is not that of the shape.
    #[error("{len} values do not fill shape {shape} ({} elements)", shape.numel())]
    DataLength {
        /// The number of values given.
        len: usize,
        /// The shape asked for.
        shape: Shape,
    },
    /// An argument outside the range that makes sense.
    #[error("{argument} is {found}, expected {expected}")]
    Argument {
        /// Name of the argument.
        argument: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A custom op takes another number of operands.
    #[error("takes {expected} operands, found {found}")]
    Operands {
        /// How many it declares.
        expected: usize,
        /// How many it was given.
        found: usize,
    },
    /// An operand of a custom op is of another dtype than it declares.
    #[error("operand {name} is {found}, expected {expected}: convert it with to_dtype")]
    OperandDType {
        /// The operand.
        name: String,
        /// The dtype that the op declares.
        expected: DType,
        /// The dtype that it was given.
        found: DType,
    },
    /// A custom op has no code for the device.
    #[error("has no {missing}, without which it does not run on {device}: add it to the op, or use another device")]
    NoCode {
        /// What the device would run.
        missing: &'static str,
        /// The device.
        device: String,
    },
    /// A function of a custom op failed.
    #[error("the {function} of {op} failed: {reason}")]
    Custom {
        /// The op.
        op: &'static str,
        /// Which of its functions.
        function: &'static str,
        /// What it says.
        reason: String,
    },
    /// WGSL of a custom op that is not valid.
    #[error("its WGSL does not compile{}: {message}", at.as_ref().map_or(String::new(), |at| format!(" ({at})")))]
    Wgsl {
        /// What naga says.
        message: String,
        /// The place in the user's text, where there is one to point at.
        at: Option<SourcePlace>,
    },
    /// `gather` or `scatter` met an index outside its axis.
    #[error("index {index} is out of range for axis {axis} of extent {extent}")]
    Index {
        /// The index.
        index: i64,
        /// The axis that it indexes.
        axis: usize,
        /// The extent of this axis.
        extent: usize,
    },
    /// No memory for a buffer.
    #[error("out of memory: {bytes} bytes asked for, {in_use} in use{}; use smaller tensors or batches, or raise GRADUS_MEMORY_LIMIT",
            limit.map_or(String::new(), |l| format!(", limit {l}")))]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes in use by the device.
        in_use: usize,
        /// The device's budget, where one is set.
        limit: Option<usize>,
    },
    /// An array that is larger than what the device can bind at once.
    #[error("{bytes} bytes are more than this device binds at once ({limit}): split the tensor, or use another device")]
    BindingTooLarge {
        /// Bytes asked for.
        bytes: usize,
        /// The most that one binding may have.
        limit: usize,
    },
    /// A dtype that the device does not store.
    #[error("{device} has no {dtype}: use f32, or the device \"cpu\"")]
    NoDType {
        /// The dtype.
        dtype: DType,
        /// The device.
        device: String,
    },
    /// The device is gone; its arrays with it.
    #[error("the device {device} is lost ({reason}): open it again and go on from the last checkpoint")]
    DeviceLost {
        /// The device.
        device: String,
        /// What the driver says.
        reason: String,
    },
    /// The device that was asked for is not there.
    #[error("no device \"{asked}\": {reason}")]
    NoDevice {
        /// What was asked for.
        asked: String,
        /// Why it cannot be had, and what can.
        reason: String,
    },
    /// The loss must be one number.
    #[error("the loss must be a single number, found shape {shape}: reduce it with mean or sum, or pass a cotangent")]
    NotScalar {
        /// The shape of the loss.
        shape: Shape,
    },
    /// A target of `grad` that the loss does not depend on.
    #[error("the loss does not depend on {target}: check the forward pass, or call allow_unused()")]
    Unreached {
        /// Name or position of the target.
        target: String,
    },
    /// A walk from the loss met an op without a derivative.
    #[error(
        "the gradient would flow through {op}, which is not differentiable, recorded at {at}: detach it, or use where/masked_fill"
    )]
    NotDifferentiable {
        /// The op.
        op: String,
        /// Where it was recorded.
        at: String,
    },
    /// A parameter changed between the forward pass and `grad`.
    #[error(
        "parameter {name} was updated since the loss was recorded: call grad before the update, or run the forward pass again"
    )]
    ParameterUpdated {
        /// The parameter's name.
        name: String,
    },
    /// A value was asked for, or a cell assigned, in a function while it was being recorded.
    #[error(
        "a function that is compiled can neither read values nor assign cells: let it return what is to be read or assigned"
    )]
    Recording,
    /// An op made the first NaN of an evaluation (`GRADUS_DEBUG=nan`).
    #[error("made the first NaN: its result, of dtype {dtype} and shape {shape}, has one, and its operands have none")]
    NotANumber {
        /// The dtype of the result.
        dtype: DType,
        /// The shape of the result.
        shape: Shape,
    },
    /// The graph behind a tensor is gone.
    #[error(
        "the graph behind this tensor is gone: it was evaluated before grad; mark its inputs with tracked() (parameters are), or call grad first"
    )]
    GraphFreed,
    /// A value was asked for inside of `vmap`, where there is none.
    #[error(
        "inside of vmap this tensor stands for all examples at once and has no value to read: return it and read the result, or choose with where"
    )]
    NoValue,
    /// `vmap` was given nothing to map over.
    #[error("no input has a batch axis: pass at least one input, and give at least one an axis in in_axes")]
    NoBatch,
    /// Two inputs of `vmap` differ in their number of examples.
    #[error(
        "input {first} has {expected} examples, but input {input} has {found}: batch axes must have equal extents, and in_axes gives None to what all examples share"
    )]
    Examples {
        /// The first input with a batch axis.
        first: usize,
        /// Its number of examples.
        expected: usize,
        /// The input that differs.
        input: usize,
        /// Its number of examples.
        found: usize,
    },
    /// Numerical and analytic gradients differ.
    #[error(
        "gradient check of order {order} failed for input {input}, element {element}: analytic {analytic:e}, numeric {numeric:e}, tolerance {tolerance:e}"
    )]
    GradCheck {
        /// Order of the derivative.
        order: usize,
        /// Which input.
        input: usize,
        /// Which element of it.
        element: usize,
        /// The derivative by rules.
        analytic: f64,
        /// The derivative by finite differences.
        numeric: f64,
        /// The difference allowed.
        tolerance: f64,
    },
    /// Anything a backend could not do.
    #[error("{0}")]
    Backend(String),
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlace {
    /// The line, from 1 on.
    pub line: usize,
    /// The column, from 1 on, in characters.
    pub column: usize,
    /// The text of the line.
    pub text: String,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: `{}`", self.line, self.column, self.text.trim())
    }
}

/// A result with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
