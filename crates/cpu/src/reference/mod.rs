//! The reference: a naive interpreter of graphs in f64, written to be obviously right. Tests hold every backend to it.
//!
//! Beside each value it can carry a first-order bound on the error that a float backend may make: what the operands'
//! errors grow to through the op, plus the op's own rounding. A bound of infinity means "anything goes" (a comparison
//! too close to call decided the value).
//!
//! ```
//! use gradus_cpu::reference;
//! use gradus_ir::op::{Op, Type, UnaryOp};
//! use gradus_ir::{DType, Data, Graph, Shape};
//!
//! let mut graph = Graph::new();
//! let x = graph.input([2], DType::F32, false);
//! let ty = Type { shape: Shape::new(&[2]), dtype: DType::F32 };
//! let y = graph.add(Op::Unary(UnaryOp::Square), &[x], ty)?;
//! graph.outputs.push(y);
//! let result = reference::run(&graph, &[Data::F32(vec![2.0, 3.0])], &[])?;
//! assert_eq!(result[0].values, [4.0, 9.0]);
//! # Ok::<(), gradus_ir::Error>(())
//! ```

mod custom;
mod map;
mod ordered;
mod shaped;

use gradus_ir::op::attention::{self, AttentionPart};
use gradus_ir::op::{Op, ReduceOp, ScatterMode, Type};
use gradus_ir::{DType, Data, Error, Graph, Number, Result, Shape, philox, with_data};

/// A value of the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Shape and dtype.
    pub ty: Type,
    /// The elements, row-major: booleans as 0 and 1; f64 holds 32-bit integers exactly.
    pub values: Vec<f64>,
    /// For each element, how far a backend's may be away; all 0 unless bounds were asked for.
    pub errors: Vec<f64>,
}

/// Runs a graph on host arrays, one per input slot, and numbers, one per scalar slot.
pub fn run(graph: &Graph, inputs: &[Data], scalars: &[Number]) -> Result<Vec<Array>> {
    interpret(graph, |slot, ty| input(&inputs[slot], ty), scalars, None)
}

/// How much a backend may round. The bounds of [`run_with_bounds`] are made of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// How many times its row's error a function may be away. Sums, differences and products of two numbers, and what
    /// has no error, are as exact on every device.
    pub functions: f64,
    /// f32 sums are added one after another in blocks of so many terms, and the blocks' sums in such blocks again;
    /// without a number, as a tree or in f64.
    pub block: Option<usize>,
    /// Whether f32 denormals may be taken, and given, as zeros, in any op.
    pub flushes: bool,
    /// Whether a driver may add the terms of chained f32 sums and differences in another order, as WGSL allows.
    pub reassociates: bool,
}

impl Tolerance {
    /// What the CPU keeps to.
    pub const CPU: Tolerance = Tolerance { functions: 1.0, block: None, flushes: false, reassociates: false };
    /// What GPUs keep to: they divide within 3 units in the last place where the CPU rounds to the nearest (half a unit),
    /// and sum in f32.
    pub const GPU: Tolerance = Tolerance { functions: 6.0, block: Some(128), flushes: true, reassociates: true };

    /// How many roundings a term may go through in a sum of `terms` terms. f64 is summed in any order.
    fn steps_of_sum(self, terms: usize, dtype: DType) -> f64 {
        let terms = terms as f64 + 1.0;
        match self.block.map(|block| block as f64) {
            _ if dtype != DType::F32 => terms,
            None => terms.log2() + 4.0,
            Some(block) => terms.min(block * terms.log(block).ceil()) + 4.0,
        }
    }
}

/// Runs a graph and bounds the error that a backend of this tolerance may make in each element.
pub fn run_with_bounds(graph: &Graph, inputs: &[Data], scalars: &[Number], tolerance: Tolerance) -> Result<Vec<Array>> {
    interpret(graph, |slot, ty| input(&inputs[slot], ty), scalars, Some(tolerance))
}

