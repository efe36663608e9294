//! Opening devices: by name, by preference, with a budget.

use crate::{Device, Error, Result};
use gradus_cpu::Cpu;
use gradus_ir::Error as ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, Once};

/// How a device of one's own is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// The most bytes that its arrays may take. `None`: `GRADUS_MEMORY_LIMIT`, or no limit of ours.
    pub memory_limit: Option<usize>,
    /// Threads of a CPU device, at least one. `None`: those that all such devices share, as many as run at once, or as `GRADUS_THREADS` says.
    pub threads: Option<usize>,
}

/// A device that would be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// Its name.
    pub device: String,
    /// Why this one.
    pub reason: String,
}

/// Devices that every call gives again, by name, as long as they work.
static SHARED: Mutex<Vec<Device>> = Mutex::new(Vec::new());

impl Device {
    /// The CPU with all its cores: the same device at every call. `GRADUS_MEMORY_LIMIT` (bytes, or with `K`, `M`, `G`)
    /// sets its memory budget.
    pub fn cpu() -> Device {
        static CPU: LazyLock<Device> = LazyLock::new(|| {
            let limit = memory_limit().unwrap_or_else(|error| {
                eprintln!("gradus: {error}: no limit is set");
                None
            });
            // Without threads of its own there is nothing that can fail.
            let backend = Cpu::new(None, limit).expect("the global thread pool needs no set-up");
            Device::from_backend("cpu", Box::new(backend))
        });
        CPU.clone()
    }

    /// The device that `GRADUS_DEVICE` names (see [`Device::named`]); else the best GPU (a discrete one before an
    /// integrated one); else the CPU, which a line on standard error says. Adapters that run shaders on the CPU are never
    /// taken by themselves: the CPU backend is faster. `WGPU_BACKEND`, `WGPU_ADAPTER_NAME` and `WGPU_POWER_PREF` narrow
    /// down what is looked at.
    ///
    /// # Errors
    /// If a device is named that is not there, or the GPU cannot be opened.
    #[track_caller]
    pub fn best() -> Result<Device> {
        Device::named(&best_name()?)
    }

    /// Which device [`Device::best`] takes, and why, without opening it.
    ///
    /// # Errors
    /// As [`Device::best`].
    #[track_caller]
    pub fn preference() -> Result<Preference> {
        match asked_for() {
            Some(name) => {
                let device = if name == "cpu" { "cpu".to_string() } else { adapter_id(&name)? };
                Ok(Preference { device, reason: format!("GRADUS_DEVICE is {name}") })
            }
            None => preferred(),
        }
    }

    /// The device of a name, the same at every call as long as it works: `best`, `cpu`, `gpu` or `gpu:1` (hardware by
    /// number), `software` (an adapter that runs shaders on the CPU, for tests), or a part of an adapter's name. On an adapter
    /// on which `gradus tune` has measured, kernels are made as it found best; `GRADUS_TUNING=off` leaves its table alone.
    ///
    /// # Errors
    /// If there is none of this name (the message lists what there is), or it cannot be opened.
    #[track_caller]
    pub fn named(name: &str) -> Result<Device> {
        match name.trim() {
            "" | "best" => Device::best(),
            "cpu" => Ok(Device::cpu()),
            name => shared(name),
        }
    }

    /// A new device of one's own, by the same names, with a budget and a number of threads of its own.
    ///
    /// ```
    /// use gradus_tensor::{Device, DeviceOptions, Tensor};
    /// let options = DeviceOptions { memory_limit: Some(1 << 20), ..DeviceOptions::default() };
    /// let device = Device::open("cpu", &options)?;
    /// assert!(Tensor::ones([1000, 1000], &device).to_vec::<f32>().is_err());
    /// assert!(Tensor::ones([100, 100], &device).to_vec::<f32>().is_ok());
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is none of this name, or it cannot be opened.
    #[track_caller]
    pub fn open(name: &str, options: &DeviceOptions) -> Result<Device> {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let limit = match options.memory_limit {
            None => memory_limit()?,
            limit => limit,
        };
        let name = match name.trim() {
            "" | "best" => best_name()?,
            name => name.to_string(),
        };
        if name == "cpu" {
            let backend = Cpu::new(options.threads, limit)?;
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            return Ok(Device::from_backend(format!("cpu:{number}"), Box::new(backend)));
        }
        open_gpu(&name, limit)
    }
}

