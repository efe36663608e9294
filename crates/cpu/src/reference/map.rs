//! The element-wise ops of the reference.

use super::{Array, Tolerance, rounding, to_f16, wrap};
use gradus_ir::DType;
use gradus_ir::op::{BinaryOp, Op, Type, UnaryOp};
use std::f64::consts::FRAC_PI_4;

/// Evaluates a row, `Select` or `Cast` at every element.
pub(super) fn evaluate(op: &Op, operands: &[&Array], ty: &Type, tolerance: Tolerance) -> Array {
    let ulps = match op {
        // Every device rounds these to the nearest number.
        Op::Unary(op @ UnaryOp::Square) => op.ulps(),
        Op::Binary(op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul)) => op.ulps(),
        Op::Unary(op) => tolerance.functions * op.ulps(),
        Op::Binary(op) => tolerance.functions * op.ulps(),
        _ => 0.0,
    };
    let element = |i: usize| {
        let x: Vec<(f64, f64)> = operands.iter().map(|o| (o.values[i], o.errors[i])).collect();
        match op {
            Op::Unary(op) => {
                let dtype = operands[0].ty.dtype;
                let f = |v: &[f64]| match dtype {
                    DType::Bool => op.on_bool(v[0] != 0.0) as u8 as f64,
                    DType::I32 | DType::U32 => wrap(op.exact_int(v[0] as i64), dtype),
                    DType::F16 | DType::F32 | DType::F64 => op.exact(v[0]),
                };
                let (value, error) = row(f, &x, ulps, dtype);
                (value, error.max(lost_phase(*op, x[0], dtype)))
            }
            Op::Binary(op) => {
                let dtype = operands[0].ty.dtype;
                let f = |v: &[f64]| match dtype {
                    DType::Bool => op.on_bool(v[0] != 0.0, v[1] != 0.0) as u8 as f64,
                    DType::I32 | DType::U32 => wrap(op.exact_int(v[0] as i64, v[1] as i64), dtype),
                    DType::F16 | DType::F32 | DType::F64 => op.exact(v[0], v[1]),
                };
                let (value, error) = row(f, &x, ulps, dtype);
                let doubt = match op {
                    BinaryOp::Rem => lost_period(x[0], x[1]),
                    // Of two zeros either is the larger, and a later pole may tell their signs apart.
                    BinaryOp::Max | BinaryOp::Min if x[0].0 == 0.0 && x[1].0 == 0.0 => rounding(dtype).1,
                    _ => 0.0,
                };
                (value, error.max(doubt) + reordered(*op, x[0].0, x[1].0, dtype, tolerance))
            }
            Op::Compare(op) => {
                let holds = op.exact(x[0].0, x[1].0) as u8 as f64;
                let margin = x[0].1 + x[1].1;
                let distance = (x[0].0 - x[1].0).abs();
                let close = margin > 0.0 && (distance <= margin || distance.is_nan());
                (holds, close as u8 as f64)
            }
            Op::Select => {
                let (chosen, other) = if x[0].0 != 0.0 { (x[1], x[2]) } else { (x[2], x[1]) };
                let doubt = if x[0].1 > 0.0 { doubtful_choice(chosen, other) } else { 0.0 };
                (chosen.0, chosen.1.max(doubt))
            }
            _ => cast(x[0], operands[0].ty.dtype, ty.dtype),
        }
    };
    let (values, errors) = (0..ty.shape.numel()).map(element).unzip();
    Array { ty: ty.clone(), values, errors }
}

fn doubtful_choice(chosen: (f64, f64), other: (f64, f64)) -> f64 {
    let distance = (chosen.0 - other.0).abs() + other.1;
    if distance.is_nan() { f64::INFINITY } else { distance }
}

/// What is lost where the operand of a periodic row is known too roughly to say where in its period it lies, or, in
/// f32, is too large for its row's argument reduction.
fn lost_phase(op: UnaryOp, (x, error): (f64, f64), dtype: DType) -> f64 {
    let lost = error > FRAC_PI_4 || (dtype == DType::F32 && x.is_finite() && x.abs() > 1e8);
    match op {
        UnaryOp::Sin | UnaryOp::Cos if lost => 2.0,
        // Between its poles the tangent grows.
        UnaryOp::Tan if lost || (x - error).tan() > (x + error).tan() => f64::INFINITY,
        _ => 0.0,
    }
}

