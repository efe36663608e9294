//! wgpu and nothing but wgpu: adapters, buffers and their pool, pipelines, the command stream, read-back, timestamps,
//! limits, errors. Knows no tensor.
//!
//! [`Adapter::all`] lists what the machine has, [`select`] chooses, [`Device::open`] opens. Work is *launched*: encoded
//! at once into a command stream that is handed to the GPU after some launches, or when a result is read. Everything is
//! thread-safe; what one thread launches runs in the order in which it launched it.
//!
//! ```no_run
//! use gradus_device::{Access, Adapter, Device, Launch, Options, Selector, Trust, select};
//! # fn main() -> Result<(), gradus_device::Error> {
//! let adapters = Adapter::all();
//! let choice = select(&adapters, &Selector::Best)?;
//! let device = Device::open(&adapters[choice.index], &Options::default())?;
//!
//! let double = "@group(0) @binding(0) var<storage, read_write> v: array<u32>;
//!     @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) at: vec3<u32>) { v[at.x] = 2u * v[at.x]; }";
//! let pipeline = device.pipeline("double", double, &[Access::ReadWrite], 0, Trust::Checked)?;
//! let buffer = device.upload(&[1, 0, 0, 0, 2, 0, 0, 0])?;
//! device.launch(&Launch { pipeline: &pipeline, buffers: &[&buffer], parameters: &[], workgroups: [2, 1, 1] })?;
//! assert_eq!(device.read(&buffer, 8)?, [2, 0, 0, 0, 4, 0, 0, 0]);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod bindings;
mod buffer;
mod device;
mod error;
mod generations;
mod limits;
mod memory;
mod parameters;
mod pipeline;
mod read;
mod ring;
mod scope;
mod select;
mod staging;
mod statistics;
mod status;
mod stream;
mod timing;
mod wait;

pub use adapter::{Adapter, Capability, Description, Kind};
pub use buffer::Buffer;
pub use device::{Device, Options};
pub use error::Error;
pub use generations::Generations;
pub use limits::Limits;
pub use memory::Memory;
pub use parameters::Parameters;
pub use pipeline::{Access, Pipeline, Trust};
pub use read::Download;
pub use select::{Choice, Preferences, Selector, choose, select};
pub use statistics::Statistics;
pub use stream::Launch;
pub use wgpu;
