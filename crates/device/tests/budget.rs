//! The memory budget, and buffers that are used again.

mod common;

use common::{affine, device, launch_affine};
use gradus_device::{Error, Memory, Options};

const MIB: u64 = 1 << 20;

#[test]
fn over_the_budget_is_an_error_and_smaller_works() {
    let Some(device) = device(&Options { memory_limit: Some(10 * MIB), ..Options::default() }) else { return };
    let a = device.allocate(6 * MIB).unwrap();
    let error = device.allocate(5 * MIB).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { bytes, in_use, limit, .. }
        if (bytes, in_use, limit) == (5 * MIB, 6 * MIB, Some(10 * MIB))));
    assert!(matches!(device.upload(&[0; 5 << 20]), Err(Error::OutOfMemory { .. })));
    let b = device.allocate(4 * MIB).unwrap();
    let expected = Memory { in_use: 10 * MIB, kept: 0, peak: 10 * MIB, limit: Some(10 * MIB) };
    assert_eq!(device.memory(), expected);
    drop(a);
    assert_eq!(device.memory(), Memory { in_use: 4 * MIB, kept: 6 * MIB, ..expected });
    // What is kept goes to make room for another size.
    let c = device.allocate(5 * MIB).unwrap();
    assert_eq!(device.memory(), Memory { in_use: 9 * MIB, kept: 0, ..expected });
    drop((b, c));
    device.trim();
    assert_eq!(device.memory(), Memory { in_use: 0, kept: 0, ..expected });
    let text = error.to_string();
    assert!(text.contains("5242880 bytes") && text.contains("limit 10485760") && text.contains("smaller"), "{text}");
}

#[test]
fn over_the_binding_limit_is_an_error() {
    let Some(device) = device(&Options::default()) else { return };
    let limit = device.limits().max_binding_bytes;
    let error = device.allocate(limit + 1).unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes, limit: l, .. } if (bytes, l) == (limit + 1, limit)));
    assert!(matches!(device.allocate(u64::MAX), Err(Error::TooLarge { .. })));
    assert!(error.to_string().contains("split the tensor"));
    assert_eq!(device.memory(), Memory::default());
}

#[test]
fn the_largest_buffer_can_be_bound() {
    for device in common::devices().into_iter().filter(|d| d.limits().max_binding_bytes <= 1 << 28) {
        let limit = device.limits().max_binding_bytes;
        let (a, b) = (device.allocate(limit - 3).unwrap(), device.allocate(limit).unwrap());
        launch_affine(&device, &affine(&device), &a, &b, [0, 3]).unwrap();
        let all = device.read(&b, limit).unwrap();
        assert!(all.chunks_exact(4).all(|w| w == [3, 0, 0, 0]));
    }
}

#[test]
fn what_is_dropped_is_used_again_up_to_the_high_water_mark() {
    let Some(device) = device(&Options::default()) else { return };
    let sizes = [3 * MIB, 30 * MIB, 1, 70_000, 30 * MIB, 5000];
    let allocate = || sizes.map(|bytes| device.allocate(bytes).unwrap());
    drop(allocate());
    let before = device.statistics().buffers;
    for _ in 0..5 {
        let buffers = allocate();
        assert_eq!(device.memory().kept, 0);
        drop(buffers);
    }
    assert_eq!(device.statistics().buffers, before);
    let memory = device.memory();
    assert_eq!((memory.in_use, memory.kept), (0, memory.peak));
    assert!(memory.peak >= sizes.iter().sum() && memory.peak < sizes.iter().sum::<u64>() / 16 * 17);
    // Other sizes push out what is kept rather than add to it.
    for bytes in (1..40).map(|i| i * 1_000_003) {
        drop(device.allocate(bytes).unwrap());
        let memory = device.memory();
        assert!(memory.in_use + memory.kept <= memory.peak.max(64 * MIB));
    }
}

#[test]
fn buffers_go_although_bind_groups_knew_them() {
    let Some(device) = device(&Options { memory_limit: Some(64 * MIB), ..Options::default() }) else { return };
    let pipeline = affine(&device);
    // Each round needs another size, so that the buffers of earlier rounds must make way: 30 × 40 MiB in all.
    for i in 0..30u64 {
        let (a, b) =
            (device.allocate(20 * MIB + i * 300_000).unwrap(), device.allocate(20 * MIB + i * 300_000).unwrap());
        launch_affine(&device, &pipeline, &a, &b, [0, i as u32]).unwrap();
        assert_eq!(device.read(&b, 4).unwrap(), [i as u8, 0, 0, 0]);
    }
    device.trim();
    device.synchronise().unwrap();
    let left = device.wgpu().0.generate_allocator_report().map_or(0, |r| r.total_allocated_bytes);
    assert!(left < 8 * MIB, "{left} bytes are still allocated in the driver");
}

/// Asks for memory until the driver has none left, or until drivers that promise everything have promised enough.
#[test]
fn the_driver_running_out_is_the_same_error() {
    let Some(device) = device(&Options::default()) else { return };
    let most = device.limits().max_binding_bytes.min(1 << 30);
    let mut held = Vec::new();
    let mut refused = 0;
    while held.len() < 256 && refused < 2 {
        match device.allocate(most) {
            Ok(buffer) => held.push(buffer),
            Err(error) => {
                assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
                refused += 1;
                held.pop();
            }
        }
    }
    println!("{} buffers of {most} bytes, {refused} refused", held.len());
    // Smaller buffers can still be had, and work goes on.
    let small = device.upload(&[1, 2, 3, 4]).unwrap();
    assert_eq!(device.read(&small, 4).unwrap(), [1, 2, 3, 4]);
    drop(held);
    device.trim();
    assert_eq!(device.memory().kept, 0);
    let buffer = device.upload(&[1, 2, 3, 4]).unwrap();
    assert_eq!(device.read(&buffer, 4).unwrap(), [1, 2, 3, 4]);
}

/// The same in a process that may have little memory, where drivers do refuse.
#[cfg(target_os = "linux")]
#[test]
fn a_driver_that_refuses_is_the_same_error() {
    let Some(device) = device(&Options::default()) else { return };
    if !device.is_software() {
        return;
    }
    let script = "ulimit -v 6000000 && exec \"$0\" --exact the_driver_running_out_is_the_same_error --nocapture";
    let test = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh").arg("-c").arg(script).arg(test).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("2 refused"), "{text}");
}
