//! Whether a device still works, as told by callbacks that wgpu may call on any thread.

use crate::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the callbacks told, and what every call looks at first.
#[derive(Debug)]
pub(crate) struct Status {
    adapter: String,
    trouble: AtomicBool,
    lost: OnceLock<String>,
    fault: Mutex<Option<String>>,
}

impl Status {
    pub(crate) fn new(adapter: &str) -> Status {
        let (trouble, lost, fault) = (AtomicBool::new(false), OnceLock::new(), Mutex::new(None));
        Status { adapter: adapter.into(), trouble, lost, fault }
    }

    /// Notes that the device is gone. The first reason stays.
    pub(crate) fn lose(&self, reason: &str) {
        let reason = reason.trim();
        let reason = if reason.is_empty() { "its driver gives no reason" } else { reason };
        if self.lost.set(reason.into()).is_ok() {
            tracing::warn!("device {} was lost: {reason}", self.adapter);
        }
        self.trouble.store(true, Ordering::Release);
    }

    /// Notes an error of wgpu that no scope caught. The next call raises it; further ones until then are logged.
    pub(crate) fn fault(&self, message: String) {
        tracing::warn!("uncaptured error of {}: {message}", self.adapter);
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
        self.trouble.store(true, Ordering::Release);
    }

    /// Why the device is gone, if it is.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// The error of every call on a device that is gone.
    pub(crate) fn lost_error(&self) -> Error {
        Error::Lost { adapter: self.adapter.clone(), reason: self.lost().unwrap_or_default().into() }
    }

    /// Fails if the device is gone, or has met an error that was not raised yet.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.trouble.load(Ordering::Acquire) { self.raise() } else { Ok(()) }
    }

    #[cold]
    fn raise(&self) -> Result<(), Error> {
        if self.lost().is_some() {
            return Err(self.lost_error());
        }
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        self.trouble.store(false, Ordering::Release);
        if self.lost().is_some() {
            // It was lost in between: the flag stays up.
            self.trouble.store(true, Ordering::Release);
        }
        match fault.take() {
            Some(message) => Err(Error::Invalid { adapter: self.adapter.clone(), message }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_raised_once_and_loss_for_good() {
        let status = Status::new("a");
        assert_eq!(status.check(), Ok(()));
        status.fault("first".into());
        status.fault("second".into());
        assert_eq!(status.check(), Err(Error::Invalid { adapter: "a".into(), message: "first".into() }));
        assert_eq!(status.check(), Ok(()));
        status.lose(" ");
        status.lose("later");
        let lost = Error::Lost { adapter: "a".into(), reason: "its driver gives no reason".into() };
        assert_eq!(status.check(), Err(lost.clone()));
        assert_eq!(status.check(), Err(lost));
    }
}