impl Device {
    /// A new CPU device with its own threads and, if given, its own memory budget in bytes.
    ///
    /// # Errors
    /// If there are no threads, or they cannot be started.
    #[track_caller]
    pub fn cpu_with(threads: usize, memory_limit: Option<usize>) -> Result<Device> {
        Device::open("cpu", &DeviceOptions { memory_limit, threads: Some(threads) })
    }
}

/// The device that `GRADUS_DEVICE` names.
fn asked_for() -> Option<String> {
    let name = std::env::var("GRADUS_DEVICE").ok()?;
    Some(name.trim().to_string()).filter(|name| !matches!(&**name, "" | "best"))
}

/// The name of the device that is the best; if that is the CPU and nobody has asked for it, a line says so.
#[track_caller]
fn best_name() -> Result<String> {
    if let Some(name) = asked_for() {
        return Ok(name);
    }
    let Preference { device, reason } = preferred()?;
    if device == "cpu" && cfg!(feature = "gpu") {
        say_cpu(&reason);
    }
    Ok(device)
}

/// Finds or opens a GPU that is shared by its name.
#[track_caller]
fn shared(name: &str) -> Result<Device> {
    let wanted = adapter_id(name)?;
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.retain(|device| device.lost().is_none());
    if let Some(device) = shared.iter().find(|device| device.name() == wanted) {
        return Ok(device.clone());
    }
    let device = open_gpu(&wanted, memory_limit()?)?;
    shared.push(device.clone());
    Ok(device)
}

/// Says once that everything runs on the CPU, and why.
fn say_cpu(why: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| eprintln!("gradus: running on the CPU: {why}"));
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::{Preference, memory_limit};
    use crate::debug::DEBUG;
    use crate::{Device, Error, Result, Tensor};
    use gradus_gpu::device::{Adapter, Error as DeviceError, Options, Selector, select, wgpu};
    use gradus_gpu::{Gpu, of_device, tuning};
    use gradus_ir::Buffer;
    use std::any::Any;
    use std::ops::Deref;

    #[track_caller]
    pub(super) fn preferred() -> Result<Preference> {
        let adapters = Adapter::all();
        match select(&adapters, &Selector::Best) {
            Ok(choice) => Ok(Preference { device: adapters[choice.index].id().to_string(), reason: choice.reason }),
            // A GPU that was asked for by wgpu's own variable must be had.
            Err(DeviceError::NoAdapter { reason, .. })
                if std::env::var("WGPU_ADAPTER_NAME").map_or(true, |name| name.trim().is_empty()) =>
            {
                Ok(Preference { device: "cpu".into(), reason })
            }
            Err(error) => Err(Error::from(of_device(error))),
        }
    }

    /// The id of the adapter that a name means.
    #[track_caller]
    pub(super) fn adapter_id(name: &str) -> Result<String> {
        find(name).map(|adapter| adapter.id().to_string())
    }

    #[track_caller]
    fn find(name: &str) -> Result<Adapter> {
        let mut adapters = Adapter::all();
        // An id, also of an adapter that a part of its name could not tell from another.
        if let Some(at) = adapters.iter().position(|adapter| adapter.id() == name) {
            return Ok(adapters.swap_remove(at));
        }
        let choice = select(&adapters, &Selector::parse(name)).map_err(of_device)?;
        Ok(adapters.swap_remove(choice.index))
    }

    #[track_caller]
    pub(super) fn open_gpu(name: &str, limit: Option<usize>) -> Result<Device> {
        let adapter = find(name)?;
        let webgpu_limits = match std::env::var("GRADUS_LIMITS").as_deref() {
            Err(_) | Ok("") => false,
            Ok("webgpu") => true,
            Ok(_) => {
                let (argument, expected) = ("GRADUS_LIMITS", "\"webgpu\", or not set");
                let found = std::env::var("GRADUS_LIMITS").unwrap_or_default();
                return Err(Error::from(gradus_ir::Error::Argument { argument, expected, found }));
            }
        };
        let options = Options { memory_limit: limit.map(|limit| limit as u64), webgpu_limits };
        Ok(Device::from_backend(adapter.id(), Box::new(debugged(tuned(Gpu::open(&adapter, &options)?)))))
    }

    /// With what `gradus tune` found on this adapter, if the user has let it measure. A table of no use is told of, and left
    /// alone.
    fn tuned(gpu: Gpu) -> Gpu {
        match tuning::of_user(gpu.device().info(), gpu.tuning()) {
            Ok(None) => gpu,
            Ok(Some(tuning)) => gpu.with_tuning(tuning),
            Err((path, error)) => {
                eprintln!(
                    "gradus: the tuning in {} is not used: {error} (`gradus tune` measures anew, `gradus tune --reset` removes \
                     the file, {}=off leaves it alone)",
                    path.display(),
                    tuning::TUNING
                );
                gpu
            }
        }
    }

    /// With `GRADUS_DEBUG=wgsl`, prints every new kernel.
    fn debugged(gpu: Gpu) -> Gpu {
        if !DEBUG.wgsl {
            return gpu;
        }
        gpu.observed(Box::new(|label, text| eprintln!("// {label}\n{text}")))
    }

    impl Device {
        /// A device on top of one that the program already has. wgpu's callbacks for errors and loss stay the program's.
        ///
        /// # Errors
        /// If the device is lost, or `GRADUS_MEMORY_LIMIT` is no number.
        #[track_caller]
        pub fn from_wgpu(adapter: wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Device> {
            let limit = memory_limit()?.map(|limit| limit as u64);
            let options = Options { memory_limit: limit, ..Options::default() };
            let device = gradus_gpu::device::Device::from_wgpu(adapter, device, queue, &options).map_err(of_device)?;
            Ok(Device::from_backend("wgpu", Box::new(debugged(Gpu::new(device)))))
        }
    }

    impl Device {
        /// The wgpu device and queue below, if this is a GPU. Tensors hand over what they recorded when they are read, at
        /// [`Tensor::wgpu_buffer`], or at [`Device::synchronise`].
        pub fn wgpu(&self) -> Option<(&wgpu::Device, &wgpu::Queue)> {
            let backend: &dyn Any = self.backend();
            Some(backend.downcast_ref::<Gpu>()?.device().wgpu())
        }
    }

    /// The wgpu buffer of a tensor: dereferences to it, and keeps it from being used again. Elements are row-major words of
    /// four bytes (booleans 0 or 1) from its start.
    pub struct WgpuBuffer(Buffer);

    impl Deref for WgpuBuffer {
        type Target = wgpu::Buffer;

        fn deref(&self) -> &wgpu::Buffer {
            Gpu::wgpu_buffer(&self.0).expect("it was looked at when this was made")
        }
    }

    impl Tensor {
        /// The tensor's buffer, evaluated and handed over to the queue, for a program's own shaders to read. (What they
        /// write, other tensors may see.)
        ///
        /// # Errors
        /// What went wrong in computing it; `NoDevice` if its device is no GPU.
        #[track_caller]
        pub fn wgpu_buffer(&self) -> Result<WgpuBuffer> {
            let buffer = self.realised()?;
            if Gpu::wgpu_buffer(&buffer).is_none() {
                let reason = "its tensors have no wgpu buffers: move the tensor to a GPU with to_device".to_string();
                return Err(Error::from(gradus_ir::Error::NoDevice { asked: self.device().to_string(), reason }));
            }
            self.device().backend().flush()?;
            Ok(WgpuBuffer(buffer))
        }
    }
}

