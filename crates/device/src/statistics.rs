//! What a device has done so far, for tests and for those who tune.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Bind groups created.
    pub bind_groups: u64,
    /// Buffers created in the driver, those for read-back included.
    pub buffers: u64,
    /// Bytes of these.
    pub buffer_bytes: u64,
    /// Kernels launched.
    pub launches: u64,
    /// Copies between buffers, read-backs excluded.
    pub copies: u64,
    /// Command buffers handed to the GPU.
    pub submits: u64,
    /// Uploads.
    pub uploads: u64,
    /// Bytes uploaded.
    pub uploaded_bytes: u64,
    /// Read-backs.
    pub downloads: u64,
    /// Bytes read back.
    pub downloaded_bytes: u64,
}

/// The counters behind [`Statistics`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) pipelines: AtomicU64,
    pub(crate) bind_groups: AtomicU64,
    pub(crate) buffers: AtomicU64,
    pub(crate) buffer_bytes: AtomicU64,
    pub(crate) launches: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) submits: AtomicU64,
    pub(crate) uploads: AtomicU64,
    pub(crate) uploaded_bytes: AtomicU64,
    pub(crate) downloads: AtomicU64,
    pub(crate) downloaded_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Statistics {
        Statistics {
            pipelines: self.pipelines.load(Relaxed),
            bind_groups: self.bind_groups.load(Relaxed),
            buffers: self.buffers.load(Relaxed),
            buffer_bytes: self.buffer_bytes.load(Relaxed),
            launches: self.launches.load(Relaxed),
            copies: self.copies.load(Relaxed),
            submits: self.submits.load(Relaxed),
            uploads: self.uploads.load(Relaxed),
            uploaded_bytes: self.uploaded_bytes.load(Relaxed),
            downloads: self.downloads.load(Relaxed),
            downloaded_bytes: self.downloaded_bytes.load(Relaxed),
        }
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}
