//! An array on the device.

use crate::ranges::Range;
use gradus_device::Buffer;
use gradus_ir::{DType, Data};

/// A buffer and what it holds. Booleans are words.
pub(crate) struct Array {
    pub(crate) buffer: Buffer,
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    /// Bounds of the values, of integers.
    pub(crate) range: Range,
}

/// The bytes of so many elements on the device.
pub(crate) fn bytes(len: usize) -> u64 {
    4 * len as u64
}

impl Array {
    /// Host data from the device's bytes.
    pub(crate) fn to_data(bytes: &[u8], dtype: DType) -> Data {
        match dtype {
            DType::Bool => Data::Bool(bytemuck::pod_collect_to_vec::<u8, u32>(bytes).iter().map(|&w| w != 0).collect()),
            DType::I32 => Data::I32(bytemuck::pod_collect_to_vec(bytes)),
            DType::U32 => Data::U32(bytemuck::pod_collect_to_vec(bytes)),
            DType::F32 | DType::F64 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
        }
    }
}
