//! What a device can do at most, measured: with it, a kernel's time tells how far there is to go.

use crate::{CustomOp, DType, Device, Result, Tensor, compile};
use gradus_ir::Error as ErrorKind;
use std::time::Instant;

/// Floats that are copied: more than caches hold.
const COPIED: usize = 1 << 24;
/// Seconds of a sample, and how many there are: fewer, but two, where they take longer than this altogether.
const SAMPLE: f64 = 0.02;
const SAMPLES: usize = 6;
const LONGEST: f64 = 0.2;
/// Multiply-adds of one invocation: so many rounds of 32 by vectors of four.
const ROUNDS: usize = 128;
const PER_INVOCATION: usize = ROUNDS * 32 * 4;

/// A device's ceilings: no kernel that works on large arrays is faster than its [floor](Ceilings::floor). (What stays in
/// caches is, and so may be products of f16, which some GPUs have units of their own for.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes read and written per second by a copy.
    pub copy: f64,
    /// f32 operations per second; a multiply-add is two.
    pub f32: f64,
    /// f16 operations per second, where the device computes in f16.
    pub f16: Option<f64>,
    /// Seconds that a kernel costs at least, however little it does.
    pub dispatch: f64,
    /// Seconds until a number that was just computed is on the host.
    pub read: f64,
}

/// Which ceiling binds, and the least time that it leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// `copy`, `f32`, `f16` or `dispatch`.
    pub name: &'static str,
    /// The least time.
    pub seconds: f64,
}

impl Device {
    /// The device's ceilings. The first call measures them, in a second or two during which it should have nothing else to do.
    ///
    /// ```
    /// use gradus_tensor::Device;
    ///
    /// let ceilings = Device::cpu().ceilings()?;
    /// assert!(ceilings.copy > 1e8 && ceilings.f32 > 1e8);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a kernel fails: for want of memory, say.
    pub fn ceilings(&self) -> Result<Ceilings> {
        let known = self.known_ceilings();
        match known.get() {
            Some(ceilings) => Ok(*ceilings),
            None => {
                let measured = Ceilings::of(self)?;
                Ok(*known.get_or_init(|| measured))
            }
        }
    }
}

impl Ceilings {
    fn of(device: &Device) -> Result<Ceilings> {
        let increment = compile(|x: &[Tensor]| Ok(vec![&x[0] + 1.0]));
        let one = Tensor::zeros([1], device) + 0.0;
        one.eval()?;
        let on_gpu = device.backend().runs_wgsl();
        Ok(Ceilings {
            copy: copy(device)?,
            f32: if on_gpu { multiply_adds(device, DType::F32)? } else { gradus_cpu::multiply_add_rate()? },
            f16: if on_gpu { where_there_is_one(multiply_adds(device, DType::F16))? } else { None },
            dispatch: fastest(device, || increment.call(std::slice::from_ref(&one)).map(drop))?,
            read: fastest(device, || increment.call(std::slice::from_ref(&one))?[0].item::<f32>().map(drop))?,
        })
    }

    /// The least time of so many bytes and operations, of f16 or not, in so many kernels.
    ///
    /// ```
    /// use gradus_tensor::Ceilings;
    ///
    /// let ceilings = Ceilings { copy: 1e9, f32: 1e10, f16: None, dispatch: 1e-6, read: 1e-5 };
    /// assert_eq!(ceilings.floor(2e6, 1e6, false, 1.0).name, "copy");
    /// assert_eq!(ceilings.floor(2e6, 1e9, false, 1.0).seconds, 0.1);
    /// ```
    pub fn floor(&self, bytes: f64, operations: f64, are_halves: bool, kernels: f64) -> Floor {
        let (name, rate) = match self.f16 {
            Some(rate) if are_halves => ("f16", rate),
            _ => ("f32", self.f32),
        };
        let floors = [
            Floor { name: "copy", seconds: bytes / self.copy },
            Floor { name, seconds: operations / rate },
            Floor { name: "dispatch", seconds: kernels * self.dispatch },
        ];
        floors.into_iter().fold(floors[0], |most, floor| if floor.seconds > most.seconds { floor } else { most })
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

/// Seconds of an iteration, of so many. A sample has so many that waiting for the device at its end does not count.
fn sample(device: &Device, once: &mut impl FnMut() -> Result<()>, count: usize) -> Result<f64> {
    let start = Instant::now();
    (0..count).try_for_each(|_| once())?;
    device.synchronise()?;
    Ok(start.elapsed().as_secs_f64() / count as f64)
}

/// Seconds of an iteration: the fastest of some samples, since other programs only ever add.
fn fastest(device: &Device, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    // The first one plans and compiles.
    sample(device, &mut once, 1)?;
    let count = (SAMPLE / sample(device, &mut once, 1)?).clamp(1.0, 1000.0) as usize;
    let (start, mut least) = (Instant::now(), f64::INFINITY);
    for round in 0..SAMPLES {
        if round >= 2 && start.elapsed().as_secs_f64() > LONGEST {
            break;
        }
        least = sample(device, &mut once, count)?.min(least);
    }
    Ok(least)
}

/// Bytes per second, of a copy by hand or of the library's own map: the better one.
fn copy(device: &Device) -> Result<f64> {
    let copy = CustomOp::define("copy")
        .input("x", DType::F32)
        .output(DType::F32, |shapes| Ok(shapes[0].clone()))
        .cpu(|inputs, output| {
            gradus_cpu::copy(inputs[0].values::<f32>()?, output.values::<f32>()?);
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
        let mut once = || op.apply(&[&x]).eval();
        sample(device, &mut once, 1)?;
        if sample(device, &mut once, 1)? > SAMPLE || invocations >= 1 << 24 {
            return Ok(2.0 * (PER_INVOCATION * invocations) as f64 / fastest(device, once)?);
        }
        invocations *= 4;
    }
}
