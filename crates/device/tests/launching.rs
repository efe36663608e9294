//! Uploads, launches, copies and what they cost.

mod common;

use common::{affine, bytes, declaration, devices, launch_affine, noise, words};
use gradus_device::{Access, Error, Launch, Limits, Options, Parameters, Trust};

#[test]
fn parameters_travel_as_the_device_allows() {
    for device in devices() {
        let external = device.limits().immediate_bytes == 0;
        let expected = if external { Parameters::Uniform } else { Parameters::Immediates };
        assert_eq!((device.parameters(0), device.parameters(1)), (Parameters::None, expected));
        // More than immediates can hold.
        assert_eq!(device.parameters(2000), Parameters::Uniform);
        for members in [1, 3, 32, 63, 64, 65, 300] {
            if members > device.limits().parameter_words {
                continue;
            }
            let body: Vec<String> = (0..members).map(|i| format!("v[{i}] = parameters.p{i};")).collect();
            let source = declaration(&device, members)
                + "@group(0) @binding(0) var<storage, read_write> v: array<u32>;
                   @compute @workgroup_size(1) fn main() {"
                + &body.join("\n")
                + "}";
            let pipeline = device.pipeline("echo", &source, &[Access::ReadWrite], members, Trust::Trusted).unwrap();
            let parameters: Vec<u32> = (0..members as u32).map(|i| i * 7 + 1).collect();
            let target = device.allocate(4 * members as u64).unwrap();
            let launch =
                Launch { pipeline: &pipeline, buffers: &[&target], parameters: &parameters, workgroups: [1; 3] };
            device.launch(&launch).unwrap();
            assert_eq!(words(&device.read(&target, target.bytes()).unwrap()), parameters);
        }
    }
}

#[test]
fn sizes_of_all_sorts_make_the_round_trip() {
    for device in devices() {
        let pipeline = affine(&device);
        let sizes = [0, 1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 4095, 4097, 1 << 20, (1 << 20) + 3];
        for size in sizes.into_iter().chain([(64 << 20) + 12]) {
            let data = noise(size, size as u64);
            let source = device.upload(&data).unwrap();
            assert_eq!(source.bytes(), size as u64);
            assert!(source.wgpu().size() >= source.bytes());
            assert!(device.read(&source, size as u64).unwrap() == data, "{size} bytes");
            let target = device.allocate(size as u64).unwrap();
            launch_affine(&device, &pipeline, &source, &target, [3, 5]).unwrap();
            let whole = size / 4 * 4;
            let result = words(&device.read(&target, whole as u64).unwrap());
            let expected: Vec<u32> = words(&data).iter().map(|w| w.wrapping_mul(3).wrapping_add(5)).collect();
            assert!(result == expected, "{size} bytes");
        }
    }
}

#[test]
fn launches_run_in_order_however_many() {
    for device in devices() {
        let pipeline = affine(&device);
        let (a, b) = (device.upload(&bytes(&[1; 100])).unwrap(), device.allocate(400).unwrap());
        let (mut expected, mut on_b) = (1u32, false);
        // More than one submission, and more parameters than the ring holds at a time.
        for i in 0..1500u32 {
            let by = [2 * i + 1, i];
            let (from, to) = if on_b { (&b, &a) } else { (&a, &b) };
            launch_affine(&device, &pipeline, from, to, by).unwrap();
            expected = expected.wrapping_mul(by[0]).wrapping_add(by[1]);
            on_b = !on_b;
            if i % 97 == 0 {
                let last = if on_b { &b } else { &a };
                assert_eq!(words(&device.read(last, 400).unwrap()), [expected; 100], "{i}");
            }
        }
        let last = if on_b { &b } else { &a };
        assert_eq!(words(&device.read(last, 4).unwrap()), [expected]);
    }
}

#[test]
fn large_parameters_fill_the_ring_and_it_is_flushed() {
    let Some(device) = common::device(&Options { webgpu_limits: true, ..Options::default() }) else { return };
    let members = 4096; // 16 KiB: four launches fill the ring.
    let source = declaration(&device, members)
        + "@group(0) @binding(0) var<storage, read_write> v: array<u32>;
           @compute @workgroup_size(1) fn main() { v[parameters.p0] = parameters.p4095; }";
    let pipeline = device.pipeline("wide", &source, &[Access::ReadWrite], members, Trust::Trusted).unwrap();
    let target = device.allocate(4 * 30).unwrap();
    let before = device.statistics().submits;
    for i in 0..30 {
        let mut parameters = vec![0; members];
        (parameters[0], parameters[4095]) = (i, 1000 + i);
        let launch = Launch { pipeline: &pipeline, buffers: &[&target], parameters: &parameters, workgroups: [1; 3] };
        device.launch(&launch).unwrap();
    }
    assert_eq!(device.statistics().submits - before, 7);
    assert_eq!(words(&device.read(&target, 120).unwrap()), (1000..1030).collect::<Vec<u32>>());
}

#[test]
fn an_upload_does_not_overtake_what_still_reads_the_buffer() {
    for device in devices() {
        let pipeline = affine(&device);
        let size = 1 << 16;
        let result = device.allocate(size).unwrap();
        for round in 0..20u32 {
            let old = device.upload(&bytes(&[round; 1 << 14])).unwrap();
            let slot = old.wgpu().clone();
            launch_affine(&device, &pipeline, &old, &result, [1, 0]).unwrap();
            drop(old);
            // Takes the buffer that the launch, which is only recorded yet, reads.
            let new = device.upload(&bytes(&[round + 1000; 1 << 14])).unwrap();
            assert_eq!(*new.wgpu(), slot, "the pool was expected to hand out the buffer that was just dropped");
            assert!(words(&device.read(&result, size).unwrap()).iter().all(|w| *w == round), "round {round}");
            assert!(words(&device.read(&new, size).unwrap()).iter().all(|w| *w == round + 1000));
        }
    }
}

#[test]
fn an_upload_prefers_a_buffer_that_nothing_recorded_uses() {
    let Some(device) = common::device(&Options::default()) else { return };
    let pipeline = affine(&device);
    let result = device.allocate(4096).unwrap();
    let (free, used) = (device.upload(&[1; 4096]).unwrap(), device.upload(&[2; 4096]).unwrap());
    device.flush().unwrap();
    let slot = free.wgpu().clone();
    launch_affine(&device, &pipeline, &used, &result, [1, 0]).unwrap();
    drop(free);
    drop(used);
    let before = device.statistics();
    let new = device.upload(&[3; 4096]).unwrap();
    assert_eq!(*new.wgpu(), slot);
    assert_eq!(device.statistics().submits, before.submits);
    assert_eq!(device.read(&result, 4096).unwrap(), [2; 4096]);
}

#[test]
fn the_second_round_creates_nothing() {
    for device in devices() {
        let pipeline = affine(&device);
        let round = || {
            let input = device.upload(&noise(5000, 1)).unwrap();
            let mut values = vec![device.allocate(5000).unwrap()];
            launch_affine(&device, &pipeline, &input, &values[0], [3, 1]).unwrap();
            for i in 0..300u32 {
                let next = device.allocate(4 * u64::from(i % 7 + 1)).unwrap();
                launch_affine(&device, &affine(&device), values.last().unwrap(), &next, [i, 1]).unwrap();
                values.push(next);
                if i % 3 == 0 {
                    values.remove(0);
                }
            }
            device.read(values.last().unwrap(), 4).unwrap()
        };
        let first = round();
        // Once more: the order in which buffers come back from the first is what the next ones find.
        assert_eq!(round(), first);
        let before = device.statistics();
        assert_eq!(round(), first);
        let after = device.statistics();
        assert_eq!(after.pipelines, before.pipelines);
        assert_eq!(after.buffers, before.buffers);
        assert_eq!(after.launches - before.launches, 301);
        assert_eq!((after.uploads - before.uploads, after.uploaded_bytes - before.uploaded_bytes), (1, 5000));
        assert_eq!((after.downloads - before.downloads, after.downloaded_bytes - before.downloaded_bytes), (1, 4));
    }
}

#[test]
fn equal_launches_share_their_bind_group() {
    for device in devices() {
        let pipeline = affine(&device);
        let (a, b) = (device.upload(&[1; 64]).unwrap(), device.allocate(64).unwrap());
        launch_affine(&device, &pipeline, &a, &b, [1, 1]).unwrap();
        let before = device.statistics().bind_groups;
        for i in 0..300 {
            launch_affine(&device, &pipeline, &a, &b, [1, i]).unwrap();
        }
        assert_eq!(device.statistics().bind_groups, before);
        launch_affine(&device, &pipeline, &b, &a, [1, 1]).unwrap();
        assert_eq!(device.statistics().bind_groups, before + 1);
    }
}

#[test]
fn copies_take_their_place_in_the_order() {
    for device in devices() {
        let pipeline = affine(&device);
        let (a, b, c) =
            (device.upload(&bytes(&[5; 8])).unwrap(), device.allocate(32).unwrap(), device.allocate(32).unwrap());
        launch_affine(&device, &pipeline, &a, &b, [2, 0]).unwrap();
        device.copy(&b, &c, 32).unwrap();
        launch_affine(&device, &pipeline, &a, &b, [3, 0]).unwrap();
        device.copy(&a, &c, 16).unwrap();
        device.copy(&c, &c, 32).unwrap();
        device.copy(&a, &c, 0).unwrap();
        assert_eq!(words(&device.read(&c, 32).unwrap()), [5, 5, 5, 5, 10, 10, 10, 10]);
        assert_eq!(words(&device.read(&b, 32).unwrap()), [15; 8]);
        assert_eq!(device.statistics().copies, 2);

        let odd = device.upload(&[1, 2, 3, 4, 5]).unwrap();
        let target = device.allocate(5).unwrap();
        device.copy(&odd, &target, 5).unwrap();
        assert_eq!(device.read(&target, 5).unwrap(), [1, 2, 3, 4, 5]);
        assert!(matches!(device.copy(&odd, &c, 5), Err(Error::Argument { .. })));
        assert!(matches!(device.copy(&c, &odd, 8), Err(Error::Argument { .. })));
    }
}

#[test]
fn what_does_not_fit_is_an_error_of_its_own() {
    let Some(device) = common::device(&Options::default()) else { return };
    let other = common::device(&Options::default()).unwrap();
    let pipeline = affine(&device);
    let (a, b) = (device.upload(&[1; 64]).unwrap(), device.allocate(64).unwrap());
    let foreign = other.allocate(64).unwrap();
    let launch = |buffers: &[&gradus_device::Buffer], parameters: &[u32], workgroups| {
        let launched = device.launch(&Launch { pipeline: &pipeline, buffers, parameters, workgroups });
        launched.map_err(|e| e.to_string())
    };
    assert_eq!(launch(&[&a, &b], &[1, 2], [0, 5, 1]), Ok(()));
    let refused = |result: Result<(), String>, text: &str| {
        let message = result.unwrap_err();
        assert!(message.contains("\"affine\"") && message.contains(text), "{message}");
    };
    refused(launch(&[&a], &[1, 2], [1; 3]), "1 buffers given, expected 2");
    refused(launch(&[&a, &b], &[1], [1; 3]), "1 parameters given, expected 2");
    refused(launch(&[&a, &foreign], &[1, 2], [1; 3]), "another device");
    refused(launch(&[&a, &a], &[1, 2], [1; 3]), "bindings 0 and 1 are one buffer");
    let both = device.allocate(512).unwrap();
    let parts = [both.part(0, 64).unwrap(), both.part(256, 64).unwrap()];
    refused(launch(&[&parts[0], &parts[1]], &[1, 2], [1; 3]), "bindings 0 and 1 are one buffer");
    let error = device.copy(&parts[0], &parts[1], 64).unwrap_err();
    assert!(error.to_string().contains("parts of one buffer"), "{error}");
    let most = device.limits().workgroups_per_dimension;
    refused(launch(&[&a, &b], &[1, 2], [1, most + 1, 1]), "split the grid");
    let launched =
        other.launch(&Launch { pipeline: &pipeline, buffers: &[&foreign], parameters: &[], workgroups: [1; 3] });
    assert!(launched.unwrap_err().to_string().contains("another device"));
    assert!(device.read(&foreign, 4).is_err() && device.read(&a, 65).is_err());
    // None of this harms what follows.
    launch(&[&a, &b], &[1, 0], [1; 3]).unwrap();
    assert_eq!(device.read(&b, 64).unwrap(), [1; 64]);
}

#[test]
fn parts_of_a_buffer_may_be_written_together() {
    let Some(device) = common::device(&Options::default()) else { return };
    let source = "
        @group(0) @binding(0) var<storage, read_write> low: array<u32>;
        @group(0) @binding(1) var<storage, read_write> high: array<u32>;
        @compute @workgroup_size(16) fn main(@builtin(local_invocation_index) i: u32) {
            low[i] = i;
            high[i] = 100u + i;
        }";
    let pipeline = device.pipeline("halves", source, &[Access::ReadWrite; 2], 0, Trust::Trusted).unwrap();
    let both = device.allocate(512).unwrap();
    let (low, high) = (both.part(0, 64).unwrap(), both.part(256, 64).unwrap());
    let launch = |buffers: &[&gradus_device::Buffer]| {
        device.launch(&Launch { pipeline: &pipeline, buffers, parameters: &[], workgroups: [1; 3] })
    };
    launch(&[&low, &high]).unwrap();
    assert_eq!(words(&device.read(&low, 64).unwrap()), std::array::from_fn::<u32, 16, _>(|i| i as u32));
    assert_eq!(words(&device.read(&high, 64).unwrap()), std::array::from_fn::<u32, 16, _>(|i| 100 + i as u32));
    let error = launch(&[&both, &high]).unwrap_err().to_string();
    assert!(error.contains("bindings 0 and 1 are written and share memory"), "{error}");
}

#[test]
fn unread_work_is_bounded_and_can_be_waited_for() {
    let Some(device) = common::device(&Options::default()) else { return };
    let pipeline = affine(&device);
    let (a, b) = (device.upload(&[1; 64]).unwrap(), device.allocate(64).unwrap());
    let before = device.statistics().submits;
    for _ in 0..1280 {
        launch_affine(&device, &pipeline, &a, &b, [1, 1]).unwrap();
    }
    assert_eq!(device.statistics().submits - before, 10);
    device.synchronise().unwrap();
    device.synchronise().unwrap();
    device.flush().unwrap();
    assert_eq!(device.statistics().submits - before, 10);
    for _ in 0..256 {
        device.copy(&a, &b, 64).unwrap();
    }
    assert_eq!(device.statistics().submits - before, 12);
}

#[test]
fn many_uploads_are_handed_over_in_between() {
    let Some(device) = common::device(&Options::default()) else { return };
    let data = noise(16 << 20, 3);
    let buffers: Vec<_> = (0..12).map(|_| device.upload(&data).unwrap()).collect();
    // 192 MiB, 64 MiB at a time.
    assert_eq!(device.statistics().submits, 3);
    for buffer in &buffers {
        assert!(device.read(buffer, data.len() as u64).unwrap() == data);
    }
}

#[test]
fn gpu_time_grows_with_work() {
    for device in devices() {
        let pipeline = common::slow(&device);
        let buffer = device.allocate(4 << 9).unwrap();
        let work = |rounds: u32, launches: usize| {
            for _ in 0..launches {
                let launch =
                    Launch { pipeline: &pipeline, buffers: &[&buffer], parameters: &[rounds], workgroups: [8, 1, 1] };
                device.launch(&launch)?;
            }
            Ok(launches)
        };
        work(10, 1).unwrap();
        device.synchronise().unwrap();
        if !device.has(gradus_device::wgpu::Features::TIMESTAMP_QUERY) {
            assert_eq!(device.time(|| work(10, 1)).unwrap(), (1, None));
            continue;
        }
        let (none, nothing) = device.time(|| work(10, 0)).unwrap();
        assert_eq!((none, nothing), (0, Some(std::time::Duration::ZERO)));
        // 300 launches are three passes.
        let (_, short) = device.time(|| work(100, 300)).unwrap();
        let (_, long) = device.time(|| work(10_000, 300)).unwrap();
        let (short, long) = (short.unwrap(), long.unwrap());
        assert!(!short.is_zero() && long > 5 * short, "{short:?} {long:?}");
        // Nested calls see their own part.
        let ((_, inner), outer) = device
            .time(|| {
                work(10_000, 100)?;
                device.time(|| work(10_000, 100))
            })
            .unwrap();
        let (inner, outer) = (inner.unwrap(), outer.unwrap());
        assert!(outer > inner + inner / 4, "{inner:?} {outer:?}");
        let failed = device.time(|| Err::<(), _>(Error::Argument { what: "a".into(), message: "b".into() }));
        assert!(matches!(failed, Err(Error::Argument { .. })));
    }
}

#[test]
fn limits_are_sensible() {
    for device in devices() {
        let Limits { max_binding_bytes, storage_buffers, workgroup_bytes, .. } = *device.limits();
        assert!(max_binding_bytes >= 128 << 20 && max_binding_bytes % 16 == 0);
        assert!(storage_buffers >= 8 && workgroup_bytes >= 16 << 10);
        assert!(device.limits().parameter_words >= 4096);
    }
}
