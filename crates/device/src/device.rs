//! A device: opening it, what it is, and whether it still works.

use crate::memory::{Books, Memory};
use crate::pipeline::Pipelines;
use crate::read::Reader;
use crate::ring::RING_BYTES;
use crate::staging::StagingPool;
use crate::statistics::{Counters, Statistics};
use crate::status::Status;
use crate::stream::Stream;
use crate::{Adapter, Description, Error, Kind, Limits, Parameters, buffer::Slot};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wgpu::Features;

/// The id of devices that a program brings along.
const EXTERNAL: &str = "external";

/// What a device is opened with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The most bytes that buffers may take, those kept for reuse included; transfers take some of the host's memory
    /// besides. `None`: as much as the driver gives.
    pub memory_limit: Option<u64>,
    /// Opens with the limits that WebGPU guarantees and without optional features, to see what runs everywhere.
    pub webgpu_limits: bool,
}

/// An open device: a handle that clones cheaply, for all threads.
#[derive(Clone, Debug)]
pub struct Device(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    /// Tells devices of this process apart.
    pub(crate) number: u64,
    pub(crate) wgpu: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) description: Description,
    /// Whether a program brought it along, so that no callback tells us of its loss.
    pub(crate) external: bool,
    pub(crate) limits: Limits,
    pub(crate) status: Arc<Status>,
    pub(crate) counters: Counters,
    /// The number of the submission that is being recorded, from 1 on.
    pub(crate) recording: AtomicU64,
    stream: Mutex<Stream>,
    books: Mutex<Books<Arc<Slot>>>,
    pipelines: Mutex<Pipelines>,
    pub(crate) staging: StagingPool,
    pub(crate) reader: Reader,
}

