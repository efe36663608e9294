//! The ops of the reference that move or combine elements.

use super::{Array, Tolerance, flat, indices, largest, ordered, rounding, wrap};
use gradus_ir::op::{Op, ReduceOp, ScatterMode, Type};
use gradus_ir::{DType, Error, Result, Shape};

/// Evaluates a view, reduction, matrix product, gather, scatter, scan or sort.
pub(super) fn evaluate(op: &Op, operands: &[&Array], ty: &Type, tolerance: Tolerance) -> Result<Array> {
    let x = operands[0];
    Ok(match op {
        Op::Reshape => Array { ty: ty.clone(), ..x.clone() },
        Op::Permute(axes) => pick(ty, x, |index| {
            let mut from = vec![0; index.len()];
            for (i, &axis) in axes.iter().enumerate() {
                from[axis] = index[i];
            }
            Some(from)
        }),
        Op::Expand => {
            let extents = x.ty.shape.clone();
            pick(ty, x, |index| Some(index.iter().zip(&*extents).map(|(&i, &d)| if d == 1 { 0 } else { i }).collect()))
        }
        Op::Slice(axes) => pick(ty, x, |index| {
            Some(index.iter().zip(axes).map(|(&i, s)| (s.start as isize + s.step * i as isize) as usize).collect())
        }),
        Op::Pad(axes) => {
            let extents = x.ty.shape.clone();
            pick(ty, x, |index| {
                let mut from = Vec::new();
                for ((&i, pad), &extent) in index.iter().zip(axes).zip(&*extents) {
                    let i = i.checked_sub(pad.low)?;
                    if i % (pad.interior + 1) != 0 || i / (pad.interior + 1) >= extent {
                        return None;
                    }
                    from.push(i / (pad.interior + 1));
                }
                Some(from)
            })
        }
        Op::Window(windows) => {
            let rank = x.ty.shape.len();
            pick(ty, x, |index| {
                let mut from = index[..rank].to_vec();
                for (window, &i) in windows.iter().zip(&index[rank..]) {
                    from[window.axis] = from[window.axis] * window.stride + i * window.dilation;
                }
                Some(from)
            })
        }
        Op::Reduce(op, axes) => reduce(*op, axes, x, ty, tolerance),
        Op::Contract { batch, contracted } => contract(*batch, *contracted, x, operands[1], ty),
        Op::Gather(axis) => gather(*axis, x, operands[1], ty)?,
        Op::Scatter(mode, axis) => scatter(*mode, *axis, x, operands[1], operands[2])?,
        Op::Scan(op, axis) => ordered::scan(*op, *axis, operands, tolerance),
        Op::Argsort { axis, descending, .. } => ordered::argsort(*axis, *descending, x, ty),
        other => {
            return Err(Error::Backend(format!("the reference has no {}", other.name())));
        }
    })
}

/// Each element from a place of `x`, or zero.
fn pick(ty: &Type, x: &Array, from: impl Fn(&[usize]) -> Option<Vec<usize>>) -> Array {
    let places = indices(&ty.shape).map(|index| from(&index).map(|from| flat(&x.ty.shape, &from)));
    let (values, errors) = places.map(|p| p.map_or((0.0, 0.0), |p| (x.values[p], x.errors[p]))).unzip();
    Array { ty: ty.clone(), values, errors }
}

