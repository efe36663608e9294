//! Parameters that do not travel with the launch: they lie in a buffer, and each launch sees its part of it.

use crate::Error;
use crate::device::Inner;
use crate::statistics::count;
use smallvec::SmallVec;
use std::num::NonZeroU64;
use wgpu::BufferUsages;

/// Parameters of so many bytes go to the GPU at a time.
pub(crate) const RING_BYTES: u64 = 64 << 10;

/// Each launch's parameters lie at a multiple of this many bytes, the most that WebGPU may demand.
const SLOT: u64 = 256;

/// A buffer of parameters.
///
/// The same one serves every submission: the queue writes it, in order, before the submission that reads it. So what is
/// recorded may hold no more than it, and a flush empties it.
#[derive(Debug)]
pub(crate) struct Ring {
    buffer: wgpu::Buffer,
    layout: wgpu::BindGroupLayout,
    /// Bind groups that show so many bytes of the buffer, moved about by dynamic offsets.
    windows: SmallVec<[(u64, wgpu::BindGroup); 2]>,
    /// What was recorded since the last flush.
    data: Vec<u8>,
}

impl Ring {
    pub(crate) fn new(inner: &Inner) -> Result<Ring, Error> {
        let layout = inner.pipelines().uniform(inner)?;
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: RING_BYTES, usage, mapped_at_creation: false };
        let buffer = inner.create(|device| device.create_buffer(&descriptor))?;
        count(&inner.counters.buffers, 1);
        count(&inner.counters.buffer_bytes, RING_BYTES);
        Ok(Ring { buffer, layout, windows: SmallVec::new(), data: Vec::with_capacity(RING_BYTES as usize) })
    }

    /// Whether the parameters of another launch fit.
    pub(crate) fn has_room(&self, words: usize) -> bool {
        self.data.len() as u64 + window_bytes(words) <= RING_BYTES
    }

    /// Puts in the parameters of a launch, for which there must be room. Returns the bind group that shows them with an
    /// offset.
    pub(crate) fn push(&mut self, inner: &Inner, parameters: &[u32]) -> Result<(&wgpu::BindGroup, u32), Error> {
        let bytes = window_bytes(parameters.len());
        let window = match self.windows.iter().position(|(b, _)| *b == bytes) {
            Some(window) => window,
            None => {
                let group = self.window(inner, bytes)?;
                self.windows.push((bytes, group));
                self.windows.len() - 1
            }
        };
        let offset = self.data.len();
        self.data.extend_from_slice(bytemuck::cast_slice(parameters));
        self.data.resize(offset + bytes as usize, 0);
        Ok((&self.windows[window].1, offset as u32))
    }

    /// Hands what was put in to the queue, ahead of the commands that read it.
    pub(crate) fn send(&mut self, queue: &wgpu::Queue) {
        if !self.data.is_empty() {
            queue.write_buffer(&self.buffer, 0, &self.data);
            self.data.clear();
        }
    }

    fn window(&self, inner: &Inner, bytes: u64) -> Result<wgpu::BindGroup, Error> {
        let binding = wgpu::BufferBinding { buffer: &self.buffer, offset: 0, size: NonZeroU64::new(bytes) };
        let entries = [wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(binding) }];
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &self.layout, entries: &entries };
        count(&inner.counters.bind_groups, 1);
        inner.create(|device| device.create_bind_group(&descriptor))
    }
}

/// How many bytes of the buffer a kernel with so many parameters sees.
fn window_bytes(words: usize) -> u64 {
    (4 * words as u64).next_multiple_of(SLOT)
}
