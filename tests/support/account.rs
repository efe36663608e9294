//! What a device and the process have at a moment, and loops through which it must stay.

use crate::devices::{grain, is_cpu};
use gradus::Device;
use gradus::ir::{MemoryStats, Stats};
use gradus::tensor::graph::live_nodes;
use std::sync::{Mutex, MutexGuard};

/// Tests that look at the process' own memory run one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
struct Account {
    stats: Stats,
    memory: MemoryStats,
    nodes: usize,
    resident: usize,
}

impl Account {
    fn of(device: &Device) -> Account {
        Account { stats: device.stats(), memory: device.memory(), nodes: live_nodes(device), resident: resident() }
    }

    /// Plans, pipelines, bind groups, buffers and their bytes: all that was ever made.
    fn made(&self) -> [u64; 5] {
        let Stats { plans, pipelines, bind_groups, buffers, buffer_bytes, .. } = self.stats;
        [plans, pipelines, bind_groups, buffers, buffer_bytes]
    }

    /// Fails if the process has grown since `before`.
    fn check_process(&self, before: &Account, device: &Device) {
        let grown = self.resident.saturating_sub(before.resident);
        assert!(grown < allowed(device), "the process grew by {grown} bytes on {device}");
    }

    /// The same, but what a GPU's driver takes once is no leak: who has grown there must not grow in `again`.
    fn check_process_or_again(&self, before: &Account, device: &Device, again: impl FnOnce()) {
        if is_cpu(device) || self.resident.saturating_sub(before.resident) < allowed(device) {
            return self.check_process(before, device);
        }
        again();
        Account::of(device).check_process(self, device);
    }
}

/// By how many bytes a process may grow. A software adapter is a part of it, and makes its own arrangements.
fn allowed(device: &Device) -> usize {
    if is_cpu(device) { 1 << 20 } else { 6 << 20 }
}

/// Bytes of the process in memory; 0 where the system does not tell.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// How often a device does what a CPU does so many times in a moment. `GRADUS_ENDURANCE=full`: as often.
pub(crate) fn times(on_cpu: usize, on_gpu: usize, device: &Device) -> usize {
    let is_full = std::env::var("GRADUS_ENDURANCE").is_ok_and(|value| value == "full");
    if is_cpu(device) || is_full { on_cpu } else { on_gpu }
}

/// Runs equal steps, and checks that the last nine tenths make nothing and keep nothing.
pub(crate) fn makes_and_keeps_nothing(device: &Device, steps: usize, mut step: impl FnMut()) {
    (0..steps / 10).for_each(|_| step());
    let before = Account::of(device);
    (steps / 10..steps).for_each(|_| step());
    let after = Account::of(device);
    assert_eq!(after.made(), before.made(), "plans, pipelines, bind groups, buffers, bytes made on {device}");
    assert_eq!(after.memory, before.memory, "on {device}");
    assert_eq!(after.nodes, before.nodes, "nodes on {device}");
    after.check_process_or_again(&before, device, || (steps / 10..steps).for_each(|_| step()));
}

/// Runs steps that may leave work for later, and checks that neither arrays nor the process grow after the first half.
pub(crate) fn stays_flat(device: &Device, steps: usize, mut step: impl FnMut()) {
    (0..steps / 2).for_each(|_| step());
    let before = Account::of(device);
    (steps / 2..steps).for_each(|_| step());
    let after = Account::of(device);
    let grown = after.memory.in_use.saturating_sub(before.memory.in_use);
    // Up to 4,096 single numbers may wait to be added up.
    assert!(grown <= 4096 * 4 * grain(device), "arrays grew by {grown} bytes on {device}");
    after.check_process_or_again(&before, device, || (steps / 2..steps).for_each(|_| step()));
}
