//! Several threads on one device.

mod common;

use common::{affine, bytes, devices, launch_affine, words};
use std::sync::Barrier;

#[test]
fn threads_do_not_disturb_each_other() {
    for device in devices() {
        let start = Barrier::new(6);
        std::thread::scope(|scope| {
            for thread in 0..6u32 {
                let (device, start) = (device.clone(), &start);
                scope.spawn(move || {
                    let pipeline = affine(&device);
                    start.wait();
                    for round in 0..60u32 {
                        let first = thread * 1000 + round;
                        let count = 1 + (first * 37 % 900) as usize;
                        let mut value = device.upload(&bytes(&vec![first; count])).unwrap();
                        let mut expected = first;
                        for step in 0..round % 13 {
                            let next = device.allocate(4 * count as u64).unwrap();
                            launch_affine(&device, &pipeline, &value, &next, [step + 2, thread]).unwrap();
                            expected = expected.wrapping_mul(step + 2).wrapping_add(thread);
                            value = next;
                        }
                        if round % 5 == 0 {
                            let target = device.allocate(4 * count as u64).unwrap();
                            device.copy(&value, &target, value.bytes()).unwrap();
                            value = target;
                        }
                        let result = match round % 3 {
                            0 => pollster::block_on(device.read_async(&value, value.bytes())),
                            _ => device.read(&value, value.bytes()),
                        };
                        assert_eq!(words(&result.unwrap()), vec![expected; count], "thread {thread}, round {round}");
                        if round % 20 == 0 {
                            device.trim();
                        }
                    }
                });
            }
        });
        assert_eq!(device.memory().in_use, 0);
    }
}

#[test]
fn handles_cross_threads() {
    fn sendable<T: Send + Sync + 'static>() {}
    sendable::<gradus_device::Device>();
    sendable::<gradus_device::Buffer>();
    sendable::<gradus_device::Pipeline>();
    sendable::<gradus_device::Adapter>();
    sendable::<gradus_device::Download>();
    sendable::<gradus_device::Error>();
}