fn interpret(
    graph: &Graph,
    input: impl Fn(usize, &Type) -> Result<Array>,
    scalars: &[Number],
    bounds: Option<Tolerance>,
) -> Result<Vec<Array>> {
    let tolerance = bounds.unwrap_or(Tolerance::CPU);
    let mut arrays: Vec<Array> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let operands: Vec<&Array> = node.operands.iter().map(|&id| &arrays[id]).collect();
        let mut array = match &node.op {
            Op::Input(slot) => input(*slot, &node.ty)?,
            Op::Scalar(slot) => uniform(scalars[*slot], &node.ty),
            Op::Const(number) => uniform(*number, &node.ty),
            Op::Iota(axis) => iota(*axis, &node.ty),
            Op::Random(slot) => random(scalars[*slot].to_i64() as u64, &node.ty),
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => {
                map::evaluate(&node.op, &operands, &node.ty, tolerance)
            }
            Op::Index { axis, extent } => shaped::checked(operands[0], *axis, *extent)?,
            Op::Custom(op) => custom::evaluate(op, &operands, &node.ty)?,
            Op::Barrier => operands[0].clone(),
            op if node.ty.dtype == DType::F16 && accumulates(op) => accumulated(op, &operands, &node.ty, bounds)?,
            op => wide(op, &operands, &node.ty, tolerance)?,
        };
        settle(&mut array, bounds);
        arrays.push(array);
    }
    Ok(graph.outputs.iter().map(|&id| arrays[id].clone()).collect())
}

/// Attention, as the ops that it is made of.
fn attention(part: AttentionPart, causal: bool, operands: &[&Array], tolerance: Tolerance) -> Result<Array> {
    let types: Vec<&Type> = operands.iter().map(|operand| &operand.ty).collect();
    let composed = attention::composed(part, causal, &types)?;
    let operand: &dyn Fn(usize, &Type) -> Result<Array> = &|slot, _| Ok(operands[slot].clone());
    Ok(interpret(&composed, operand, &[], Some(tolerance))?.remove(0))
}

/// Evaluates an op that is no map, in the dtypes of its operands.
fn wide(op: &Op, operands: &[&Array], ty: &Type, tolerance: Tolerance) -> Result<Array> {
    match op {
        Op::Attention { part, causal } => attention(*part, *causal, operands, tolerance),
        shaped => shaped::evaluate(shaped, operands, ty, tolerance),
    }
}

/// Whether an op adds or multiplies many numbers.
fn accumulates(op: &Op) -> bool {
    matches!(
        op,
        Op::Reduce(ReduceOp::Sum | ReduceOp::Prod, _)
            | Op::Contract { .. }
            | Op::Scatter(ScatterMode::Add, _)
            | Op::Scan(..)
            | Op::Attention { .. }
    )
}

/// Evaluates such an op of f16: in f32, and rounded at the end.
fn accumulated(op: &Op, operands: &[&Array], ty: &Type, bounds: Option<Tolerance>) -> Result<Array> {
    let in_f32 = |ty: &Type| Type { dtype: ty.dtype.computed(), ..ty.clone() };
    let widened: Vec<Array> = operands.iter().map(|&x| Array { ty: in_f32(&x.ty), ..x.clone() }).collect();
    let widened: Vec<&Array> = widened.iter().collect();
    let tolerance = bounds.unwrap_or(Tolerance::CPU);
    let mut total = wide(op, &widened, &in_f32(ty), tolerance)?;
    settle(&mut total, bounds);
    Ok(map::evaluate(&Op::Cast, &[&total], ty, tolerance))
}

/// Applies what every op has in common: f16 and f32 overflow to infinity, and bounds that reach so far say nothing; an integer
/// that may be another one may be any (it wraps). A denormal may be zero on a device that flushes them; what is infinite
/// at zero (a division by it, its logarithm) then follows from this error.
fn settle(array: &mut Array, bounds: Option<Tolerance>) {
    if bounds.is_none() {
        array.errors.fill(0.0);
    }
    for error in &mut array.errors {
        if error.is_nan() || (array.ty.dtype.is_int() && *error > 0.0) {
            *error = f64::INFINITY;
        }
    }
    let smallest = match array.ty.dtype {
        DType::F16 => 2f64.powi(-14),
        DType::F32 => f32::MIN_POSITIVE as f64,
        _ => return,
    };
    let largest = largest(array.ty.dtype);
    for (value, error) in array.values.iter_mut().zip(&mut array.errors) {
        if value.is_finite() && value.abs() + *error > largest {
            *error = f64::INFINITY;
        }
        if value.is_finite() && value.abs() > largest {
            *value = f64::INFINITY.copysign(*value);
        }
        if bounds.is_some_and(|tolerance| tolerance.flushes) && value.abs() < smallest + *error {
            *error = error.max(value.abs());
        }
    }
}

