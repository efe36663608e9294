//! Reading, now and later.

mod common;

use common::{affine, bytes, device, launch_affine, noise, words};
use gradus_device::Options;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

/// The least executor: sleeps until woken, and never polls a device.
fn block_on<F: Future>(future: F) -> (F::Output, usize) {
    struct Unpark(Thread, AtomicUsize);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current(), AtomicUsize::new(0)));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker.clone().into())) {
            Poll::Ready(value) => return (value, waker.1.load(Ordering::SeqCst)),
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_future_is_woken_without_anybody_polling_the_device() {
    let Some(device) = device(&Options::default()) else { return };
    let (slow, buffer) = (common::slow(&device), device.allocate(4 << 12).unwrap());
    let launch =
        gradus_device::Launch { pipeline: &slow, buffers: &[&buffer], parameters: &[50_000], workgroups: [64, 1, 1] };
    device.launch(&launch).unwrap();
    let (result, woken) = block_on(device.read_async(&buffer, 1 << 14));
    assert_eq!(woken, 1);
    let mut first = 1u32;
    (0..50_000).for_each(|_| first = first.wrapping_mul(1664525).wrapping_add(1013904223));
    assert_eq!(words(&result.unwrap())[1], first);
}

#[test]
fn a_future_holds_what_was_there_when_it_was_made() {
    let Some(device) = device(&Options::default()) else { return };
    let pipeline = affine(&device);
    let data = noise(70 << 20, 7);
    let (source, target) = (device.upload(&data).unwrap(), device.allocate(70 << 20).unwrap());
    launch_affine(&device, &pipeline, &source, &target, [1, 0]).unwrap();
    // Three pieces.
    let before = device.read_async(&target, 70 << 20);
    launch_affine(&device, &pipeline, &source, &target, [1, 1]).unwrap();
    let after = device.read_async(&target, 5);
    drop(target);
    drop(source);
    let after = pollster::block_on(after).unwrap();
    assert_eq!(words(&after)[0], words(&data)[0].wrapping_add(1));
    assert_eq!(after.len(), 5);
    assert!(pollster::block_on(before).unwrap() == data);
}

#[test]
fn many_futures_in_any_order_and_some_dropped() {
    let Some(device) = device(&Options::default()) else { return };
    let pipeline = affine(&device);
    let source = device.upload(&bytes(&[1; 1000])).unwrap();
    let mut futures: Vec<_> = (0..40u32)
        .map(|i| {
            let target = device.allocate(4000).unwrap();
            launch_affine(&device, &pipeline, &source, &target, [i, 7]).unwrap();
            (i, device.read_async(&target, 4 * u64::from(i)))
        })
        .collect();
    futures.retain(|(i, _)| i % 3 != 0);
    for (i, future) in futures.into_iter().rev() {
        assert_eq!(words(&pollster::block_on(future).unwrap()), vec![i + 7; i as usize]);
    }
}

#[test]
fn a_future_outlives_its_device() {
    let Some(device) = device(&Options::default()) else { return };
    let buffer = device.upload(&[9; 100]).unwrap();
    let (first, second) = (device.read_async(&buffer, 100), device.read_async(&buffer, 99));
    drop(buffer);
    drop(device);
    let other = std::thread::spawn(move || pollster::block_on(first).unwrap());
    assert_eq!(pollster::block_on(second).unwrap(), [9; 99]);
    assert_eq!(other.join().unwrap(), [9; 100]);
}

#[test]
fn staging_is_reused() {
    let Some(device) = device(&Options::default()) else { return };
    let data = noise((96 << 20) + 1, 11);
    let buffer = device.upload(&data).unwrap();
    assert!(device.read(&buffer, data.len() as u64).unwrap() == data);
    let before = device.statistics().buffers;
    for _ in 0..3 {
        assert!(device.read(&buffer, 64 << 20).unwrap() == data[..64 << 20]);
    }
    assert_eq!(device.statistics().buffers, before);
    assert_eq!(device.read(&buffer, 0).unwrap(), []);
}

#[test]
fn values_of_plain_types_come_without_another_copy() {
    let Some(device) = device(&Options::default()) else { return };
    let floats: Vec<f32> = (0..100_000).map(|i| i as f32 / 7.0).collect();
    let buffer = device.upload(bytemuck::cast_slice(&floats)).unwrap();
    assert_eq!(device.read_as::<f32>(&buffer, 100_000).unwrap(), floats);
    assert_eq!(pollster::block_on(device.read_as_async::<f32>(&buffer, 10)).unwrap(), floats[..10]);
    // A size that does not divide a piece: three numbers of a pixel, over 32 MiB.
    let data = noise((36 << 20) / 3 * 3, 5);
    let buffer = device.upload(&data).unwrap();
    let pixels = device.read_as::<[u8; 3]>(&buffer, data.len() / 3).unwrap();
    assert!(bytemuck::cast_slice::<_, u8>(&pixels) == data);
    let pixels = pollster::block_on(device.read_as_async::<[u8; 3]>(&buffer, data.len() / 3)).unwrap();
    assert!(bytemuck::cast_slice::<_, u8>(&pixels) == data);
    assert!(device.read_as::<u64>(&buffer, usize::MAX).is_err());
}
