//! Which operands an op takes and what it gives: the one place that checks a node.

use super::row::Accepts;
use super::{Op, ReduceOp, ScanOp, Type, WindowAxis, attention};
use crate::{DType, Error, Result, Shape};
use smallvec::SmallVec;

impl Op {
    /// Checks operands against the op and gives the result's type. `wanted` is the type that the node is to have; it
    /// decides for ops whose result is not given by the operands (sources, `Cast`, `Reshape`, `Expand`).
    pub fn infer(&self, operands: &[&Type], wanted: &Type) -> Result<Type> {
        let same_dtype = |accepts: Accepts| {
            let dtype = operands[0].dtype;
            if let Some(other) = operands.iter().find(|t| t.dtype != dtype) {
                return Err(Error::DTypes { left: dtype, right: other.dtype });
            }
            accepts_dtype(accepts, dtype)
        };
        match self {
            Op::Input(_) | Op::Scalar(_) | Op::Const(_) => Ok(wanted.clone()),
            Op::Iota(axis) => {
                check_axis(*axis, &wanted.shape)?;
                accepts_dtype(Accepts::Numbers, wanted.dtype)?;
                Ok(wanted.clone())
            }
            Op::Random(_) => match wanted.dtype {
                DType::U32 | DType::F32 | DType::F64 => Ok(wanted.clone()),
                found => Err(Error::DType { expected: "u32, f32 or f64", found }),
            },
            Op::Unary(op) => {
                accepts_dtype(op.accepts(), operands[0].dtype)?;
                Ok(operands[0].clone())
            }
            Op::Binary(op) => {
                same_dtype(op.accepts())?;
                same_shape("the right operand", operands[0], operands[1])?;
                Ok(operands[0].clone())
            }
            Op::Compare(op) => {
                same_dtype(op.accepts())?;
                same_shape("the right operand", operands[0], operands[1])?;
                Ok(Type { shape: operands[0].shape.clone(), dtype: DType::Bool })
            }
            Op::Select => {
                accepts_dtype(Accepts::Bools, operands[0].dtype)?;
                if operands[1].dtype != operands[2].dtype {
                    return Err(Error::DTypes { left: operands[1].dtype, right: operands[2].dtype });
                }
                same_shape("the second branch", operands[1], operands[2])?;
                same_shape("the condition", operands[1], operands[0])?;
                Ok(operands[1].clone())
            }
            Op::Cast => Ok(Type { shape: operands[0].shape.clone(), dtype: wanted.dtype }),
            Op::Reshape => {
                let from = &operands[0].shape;
                if wanted.shape.checked_numel() != from.checked_numel() {
                    return Err(Error::Reshape { from: from.clone(), to: wanted.shape.clone() });
                }
                Ok(Type { shape: wanted.shape.clone(), dtype: operands[0].dtype })
            }
            Op::Permute(axes) => {
                let shape = &operands[0].shape;
                let mut seen: SmallVec<[bool; 8]> = SmallVec::from_elem(false, shape.len());
                for &axis in axes {
                    check_axis(axis, shape)?;
                    seen[axis] = true;
                }
                if axes.len() != shape.len() || seen.contains(&false) {
                    let axes = axes.iter().map(|&a| a as isize).collect();
                    return Err(Error::Axes { axes, expected: "a permutation of the axes", shape: shape.clone() });
                }
                Ok(Type { shape: axes.iter().map(|&a| shape[a]).collect(), dtype: operands[0].dtype })
            }
            Op::Expand => {
                let (from, to) = (&operands[0].shape, &wanted.shape);
                let fits = from.len() == to.len() && from.iter().zip(&**to).all(|(&f, &t)| f == t || f == 1);
                if !fits {
                    return Err(Error::Expand { from: from.clone(), to: to.clone() });
                }
                sized(Type { shape: to.clone(), dtype: operands[0].dtype })
            }
            Op::Slice(axes) => {
                let shape = &operands[0].shape;
                check_rank(axes.len(), shape)?;
                for (axis, (s, &extent)) in axes.iter().zip(&**shape).enumerate() {
                    let last = s.start as isize + s.step * s.len.saturating_sub(1) as isize;
                    let inside = s.len == 0 || (s.start < extent && (0..extent as isize).contains(&last));
                    if s.step == 0 || !inside {
                        let (start, end) = (s.start as isize, last + 1);
                        return Err(Error::Range { start, end, axis, shape: shape.clone() });
                    }
                }
                Ok(Type { shape: axes.iter().map(|s| s.len).collect(), dtype: operands[0].dtype })
            }
            Op::Pad(axes) => {
                let shape = &operands[0].shape;
                check_rank(axes.len(), shape)?;
                let padded = axes.iter().zip(&**shape).map(|(p, &extent)| p.extent(extent)).collect();
                sized(Type { shape: padded, dtype: operands[0].dtype })
            }
            Op::Window(windows) => infer_window(windows, operands[0]),
            Op::Reduce(op, axes) => infer_reduce(*op, axes, operands[0]),
            Op::Contract { batch, contracted } => {
                same_dtype(Accepts::Numbers)?;
                infer_contract(*batch, *contracted, operands[0], operands[1])
            }
            Op::Gather(axis) => {
                index_dtype(operands[1].dtype)?;
                check_axis(*axis, &operands[0].shape)?;
                let expected = operands[0].shape.with(*axis, axis_extent(&operands[1].shape, *axis));
                equal_shapes("the index", &expected, &operands[1].shape)?;
                Ok(Type { shape: expected, dtype: operands[0].dtype })
            }
            Op::Scatter(_, axis) => {
                index_dtype(operands[1].dtype)?;
                if operands[0].dtype != operands[2].dtype {
                    return Err(Error::DTypes { left: operands[0].dtype, right: operands[2].dtype });
                }
                if let Op::Scatter(super::ScatterMode::Add, _) = self {
                    accepts_dtype(Accepts::Numbers, operands[0].dtype)?;
                }
                check_axis(*axis, &operands[0].shape)?;
                let expected = operands[0].shape.with(*axis, axis_extent(&operands[1].shape, *axis));
                equal_shapes("the index", &expected, &operands[1].shape)?;
                equal_shapes("the updates", &expected, &operands[2].shape)?;
                Ok(operands[0].clone())
            }
            Op::Index { .. } => {
                index_dtype(operands[0].dtype)?;
                Ok(operands[0].clone())
            }
            Op::Scan(op, axis) => {
                same_dtype(if *op == ScanOp::Recurrence { Accepts::Floats } else { Accepts::Numbers })?;
                check_axis(*axis, &operands[0].shape)?;
                operands.iter().try_for_each(|other| same_shape("the right operand", operands[0], other))?;
                Ok(operands[0].clone())
            }
            Op::Argsort { axis, kept, .. } => {
                let shape = operands[0].shape.clone();
                check_axis(*axis, &shape)?;
                if shape[*axis] > i32::MAX as usize {
                    return Err(Error::TooLarge { shape });
                }
                let sorted = shape.with(*axis, *kept);
                if *kept > shape[*axis] {
                    return Err(Error::Shape { what: "what is sorted", expected: sorted, found: shape });
                }
                Ok(Type { shape: sorted, dtype: DType::I32 })
            }
            Op::Attention { part, .. } => attention::infer(*part, operands),
            Op::Custom(custom) => custom.infer(operands),
            Op::Barrier => Ok(operands[0].clone()),
        }
    }
}

