//! Buffers: from the pool or the driver, filled by the host, and back to the pool.

use crate::Error;
use crate::device::{Device, Inner};
use crate::memory::{Reserved, class_of};
use crate::scope::scoped;
use crate::staging::PIECE;
use crate::statistics::count;
use std::cmp::Ordering;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wgpu::BufferUsages;

/// Bound bytes are a multiple of this, so that kernels may read and write whole `vec4<f32>`s.
const QUANTUM: u64 = 16;

/// Parts of buffers begin at multiples of this: what every adapter allows (WebGPU's `minStorageBufferOffsetAlignment`).
const PART_ALIGNMENT: u64 = 256;

/// Memory of a device. Clones are the same memory; when the last one drops, it goes back to the pool, while work
/// that was launched before still finds it as it was.
#[derive(Clone, Debug)]
pub struct Buffer {
    held: Arc<Held>,
    /// Where it begins in wgpu's buffer.
    offset: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Held {
    slot: Arc<Slot>,
    device: Arc<Inner>,
}

/// A driver's buffer, in use or kept.
///
/// Shared only between a dying [`Held`] and the pool.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Tells slots of this process apart, also those that are gone.
    pub(crate) number: u64,
    pub(crate) wgpu: wgpu::Buffer,
    class: u64,
    /// The submission whose commands used it last.
    used: AtomicU64,
}

impl PartialEq for Slot {
    fn eq(&self, other: &Slot) -> bool {
        self.number == other.number
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Slot) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Slot) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl Slot {
    /// Notes that commands of a submission use it.
    pub(crate) fn mark(&self, submission: u64) {
        self.used.store(submission, Relaxed);
    }
}

impl Buffer {
    /// Its size in bytes, as asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// wgpu's buffer, which may be longer, and of which this may be a [part](Buffer::part). Usages: storage, copies from and to it. What was launched has reached it
    /// only after [`Device::flush`].
    pub fn wgpu(&self) -> &wgpu::Buffer {
        &self.slot().wgpu
    }

    /// The device that it lies on.
    pub fn device(&self) -> Device {
        Device(self.held.device.clone())
    }

    pub(crate) fn is_on(&self, device: &Inner) -> bool {
        self.held.device.number == device.number
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.held.slot
    }

    /// `bytes` of the buffer from `offset` on, which share its memory: a kernel may write several parts, but not one while it
    /// reads another.
    ///
    /// Fails if they are not all inside, or do not begin at a multiple of 256.
    pub fn part(&self, offset: u64, bytes: u64) -> Result<Buffer, Error> {
        let fail = |message: &str| {
            let what = format!("{bytes} bytes from {offset} on, of a buffer of {}", self.bytes);
            Err(Error::Argument { what, message: message.into() })
        };
        if !offset.is_multiple_of(PART_ALIGNMENT) {
            return fail("a part begins at a multiple of 256");
        }
        match offset.checked_add(bound_bytes(bytes)) {
            Some(end) if end <= self.bound() => Ok(Buffer { offset: self.offset + offset, bytes, ..self.clone() }),
            _ => fail("a part lies inside of its buffer"),
        }
    }

    /// Where it begins in wgpu's buffer.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether kernels see some memory through both, of which it is known that they lie in one wgpu buffer.
    pub(crate) fn overlaps(&self, other: &Buffer) -> bool {
        self.offset < other.offset + other.bound() && other.offset < self.offset + self.bound()
    }

    /// How many bytes kernels see.
    pub(crate) fn bound(&self) -> u64 {
        bound_bytes(self.bytes)
    }
}

fn bound_bytes(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(QUANTUM)
}

impl Drop for Held {
    fn drop(&mut self) {
        let gone = self.device.books().release(self.slot.class, self.slot.clone());
        self.device.free(gone);
    }
}

impl Device {
    /// A buffer with unspecified contents. Kernels see its bytes rounded up to a multiple of 16, at least 16.
    ///
    /// Fails with [`Error::TooLarge`] over [`crate::Limits::max_binding_bytes`], and with [`Error::OutOfMemory`] if
    /// neither the budget nor the driver allows it; smaller buffers can still be had then.
    pub fn allocate(&self, bytes: u64) -> Result<Buffer, Error> {
        self.0.check()?;
        self.reserve(bytes, |_| true)
    }

