//! What can go wrong, as values with named fields.

/// An error of finding, opening or using a device. Every message says what failed, where, and the way out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter is what was asked for.
    #[error("no GPU adapter for \"{asked}\": {reason}")]
    NoAdapter {
        /// What was asked for.
        asked: String,
        /// Why it cannot be had, what there is, and how to go on.
        reason: String,
    },
    /// The adapter gave no device.
    #[error(
        "cannot open {adapter}: {reason}; update its driver, name another adapter with GRADUS_DEVICE, or use the CPU"
    )]
    Open {
        /// Name of the adapter.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// The device is gone: its driver was reset, it was unplugged, or destroyed. Its buffers are gone with it.
    #[error(
        "device {adapter} was lost: {reason}; what it held is gone: open the device again and load the last checkpoint"
    )]
    Lost {
        /// Name of the adapter.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// No memory for a buffer, neither in the budget nor in the driver.
    #[error("out of memory on {adapter}: {bytes} bytes asked for, {in_use} in use{}; use smaller tensors or batches{}",
            limit.map_or(String::new(), |l| format!(", limit {l}")),
            if limit.is_some() { ", or raise the memory limit" } else { "" })]
    OutOfMemory {
        /// Name of the adapter.
        adapter: String,
        /// Bytes asked for.
        bytes: u64,
        /// Bytes in use by buffers of this device.
        in_use: u64,
        /// The device's budget in bytes, where one is set.
        limit: Option<u64>,
    },
    /// A buffer over what a kernel of this device can bind.
    #[error(
        "a buffer of {bytes} bytes is too large for {adapter}, whose kernels see at most {limit} bytes at a time: split the tensor, or use smaller batches"
    )]
    TooLarge {
        /// Name of the adapter.
        adapter: String,
        /// Bytes asked for.
        bytes: u64,
        /// The device's limit in bytes.
        limit: u64,
    },
    /// A shader that does not compile.
    #[error("shader \"{label}\" does not compile{}: {message}", line.map_or(String::new(), |l| format!(" (line {l})")))]
    Shader {
        /// The label that the pipeline was given.
        label: String,
        /// What the compiler said.
        message: String,
        /// The line that it points at, counted from 1, where it points at one.
        line: Option<u32>,
        /// The shader's text with line numbers.
        source_text: String,
    },
    /// A call, or recorded work, that the device cannot do: a bug of the caller, or of this crate.
    #[error("{adapter} refused its work: {message}; none of the work recorded since the last flush has been done")]
    Invalid {
        /// Name of the adapter.
        adapter: String,
        /// What wgpu's validation said.
        message: String,
    },
    /// An argument that does not fit the others.
    #[error("{what}: {message}")]
    Argument {
        /// The call, and the kernel or buffer that it is about.
        what: String,
        /// What does not fit, and what would.
        message: String,
    },
}
