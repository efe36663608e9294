//! The ops of the reference that go along an axis in order: scans and sorts.

use super::shaped::{error_of_product, product_error, rounding_of_sum};
use super::{Array, Tolerance, flat, indices, largest, rounding, wrap};
use gradus_ir::DType;
use gradus_ir::op::{ScanOp, Type};
use std::cmp::Ordering;

/// The places of each line along an axis.
fn lines(ty: &Type, axis: usize) -> Vec<Vec<usize>> {
    let starts = indices(&ty.shape).filter(|index| index[axis] == 0);
    let place = |mut index: Vec<usize>, i: usize| {
        index[axis] = i;
        flat(&ty.shape, &index)
    };
    starts.map(|start| (0..ty.shape[axis]).map(|i| place(start.clone(), i)).collect()).collect()
}

/// Evaluates a scan.
pub(super) fn scan(op: ScanOp, axis: usize, operands: &[&Array], tolerance: Tolerance) -> Array {
    let mut result = operands[0].clone();
    let dtype = result.ty.dtype;
    for line in lines(&result.ty, axis) {
        let of = |operand: usize| -> (Vec<f64>, Vec<f64>) {
            line.iter().map(|&place| (operands[operand].values[place], operands[operand].errors[place])).unzip()
        };
        let (x, errors) = of(0);
        let carried = match op {
            _ if dtype.is_int() => of_ints(op, &x, &errors, dtype),
            ScanOp::Sum => sums(&x, &errors, dtype, tolerance),
            ScanOp::Prod => products(&x, &errors, dtype),
            ScanOp::Recurrence => {
                let (b, b_errors) = of(1);
                recurrence([&x, &errors], [&b, &b_errors], dtype, tolerance)
            }
        };
        for (place, (value, error)) in line.into_iter().zip(carried) {
            (result.values[place], result.errors[place]) = (value, error);
        }
    }
    result
}

fn of_ints(op: ScanOp, x: &[f64], errors: &[f64], dtype: DType) -> Vec<(f64, f64)> {
    let first = (if op == ScanOp::Sum { 0i64 } else { 1 }, 0.0);
    let steps = x.iter().zip(errors).scan(first, |(carried, error), (&x, &e)| {
        let next = if op == ScanOp::Sum { *carried + x as i64 } else { carried.wrapping_mul(x as i64) };
        *carried = wrap(next, dtype) as i64;
        *error += e;
        Some((*carried as f64, *error))
    });
    steps.collect()
}

fn sums(x: &[f64], errors: &[f64], dtype: DType, tolerance: Tolerance) -> Vec<(f64, f64)> {
    let (mut sum, mut magnitude, mut error) = (0.0, 0.0, 0.0);
    let mut carried = Vec::with_capacity(x.len());
    for (i, (&x, &e)) in x.iter().zip(errors).enumerate() {
        (sum, error) = (sum + x, error + e);
        // What is not finite decides the sum without rounding.
        magnitude += if x.is_finite() { x.abs() } else { 0.0 };
        // Zeros of either sign are equal, but a later pole may tell them apart.
        let zero = if sum == 0.0 { rounding(dtype).1 } else { 0.0 };
        let steps = tolerance.steps_of_sum(i + 1, dtype);
        carried.push((sum, error + zero + rounding_of_sum([magnitude].into_iter(), steps, dtype)));
    }
    carried
}

fn products(x: &[f64], errors: &[f64], dtype: DType) -> Vec<(f64, f64)> {
    let mut product = 1.0;
    let mut carried = Vec::with_capacity(x.len());
    for (i, &x_i) in x.iter().enumerate() {
        product *= x_i;
        carried.push((product, error_of_product(&x[..=i], &errors[..=i], dtype)));
    }
    carried
}

/// Each term is rounded twice on each step that it takes part in, also where a backend cuts the line into parts: then it
/// multiplies a part's coefficients with each other first, which may leave the range.
fn recurrence(a: [&[f64]; 2], b: [&[f64]; 2], dtype: DType, tolerance: Tolerance) -> Vec<(f64, f64)> {
    let (unit, tiny) = rounding(dtype);
    // The CPU carries f32 in f64.
    let inside = if tolerance.block.is_none() { DType::F64 } else { dtype };
    let (own, last) = if inside == dtype { (unit, 0.0) } else { (rounding(inside).0, unit) };
    let (mut y, mut magnitude, mut error, mut product) = (0.0, 0.0f64, 0.0f64, 1.0f64);
    let (mut is_lost, mut overflows) = (false, false);
    let mut carried = Vec::with_capacity(a[0].len());
    for i in 0..a[0].len() {
        let (a, a_error, b, b_error) = (a[0][i], a[1][i], b[0][i], b[1][i]);
        y = a * y + b;
        error = product_error(a, a_error, magnitude, error) + b_error;
        magnitude = if a == 0.0 { 0.0 } else { a.abs() * magnitude } + b.abs();
        product *= a.abs().max(1.0) + a_error;
        error += 2.0 * (own * magnitude + tiny);
        // What has become infinite is NaN after a zero.
        overflows |= magnitude.is_finite() && (magnitude + error).max(product) > largest(inside);
        if overflows || magnitude.is_finite() && magnitude + error > largest(dtype) {
            error = f64::INFINITY;
        }
        // NaN stays, whatever it meets.
        is_lost |= (a.is_nan() && a_error == 0.0) || (b.is_nan() && b_error == 0.0);
        carried.push(if is_lost { (y, 0.0) } else { (y, error * 1.01 + last * y.abs() + tiny) });
    }
    carried
}

/// Evaluates the order of lines, or its beginning. Where the errors of two elements let them change places, so may all between them.
pub(super) fn argsort(axis: usize, descending: bool, x: &Array, ty: &Type) -> Array {
    let count = ty.shape.numel();
    let mut result = Array { ty: ty.clone(), values: vec![0.0; count], errors: vec![0.0; count] };
    if count == 0 {
        return result;
    }
    for (line, kept) in lines(&x.ty, axis).into_iter().zip(lines(ty, axis)) {
        let (value, error) = (|i: usize| x.values[line[i]], |i: usize| x.errors[line[i]]);
        let mut order: Vec<usize> = (0..line.len()).collect();
        order.sort_by(|&i, &j| {
            let ascending = compared(value(i), value(j));
            if descending { ascending.reverse() } else { ascending }
        });
        for (&place, &i) in kept.iter().zip(&order) {
            result.values[place] = i as f64;
        }
        let is_sharp = |i: usize| error(i) == 0.0;
        for (first, &i) in order.iter().enumerate() {
            for (last, &j) in order.iter().enumerate().skip(first + 1) {
                let distance = (value(i) - value(j)).abs();
                if !(is_sharp(i) && is_sharp(j)) && (distance <= error(i) + error(j) || distance.is_nan()) {
                    let places = kept.iter().take(last + 1).skip(first);
                    places.for_each(|&place| result.errors[place] = f64::INFINITY);
                }
            }
        }
    }
    result
}

/// NaN is the largest.
fn compared(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
