//! Between the host and the device.

use super::super::inputs::values;
use super::super::workload::{Cost, Run, Suite, Unit, Workload, differences};
use gradus::Result;
use gradus::prelude::*;

/// Floats of 64 MiB.
const COUNT: usize = 1 << 24;

pub(super) fn workloads() -> Vec<Workload> {
    // Read on one side, and written on the other.
    let cost = (Unit::Bytes, Cost::bytes(2 * 4 * COUNT));
    vec![Workload::new("upload", Suite::Full, cost, upload), Workload::new("read_back", Suite::Full, cost, read_back)]
}

/// A tensor takes its vector, so a copy of that is part of it: on the CPU nothing else is.
fn upload(device: &Device) -> Result<Run> {
    let (values, on) = (values(COUNT, 91, 1.0), device.clone());
    let check = differences(&Tensor::from_vec(values.clone(), [COUNT], &on).to_vec::<f32>()?, &values);
    Ok(Run::of(check, device, move || Tensor::from_vec(values.clone(), [COUNT], &on).eval()))
}

fn read_back(device: &Device) -> Result<Run> {
    let values = values(COUNT, 91, 1.0);
    let x = Tensor::from_vec(values.clone(), [COUNT], device);
    let check = differences(&x.to_vec::<f32>()?, &values);
    Ok(Run::of(check, device, move || x.to_vec::<f32>().map(drop)))
}
