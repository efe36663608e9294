//! Waiting for the GPU, and noticing that it is gone.

use crate::Error;
use crate::device::Inner;
use crate::scope::scoped;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu::{BufferUsages, MapMode, PollError, PollType, SubmissionIndex};

impl Inner {
    /// Asks wgpu how the device is, then checks. Does not wait.
    pub(crate) fn notice(&self) -> Result<(), Error> {
        self.check()?;
        self.poll(PollType::Poll)?;
        if self.external && self.is_gone() {
            self.lose();
        }
        self.check()
    }

    /// Waits until a submission is done. No lock of ours may be held.
    pub(crate) fn wait(&self, index: SubmissionIndex) -> Result<(), Error> {
        // Never with a time limit: wgpu-core 30 panics if such a wait runs out while another thread's ends.
        self.poll(PollType::Wait { submission_index: Some(index), timeout: None })?;
        self.check()
    }

    /// Waits for a submission, if there is one to wait for.
    pub(crate) fn wait_if(&self, index: Option<SubmissionIndex>) -> Result<(), Error> {
        index.map_or(Ok(()), |index| self.wait(index))
    }

    fn poll(&self, how: PollType) -> Result<(), Error> {
        // wgpu panics if the driver loses the device while it is waited for.
        match catch_unwind(AssertUnwindSafe(|| self.wgpu.poll(how))) {
            Ok(Err(PollError::WrongSubmissionIndex(..))) => {
                // It was never handed over: on a lost device wgpu only pretends to.
                self.lose();
            }
            Ok(_) => {}
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                self.status.lose(said.unwrap_or("waiting for it failed"));
            }
        }
        self.check()
    }

    /// The error for a call that did nothing and said nothing, as wgpu's do on a lost device.
    pub(crate) fn lost_silently(&self) -> Error {
        self.lose();
        self.status.lost_error()
    }

    /// Notes that the device is gone.
    pub(crate) fn lose(&self) {
        // The callback, where we have one, tells the reason.
        let polled = catch_unwind(AssertUnwindSafe(|| self.wgpu.poll(PollType::Poll)));
        drop(polled);
        self.status.lose("it was destroyed or reset");
    }

    /// Whether the device is gone, asked without a callback: wgpu refuses at once to map a buffer of a lost device, and
    /// leaves it pending otherwise.
    pub(crate) fn is_gone(&self) -> bool {
        let refused = Arc::new(AtomicBool::new(false));
        let told = refused.clone();
        let (gone, error) = scoped(&self.wgpu, || {
            let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            let descriptor = wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false };
            let probe = self.wgpu.create_buffer(&descriptor);
            probe.map_async(MapMode::Read, .., move |result| told.store(result.is_err(), Ordering::Relaxed));
            // Looked at before the probe is dropped, which ends a pending map with an error too.
            refused.load(Ordering::Relaxed)
        });
        gone && !matches!(error, Some(wgpu::Error::OutOfMemory { .. }))
    }
}