/// The f16 that is nearest to a number.
fn to_f16(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    // f16 has ten bits after the first, and nothing below 2⁻²⁴.
    let spacing = 2f64.powi((x.abs().log2().floor() as i32).max(-14) - 10);
    let rounded = (x / spacing).round_ties_even() * spacing;
    if rounded.abs() > largest(DType::F16) { f64::INFINITY.copysign(x) } else { rounded }
}

/// Half a unit in the last place, relative, and what may be lost near zero: of f32 and f64 the largest number that may be
/// flushed, of f16 the distance of two denormals.
fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-24)),
        DType::F32 => (f32::EPSILON as f64 / 2.0, 1.2e-38),
        DType::F64 => (f64::EPSILON / 2.0, 2.3e-308),
        DType::Bool | DType::I32 | DType::U32 => (0.0, 0.0),
    }
}

/// The largest finite number.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::F32 => f32::MAX as f64,
        _ => f64::MAX,
    }
}

/// Wraps an integer result to its dtype; other values stay as they are.
fn wrap(value: i64, dtype: DType) -> f64 {
    match dtype {
        DType::U32 => value as u32 as f64,
        _ => value as i32 as f64,
    }
}

fn exact(ty: &Type, values: Vec<f64>) -> Array {
    Array { ty: ty.clone(), errors: vec![0.0; values.len()], values }
}

fn input(data: &Data, ty: &Type) -> Result<Array> {
    // A promoted graph takes data of any float for its f64 inputs.
    let promoted = data.dtype().is_float() && ty.dtype == DType::F64;
    if data.dtype() != ty.dtype && !promoted {
        return Err(Error::DTypes { left: data.dtype(), right: ty.dtype });
    }
    if data.len() != ty.shape.numel() {
        return Err(Error::DataLength { len: data.len(), shape: ty.shape.clone() });
    }
    let values = with_data!(data, v => v.iter().map(|&x| Number::from(x).to_f64()).collect());
    Ok(exact(ty, values))
}

fn uniform(number: Number, ty: &Type) -> Array {
    let value = match ty.dtype {
        DType::F16 => to_f16(number.to_f64()),
        DType::F32 => number.to_f64() as f32 as f64,
        _ => number.to_f64(),
    };
    exact(ty, vec![value; ty.shape.numel()])
}

fn iota(axis: usize, ty: &Type) -> Array {
    let number = |index: usize| if ty.dtype == DType::F16 { to_f16(index as f64) } else { index as f64 };
    exact(ty, indices(&ty.shape).map(|index| number(index[axis])).collect())
}

fn random(key: u64, ty: &Type) -> Array {
    let number = |i: usize| match ty.dtype {
        DType::F64 => {
            let words = philox::block(key, i as u64 / 2);
            philox::uniform_f64(words[2 * (i % 2)], words[2 * (i % 2) + 1])
        }
        DType::F32 => philox::uniform_f32(philox::block(key, i as u64 / 4)[i % 4]) as f64,
        _ => philox::block(key, i as u64 / 4)[i % 4] as f64,
    };
    exact(ty, (0..ty.shape.numel()).map(number).collect())
}

/// Every index of a shape, row-major.
fn indices(shape: &Shape) -> impl Iterator<Item = Vec<usize>> {
    let (shape, strides) = (shape.clone(), shape.strides());
    (0..shape.numel())
        .map(move |flat| shape.iter().zip(&strides).map(|(&extent, &stride)| flat / stride as usize % extent).collect())
}

/// The position of an index in a row-major array.
fn flat(shape: &Shape, index: &[usize]) -> usize {
    shape.strides().iter().zip(index).map(|(&stride, &i)| stride as usize * i).sum()
}