impl Device {
    /// Opens an adapter, with all its limits and those of its features that kernels or this crate make use of.
    pub fn open(adapter: &Adapter, options: &Options) -> Result<Device, Error> {
        let mut wanted = Features::SUBGROUP
            | Features::SHADER_F16
            | Features::SHADER_INT64
            | Features::IMMEDIATES
            | Features::TIMESTAMP_QUERY;
        wanted.set(Features::EXPERIMENTAL_COOPERATIVE_MATRIX, adapter.multiplies_f16());
        let features = if options.webgpu_limits { Features::empty() } else { wanted & adapter.features() };
        let mut limits = adapter.limits();
        if options.webgpu_limits {
            limits = wgpu::Limits::default().or_worse_values_from(&limits);
        }
        if !features.contains(Features::IMMEDIATES) {
            limits.max_immediate_size = 0;
        }
        let experimental_features = if features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            #[allow(unsafe_code)]
            // SAFETY: what wgpu warns of are bugs in what it calls experimental, and cooperative matrices are all that is
            // asked for. One shader of this library's own uses them (`matmul_cooperative.wgsl`), in uniform control flow, on
            // workgroup memory, at indices within it. Users' shaders cannot: their text comes after declarations, where the
            // language lets nothing be enabled.
            unsafe {
                wgpu::ExperimentalFeatures::enabled()
            }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        let request = adapter.wgpu().request_device(&wgpu::DeviceDescriptor {
            label: Some("gradus"),
            required_features: features,
            required_limits: limits,
            experimental_features,
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|e| Error::Open { adapter: adapter.description().to_string(), reason: e.to_string() })?;

        let status = Arc::new(Status::new(adapter.name()));
        let told = status.clone();
        device.set_device_lost_callback(move |reason, message| match reason {
            wgpu::DeviceLostReason::Destroyed => told.lose("it was destroyed"),
            wgpu::DeviceLostReason::Unknown => told.lose(&message),
        });
        // What no scope catches; without a handler wgpu would panic.
        let told = status.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| told.fault(error.to_string())));
        Ok(Device::new(device, queue, adapter.description().clone(), status, options))
    }

    /// Works with a device that the program already has. Its callbacks for errors and loss stay the program's: errors
    /// are caught in scopes, and a loss is noticed when work is handed over. It may lack any feature.
    ///
    /// Callbacks of the program that wgpu may run while work is handed over or waited for (`map_async`,
    /// `on_submitted_work_done`) must not call this crate.
    pub fn from_wgpu(
        adapter: wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &Options,
    ) -> Result<Device, Error> {
        let description = Description::of(&adapter.get_info(), EXTERNAL);
        let status = Arc::new(Status::new(&description.name));
        let device = Device::new(device, queue, description, status, options);
        device.0.notice()?;
        Ok(device)
    }

    fn new(
        wgpu: wgpu::Device,
        queue: wgpu::Queue,
        description: Description,
        status: Arc<Status>,
        options: &Options,
    ) -> Device {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        Device(Arc::new(Inner {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            limits: Limits::of(&wgpu, description.id != EXTERNAL, RING_BYTES),
            wgpu,
            queue,
            external: description.id == EXTERNAL,
            description,
            status,
            counters: Counters::default(),
            recording: AtomicU64::new(1),
            stream: Mutex::new(Stream::new()),
            books: Mutex::new(Books::new(options.memory_limit)),
            pipelines: Mutex::new(Pipelines::new()),
            staging: StagingPool::default(),
            reader: Reader::default(),
        }))
    }

    /// wgpu's device and queue. Call [`Device::flush`] before handing over work of your own that reads what was
    /// launched.
    pub fn wgpu(&self) -> (&wgpu::Device, &wgpu::Queue) {
        (&self.0.wgpu, &self.0.queue)
    }

    /// What the adapter says of itself.
    pub fn info(&self) -> &Description {
        &self.0.description
    }

    /// Whether shaders run on the CPU: few threads, dear barriers.
    pub fn is_software(&self) -> bool {
        self.0.description.kind == Kind::Software
    }

    /// What kernels may do at most.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Whether the device was opened with a feature of wgpu.
    pub fn has(&self, feature: Features) -> bool {
        self.0.wgpu.features().contains(feature)
    }

    /// How the shader of a kernel with this many `u32` parameters must declare them.
    pub fn parameters(&self, words: usize) -> Parameters {
        match words {
            0 => Parameters::None,
            _ if 4 * words <= self.0.limits.immediate_bytes as usize => Parameters::Immediates,
            _ => Parameters::Uniform,
        }
    }

    /// Bytes in use, kept, and allowed.
    pub fn memory(&self) -> Memory {
        self.0.books().memory()
    }

    /// Frees all buffers that are kept for reuse.
    pub fn trim(&self) {
        let kept = self.0.books().trim();
        self.0.free(kept);
        self.0.staging.trim();
    }

    /// What was done so far.
    pub fn statistics(&self) -> Statistics {
        self.0.counters.snapshot()
    }

    /// Why the device is gone, if it is.
    pub fn lost(&self) -> Option<String> {
        // What is wrong besides is for the next call to say.
        if self.0.status.lost().is_none() && self.0.is_gone() {
            self.0.lose();
        }
        self.0.status.lost().map(str::to_string)
    }
}

impl Inner {
    // What these locks guard is right after every statement, or forgotten by the next flush, so a poisoned lock is
    // good.
    pub(crate) fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books<Arc<Slot>>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pipelines(&self) -> MutexGuard<'_, Pipelines> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if the device is known to be gone, or has an error to raise. Costs nothing.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.status.check()
    }

    /// wgpu's error as ours.
    pub(crate) fn error(&self, error: wgpu::Error, bytes: u64) -> Error {
        let adapter = self.description.name.clone();
        match error {
            wgpu::Error::OutOfMemory { .. } => {
                let memory = self.books().memory();
                Error::OutOfMemory { adapter, bytes, in_use: memory.in_use, limit: memory.limit }
            }
            other => self.invalid(other.to_string()),
        }
    }

    /// The error for something that wgpu refused; on a lost device everything is, and wgpu does not say why.
    pub(crate) fn invalid(&self, message: String) -> Error {
        if self.is_gone() {
            return self.lost_silently();
        }
        Error::Invalid { adapter: self.description.name.clone(), message: message.trim().into() }
    }
}
