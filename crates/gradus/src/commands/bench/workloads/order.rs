//! What goes along an axis in order: sorting, the largest elements, sums so far.

use super::super::inputs::{tensor, values};
use super::super::workload::{Cost, Run, Suite, Unit, Workload, differences, worse};
use gradus::Result;
use gradus::prelude::*;

const COUNT: usize = 1 << 20;
const ROWS: [usize; 2] = [1024, 1024];
const LARGEST: usize = 10;

pub(super) fn workloads() -> Vec<Workload> {
    // Floats are read, and as many indices or sums are written: what a sort does in between is its own affair.
    let both = (Unit::Bytes, Cost::bytes(2 * 4 * COUNT));
    let read = (Unit::Bytes, Cost::bytes(4 * COUNT + 2 * 4 * ROWS[0] * LARGEST));
    vec![
        Workload::new("argsort", Suite::Full, both, |device| argsort([1, COUNT], device)),
        Workload::new("argsort_rows", Suite::Full, both, |device| argsort(ROWS, device)),
        Workload::new("topk_rows", Suite::Full, read, topk),
        Workload::new("cumsum", Suite::Full, both, cumsum),
    ]
}

/// The indices that sort each row, the largest first, as the host finds them.
fn order(rows: usize) -> Vec<i32> {
    let values = values(COUNT, 81, 1.0);
    let sorted = values.chunks(COUNT / rows).flat_map(|row| {
        let mut indices: Vec<i32> = (0..row.len() as i32).collect();
        // Stable, as the library's sort is.
        indices.sort_by(|&i, &j| row[j as usize].total_cmp(&row[i as usize]));
        indices
    });
    sorted.collect()
}

fn argsort(shape: [usize; 2], device: &Device) -> Result<Run> {
    let x = tensor(shape, 81, 1.0, device);
    x.eval()?;
    let argsort = move || x.argsort(1, true);
    let check = differences(&argsort().to_vec::<i32>()?, &order(shape[0]));
    Ok(Run::of(check, device, move || argsort().eval()))
}

/// The ten largest of each row, and their indices.
fn topk(device: &Device) -> Result<Run> {
    let x = tensor(ROWS, 81, 1.0, device);
    x.eval()?;
    let topk = move || -> Result<[Tensor; 2]> {
        let (values, indices) = x.topk(LARGEST, 1, true);
        eval([&values, &indices])?;
        Ok([values, indices])
    };
    let [largest, indices] = topk()?;
    let expected: Vec<i32> = order(ROWS[0]).chunks(ROWS[1]).flat_map(|row| &row[..LARGEST]).copied().collect();
    let x = values(COUNT, 81, 1.0);
    let values: Vec<f32> = expected.iter().enumerate().map(|(i, &at)| x[i / LARGEST * ROWS[1] + at as usize]).collect();
    let check =
        [differences(&largest.to_vec::<f32>()?, &values), differences(&indices.to_vec::<i32>()?, &expected)].join(", ");
    Ok(Run::of(check, device, move || topk().map(drop)))
}

/// Of numbers in [0, 2); checked by the largest error of a sum, of this sum.
fn cumsum(device: &Device) -> Result<Run> {
    let x = tensor([COUNT], 81, 1.0, device) + 1.0;
    x.eval()?;
    let cumsum = move || x.cumsum(0);
    let mut sum = 0.0;
    let exact = values(COUNT, 81, 1.0).into_iter().map(|value| {
        sum += f64::from(value + 1.0);
        sum
    });
    let error = |(got, exact): (f32, f64)| (f64::from(got) - exact).abs() / exact;
    let worst = cumsum().to_vec::<f32>()?.into_iter().zip(exact).map(error).fold(0.0, worse);
    Ok(Run::of(format!("{worst:.1e}"), device, move || cumsum().eval()))
}