#[cfg(not(feature = "gpu"))]
mod gpu {
    use super::{Device, Error, ErrorKind, Preference, Result};

    pub(super) fn preferred() -> Result<Preference> {
        Ok(Preference { device: "cpu".into(), reason: "this build has the device cpu alone".into() })
    }

    #[track_caller]
    pub(super) fn adapter_id(name: &str) -> Result<String> {
        let reason = "this build has the device cpu alone: build gradus with its feature `gpu`".to_string();
        Err(Error::new("device", ErrorKind::NoDevice { asked: name.into(), reason }))
    }

    #[track_caller]
    pub(super) fn open_gpu(name: &str, _: Option<usize>) -> Result<Device> {
        Err(adapter_id(name).expect_err("no adapter has an id in this build"))
    }
}

#[cfg(feature = "gpu")]
pub use gpu::WgpuBuffer;
use gpu::{adapter_id, open_gpu, preferred};

/// The budget that `GRADUS_MEMORY_LIMIT` sets.
#[track_caller]
fn memory_limit() -> Result<Option<usize>> {
    let Some(text) = std::env::var("GRADUS_MEMORY_LIMIT").ok().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let (argument, expected) = ("GRADUS_MEMORY_LIMIT", "a number of bytes, as in 512M");
    match parse_bytes(&text) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(Error::new("device", ErrorKind::Argument { argument, expected, found: text })),
    }
}

/// A number of bytes, with an optional unit.
fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        _ => (text, 0),
    };
    digits.trim().parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("512"), Some(512));
        assert_eq!(parse_bytes(" 2G "), Some(2 << 30));
        assert_eq!(parse_bytes("1 m"), Some(1 << 20));
        assert_eq!(parse_bytes("lots"), None);
    }
}
