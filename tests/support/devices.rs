//! Which devices the tests run on: the CPU, and a GPU.
//!
//! `GRADUS_TEST_DEVICE` names the GPU, as `Device::named` does; without it, it is the first one in hardware, or else a
//! software adapter. Where there is none, tests fail, unless `GRADUS_TEST_GPU=skip`: then each says on stderr what it left
//! out, and in the file that `GRADUS_SKIPPED` names, for `.ci/test` to count. `GRADUS_TEST_DEVICE=cpu` leaves the GPU
//! out where there is one.

// Each test file uses a part of this.
#![allow(dead_code)]

#[path = "portability.rs"]
mod portability;

use gradus::tensor::DeviceOptions;
use gradus::{DType, Device, Tensor};
use gradus_cpu::Cpu;
use gradus_cpu::reference::Tolerance;
use gradus_ir::{Backend, Result};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{LazyLock, Mutex};

/// What a GPU's kernels are made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernels {
    /// The adapter.
    Own,
    /// The other kind of adapter, hardware or software, within the limits that WebGPU has everywhere.
    Other,
    /// The other kind of adapter, with all that this one has: subgroups, say.
    OtherWithAll,
}

/// Opens a GPU by name. Every kernel that it makes is translated for the platforms that are not here.
#[cfg(feature = "gpu")]
fn open(name: &str, kernels: Kernels) -> Result<Box<dyn Backend>> {
    use gradus::tensor::gpu::device::{Adapter, Options, Selector, select};
    use gradus::tensor::gpu::{Gpu, Tuning, of_device};
    let adapters = Adapter::all();
    let choice = select(&adapters, &Selector::parse(name)).map_err(of_device)?;
    let gpu = Gpu::open(
        &adapters[choice.index],
        &Options { webgpu_limits: kernels == Kernels::Other, ..Options::default() },
    )?;
    let other = if gpu.device().is_software() { Tuning::GPU } else { Tuning::SOFTWARE };
    let gpu = gpu.observed(Box::new(|label, text| {
        portability::translate(text).unwrap_or_else(|error| panic!("kernel \"{label}\": {error}\n{text}"));
    }));
    Ok(Box::new(if kernels == Kernels::Own { gpu } else { gpu.with_tuning(other) }))
}

#[cfg(not(feature = "gpu"))]
fn open(name: &str, _: Kernels) -> Result<Box<dyn Backend>> {
    let reason = "this build has no GPU backend (feature gpu)".into();
    Err(gradus_ir::Error::NoDevice { asked: name.into(), reason })
}

/// How to go on where there is no GPU.
const ADVICE: &str = "\
A software adapter is enough. Debian, Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1; \
Fedora: dnf install mesa-vulkan-drivers vulkan-loader; Arch: pacman -S vulkan-swrast vulkan-icd-loader. \
GRADUS_TEST_DEVICE names another device; GRADUS_TEST_GPU=skip leaves these tests out, and counts them.";

/// A backend to test.
pub(crate) struct Tested {
    pub(crate) name: &'static str,
    pub(crate) backend: &'static dyn Backend,
    /// How much it may round.
    pub(crate) tolerance: Tolerance,
    /// Whether kernels cost nothing to make. Where each new one is compiled, for tens of milliseconds on a software
    /// adapter, tests choose among combinations.
    pub(crate) thorough: bool,
    /// Whether its kernels suit another kind of adapter, so that they may take long.
    pub(crate) slow: bool,
}

impl Tested {
    /// Those of some dtypes that the backend has.
    pub(crate) fn of(&self, dtypes: &[DType]) -> Vec<DType> {
        dtypes.iter().copied().filter(|dtype| self.backend.target().dtypes.contains(dtype)).collect()
    }

    pub(crate) fn dtypes(&self) -> Vec<DType> {
        self.of(&DType::ALL)
    }
}

/// The CPU.
pub(crate) fn cpu() -> Tested {
    static CPU: LazyLock<Cpu> = LazyLock::new(|| Cpu::new(None, None).expect("the global thread pool needs no set-up"));
    Tested { name: "cpu", backend: &*CPU, tolerance: Tolerance::CPU, thorough: true, slow: false }
}

/// A GPU's name and backend.
type Gpu = (String, Box<dyn Backend>);

