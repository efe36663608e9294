//! What a backend must do. The whole contract between the library and a device is this page.

use crate::{DType, Data, Element, Number, Plan, Result, with_dtype};
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A realised array in a backend's memory; what is inside is the backend's own. Cloning shares it.
#[derive(Clone)]
pub struct Buffer(Arc<dyn Any + Send + Sync>);

impl Buffer {
    /// Wraps what a backend stores.
    pub fn new<T: Any + Send + Sync>(inner: T) -> Buffer {
        Buffer(Arc::new(inner))
    }

    /// What the backend stored, if it has this type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// Takes out what the backend stored, if it has this type and nothing else owns it; otherwise gives it back.
    pub fn into_unique<T: Any + Send + Sync>(self) -> Result<T, Buffer> {
        let shared = self.0.downcast::<T>().map_err(Buffer)?;
        Arc::try_unwrap(shared).map_err(|shared| Buffer(shared))
    }

    /// Whether nothing else owns the array, so that it may be overwritten.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffer")
    }
}

/// What plans for a device must keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The dtypes that the device stores and computes.
    pub dtypes: Vec<DType>,
    /// How many buffers a kernel may read and write at most.
    pub bindings: usize,
    /// How long a row may be that one kernel walks along more than once, or writes while it reduces it.
    pub longest_row: usize,
    /// Whether one kernel may compute all gradients of an attention, since it walks along a head and adds up more than one of them.
    pub joins_gradients: bool,
}

impl Default for Target {
    /// All dtypes, and WebGPU's limits.
    fn default() -> Target {
        Target { dtypes: DType::ALL.to_vec(), bindings: 8, longest_row: 4096, joins_gradients: false }
    }
}

/// Bytes of a device's buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Held by tensors and running plans.
    pub in_use: usize,
    /// The most that was ever in use.
    pub peak: usize,
    /// The budget, where there is one.
    pub limit: Option<usize>,
}

/// What a device has done since it was opened. A training loop in its stride makes no plan, pipeline, bind group or buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Plans made: graphs that no cached plan fitted. Backends leave it at 0: who keeps the plans counts them.
    pub plans: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Arrays allocated, those for read-back included; what the pool already had and what the host handed over are not.
    pub buffers: u64,
    /// Bytes of these.
    pub buffer_bytes: u64,
    /// Kernels run.
    pub launches: u64,
    /// Times that work was handed over to a GPU.
    pub submits: u64,
}

/// A plan that a backend has made ready.
pub trait Executable: Send + Sync {
    /// Runs the plan. `inputs` are the buffers of the input slots; one that the graph says is donated may be taken
    /// (its place then holds `None`) and overwritten. What a failed run did not take stays in `inputs`.
    /// `scalars` are the numbers of the scalar slots.
    fn run(&self, inputs: &mut [Option<Buffer>], scalars: &[Number]) -> Result<Vec<Buffer>>;
    /// The most bytes that a run has alive at once of what it makes, with what its kernels need for themselves.
    fn peak(&self) -> usize;
}

/// A host array on its way from a device.
pub type Download = Pin<Box<dyn Future<Output = Result<Data>> + Send>>;

/// A device that can run plans.
pub trait Backend: Any + Send + Sync + fmt::Debug {
    /// What it is, in words: the adapter, or the processor.
    fn description(&self) -> String;
    /// Why the device is gone, if it is.
    fn lost(&self) -> Option<String> {
        None
    }
    /// What plans must keep to.
    fn target(&self) -> &Target;
    /// Whether it runs the WGSL of custom ops; if not, it runs their CPU functions.
    fn runs_wgsl(&self) -> bool {
        false
    }
    /// Makes a plan ready to run.
    fn compile(&self, plan: Plan) -> Result<Box<dyn Executable>>;
    /// Copies a host array to the device.
    fn upload(&self, data: Data) -> Result<Buffer>;
    /// Copies bytes to the device and makes each an element of `dtype`: pixels or tokens, a quarter of the traffic.
    fn upload_bytes(&self, bytes: &[u8], dtype: DType) -> Result<Buffer> {
        let widened =
            with_dtype!(dtype, T => T::wrap(bytes.iter().map(|&b| T::from_number(Number::from(b))).collect()));
        self.upload(widened)
    }
    /// Copies an array to the host, once all that writes it has run.
    fn download(&self, buffer: &Buffer) -> Download;
    /// The same, waiting here.
    fn read(&self, buffer: &Buffer) -> Result<Data>;
    /// Hands over what was recorded so far, without waiting.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    /// Waits until all that was submitted has run.
    fn synchronise(&self) -> Result<()>;
    /// How long the device takes for `work`, once it has done all that came before.
    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        self.synchronise()?;
        let start = Instant::now();
        work()?;
        self.synchronise()?;
        Ok(start.elapsed())
    }
    /// Bytes in use now and at most.
    fn memory(&self) -> MemoryStats;
    /// What was done so far.
    fn stats(&self) -> Stats;
}
