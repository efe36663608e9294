//! The GPU backend: plans as WGSL, on any adapter that wgpu reaches.
//!
//! Every kernel is a skeleton from [`gradus_shaders`] with hooks generated here: how elements are found, what is computed,
//! where results go. Sizes are passed at run time or written into the text, by [`Tuning`].

mod affine;
mod array;
mod compiler;
mod error;
mod executable;
mod expression;
mod kernels;
mod library;
mod module;
mod ranges;
mod slots;
pub mod tuning;

pub use gradus_device as device;
pub use kernels::check_wgsl;
pub use tuning::Tuning;

use array::{Array, bytes};
use compiler::{Compiler, History};
pub use error::of_device;
use executable::GpuExecutable;
use gradus_device::{Adapter, Device, Options};
use gradus_ir::{
    Backend, Buffer, DType, Data, Download, Error, Executable, MemoryStats, Plan, Result, Stats, Target, plan,
};

use std::time::{Duration, Instant};

/// Called with the label and the WGSL of every kernel that is made.
pub type Observer = Box<dyn Fn(&str, &str) + Send + Sync>;

/// A GPU as a backend.
pub struct Gpu {
    device: Device,
    target: Target,
    tuning: Tuning,
    history: History,
    observer: Option<Observer>,
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// If the driver does not give a device.
    pub fn open(adapter: &Adapter, options: &Options) -> Result<Gpu> {
        Ok(Gpu::new(Device::open(adapter, options).map_err(of_device)?))
    }

    /// A backend on a device that is open.
    pub fn new(device: Device) -> Gpu {
        let tuning = Tuning::of(&device);
        let has = |dtype: &DType| match dtype {
            DType::F16 => device.limits().f16,
            dtype => *dtype != DType::F64,
        };
        let dtypes = DType::ALL.into_iter().filter(has).collect();
        let target = Target {
            dtypes,
            bindings: device.limits().storage_buffers,
            longest_row: tuning.longest_row_on(device.limits()),
            joins_gradients: false,
        };
        Gpu { device, target, tuning, history: History::new(), observer: None }
    }

    /// The same with another tuning.
    pub fn with_tuning(self, tuning: Tuning) -> Gpu {
        let target = Target { longest_row: tuning.longest_row_on(self.device.limits()), ..self.target };
        Gpu { tuning, target, ..self }
    }

    /// How its kernels are cut into work.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// The same, telling an observer of every new kernel.
    pub fn observed(self, observer: Observer) -> Gpu {
        Gpu { observer: Some(observer), ..self }
    }

    /// The device below.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The wgpu buffer behind an array of this backend.
    pub fn wgpu_buffer(buffer: &Buffer) -> Option<&device::wgpu::Buffer> {
        buffer.get::<Array>().map(|array| array.buffer.wgpu())
    }

    fn array<'b>(&self, buffer: &'b Buffer) -> Result<&'b Array> {
        buffer.get().ok_or_else(|| Error::Backend("a buffer of another backend".into()))
    }

    /// Runs the launch that widens bytes to elements.
    fn widen(&self, packed: &[u8], dtype: DType) -> Result<device::Buffer> {
        let output = self.device.allocate(bytes(dtype, packed.len())).map_err(of_device)?;
        if packed.is_empty() {
            return Ok(output);
        }
        let packed_buffer = self.device.upload(packed).map_err(of_device)?;
        let buffer = |dtype, len| plan::Buffer { dtype, len, input: None };
        let buffers = vec![buffer(DType::U32, packed.len().div_ceil(4)), buffer(dtype, packed.len())];
        let mut compiler = Compiler::new(self, buffers);
        kernels::unpack(&mut compiler, 0, 1, dtype, packed.len())?;
        for launch in &compiler.launches {
            let parameters: Vec<u32> = launch.parameters.iter().map(|p| p.known()).collect();
            let buffers = [&packed_buffer, &output];
            let (pipeline, workgroups) = (&launch.pipeline, launch.workgroups);
            let launch = device::Launch { pipeline, buffers: &buffers, parameters: &parameters, workgroups };
            self.device.launch(&launch).map_err(of_device)?;
        }
        Ok(output)
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.device.info().name)
    }
}

impl Backend for Gpu {
    fn description(&self) -> String {
        self.device.info().to_string()
    }

    fn lost(&self) -> Option<String> {
        self.device.lost()
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn runs_wgsl(&self) -> bool {
        true
    }

    fn compile(&self, plan: Plan) -> Result<Box<dyn Executable>> {
        Ok(Box::new(GpuExecutable::new(self, plan)?))
    }

    fn upload(&self, data: Data) -> Result<Buffer> {
        let (dtype, len, range) = (data.dtype(), data.len(), ranges::of_data(&data));
        let buffer = match &data {
            Data::Bool(values) => self.widen(bytemuck::cast_slice(values), dtype)?,
            Data::I32(values) => self.device.upload(bytemuck::cast_slice(values)).map_err(of_device)?,
            Data::U32(values) => self.device.upload(bytemuck::cast_slice(values)).map_err(of_device)?,
            Data::F32(values) => self.device.upload(bytemuck::cast_slice(values)).map_err(of_device)?,
            Data::F16(values) if self.target.dtypes.contains(&dtype) => {
                self.device.upload(bytemuck::cast_slice(values)).map_err(of_device)?
            }
            Data::F16(_) | Data::F64(_) => {
                return Err(Error::NoDType { dtype, device: self.device.info().name.clone() });
            }
        };
        Ok(Buffer::new(Array { buffer, dtype, len, range }))
    }

    fn upload_bytes(&self, values: &[u8], dtype: DType) -> Result<Buffer> {
        if !self.target.dtypes.contains(&dtype) {
            return Err(Error::NoDType { dtype, device: self.device.info().name.clone() });
        }
        let bounds = values.iter().min().zip(values.iter().max());
        let range = bounds.map_or(Some((0, 0)), |(&low, &high)| Some((low.into(), high.into())));
        let range = range.filter(|_| dtype.is_int());
        Ok(Buffer::new(Array { buffer: self.widen(values, dtype)?, dtype, len: values.len(), range }))
    }

    fn download(&self, buffer: &Buffer) -> Download {
        match self.array(buffer) {
            Ok(array) => array.download(&self.device),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn read(&self, buffer: &Buffer) -> Result<Data> {
        self.array(buffer)?.read(&self.device).map_err(of_device)
    }

    fn flush(&self) -> Result<()> {
        self.device.flush().map_err(of_device)
    }

    fn synchronise(&self) -> Result<()> {
        self.device.synchronise().map_err(of_device)
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        self.synchronise()?;
        let (start, mut result) = (Instant::now(), Ok(()));
        let timed = self.device.time(|| {
            result = work();
            Ok(())
        });
        result?;
        if let ((), Some(by_its_clock)) = timed.map_err(of_device)? {
            return Ok(by_its_clock);
        }
        self.synchronise()?;
        Ok(start.elapsed())
    }

    fn memory(&self) -> MemoryStats {
        let memory = self.device.memory();
        MemoryStats {
            in_use: memory.in_use as usize,
            peak: memory.peak as usize,
            limit: memory.limit.map(|limit| limit as usize),
        }
    }

    fn stats(&self) -> Stats {
        let done = self.device.statistics();
        Stats {
            plans: 0,
            pipelines: done.pipelines,
            bind_groups: done.bind_groups,
            buffers: done.buffers,
            buffer_bytes: done.buffer_bytes,
            launches: done.launches,
            submits: done.submits,
        }
    }
}
