//! Waiting for the GPU.

use crate::Error;
use crate::device::Inner;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use wgpu::{PollError, PollType, SubmissionIndex};

/// What polling told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// What was waited for is done; or, without a wait, nothing in particular.
    Done,
    /// It is not done yet.
    Running,
    /// It was never handed to the GPU.
    Unknown,
}

impl Inner {
    /// Polls the device. No lock of ours may be held if this waits.
    pub(crate) fn poll(&self, how: PollType) -> Result<Progress, Error> {
        // wgpu panics if the driver loses the device while it is waited for.
        match catch_unwind(AssertUnwindSafe(|| self.wgpu.poll(how))) {
            Ok(Ok(_)) => Ok(Progress::Done),
            Ok(Err(PollError::Timeout)) => Ok(Progress::Running),
            Ok(Err(PollError::WrongSubmissionIndex(..))) => Ok(Progress::Unknown),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                self.status.lose(said.unwrap_or("waiting for it failed"));
                self.check().map(|()| Progress::Unknown)
            }
        }
    }

    /// Waits until a submission is done.
    pub(crate) fn wait(&self, index: SubmissionIndex) -> Result<(), Error> {
        self.poll(PollType::Wait { submission_index: Some(index), timeout: None })?;
        self.check()
    }

    /// Whether a submission really was handed to the GPU: on a lost device wgpu only pretends.
    pub(crate) fn accepted(&self, index: &SubmissionIndex) -> Result<bool, Error> {
        let timeout = Some(Duration::ZERO);
        let told = self.poll(PollType::Wait { submission_index: Some(index.clone()), timeout })?;
        Ok(told != Progress::Unknown)
    }
}
