//! The device's errors in the library's words.

use gradus_device::Error as DeviceError;
use gradus_ir::Error;

/// The error of a backend.
pub fn of_device(error: DeviceError) -> Error {
    match error {
        DeviceError::OutOfMemory { bytes, in_use, limit, .. } => Error::OutOfMemory {
            bytes: bytes as usize,
            in_use: in_use as usize,
            limit: limit.map(|limit| limit as usize),
        },
        DeviceError::TooLarge { bytes, limit, .. } => {
            Error::BindingTooLarge { bytes: bytes as usize, limit: limit as usize }
        }
        DeviceError::Lost { adapter, reason } => Error::DeviceLost { device: adapter, reason },
        DeviceError::NoAdapter { asked, reason } => Error::NoDevice { asked, reason },
        other => Error::Backend(other.to_string()),
    }
}