pub(super) fn accepts_dtype(accepts: Accepts, found: DType) -> Result<()> {
    if accepts.contains(found) { Ok(()) } else { Err(Error::DType { expected: accepts.words(), found }) }
}

fn index_dtype(found: DType) -> Result<()> {
    if found.is_int() { Ok(()) } else { Err(Error::DType { expected: "an integer index (i32 or u32)", found }) }
}

pub(super) fn equal_shapes(what: &'static str, expected: &Shape, found: &Shape) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape { what, expected: expected.clone(), found: found.clone() })
}

fn same_shape(what: &'static str, expected: &Type, found: &Type) -> Result<()> {
    equal_shapes(what, &expected.shape, &found.shape)
}

fn check_axis(axis: usize, shape: &Shape) -> Result<()> {
    if axis < shape.len() { Ok(()) } else { Err(Error::Axis { axis: axis as isize, shape: shape.clone() }) }
}

fn check_rank(rank: usize, shape: &Shape) -> Result<()> {
    if rank == shape.len() {
        Ok(())
    } else {
        Err(Error::Rank { expected: format!("rank {rank}"), shape: shape.clone() })
    }
}

fn axis_extent(shape: &Shape, axis: usize) -> usize {
    shape.get(axis).copied().unwrap_or(0)
}

