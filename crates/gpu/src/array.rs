//! An array on the device.

use crate::error::of_device;
use crate::ranges::Range;
use gradus_device::{Buffer, Device, Error};
use gradus_ir::{DType, Data, Download};

/// A buffer and what it holds. Booleans are words.
pub(crate) struct Array {
    pub(crate) buffer: Buffer,
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    /// Bounds of the values, of integers.
    pub(crate) range: Range,
}

/// The bytes of so many elements on the device, which copies words.
pub(crate) fn bytes(dtype: DType, len: usize) -> u64 {
    if dtype == DType::F16 { (2 * len as u64).next_multiple_of(4) } else { 4 * len as u64 }
}

impl Array {
    /// The elements, once the device has them.
    pub(crate) fn read(&self, device: &Device) -> Result<Data, Error> {
        let Array { buffer, len, .. } = self;
        Ok(match self.dtype {
            DType::Bool => bools(device.read_as(buffer, *len)?),
            DType::I32 => Data::I32(device.read_as(buffer, *len)?),
            DType::U32 => Data::U32(device.read_as(buffer, *len)?),
            DType::F16 => Data::F16(device.read_as(buffer, *len)?),
            DType::F32 | DType::F64 => Data::F32(device.read_as(buffer, *len)?),
        })
    }

    /// The elements, without waiting here.
    pub(crate) fn download(&self, device: &Device) -> Download {
        let Array { buffer, len, .. } = self;
        match self.dtype {
            DType::Bool => {
                let words = device.read_as_async(buffer, *len);
                Box::pin(async move { words.await.map(bools).map_err(of_device) })
            }
            DType::I32 => {
                let values = device.read_as_async(buffer, *len);
                Box::pin(async move { values.await.map(Data::I32).map_err(of_device) })
            }
            DType::U32 => {
                let values = device.read_as_async(buffer, *len);
                Box::pin(async move { values.await.map(Data::U32).map_err(of_device) })
            }
            DType::F16 => {
                let values = device.read_as_async(buffer, *len);
                Box::pin(async move { values.await.map(Data::F16).map_err(of_device) })
            }
            DType::F32 | DType::F64 => {
                let values = device.read_as_async(buffer, *len);
                Box::pin(async move { values.await.map(Data::F32).map_err(of_device) })
            }
        }
    }
}

fn bools(words: Vec<u32>) -> Data {
    Data::Bool(words.into_iter().map(|word| word != 0).collect())
}
