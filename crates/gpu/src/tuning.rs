//! What suits an adapter: a few numbers for each of two kinds, found by measuring.

use gradus_device::Device;

/// How kernels are cut into work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Invocations of a workgroup where they do not work together; a power of two.
    pub workgroup: u32,
    /// Whether workgroups share memory and meet at barriers: right for GPUs, dear where a CPU plays one.
    pub cooperates: bool,
    /// Invocations that keep the adapter busy: fewer results than this are computed in parts, where there is enough to
    /// do for each.
    pub busy: usize,
    /// How long a row may be that one kernel walks along more than once, or writes while it reduces it.
    pub longest_row: usize,
    /// The most different values of a size (extent, stride, offset) that become part of a kernel's text; from then on
    /// the size is passed at run time. 0: always passed.
    pub baked_values: usize,
    /// Whether four neighbouring numbers are loaded as two words of 64 bits, where shaders have those: Mesa 22.3's software
    /// adapter puts what it loads into a vector one by one, some twenty cycles each, be they short or long.
    pub loads_pairs: bool,
}

impl Tuning {
    /// Few threads with wide vectors; barriers and new kernels are dear.
    pub const SOFTWARE: Tuning =
        Tuning { workgroup: 64, cooperates: false, busy: 128, longest_row: 4096, baked_values: 0, loads_pairs: true };
    /// Very many threads.
    pub const GPU: Tuning = Tuning {
        workgroup: 128,
        cooperates: true,
        busy: 1 << 16,
        longest_row: 8192,
        baked_values: 2,
        loads_pairs: false,
    };

    /// What suits this device.
    pub fn of(device: &Device) -> Tuning {
        if device.is_software() { Tuning::SOFTWARE } else { Tuning::GPU }
    }
}