fn sized(t: Type) -> Result<Type> {
    if t.shape.checked_numel().is_some() { Ok(t) } else { Err(Error::TooLarge { shape: t.shape }) }
}

fn infer_window(windows: &[WindowAxis], operand: &Type) -> Result<Type> {
    let shape = &operand.shape;
    let mut windowed = shape.clone();
    for (i, window) in windows.iter().enumerate() {
        check_axis(window.axis, shape)?;
        if windows[..i].iter().any(|other| other.axis == window.axis) {
            let axes = windows.iter().map(|w| w.axis as isize).collect();
            return Err(Error::Axes { axes, expected: "distinct axes", shape: shape.clone() });
        }
        for (argument, number) in [("size", window.size), ("stride", window.stride), ("dilation", window.dilation)] {
            if number == 0 {
                return Err(Error::Argument { argument, expected: "at least 1", found: "0".into() });
            }
        }
        let count = window.count(shape[window.axis]);
        if count == 0 {
            let found = format!("{} (dilation {}) along axis {} of {shape}", window.size, window.dilation, window.axis);
            return Err(Error::Argument { argument: "size", expected: "a window that fits", found });
        }
        windowed = windowed.with(window.axis, count);
    }
    let shape = windowed.iter().copied().chain(windows.iter().map(|window| window.size)).collect();
    sized(Type { shape, dtype: operand.dtype })
}

fn infer_reduce(op: ReduceOp, axes: &[usize], operand: &Type) -> Result<Type> {
    accepts_dtype(Accepts::Numbers, operand.dtype)?;
    let shape = &operand.shape;
    for (i, &axis) in axes.iter().enumerate() {
        check_axis(axis, shape)?;
        if axes[..i].contains(&axis) {
            let axes = axes.iter().map(|&a| a as isize).collect();
            return Err(Error::Axes { axes, expected: "distinct axes", shape: shape.clone() });
        }
    }
    let has_no_identity = !matches!(op, ReduceOp::Sum | ReduceOp::Prod);
    let result = shape.with_ones(axes);
    if has_no_identity && shape.numel() == 0 && result.numel() > 0 {
        return Err(Error::Argument {
            argument: "shape",
            expected: "at least one element to reduce",
            found: shape.to_string(),
        });
    }
    if op.gives_index() {
        if axes.len() != 1 {
            let axes = axes.iter().map(|&a| a as isize).collect();
            return Err(Error::Axes { axes, expected: "one axis", shape: shape.clone() });
        }
        return Ok(Type { shape: result, dtype: DType::I32 });
    }
    Ok(Type { shape: result, dtype: operand.dtype })
}

fn infer_contract(batch: usize, contracted: usize, a: &Type, b: &Type) -> Result<Type> {
    let fail = |reason: String| Error::Contract { left: a.shape.clone(), right: b.shape.clone(), reason };
    if a.shape.len() < batch + contracted || b.shape.len() < batch + contracted {
        return Err(fail(format!("needs {batch} batch and {contracted} contracted axes")));
    }
    let (a_split, b_split) = (a.shape.len() - contracted, b.shape.len() - contracted);
    if a.shape[..batch] != b.shape[..batch] {
        return Err(fail(format!("batch extents {:?} and {:?} differ", &a.shape[..batch], &b.shape[..batch])));
    }
    if a.shape[a_split..] != b.shape[b_split..] {
        return Err(fail(format!("contracted extents {:?} and {:?} differ", &a.shape[a_split..], &b.shape[b_split..])));
    }
    let shape = a.shape[..a_split].iter().chain(&b.shape[batch..b_split]).copied().collect();
    sized(Type { shape, dtype: a.dtype })
}
