//! The element-wise ops of the reference.

use super::{Array, rounding, wrap};
use gradus_ir::DType;
use gradus_ir::op::{Op, Type};

/// Evaluates a row, `Select` or `Cast` at every element.
pub(super) fn evaluate(op: &Op, operands: &[&Array], ty: &Type) -> Array {
    let element = |i: usize| {
        let x: Vec<(f64, f64)> = operands.iter().map(|o| (o.values[i], o.errors[i])).collect();
        match op {
            Op::Unary(op) => {
                let dtype = operands[0].ty.dtype;
                let f = |v: &[f64]| match dtype {
                    DType::Bool => op.on_bool(v[0] != 0.0) as u8 as f64,
                    DType::I32 | DType::U32 => wrap(op.exact_int(v[0] as i64), dtype),
                    DType::F32 | DType::F64 => op.exact(v[0]),
                };
                row(f, &x, op.ulps(), dtype)
            }
            Op::Binary(op) => {
                let dtype = operands[0].ty.dtype;
                let f = |v: &[f64]| match dtype {
                    DType::Bool => op.on_bool(v[0] != 0.0, v[1] != 0.0) as u8 as f64,
                    DType::I32 | DType::U32 => wrap(op.exact_int(v[0] as i64, v[1] as i64), dtype),
                    DType::F32 | DType::F64 => op.exact(v[0], v[1]),
                };
                row(f, &x, op.ulps(), dtype)
            }
            Op::Compare(op) => {
                let holds = op.exact(x[0].0, x[1].0) as u8 as f64;
                let margin = x[0].1 + x[1].1;
                let close = margin > 0.0 && !((x[0].0 - x[1].0).abs() > margin);
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

/// A row's value, and how far it moves when its operands move within their errors, plus its rounding.
fn row(f: impl Fn(&[f64]) -> f64, x: &[(f64, f64)], ulps: f64, dtype: DType) -> (f64, f64) {
    let centre: Vec<f64> = x.iter().map(|&(value, _)| value).collect();
    let value = f(&centre);
    let mut error = 0f64;
    if x.iter().any(|&(_, e)| e > 0.0) {
        // The corners of the box, and zero where it lies inside, for poles.
        let candidates: Vec<Vec<f64>> = x
            .iter()
            .map(|&(v, e)| {
                let straddles = e > v.abs() && e.is_finite();
                [v - e, v + e].into_iter().chain(straddles.then_some(0.0)).collect()
            })
            .collect();
        let mut points = vec![Vec::new()];
        for axis in &candidates {
            points = points.iter().flat_map(|p: &Vec<f64>| axis.iter().map(|&c| [&p[..], &[c]].concat())).collect();
        }
        for point in points {
            let moved = f(&point);
            let distance =
                if moved == value || (moved.is_nan() && value.is_nan()) { 0.0 } else { (moved - value).abs() };
            error = error.max(if distance.is_nan() { f64::INFINITY } else { distance });
        }
        // Second-order terms.
        error *= 1.01;
    }
    let (unit, tiny) = rounding(dtype);
    let own =
        if value.is_finite() { 2.0 * ulps * unit * value.abs() + if ulps > 0.0 { tiny } else { 0.0 } } else { 0.0 };
    (value, error + own)
}

fn cast((value, error): (f64, f64), from: DType, to: DType) -> (f64, f64) {
    let convert = |x: f64| match to {
        DType::Bool => (x != 0.0) as u8 as f64,
        DType::I32 if from.is_float() => x as i32 as f64,
        DType::U32 if from.is_float() => x as u32 as f64,
        DType::I32 | DType::U32 => wrap(x as i64, to),
        DType::F32 if from.is_int() => x as f32 as f64,
        DType::F32 | DType::F64 => x,
    };
    let result = convert(value);
    let moved = [value - error, value + error].map(|x| (convert(x) - result).abs());
    let spread = if error == 0.0 { 0.0 } else { moved[0].max(moved[1]) };
    let narrows = from == DType::F64 && to == DType::F32;
    let own = if narrows && result.is_finite() { rounding(to).0 * result.abs() + rounding(to).1 } else { 0.0 };
    (result, if spread.is_nan() { f64::INFINITY } else { spread } + own)
}
