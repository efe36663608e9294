//! The ops of the reference that move or combine elements.

use super::{Array, flat, indices, rounding, wrap};
use gradus_ir::op::{Op, ReduceOp, ScatterMode, Type};
use gradus_ir::{Error, Result, Shape};

/// Evaluates a view, reduction, matrix product, gather or scatter.
pub(super) fn evaluate(op: &Op, operands: &[&Array], ty: &Type) -> Result<Array> {
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
        Op::Reduce(op, axes) => reduce(*op, axes, x, ty),
        Op::Contract { batch, contracted } => contract(*batch, *contracted, x, operands[1], ty),
        Op::Gather(axis) => gather(*axis, x, operands[1], ty)?,
        Op::Scatter(mode, axis) => scatter(*mode, *axis, x, operands[1], operands[2])?,
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

fn reduce(op: ReduceOp, axes: &[usize], x: &Array, ty: &Type) -> Array {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); ty.shape.numel()];
    for (place, mut index) in indices(&x.ty.shape).enumerate() {
        for &axis in axes {
            index[axis] = 0;
        }
        groups[flat(&ty.shape, &index)].push(place);
    }
    let (unit, tiny) = rounding(ty.dtype);
    let combine = |group: Vec<usize>| {
        let values: Vec<f64> = group.iter().map(|&p| x.values[p]).collect();
        let errors: Vec<f64> = group.iter().map(|&p| x.errors[p]).collect();
        match op {
            ReduceOp::Sum if ty.dtype.is_int() => {
                (wrap(values.iter().fold(0i64, |s, &v| s.wrapping_add(v as i64)), ty.dtype), 0.0)
            }
            ReduceOp::Prod if ty.dtype.is_int() => {
                let product = values.iter().fold(1i64, |p, &v| wrap(p.wrapping_mul(v as i64), ty.dtype) as i64);
                (wrap(product, ty.dtype), 0.0)
            }
            ReduceOp::Sum => {
                let magnitude: f64 = values.iter().map(|v| v.abs()).sum();
                let steps = (values.len() as f64 + 1.0).log2() + 4.0;
                (values.iter().sum(), errors.iter().sum::<f64>() + steps * unit * magnitude + tiny)
            }
            ReduceOp::Prod => {
                let product: f64 = values.iter().product();
                let reach: f64 = values.iter().zip(&errors).map(|(v, e)| v.abs() + e).product();
                (product, (reach - product.abs()) * 1.01 + (values.len() as f64 + 1.0) * unit * reach + tiny)
            }
            ReduceOp::Max | ReduceOp::Min => {
                let sign = if op == ReduceOp::Max { 1.0 } else { -1.0 };
                let best = values.iter().copied().reduce(|a, b| if b.is_nan() || sign * b > sign * a { b } else { a });
                (best.unwrap_or(0.0), errors.iter().copied().fold(0.0, f64::max))
            }
            ReduceOp::ArgMax | ReduceOp::ArgMin => {
                arg_best(&values, &errors, if op == ReduceOp::ArgMax { 1.0 } else { -1.0 })
            }
        }
    };
    let (values, errors) = groups.into_iter().map(combine).unzip();
    Array { ty: ty.clone(), values, errors }
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
        i != best && margin > 0.0 && (v - values[best]).abs() <= margin
    });
    (best as f64, if doubtful { f64::INFINITY } else { 0.0 })
}

fn contract(batch: usize, contracted: usize, a: &Array, b: &Array, ty: &Type) -> Array {
    let a_free = a.ty.shape.len() - batch - contracted;
    let summed: Shape = a.ty.shape[batch + a_free..].iter().copied().collect();
    let (unit, tiny) = rounding(ty.dtype);
    let element = |index: Vec<usize>| {
        let (mut sum, mut wrapped, mut magnitude, mut error) = (0.0, 0i64, 0.0, 0.0);
        for k in indices(&summed) {
            let pa = flat(&a.ty.shape, &[&index[..batch + a_free], &k].concat());
            let pb = flat(&b.ty.shape, &[&index[..batch], &index[batch + a_free..], &k].concat());
            let (va, vb, ea, eb) = (a.values[pa], b.values[pb], a.errors[pa], b.errors[pb]);
            sum += va * vb;
            wrapped = wrapped.wrapping_add((va as i64).wrapping_mul(vb as i64));
            magnitude += (va * vb).abs();
            error += product_error(va, ea, vb, eb);
        }
        if ty.dtype.is_int() {
            return (wrap(wrapped, ty.dtype), error);
        }
        (sum, error + (summed.numel() as f64 + 2.0) * unit * magnitude + tiny)
    };
    let (values, errors) = indices(&ty.shape).map(element).unzip();
    Array { ty: ty.clone(), values, errors }
}

fn product_error(a: f64, ea: f64, b: f64, eb: f64) -> f64 {
    // 0 · ∞ must not become NaN.
    let times = |x: f64, y: f64| if x == 0.0 || y == 0.0 { 0.0 } else { x * y };
    times(a.abs(), eb) + times(b.abs(), ea) + times(ea, eb)
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
    let (unit, _) = rounding(base.ty.dtype);
    if index.errors.iter().any(|&e| e > 0.0) {
        result.errors.fill(f64::INFINITY);
    }
    for (place, mut at) in indices(&updates.ty.shape).enumerate() {
        at[axis] = index_at(index, place, axis, base.ty.shape[axis])?;
        let to = flat(&base.ty.shape, &at);
        let (value, error) = (updates.values[place], updates.errors[place]);
        match mode {
            ScatterMode::Set => (result.values[to], result.errors[to]) = (value, error),
            ScatterMode::Add if base.ty.dtype.is_int() => {
                result.values[to] = wrap(result.values[to] as i64 + value as i64, base.ty.dtype);
                result.errors[to] += error;
            }
            ScatterMode::Add => {
                // Partial sums may be larger than the result: each addition rounds at its own size.
                result.errors[to] += error + unit * (result.values[to].abs() + value.abs());
                result.values[to] += value;
            }
        }
    }
    Ok(result)
}