fn reduce(op: ReduceOp, axes: &[usize], x: &Array, ty: &Type, tolerance: Tolerance) -> Array {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); ty.shape.numel()];
    for (place, mut index) in indices(&x.ty.shape).enumerate() {
        for &axis in axes {
            index[axis] = 0;
        }
        groups[flat(&ty.shape, &index)].push(place);
    }
    let combine = |group: Vec<usize>| {
        let values: Vec<f64> = group.iter().map(|&p| x.values[p]).collect();
        let errors: Vec<f64> = group.iter().map(|&p| x.errors[p]).collect();
        match op {
            ReduceOp::Sum if ty.dtype.is_int() => {
                let sum = values.iter().fold(0i64, |s, &v| s.wrapping_add(v as i64));
                (wrap(sum, ty.dtype), errors.iter().sum())
            }
            ReduceOp::Prod if ty.dtype.is_int() => {
                let product = values.iter().fold(1i64, |p, &v| wrap(p.wrapping_mul(v as i64), ty.dtype) as i64);
                (wrap(product, ty.dtype), errors.iter().sum())
            }
            ReduceOp::Sum => {
                let steps = tolerance.steps_of_sum(values.len(), ty.dtype);
                // Of nothing it is 0, where `Iterator::sum` gives -0.
                let sum = values.iter().fold(0.0, |sum, value| sum + value);
                // Zeros of either sign are equal, but a later pole may tell them apart.
                let zero = if sum == 0.0 { rounding(ty.dtype).1 } else { 0.0 };
                let own = zero + rounding_of_sum(values.iter().copied(), steps, ty.dtype);
                (sum, errors.iter().sum::<f64>() + own)
            }
            ReduceOp::Prod => (values.iter().product(), error_of_product(&values, &errors, ty.dtype)),
            ReduceOp::Max | ReduceOp::Min => {
                let sign = if op == ReduceOp::Max { 1.0 } else { -1.0 };
                let best = values.iter().copied().reduce(|a, b| if b.is_nan() || sign * b > sign * a { b } else { a });
                // Zeros of either sign are equal, but a later pole may tell them apart.
                let own = if best == Some(0.0) { rounding(ty.dtype).1 } else { 0.0 };
                (best.unwrap_or(0.0), errors.iter().copied().fold(own, f64::max))
            }
            ReduceOp::ArgMax | ReduceOp::ArgMin => {
                arg_best(&values, &errors, if op == ReduceOp::ArgMax { 1.0 } else { -1.0 })
            }
        }
    };
    let (values, errors) = groups.into_iter().map(combine).unzip();
    Array { ty: ty.clone(), values, errors }
}

/// What the rounding of a sum's partial sums may add up to. Terms that are not finite decide the sum without rounding.
pub(super) fn rounding_of_sum(terms: impl Iterator<Item = f64>, steps: f64, dtype: DType) -> f64 {
    let (unit, tiny) = rounding(dtype);
    let magnitude: f64 = terms.filter(|t| t.is_finite()).map(f64::abs).sum();
    // Partial sums may overflow in one order and not in another.
    if magnitude > largest(dtype) { f64::INFINITY } else { steps * (unit * magnitude + tiny) }
}

/// How far a product of elements with errors may be away.
pub(super) fn error_of_product(values: &[f64], errors: &[f64], dtype: DType) -> f64 {
    let (unit, tiny) = rounding(dtype);
    let sizes = || values.iter().map(|v| v.abs()).filter(|&v| v > 0.0 && v.is_finite());
    let (most, least) = (sizes().map(|v| v.max(1.0)).product::<f64>(), sizes().map(|v| v.min(1.0)).product::<f64>());
    if most > largest(dtype) || least < tiny {
        // In some order a partial product leaves the range.
        return f64::INFINITY;
    }
    let product = values.iter().product::<f64>().abs();
    if !product.is_finite() {
        return if errors.iter().any(|&e| e > 0.0) { f64::INFINITY } else { 0.0 };
    }
    let reach: f64 = values.iter().zip(errors).map(|(v, e)| v.abs() + e).product();
    (reach - product) * 1.01 + (values.len() as f64 + 1.0) * unit * reach + tiny
}

/// The first best index; doubtful (error ∞) where another element comes within the errors.
fn arg_best(values: &[f64], errors: &[f64], sign: f64) -> (f64, f64) {
    let mut best = 0;
    for (i, &v) in values.iter().enumerate() {
        if sign * v > sign * values[best] || (v.is_nan() && !values[best].is_nan()) {
            best = i;
        }
    }
    let doubtful = values.iter().zip(errors).enumerate().any(|(i, (&v, &e))| {
        let margin = e + errors.get(best).copied().unwrap_or(0.0);
        let distance = (v - values[best]).abs();
        i != best && margin > 0.0 && (distance <= margin || distance.is_nan())
    });
    (best as f64, if doubtful { f64::INFINITY } else { 0.0 })
}

