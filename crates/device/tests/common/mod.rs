//! What the tests of this crate share.
#![allow(dead_code)]

use std::fs::OpenOptions;
use std::io::Write;

use gradus_device::{Access, Adapter, Buffer, Device, Error, Launch, Options, Parameters, Pipeline, Trust};

/// The adapter to test on: the first one, be it software. Without one the test fails, or, with `GRADUS_TEST_GPU=skip`,
/// says that it is skipped.
pub(crate) fn adapter() -> Option<Adapter> {
    let first = Adapter::all().into_iter().next();
    if first.is_none() {
        let name = std::thread::current().name().unwrap_or("a test").to_string();
        let skip = std::env::var("GRADUS_TEST_GPU").is_ok_and(|v| v == "skip");
        assert!(skip, "no GPU adapter, not even software: install one, or set GRADUS_TEST_GPU=skip to skip {name}");
        note_skipped(&name);
    }
    first
}

/// Says that a test was skipped: on standard error, past the test harness, and in the file for `.ci/test` to count.
fn note_skipped(test: &str) {
    let line = format!("skipped: {}::{test} (no wgpu adapter)\n", env!("CARGO_CRATE_NAME"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("GRADUS_SKIPPED").filter(|path| !path.is_empty()) {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("GRADUS_SKIPPED names a file to write to");
    }
}

/// A device on [`adapter`].
pub(crate) fn device(options: &Options) -> Option<Device> {
    adapter().map(|adapter| Device::open(&adapter, options).unwrap())
}

/// The device with default options, and the one that has WebGPU's limits and no features.
pub(crate) fn devices() -> Vec<Device> {
    let adapter = adapter();
    let options = [Options::default(), Options { webgpu_limits: true, ..Options::default() }];
    adapter.iter().flat_map(|a| options.iter().map(|o| Device::open(a, o).unwrap())).collect()
}

/// Bytes that look like nothing in particular.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut all: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    all.truncate(bytes);
    all
}

pub(crate) fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect()
}

pub(crate) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// `parameters.a` … as the device wants them declared.
pub(crate) fn declaration(device: &Device, members: usize) -> String {
    let names: Vec<String> = (0..members).map(|i| format!("p{i}: u32")).collect();
    let declared = device.parameters(members).declaration("parameters", "Parameters");
    match device.parameters(members) {
        Parameters::None => String::new(),
        _ => format!("struct Parameters {{ {} }}\n{declared}", names.join(", ")),
    }
}

/// `target[i] = source[i] * p0 + p1` for all elements of the target.
pub(crate) fn affine(device: &Device) -> Pipeline {
    let source = declaration(device, 2)
        + "@group(0) @binding(0) var<storage, read> source: array<u32>;
           @group(0) @binding(1) var<storage, read_write> target_: array<u32>;
           @compute @workgroup_size(64) fn main(
               @builtin(global_invocation_id) at: vec3<u32>,
               @builtin(num_workgroups) groups: vec3<u32>,
           ) {
               let i = at.x + at.y * groups.x * 64u;
               if i < arrayLength(&target_) {
                   target_[i] = source[min(i, arrayLength(&source) - 1u)] * parameters.p0 + parameters.p1;
               }
           }";
    device.pipeline("affine", &source, &[Access::Read, Access::ReadWrite], 2, Trust::Trusted).unwrap()
}

/// Launches [`affine`] over the whole target.
pub(crate) fn launch_affine(
    device: &Device,
    p: &Pipeline,
    source: &Buffer,
    target: &Buffer,
    by: [u32; 2],
) -> Result<(), Error> {
    let groups = (target.bytes().div_ceil(4) as u32).div_ceil(64);
    let workgroups = [groups.min(4096), groups.div_ceil(4096), 1];
    device.launch(&Launch { pipeline: p, buffers: &[source, target], parameters: &by, workgroups })
}

/// Works for a while: each invocation runs `p0` rounds of a loop.
pub(crate) fn slow(device: &Device) -> Pipeline {
    let source = declaration(device, 1)
        + "@group(0) @binding(0) var<storage, read_write> v: array<u32>;
           @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) at: vec3<u32>) {
               var x = at.x;
               for (var i = 0u; i < parameters.p0; i++) { x = x * 1664525u + 1013904223u; }
               v[at.x] = x;
           }";
    device.pipeline("slow", &source, &[Access::ReadWrite], 1, Trust::Trusted).unwrap()
}
