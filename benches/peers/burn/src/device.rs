use burn::prelude::*;

/// The device of the backend that the feature chooses.
pub fn device() -> Device {
    #[cfg(feature = "wgpu")]
    return Device::wgpu(Default::default());
    #[cfg(all(feature = "flex", not(feature = "wgpu")))]
    return Device::flex();
    #[cfg(not(any(feature = "wgpu", feature = "flex")))]
    compile_error!("choose a backend: --features wgpu or --features flex");
}
