//! What a device can do at most, measured: with it, a workload's time tells how far there is to go.

use super::measure::median;
use super::workload::Cost;
use gradus::{CustomOp, DType, Device, ErrorKind, Result, Tensor, compile};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Floats that are copied: more than caches hold.
const COPIED: usize = 1 << 24;
/// Seconds of a sample.
const SAMPLE: f64 = 0.02;
/// Multiply-adds of one invocation: so many rounds of 32 by vectors of four.
const ROUNDS: usize = 128;
const PER_INVOCATION: usize = ROUNDS * 32 * 4;

/// A device's ceilings.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Ceilings {
    /// Bytes read and written per second by a copy.
    pub(super) copy: f64,
    /// f32 operations per second; a multiply-add is two.
    pub(super) f32: f64,
    /// f16 operations per second, where the device computes in f16.
    pub(super) f16: Option<f64>,
    /// Seconds that a kernel costs at least, however little it does.
    pub(super) dispatch: f64,
    /// Seconds until a number that was just computed is on the host.
    pub(super) read: f64,
}

/// Which ceiling binds a workload, and the least time that it leaves.
pub(super) struct Floor {
    pub(super) name: &'static str,
    pub(super) seconds: f64,
}

impl Ceilings {
    /// Measures them, in a few seconds.
    pub(super) fn of(device: &Device) -> Result<Ceilings> {
        let is_cpu = device.name() == "cpu";
        let increment = compile(|x: &[Tensor]| Ok(vec![&x[0] + 1.0]));
        let one = Tensor::zeros([1], device) + 0.0;
        one.eval()?;
        Ok(Ceilings {
            copy: copy(device)?,
            f32: if is_cpu { multiply_adds_of_cpu() } else { multiply_adds(device, DType::F32)? },
            f16: if is_cpu { None } else { where_there_is_one(multiply_adds(device, DType::F16))? },
            dispatch: fastest(device, || increment.call(std::slice::from_ref(&one)).map(drop))?,
            read: fastest(device, || increment.call(std::slice::from_ref(&one))?[0].item::<f32>().map(drop))?,
        })
    }

    /// The least time of an iteration with a cost and so many kernels.
    pub(super) fn floor(&self, cost: &Cost, launches: f64) -> Floor {
        let (name, rate) = match self.f16 {
            Some(rate) if cost.half => ("f16", rate),
            _ => ("f32", self.f32),
        };
        let floors = [
            Floor { name: "copy", seconds: cost.bytes / self.copy },
            Floor { name, seconds: cost.operations / rate },
            Floor { name: "dispatch", seconds: launches * self.dispatch },
        ];
        floors.into_iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds)).expect("there are three")
    }
}

/// Nothing of a dtype that the device has not.
fn where_there_is_one<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NoDType { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Seconds of an iteration: the fastest of some samples, since other programs only ever add. A sample has so many iterations
/// that waiting for the device at its end does not count.
fn fastest(device: &Device, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut sample = |count: usize| -> Result<f64> {
        let start = Instant::now();
        (0..count).try_for_each(|_| once())?;
        device.synchronise()?;
        Ok(start.elapsed().as_secs_f64() / count as f64)
    };
    // The first one plans and compiles.
    sample(1)?;
    let count = (SAMPLE / sample(4)?).clamp(1.0, 1000.0) as usize;
    (0..8).try_fold(f64::INFINITY, |least, _| Ok(sample(count)?.min(least)))
}

/// Bytes per second, of a copy by hand or of the library's own map: the better one.
fn copy(device: &Device) -> Result<f64> {
    let copy = CustomOp::define("copy")
        .input("x", DType::F32)
        .output(DType::F32, |shapes| Ok(shapes[0].clone()))
        .cpu(|inputs, output| {
            let (x, y) = (inputs[0].values::<f32>()?, output.values::<f32>()?);
            y.par_chunks_mut(1 << 16).zip(x.par_chunks(1 << 16)).for_each(|(y, x)| y.copy_from_slice(x));
            Ok(())
        })
        .wgsl(
            "@compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                 let i = flat_index(id);
                 if i < output_len() {
                     output[i] = x[i];
                 }
             }",
        )
        .build()?;
    let x = Tensor::zeros([COPIED], device) + 0.0;
    x.eval()?;
    let by_hand = fastest(device, || copy.apply(&[&x]).eval())?;
    let as_map = fastest(device, || (&x * 2.0).eval())?;
    Ok(2.0 * 4.0 * COPIED as f64 / by_hand.min(as_map))
}

/// Operations per second of a GPU: independent multiply-adds in registers.
fn multiply_adds(device: &Device, dtype: DType) -> Result<f64> {
    let real = if dtype == DType::F16 { "f16" } else { "f32" };
    let accumulators = |line: fn(usize) -> String| (0..8).map(line).collect::<Vec<_>>().join("\n");
    let declared = accumulators(|i| format!("var a{i} = vec4<Real>(seed + Real({i}));"));
    let round = accumulators(|i| format!("a{i} = fma(a{i}, factor, term);")).repeat(4);
    let sum = (0..8).map(|i| format!("a{i}")).collect::<Vec<_>>().join(" + ");
    let text = format!(
        "alias Real = {real};
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
             let i = flat_index(id);
             if i >= output_len() {{ return; }}
             let seed = x[i];
             let factor = vec4<Real>(seed * Real(0.5));
             let term = vec4<Real>(seed * Real(0.25));
             {declared}
             for (var round = 0u; round < {ROUNDS}u; round++) {{ {round} }}
             let sum = {sum};
             output[i] = sum.x + sum.y + sum.z + sum.w;
         }}"
    );
    let op = CustomOp::define("multiply_add")
        .input("x", dtype)
        .output(dtype, |shapes| Ok(shapes[0].clone()))
        .wgsl(text)
        .build()?;
    let mut invocations = 1 << 14;
    // Enough of them that launching does not count.
    loop {
        let x = Tensor::full([invocations], 1.0, device).to_dtype(dtype) + 0.0;
        x.eval()?;
        let seconds = fastest(device, || op.apply(&[&x]).eval())?;
        if seconds > 0.02 || invocations >= 1 << 24 {
            return Ok(2.0 * (PER_INVOCATION * invocations) as f64 / seconds);
        }
        invocations *= 4;
    }
}

/// Operations per second of all threads: independent multiply-adds in registers.
fn multiply_adds_of_cpu() -> f64 {
    const STEPS: usize = 1 << 20;
    struct Accumulate;
    impl pulp::WithSimd for Accumulate {
        type Output = f64;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, simd: S) -> f64 {
            let (factor, term) = (simd.splat_f32s(0.5), simd.splat_f32s(std::hint::black_box(0.25)));
            let mut sums = [term; 12];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = simd.mul_add_f32s(*sum, factor, term);
                }
            }
            std::hint::black_box(sums);
            2.0 * (STEPS * sums.len() * S::F32_LANES) as f64
        }
    }
    let rates: Vec<f64> = (0..8)
        .map(|_| {
            let start = Instant::now();
            let operations: Vec<f64> = rayon::broadcast(|_| pulp::Arch::new().dispatch(Accumulate));
            operations.iter().sum::<f64>() / start.elapsed().as_secs_f64()
        })
        .collect();
    rates.iter().copied().fold(median(&rates), f64::max)
}
