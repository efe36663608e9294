//! Errors of wgpu, caught where they arise.
//!
//! wgpu reports errors to the innermost scope of the calling thread, else to a handler of the whole device. We use
//! scopes alone: a program's own device keeps its own handler, and an error is returned by the call that caused it.

use wgpu::{ErrorFilter, ErrorScopeGuard};

/// Does `work` and returns what it returns together with the first error that wgpu had with it.
pub(crate) fn scoped<R>(device: &wgpu::Device, work: impl FnOnce() -> R) -> (R, Option<wgpu::Error>) {
    let memory = device.push_error_scope(ErrorFilter::OutOfMemory);
    let internal = device.push_error_scope(ErrorFilter::Internal);
    let validation = device.push_error_scope(ErrorFilter::Validation);
    let result = work();
    let validation = pop(validation);
    let internal = pop(internal);
    let memory = pop(memory);
    // Where memory was short, other errors follow from it.
    (result, memory.or(validation).or(internal))
}

fn pop(scope: ErrorScopeGuard) -> Option<wgpu::Error> {
    // Ready at once on every native back end.
    pollster::block_on(scope.pop())
}
