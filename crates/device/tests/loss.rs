//! Devices that go away.

mod common;

use common::{adapter, affine, device, launch_affine};
use gradus_device::{Access, Device, Error, Options, Trust};
use std::sync::mpsc::channel;
use std::time::Duration;

fn is_lost<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Lost { .. })), "{result:?}");
}

/// Fails if `work` does not end in time.
fn in_time<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (to, from) = channel();
    std::thread::spawn(move || to.send(work()));
    from.recv_timeout(Duration::from_secs(60)).expect("hangs on a lost device")
}

#[test]
fn every_call_on_a_lost_device_says_so() {
    let Some(device) = device(&Options::default()) else { return };
    in_time(move || {
        let pipeline = affine(&device);
        let (a, b) = (device.upload(&[1; 64]).unwrap(), device.allocate(64).unwrap());
        launch_affine(&device, &pipeline, &a, &b, [1, 0]).unwrap();
        device.synchronise().unwrap();
        assert_eq!(device.lost(), None);
        device.wgpu().0.destroy();
        assert_eq!(device.lost().as_deref(), Some("it was destroyed"));
        is_lost(device.allocate(1));
        is_lost(device.upload(&[1]));
        is_lost(device.read(&b, 64));
        is_lost(device.copy(&a, &b, 64));
        is_lost(launch_affine(&device, &pipeline, &a, &b, [1, 0]));
        is_lost(device.flush());
        is_lost(device.synchronise());
        is_lost(device.time(|| Ok(())));
        is_lost(device.pipeline("p", "", &[Access::Read], 0, Trust::Checked));
        is_lost(pollster::block_on(device.read_async(&b, 64)));
        device.trim();
        let text = device.flush().unwrap_err().to_string();
        assert!(text.contains("was lost: it was destroyed") && text.contains("checkpoint"), "{text}");
        drop((a, b, pipeline));
    });
    // Life goes on.
    let device = common::device(&Options::default()).unwrap();
    let buffer = device.upload(&[5; 10]).unwrap();
    assert_eq!(device.read(&buffer, 10).unwrap(), [5; 10]);
}

#[test]
fn each_call_notices_the_loss_by_itself() {
    type Call = fn(&Device, &gradus_device::Pipeline, &[gradus_device::Buffer; 2]) -> Result<(), Error>;
    let calls: [Call; 8] = [
        |d, _, _| d.allocate(1 << 20).map(drop),
        |d, _, _| d.upload(&[1; 1 << 20]).map(drop),
        |d, _, b| d.read(&b[0], 64).map(drop),
        |d, _, b| pollster::block_on(d.read_async(&b[0], 64)).map(drop),
        |d, p, b| launch_affine(d, p, &b[0], &b[1], [1, 0]),
        |d, _, b| d.copy(&b[0], &b[1], 64).and_then(|()| d.flush()),
        |d, _, _| d.pipeline("p", "@compute @workgroup_size(1) fn main() {}", &[], 0, Trust::Checked).map(drop),
        |d, _, _| d.time(|| d.allocate(1 << 20)).map(drop),
    ];
    for (number, call) in calls.into_iter().enumerate() {
        let Some(device) = device(&Options::default()) else { return };
        in_time(move || {
            let pipeline = affine(&device);
            let buffers = [device.upload(&[1; 64]).unwrap(), device.allocate(64).unwrap()];
            device.synchronise().unwrap();
            device.wgpu().0.destroy();
            let result = call(&device, &pipeline, &buffers);
            assert!(matches!(result, Err(Error::Lost { .. })), "call {number}: {result:?}");
        });
    }
}

#[test]
fn reads_under_way_end() {
    for _ in 0..5 {
        let Some(device) = device(&Options::default()) else { return };
        in_time(move || {
            let (slow, buffer) = (common::slow(&device), device.allocate(4 << 9).unwrap());
            for _ in 0..20 {
                let (buffers, parameters) = (&[&buffer], &[50_000]);
                let launch = gradus_device::Launch { pipeline: &slow, buffers, parameters, workgroups: [8, 1, 1] };
                device.launch(&launch).unwrap();
            }
            let futures: Vec<_> = (0..4).map(|_| device.read_async(&buffer, 1 << 11)).collect();
            let other = {
                let (device, buffer) = (device.clone(), buffer.clone());
                std::thread::spawn(move || device.read(&buffer, 1 << 11))
            };
            std::thread::sleep(Duration::from_millis(3));
            device.wgpu().0.destroy();
            // Each may just have made it.
            let ended = |result: Result<Vec<u8>, Error>| {
                assert!(matches!(result, Ok(_) | Err(Error::Lost { .. })), "{result:?}")
            };
            futures.into_iter().for_each(|future| ended(pollster::block_on(future)));
            ended(other.join().unwrap());
            is_lost(device.synchronise());
        });
    }
}

#[test]
fn recorded_work_and_threads_end() {
    let Some(device) = device(&Options::default()) else { return };
    in_time(move || {
        let pipeline = affine(&device);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let work = || {
                        let (a, b) = (device.upload(&[1; 640])?, device.allocate(640)?);
                        launch_affine(&device, &pipeline, &a, &b, [1, 0])?;
                        device.read(&b, 640)
                    };
                    loop {
                        match work() {
                            Ok(_) => {}
                            Err(Error::Lost { .. }) => break,
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(100));
            device.wgpu().0.destroy();
        });
    });
}

#[test]
fn a_lost_device_of_a_program_is_noticed_too() {
    let Some(adapter) = adapter() else { return };
    in_time(move || {
        let request = adapter.wgpu().request_device(&Default::default());
        let (wgpu, queue) = pollster::block_on(request).unwrap();
        let device = Device::from_wgpu(adapter.wgpu().clone(), wgpu.clone(), queue, &Options::default()).unwrap();
        let buffer = device.upload(&[1; 64]).unwrap();
        assert_eq!(device.read(&buffer, 64).unwrap(), [1; 64]);
        wgpu.destroy();
        is_lost(device.read(&buffer, 64));
        is_lost(device.allocate(1));
    });
}