    /// A buffer with these contents.
    pub fn upload(&self, bytes: &[u8]) -> Result<Buffer, Error> {
        let inner = &*self.0;
        inner.check()?;
        // What the host writes arrives before all that is still being recorded. So a kept buffer that recorded work
        // uses must not be written before this work is handed over: better take another, else hand it over.
        let recorded = |slot: &Slot| slot.used.load(Relaxed) == inner.recording.load(Relaxed);
        let buffer = self.reserve(bytes.len() as u64, |slot| !recorded(slot))?;
        if recorded(buffer.slot()) {
            self.flush()?;
        }
        let mut offset = 0;
        for piece in bytes.chunks(PIECE as usize) {
            self.write(&buffer, offset, piece)?;
            offset += piece.len() as u64;
        }
        count(&inner.counters.uploads, 1);
        count(&inner.counters.uploaded_bytes, bytes.len() as u64);
        Ok(buffer)
    }

    /// Writes a piece of an upload; the last may be of any length.
    fn write(&self, buffer: &Buffer, offset: u64, piece: &[u8]) -> Result<(), Error> {
        let inner = &*self.0;
        // Padding included: wgpu would clear what kernels see and nobody wrote.
        let padding = (piece.len() as u64).next_multiple_of(QUANTUM) as usize - piece.len();
        let Some(size) = NonZeroU64::new((piece.len() + padding) as u64) else { return Ok(()) };
        let (written, error) =
            scoped(&inner.wgpu, || match inner.queue.write_buffer_with(buffer.wgpu(), offset, size) {
                Some(mut view) => {
                    view.slice(..piece.len()).copy_from_slice(piece);
                    view.slice(piece.len()..).copy_from_slice(&[0; QUANTUM as usize][..padding]);
                    true
                }
                None => false,
            });
        if let Some(error) = error {
            return Err(inner.error(error, size.get()));
        }
        if !written {
            // Without an error: the device is gone.
            return Err(inner.lost_silently());
        }
        let mut stream = inner.stream();
        if stream.uploaded(size.get()) {
            let wait = stream.flush(inner)?;
            drop(stream);
            inner.wait_if(wait)?;
        }
        Ok(())
    }

    fn reserve(&self, bytes: u64, ready: impl Fn(&Arc<Slot>) -> bool) -> Result<Buffer, Error> {
        let inner = &*self.0;
        let limit = inner.limits.max_binding_bytes;
        if bytes > limit {
            return Err(Error::TooLarge { adapter: inner.description.name.clone(), bytes, limit });
        }
        let class = class_of(bound_bytes(bytes)).min(limit);
        let reserved = inner.books().reserve(class, ready);
        let slot = match reserved {
            Reserved::Reused(slot) => slot,
            Reserved::Refused => {
                let memory = inner.books().memory();
                let adapter = inner.description.name.clone();
                return Err(Error::OutOfMemory { adapter, bytes, in_use: memory.in_use, limit: memory.limit });
            }
            Reserved::Make(gone) => {
                inner.free(gone);
                match self.create_slot(class) {
                    Ok(slot) => {
                        inner.books().made();
                        slot
                    }
                    Err(error) => {
                        inner.books().failed(class);
                        return Err(error);
                    }
                }
            }
        };
        Ok(Buffer { held: Arc::new(Held { slot, device: self.0.clone() }), offset: 0, bytes })
    }

    fn create_slot(&self, class: u64) -> Result<Arc<Slot>, Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let wgpu = self.create_buffer(class, usage)?;
        Ok(Arc::new(Slot { number: NUMBER.fetch_add(1, Relaxed), wgpu, class, used: AtomicU64::new(0) }))
    }

    /// A buffer from the driver. Where it has no memory left, kept buffers are given back and it is asked once more.
    pub(crate) fn create_buffer(&self, bytes: u64, usage: BufferUsages) -> Result<wgpu::Buffer, Error> {
        let inner = &*self.0;
        let descriptor = wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        let (mut buffer, mut error) = scoped(&inner.wgpu, || inner.wgpu.create_buffer(&descriptor));
        if error.is_some() {
            self.make_way()?;
            (buffer, error) = scoped(&inner.wgpu, || inner.wgpu.create_buffer(&descriptor));
        }
        if let Some(error) = error {
            return Err(inner.error(error, bytes));
        }
        // On a lost device wgpu returns a buffer that is none, and no error.
        inner.notice()?;
        count(&inner.counters.buffers, 1);
        count(&inner.counters.buffer_bytes, bytes);
        Ok(buffer)
    }

    /// Gives all that can be spared back to the driver.
    fn make_way(&self) -> Result<(), Error> {
        self.trim();
        // The driver frees what was in use by the GPU only when the GPU is done with it.
        self.synchronise()
    }
}

impl Inner {
    /// Frees buffers that were kept.
    pub(crate) fn free(&self, gone: Vec<Arc<Slot>>) {
        if gone.is_empty() {
            return;
        }
        // Bind groups would keep them alive.
        let numbers: Vec<u64> = gone.iter().map(|slot| slot.number).collect();
        self.stream().forget(&numbers);
    }
}