/// What is lost where the quotient of a remainder may have another integer part.
fn lost_period((a, a_error): (f64, f64), (b, b_error): (f64, f64)) -> f64 {
    let ends = |x: f64, error: f64| [x - error, x + error];
    let mut quotients = ends(a, a_error).into_iter().flat_map(|a| ends(b, b_error).map(|b| (a / b).floor()));
    let first = quotients.next();
    if quotients.any(|q| Some(q) != first) && a_error + b_error > 0.0 { b.abs() + b_error } else { 0.0 }
}

/// How much more a chain of sums and differences may lose where its terms are added in another order: for each of its
/// links the rounding of the operands, which may be larger than the result.
fn reordered(op: BinaryOp, x: f64, y: f64, dtype: DType, tolerance: Tolerance) -> f64 {
    let may_be = tolerance.reassociates && dtype == DType::F32 && matches!(op, BinaryOp::Add | BinaryOp::Sub);
    let lost = rounding(dtype).0 * (x.abs() + y.abs());
    if may_be && lost.is_finite() { lost } else { 0.0 }
}

/// A row's value, and how far it moves when its operands move within their errors, plus its rounding.
fn row(f: impl Fn(&[f64]) -> f64, x: &[(f64, f64)], ulps: f64, dtype: DType) -> (f64, f64) {
    let centre: Vec<f64> = x.iter().map(|&(value, _)| value).collect();
    let value = f(&centre);
    if x.iter().any(|&(_, e)| e == f64::INFINITY) {
        return (value, f64::INFINITY);
    }
    let mut error = 0f64;
    if x.iter().any(|&(_, e)| e > 0.0) {
        // The corners of the box, and where they lie inside: zero, for poles, and an integer, for powers.
        let candidates: Vec<Vec<f64>> = x
            .iter()
            .map(|&(v, e)| {
                let inside = [0.0, v.round()].into_iter().filter(|p| (p - v).abs() <= e);
                [v - e, v + e].into_iter().chain(inside).collect()
            })
            .collect();
        let mut points = vec![Vec::new()];
        for axis in &candidates {
            points = points.iter().flat_map(|p: &Vec<f64>| axis.iter().map(|&c| [&p[..], &[c]].concat())).collect();
        }
        for point in points {
            let moved = f(&point);
            let distance = distance(moved, value, dtype);
            error = error.max(if distance.is_nan() { f64::INFINITY } else { distance });
        }
        // Second-order terms.
        error *= 1.01;
    }
    if ulps == 0.0 || !value.is_finite() {
        return (value, error);
    }
    // What is computed in f32 is then rounded to f16.
    let unit = if dtype == DType::F16 { rounding(dtype).0 } else { 0.0 };
    let own = (2.0 * ulps * rounding(dtype.computed()).0 + unit) * value.abs() + rounding(dtype).1;
    (value, error + own)
}

/// How far a result is from where it was. Zeros of either sign are equal, but a later pole may tell them apart.
fn distance(moved: f64, value: f64, dtype: DType) -> f64 {
    match moved == value {
        true if moved == 0.0 && moved.is_sign_negative() != value.is_sign_negative() => rounding(dtype).1,
        true => 0.0,
        false if moved.is_nan() && value.is_nan() => 0.0,
        false => (moved - value).abs(),
    }
}

fn cast((value, error): (f64, f64), from: DType, to: DType) -> (f64, f64) {
    let convert = |x: f64| match to {
        DType::Bool => (x != 0.0) as u8 as f64,
        DType::I32 if from.is_float() => x as i32 as f64,
        DType::U32 if from.is_float() => x as u32 as f64,
        DType::I32 | DType::U32 => wrap(x as i64, to),
        DType::F16 => to_f16(x),
        DType::F32 if from.is_int() => x as f32 as f64,
        DType::F32 | DType::F64 => x,
    };
    let result = convert(value);
    if error == f64::INFINITY {
        return (result, error);
    }
    let nearest_to_zero = if error >= value.abs() { 0.0 } else { value };
    let moved = [value - error, value + error, nearest_to_zero].map(|x| distance(convert(x), result, to));
    let spread = if error == 0.0 { 0.0 } else { moved.into_iter().fold(0.0, f64::max) };
    let narrows = from == DType::F64 && to == DType::F32;
    let own = if narrows && result.is_finite() { rounding(to).0 * result.abs() + rounding(to).1 } else { 0.0 };
    (result, if spread.is_nan() { f64::INFINITY } else { spread } + own)
}
