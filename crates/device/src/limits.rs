//! What a device can do at most, as far as kernels care.

/// The limits of a device. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest buffer that a kernel can bind, a multiple of 16 bytes.
    pub max_binding_bytes: u64,
    /// Storage buffers in one kernel.
    pub storage_buffers: usize,
    /// Workgroup memory of one workgroup, in bytes.
    pub workgroup_bytes: u32,
    /// Invocations in one workgroup.
    pub workgroup_invocations: u32,
    /// Extent of a workgroup along x, y, z.
    pub workgroup_size: [u32; 3],
    /// Workgroups of one launch along each of x, y, z.
    pub workgroups_per_dimension: u32,
    /// Parameter bytes that travel with a launch; 0 without immediates.
    pub immediate_bytes: u32,
    /// Parameters of one kernel, in `u32` words, however they travel.
    pub parameter_words: usize,
    /// Smallest and largest number of invocations in a subgroup; `None` where shaders cannot use subgroups.
    pub subgroup_size: Option<(u32, u32)>,
    /// Whether shaders may `enable f16;`.
    pub f16: bool,
    /// Whether shaders have `u64`.
    pub u64: bool,
    /// Whether subgroups multiply cooperative matrices of 16 by 16 numbers of f16, and sum up in f32.
    pub cooperative_f16: bool,
}

impl Limits {
    /// The limits of a device that this crate has opened, or of one that was there.
    pub(crate) fn of(device: &wgpu::Device, opened: bool, parameter_ring: u64) -> Limits {
        let (limits, features, info) = (device.limits(), device.features(), device.adapter_info());
        let has = |feature| features.contains(feature);
        let immediate_bytes = if has(wgpu::Features::IMMEDIATES) { limits.max_immediate_size & !3 } else { 0 };
        let uniform = limits.max_uniform_buffer_binding_size.min(parameter_ring);
        Limits {
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) & !15,
            storage_buffers: limits.max_storage_buffers_per_shader_stage as usize,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_size: [
                limits.max_compute_workgroup_size_x,
                limits.max_compute_workgroup_size_y,
                limits.max_compute_workgroup_size_z,
            ],
            workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            immediate_bytes,
            parameter_words: (u64::from(immediate_bytes).max(uniform) / 4) as usize,
            subgroup_size: has(wgpu::Features::SUBGROUP).then_some((info.subgroup_min_size, info.subgroup_max_size)),
            f16: has(wgpu::Features::SHADER_F16),
            u64: has(wgpu::Features::SHADER_INT64),
            // Asked for where the adapter has these matrices alone.
            cooperative_f16: opened && has(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        }
    }
}
