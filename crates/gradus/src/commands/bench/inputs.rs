//! Numbers that every run, and every library that is compared, starts from.

use gradus::{Device, Shape, Tensor};

/// `count` floats in [-scale, scale) from an integer hash of (index, seed), which programs in other languages repeat.
pub(super) fn values(count: usize, seed: u32, scale: f32) -> Vec<f32> {
    let value = |index: u32| {
        let mut hash = index.wrapping_mul(0x9E37_79B1).wrapping_add(seed.wrapping_mul(0x85EB_CA77));
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x7FEB_352D);
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x846C_A68B);
        hash ^= hash >> 16;
        ((hash >> 8) as f32 / 16_777_216.0 * 2.0 - 1.0) * scale
    };
    (0..count as u32).map(value).collect()
}

/// These as a tensor.
pub(in crate::commands) fn tensor(shape: impl Into<Shape>, seed: u32, scale: f32, device: &Device) -> Tensor {
    let shape = shape.into();
    Tensor::from_vec(values(shape.numel(), seed, scale), shape, device)
}

/// So many labels of ten classes.
pub(super) fn labels(count: usize, device: &Device) -> Tensor {
    Tensor::from_vec((0..count as i32).map(|i| (i * 7 + 3) % 10).collect(), [count], device)
}
