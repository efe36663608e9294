//! What this crate's calls cost on an adapter: `cargo run --release -p gradus-device --example measure [adapter]`.

use gradus_device::{
    Access, Adapter, Buffer, Device, Error, Launch, Options, Parameters, Pipeline, Selector, Trust, select,
};
use std::time::Instant;

/// The least time in nanoseconds that `work` takes for one of `count` things, out of some tries.
fn least(count: usize, tries: usize, mut work: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let mut best = f64::INFINITY;
    for _ in 0..tries {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_nanos() as f64 / count as f64);
    }
    Ok(best)
}

fn kernel(device: &Device, body: &str, trust: Trust) -> Result<Pipeline, Error> {
    let declaration = match device.parameters(2) {
        Parameters::None => String::new(),
        other => format!("struct Parameters {{ n: u32, k: u32 }}\n{}", other.declaration("parameters", "Parameters")),
    };
    let source = declaration
        + "@group(0) @binding(0) var<storage, read> x: array<f32>;
           @group(0) @binding(1) var<storage, read_write> y: array<f32>;
           @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) at: vec3<u32>) {"
        + body
        + "}";
    device.pipeline("measured", &source, &[Access::Read, Access::ReadWrite], 2, trust)
}

fn launch(device: &Device, pipeline: &Pipeline, buffers: [&Buffer; 2], n: u32, groups: u32) -> Result<(), Error> {
    device.launch(&Launch { pipeline, buffers: &buffers, parameters: &[n, 3], workgroups: [groups, 1, 1] })
}

fn launches(device: &Device) -> Result<(), Error> {
    let nothing = kernel(device, "if at.x < parameters.n { y[at.x] = x[at.x]; }", Trust::Trusted)?;
    let other = kernel(device, "if at.x < parameters.n { y[at.x] = -x[at.x]; }", Trust::Trusted)?;
    let buffers: Vec<Buffer> = (0..64).map(|_| device.allocate(1024)).collect::<Result<_, _>>()?;
    let pair = |i: usize| [&buffers[i % 8], &buffers[8 + i % 8]];
    // Compiled by the driver with the first launch.
    launch(device, &nothing, pair(0), 0, 1)?;
    launch(device, &other, pair(0), 0, 1)?;
    device.synchronise()?;

    const N: usize = 120; // fewer than are handed over at once
    // The time of a flush is left out by measuring only the first part of each round.
    let encoded = |name: &str, alternate, spread| -> Result<(), Error> {
        let mut best = f64::INFINITY;
        for _ in 0..50 {
            device.synchronise()?;
            launch(device, &nothing, pair(0), 0, 1)?;
            let start = Instant::now();
            for i in 0..N {
                let pipeline = if alternate && i % 2 == 1 { &other } else { &nothing };
                launch(device, pipeline, pair(if spread { i } else { 0 }), 0, 1)?;
            }
            best = best.min(start.elapsed().as_nanos() as f64 / N as f64);
        }
        println!("  launch, {name}: {best:.0} ns");
        Ok(())
    };
    encoded("same kernel and buffers", false, false)?;
    encoded("same kernel, other buffers", false, true)?;
    encoded("other kernel and buffers", true, true)?;
    let whole = least(1280, 20, || {
        (0..1280).try_for_each(|i| launch(device, if i % 2 == 1 { &other } else { &nothing }, pair(i), 0, 1))
    })?;
    println!("  launch, the GPU's work on it included: {whole:.0} ns");

    // Sixteen hundred pairs of buffers, each launched with once.
    let mut pairs = (0..40).flat_map(|a| (0..40).filter(move |b| a != *b).map(move |b| [16 + a, 16 + b]));
    let mut fresh = f64::INFINITY;
    for _ in 0..12 {
        device.synchronise()?;
        launch(device, &nothing, pair(0), 0, 1)?;
        let start = Instant::now();
        for [a, b] in pairs.by_ref().take(N) {
            launch(device, &nothing, [&buffers[a], &buffers[b]], 0, 1)?;
        }
        fresh = fresh.min(start.elapsed().as_nanos() as f64 / N as f64);
    }
    println!("  launch with a new bind group: {fresh:.0} ns");

    for count in [1, 10, 100] {
        let mut flush = f64::INFINITY;
        for _ in 0..50 {
            device.synchronise()?;
            for i in 0..count {
                launch(device, &nothing, pair(i), 0, 1)?;
            }
            let start = Instant::now();
            device.flush()?;
            flush = flush.min(start.elapsed().as_nanos() as f64);
        }
        println!("  flush of {count} launches: {:.1} us", flush / 1e3);
    }
    let one = least(1, 100, || {
        launch(device, &nothing, pair(0), 0, 1)?;
        device.read(pair(0)[1], 4).map(drop)
    })?;
    println!("  launch and read 4 bytes: {:.1} us", one / 1e3);
    let allocate = least(1000, 20, || (0..1000).try_for_each(|_| device.allocate(1024).map(drop)))?;
    println!("  allocate and drop from the pool: {allocate:.0} ns");
    Ok(())
}

fn transfers(device: &Device) -> Result<(), Error> {
    for bytes in [4usize, 4 << 10, 256 << 10, 4 << 20, 64 << 20] {
        let data = vec![7u8; bytes];
        let upload = least(1, 20, || {
            drop(device.upload(&data)?);
            device.synchronise()
        })?;
        let buffer = device.upload(&data)?;
        let read = least(1, 20, || device.read(&buffer, bytes as u64).map(drop))?;
        let later = least(1, 20, || pollster::block_on(device.read_async(&buffer, bytes as u64)).map(drop))?;
        let speed = |nanoseconds: f64| format!("{:.1} us, {:.2} GB/s", nanoseconds / 1e3, bytes as f64 / nanoseconds);
        println!("  {bytes} bytes: upload and wait {}; read {}; async {}", speed(upload), speed(read), speed(later));
    }
    Ok(())
}

fn checks(device: &Device) -> Result<(), Error> {
    let n = 1u32 << 20;
    let buffers = [device.upload(&vec![1; 4 << 20])?, device.allocate(4 << 20)?];
    let bodies = [
        ("y = 2 x", "if at.x < parameters.n { y[at.x] = 2.0 * x[at.x]; }", n / 64),
        (
            "strided sum of 64",
            "var s = 0.0; for (var i = 0u; i < 64u; i++) { s += x[(at.x + i * 16384u) % parameters.n]; } y[at.x] = s;",
            n / 64 / 64,
        ),
    ];
    for (name, body, groups) in bodies {
        for trust in [Trust::Trusted, Trust::Checked] {
            let pipeline = kernel(device, body, trust)?;
            let time = least(1, 20, || {
                launch(device, &pipeline, [&buffers[0], &buffers[1]], n, groups)?;
                device.synchronise()
            })?;
            println!("  {name}, {trust:?}: {:.0} us", time / 1e3);
        }
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let adapters = Adapter::all();
    let selector = Selector::parse(&std::env::args().nth(1).unwrap_or_else(|| "software".into()));
    let adapter = &adapters[select(&adapters, &selector)?.index];
    for webgpu_limits in [false, true] {
        let start = Instant::now();
        let device = Device::open(adapter, &Options { webgpu_limits, ..Options::default() })?;
        println!("{}, WebGPU limits: {webgpu_limits}; opened in {:?}", adapter.description(), start.elapsed());
        launches(&device)?;
        transfers(&device)?;
        checks(&device)?;
    }
    Ok(())
}