fn contract(batch: usize, contracted: usize, a: &Array, b: &Array, ty: &Type) -> Array {
    let a_free = a.ty.shape.len() - batch - contracted;
    let summed = a.ty.shape[batch + a_free..].iter().product::<usize>();
    // The summed axes are the last ones of both operands: those before them number its rows.
    let rows = |x: &Array| -> Shape { x.ty.shape[..x.ty.shape.len() - contracted].iter().copied().collect() };
    let (a_rows, b_rows) = (rows(a), rows(b));
    let element = |index: Vec<usize>| {
        let (mut sum, mut wrapped, mut terms, mut error) = (0.0, 0i64, Vec::new(), 0.0);
        let a_row = flat(&a_rows, &index[..batch + a_free]);
        let b_row = flat(&b_rows, &[&index[..batch], &index[batch + a_free..]].concat());
        for k in 0..summed {
            let (pa, pb) = (a_row * summed + k, b_row * summed + k);
            let (va, vb, ea, eb) = (a.values[pa], b.values[pb], a.errors[pa], b.errors[pb]);
            sum += va * vb;
            wrapped = wrapped.wrapping_add((va as i64).wrapping_mul(vb as i64));
            terms.push(va * vb);
            error += product_error(va, ea, vb, eb);
        }
        if ty.dtype.is_int() {
            return (wrap(wrapped, ty.dtype), error);
        }
        let steps = terms.len() as f64 + 2.0;
        (sum, error + rounding_of_sum(terms.into_iter(), steps, ty.dtype))
    };
    let (values, errors) = indices(&ty.shape).map(element).unzip();
    Array { ty: ty.clone(), values, errors }
}

pub(super) fn product_error(a: f64, ea: f64, b: f64, eb: f64) -> f64 {
    // 0 · ∞ must not become NaN.
    let times = |x: f64, y: f64| if x == 0.0 || y == 0.0 { 0.0 } else { x * y };
    times(a.abs(), eb) + times(b.abs(), ea) + times(ea, eb)
}

/// An index as it is, if all of it is in range.
pub(super) fn checked(index: &Array, axis: usize, extent: usize) -> Result<Array> {
    (0..index.values.len()).try_for_each(|place| index_at(index, place, axis, extent).map(|_| ()))?;
    Ok(index.clone())
}

fn index_at(index: &Array, place: usize, axis: usize, extent: usize) -> Result<usize> {
    let value = index.values[place];
    if value < 0.0 || value >= extent as f64 {
        return Err(Error::Index { index: value as i64, axis, extent });
    }
    Ok(value as usize)
}

fn gather(axis: usize, x: &Array, index: &Array, ty: &Type) -> Result<Array> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for (place, mut at) in indices(&ty.shape).enumerate() {
        at[axis] = index_at(index, place, axis, x.ty.shape[axis])?;
        let from = flat(&x.ty.shape, &at);
        values.push(x.values[from]);
        errors.push(if index.errors[place] > 0.0 { f64::INFINITY } else { x.errors[from] });
    }
    Ok(Array { ty: ty.clone(), values, errors })
}

fn scatter(mode: ScatterMode, axis: usize, base: &Array, index: &Array, updates: &Array) -> Result<Array> {
    let mut result = base.clone();
    // What is added to each element of the base, with the element.
    let mut terms: Vec<Vec<f64>> = base.values.iter().map(|&value| vec![value]).collect();
    for (place, mut at) in indices(&updates.ty.shape).enumerate() {
        at[axis] = index_at(index, place, axis, base.ty.shape[axis])?;
        let to = flat(&base.ty.shape, &at);
        let (value, error) = (updates.values[place], updates.errors[place]);
        match mode {
            ScatterMode::Set => (result.values[to], result.errors[to]) = (value, error),
            ScatterMode::Add => {
                let sum = result.values[to] + value;
                result.values[to] = if base.ty.dtype.is_int() { wrap(sum as i64, base.ty.dtype) } else { sum };
                result.errors[to] += error;
                terms[to].push(value);
            }
        }
    }
    if base.ty.dtype.is_float() {
        for (error, terms) in result.errors.iter_mut().zip(terms).filter(|(_, terms)| terms.len() > 1) {
            // In any order.
            *error += rounding_of_sum(terms.iter().copied(), terms.len() as f64 - 1.0, base.ty.dtype);
        }
    }
    if index.errors.iter().any(|&e| e > 0.0) {
        result.errors.fill(f64::INFINITY);
    }
    Ok(result)
}