/// The GPU, or why there is none.
static GPU: LazyLock<Result<Gpu, String>> = LazyLock::new(|| {
    let named = std::env::var("GRADUS_TEST_DEVICE").ok().filter(|name| !name.is_empty());
    if named.as_deref() == Some("cpu") {
        return Err("GRADUS_TEST_DEVICE=cpu".into());
    }
    let candidates = named.map_or(vec!["gpu".into(), "software".into()], |name| vec![name]);
    let mut reasons = Vec::new();
    for name in candidates {
        match open(&name, Kernels::Own) {
            Ok(backend) => return Ok((name, backend)),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(reasons.join("; "))
});

/// The GPU's name and backend. Fails the test where there is none, or notes that its part was skipped.
fn gpu() -> Option<(&'static str, &'static dyn Backend)> {
    match &*GPU {
        Ok((name, backend)) => Some((name, &**backend)),
        Err(reason) if reason == "GRADUS_TEST_DEVICE=cpu" => {
            note_skipped(reason);
            None
        }
        Err(_) if std::env::var("GRADUS_TEST_GPU").is_ok_and(|value| value == "skip") => {
            note_skipped("no wgpu adapter");
            None
        }
        Err(reason) => panic!("no GPU to test: {reason}\n{ADVICE}"),
    }
}

/// Says once for each test that its GPU part was skipped.
fn note_skipped(reason: &str) {
    static NOTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let thread = std::thread::current();
    let test = format!("{}::{}", env!("CARGO_CRATE_NAME"), thread.name().unwrap_or("?"));
    if !NOTED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(test.clone()) {
        return;
    }
    let line = format!("skipped: {test} ({reason})\n");
    // Not `eprintln!`, which the test harness swallows.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("GRADUS_SKIPPED").filter(|path| !path.is_empty()) {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("GRADUS_SKIPPED names a file to write to");
    }
}

/// The backends to test: the CPU first.
pub(crate) fn backends() -> Vec<Tested> {
    let gpu =
        gpu().map(|(name, backend)| Tested { name, backend, tolerance: Tolerance::GPU, thorough: false, slow: false });
    [cpu()].into_iter().chain(gpu).collect()
}

/// The backends to test where kernels differ from one kind of GPU to another: also the GPU with the other kind's.
pub(crate) fn tunings() -> Vec<Tested> {
    static OTHER: LazyLock<Option<Box<dyn Backend>>> =
        LazyLock::new(|| gpu().map(|(name, _)| open(name, Kernels::Other).expect("it opened before")));
    let mut all = backends();
    if let (Some(gpu), Some(other)) = (all.get(1), &*OTHER) {
        all.push(Tested { name: "the GPU, tuned otherwise", backend: &**other, slow: true, ..*gpu });
    }
    all
}

/// A GPU's kernels with all that a software adapter has, which are tested by their own name where there is a GPU.
pub(crate) fn with_subgroups() -> Option<Tested> {
    static OTHER: LazyLock<Option<Box<dyn Backend>>> = LazyLock::new(|| {
        let software = gpu().filter(|(name, _)| name.starts_with("software"));
        software.map(|(name, _)| open(name, Kernels::OtherWithAll).expect("it opened before"))
    });
    let (backend, tolerance) = (&**OTHER.as_ref()?, Tolerance::GPU);
    Some(Tested { name: "the GPU, with subgroups", backend, tolerance, thorough: false, slow: true })
}

/// New backends of each kind, of which nothing has been asked yet: the CPU, the GPU, and the GPU with the other kind's kernels.
pub(crate) fn own_backends() -> Vec<Box<dyn Backend>> {
    let cpu: Box<dyn Backend> = Box::new(Cpu::new(Some(1), None).expect("a thread can be started"));
    let gpu = |kernels| gpu().map(|(name, _)| open(name, kernels).expect("it opened before"));
    [cpu].into_iter().chain(gpu(Kernels::Own)).chain(gpu(Kernels::Other)).collect()
}

/// The GPU as a device that all tests of a process share.
pub(crate) fn gpu_device() -> Option<Device> {
    gpu().map(|(name, _)| Device::named(name).expect("the backend opened it"))
}

/// The devices to test: the CPU first.
pub(crate) fn devices() -> Vec<Device> {
    [Device::cpu()].into_iter().chain(gpu_device()).collect()
}

/// A new GPU device, with a budget in bytes.
pub(crate) fn own_gpu(memory_limit: Option<usize>) -> Option<Device> {
    let (name, _) = gpu()?;
    Some(Device::open(name, &DeviceOptions { memory_limit, threads: None }).expect("it opened before"))
}

/// A new device of each kind, with a budget in bytes: the CPU, on one thread, first.
pub(crate) fn own_devices(memory_limit: Option<usize>) -> Vec<Device> {
    let cpu = Device::cpu_with(1, memory_limit).expect("a thread can be started");
    [cpu].into_iter().chain(own_gpu(memory_limit)).collect()
}

/// A new device of each kind, and of the GPU with the kernels that suit the other kind of adapter.
pub(crate) fn own_tunings() -> Vec<Device> {
    let otherwise = || gpu().map(|(name, _)| open(name, Kernels::Other).expect("it opened before"));
    let otherwise = otherwise().map(|backend| Device::from_backend("the GPU, tuned otherwise", backend));
    own_devices(None).into_iter().chain(otherwise).collect()
}

/// Whether a device is a CPU.
pub(crate) fn is_cpu(device: &Device) -> bool {
    device.name().starts_with("cpu")
}

/// How many times its own size a single number takes: a GPU hands out memory in grains.
pub(crate) fn grain(device: &Device) -> usize {
    if is_cpu(device) { 1 } else { 64 }
}

/// Whether a device has a dtype.
pub(crate) fn has(device: &Device, dtype: DType) -> bool {
    Tensor::zeros([1], (device, dtype)).eval().is_ok()
}
