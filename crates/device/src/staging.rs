//! Buffers of the host's memory that the GPU copies results to, kept for reuse.

use crate::memory::class_of;
use crate::{Device, Error};
use std::sync::{Mutex, PoisonError};
use wgpu::BufferUsages;

/// Large transfers are cut into pieces of this many bytes.
pub(crate) const PIECE: u64 = 32 << 20;

/// The most bytes that are kept: two pieces and many small ones.
const MOST_KEPT: u64 = 2 * PIECE + (16 << 20);

/// What is kept, the longest kept first.
#[derive(Debug, Default)]
pub(crate) struct StagingPool(Mutex<Vec<wgpu::Buffer>>);

impl StagingPool {
    /// Takes back a buffer that is not mapped.
    pub(crate) fn put(&self, buffer: wgpu::Buffer) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(buffer);
        while kept.iter().map(wgpu::Buffer::size).sum::<u64>() > MOST_KEPT {
            kept.remove(0);
        }
    }

    /// Frees all that is kept.
    pub(crate) fn trim(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take(&self, class: u64) -> Option<wgpu::Buffer> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = kept.iter().rposition(|b| b.size() == class)?;
        Some(kept.remove(position))
    }
}

impl Device {
    /// A buffer of at least this many bytes that the GPU can copy to and the host can read.
    pub(crate) fn staging(&self, bytes: u64) -> Result<wgpu::Buffer, Error> {
        let class = class_of(bytes);
        match self.0.staging.take(class) {
            Some(buffer) => Ok(buffer),
            None => self.create_buffer(class, BufferUsages::MAP_READ | BufferUsages::COPY_DST),
        }
    }
}
