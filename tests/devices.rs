//! Devices as users meet them: names, budgets, what is too large, what is lost, and wgpu beside gradus.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, gpu_device, own_gpu};
use gradus::gpu::device::{Adapter, wgpu};
use gradus::prelude::*;
use gradus::tensor::DeviceOptions;
use gradus::{CustomOp, ErrorKind, f16};
use std::process::Command;

#[test]
fn names_find_devices_or_say_what_there_is() {
    assert_eq!(Device::named("cpu").unwrap(), Device::cpu());
    for name in ["gpu:99", "software:99", "no such adapter"] {
        let error = Device::named(name).unwrap_err();
        let ErrorKind::NoDevice { asked, reason } = error.kind() else { panic!("{error}") };
        assert_eq!(asked, name);
        for adapter in Adapter::all() {
            assert!(reason.contains(adapter.id()) && reason.contains(adapter.name()), "{reason}");
        }
    }
    let Some(device) = gpu_device() else { return };
    assert_eq!(Device::named(device.name()).unwrap(), device, "a name gives the same device");
    let adapter = Adapter::all().into_iter().find(|a| a.id() == device.name()).unwrap();
    let part = adapter.name()[..4].to_uppercase();
    assert_eq!(Device::named(&part).unwrap(), device, "so does a part of the adapter's name: {part}");
    let own = Device::open(device.name(), &DeviceOptions::default()).unwrap();
    assert_ne!(own, device, "opening makes a new one");
    let sum = Tensor::ones([3], &own) + Tensor::ones([3], &device);
    assert!(matches!(sum.eval().unwrap_err().kind(), ErrorKind::Devices { .. }));
    assert!(device.description().contains(adapter.name()));
}

#[test]
fn software_is_never_the_best_by_itself() {
    // The variables decide, and tests must not change them.
    if ["GRADUS_DEVICE", "WGPU_ADAPTER_NAME", "WGPU_BACKEND"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let preference = Device::preference().unwrap();
    let hardware = Adapter::all().iter().any(|adapter| adapter.id().starts_with("gpu"));
    assert_eq!(preference.device == "cpu", !hardware, "{preference:?}");
    assert!(!preference.reason.is_empty());
    assert_eq!(Device::best().unwrap().name(), preference.device);
}

/// A device of one's own is the best one too, where none is named, or the one that the environment names.
#[test]
fn the_best_device_can_be_ones_own() {
    const VARIABLES: [&str; 3] = ["GRADUS_DEVICE", "WGPU_ADAPTER_NAME", "WGPU_BACKEND"];
    let Some(expected) = std::env::var_os("GRADUS_TEST_EXPECTED") else {
        // Run again in processes of their own: tests must not change variables.
        let hardware = Adapter::all().into_iter().find(|adapter| adapter.id().starts_with("gpu"));
        let best = hardware.map_or("cpu:1".to_string(), |adapter| adapter.id().to_string());
        let software = Adapter::all().into_iter().find(|adapter| adapter.id().starts_with("software"));
        let named = software.map(|adapter| ("software", adapter.id().to_string()));
        for (variable, expected) in
            [("", best.clone()), ("best", best), (" cpu ", "cpu:1".into())].into_iter().chain(named)
        {
            let mut child = Command::new(std::env::current_exe().unwrap());
            for name in VARIABLES {
                child.env_remove(name);
            }
            child.env("GRADUS_DEVICE", variable).env("GRADUS_TEST_EXPECTED", &expected);
            let output = child.args(["--exact", "the_best_device_can_be_ones_own"]).output().unwrap();
            assert!(output.status.success(), "{variable}: {}", String::from_utf8_lossy(&output.stdout));
        }
        return;
    };
    for name in ["best", "", " best "] {
        let options = DeviceOptions { memory_limit: Some(1 << 20), threads: Some(1) };
        let device = Device::open(name, &options).unwrap();
        let is_cpu = device.name().starts_with("cpu") && expected == "cpu:1";
        assert!(is_cpu || device.name() == expected, "{device} in place of {expected:?}");
        assert_eq!(device.memory().limit, Some(1 << 20), "{device}");
    }
}

/// One kibibyte of f32.
const KIB: usize = 256;

#[test]
fn a_budget_is_kept_and_what_is_over_it_is_an_error() {
    let limit = 8 << 20;
    let Some(device) = own_gpu(Some(limit)) else { return };
    let error = Tensor::rand([16 * 1024 * KIB], Key::new(1), &device).eval().unwrap_err();
    let ErrorKind::OutOfMemory { bytes, limit: found, .. } = *error.kind() else { panic!("{error}") };
    assert!(bytes >= 16 << 20 && found == Some(limit), "{error}");
    assert!(error.to_string().contains("GRADUS_MEMORY_LIMIT"), "{error}");
    // The program goes on with smaller tensors, as many as it likes one after the other.
    for i in 0..50 {
        let x = Tensor::rand([1024 * KIB], Key::new(i), &device);
        assert!((&x * 2.0 - &x - &x).abs().max(..).item::<f32>().unwrap() < 1e-6);
    }
    // Held ones fill it up, and dropping them empties it.
    let mut held = Vec::new();
    let error = loop {
        let x = Tensor::rand([1024 * KIB], Key::new(held.len() as u64), &device);
        match x.eval() {
            Ok(_) => held.push(x),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::OutOfMemory { .. }), "{error}");
    assert!((6..=8).contains(&held.len()), "{} of 8", held.len());
    assert!(device.memory().peak <= limit);
    held.clear();
    Tensor::rand([4 * 1024 * KIB], Key::new(1), &device).eval().unwrap();
}

#[test]
fn an_array_over_the_binding_limit_is_an_error() {
    let Some(device) = gpu_device() else { return };
    let (handle, _) = device.wgpu().unwrap();
    let limit = handle.limits().max_storage_buffer_binding_size.min(handle.limits().max_buffer_size) as usize;
    let error = Tensor::zeros([limit / 4 + 1024], &device).eval().unwrap_err();
    let ErrorKind::BindingTooLarge { bytes, limit: found } = *error.kind() else { panic!("{error}") };
    assert!(bytes > limit && found <= limit, "{error}");
    assert!(error.to_string().contains("split the tensor"), "{error}");
    assert_eq!(Tensor::zeros([3], &device).to_vec::<f32>().unwrap(), [0.0; 3]);
}

#[test]
fn a_dtype_that_a_gpu_lacks_is_an_error() {
    let Some(device) = gpu_device() else { return };
    let tensors: [Tensor; 4] = [
        Tensor::from_vec(vec![1.0f64], 1, &device),
        Tensor::zeros([2], (&device, DType::F64)),
        Tensor::ones([2], &device).to_dtype(DType::F64),
        Tensor::from_bytes(&[1, 2], 2, (&device, DType::F64)),
    ];
    for tensor in tensors {
        let error = tensor.eval().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoDType { dtype: DType::F64, .. }), "{error}");
        assert!(error.to_string().contains("use f32"), "{error}");
    }
    // Doubles on the host become floats on their way.
    assert_eq!(Tensor::from_vec(vec![0.5f64], 1, (&device, DType::F32)).to_vec::<f32>().unwrap(), [0.5]);
}

#[test]
fn bytes_are_widened_on_the_device() {
    for device in devices() {
        for len in [0, 1, 2, 3, 4, 5, 255, 1000, 100_001] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 256) as u8).collect();
            let floats: Vec<f32> = bytes.iter().map(|&b| b as f32).collect();
            assert_eq!(Tensor::from_bytes(&bytes, len, &device).to_vec::<f32>().unwrap(), floats, "{device} {len}");
            let as_dtype = |dtype| Tensor::from_bytes(&bytes, len, (&device, dtype));
            let ints: Vec<i32> = bytes.iter().map(|&b| b as i32).collect();
            assert_eq!(as_dtype(DType::I32).to_vec::<i32>().unwrap(), ints);
            assert_eq!(
                as_dtype(DType::U32).to_vec::<u32>().unwrap(),
                bytes.iter().map(|&b| b as u32).collect::<Vec<_>>()
            );
            let flags = bytes.iter().map(|&b| b != 0).collect::<Vec<_>>();
            assert_eq!(as_dtype(DType::Bool).to_vec::<bool>().unwrap(), flags, "{device} {len}");
        }
        let wrong = Tensor::from_bytes(&[1, 2, 3], 2, &device).eval().unwrap_err();
        assert!(matches!(wrong.kind(), ErrorKind::DataLength { .. }), "{wrong}");
        // Labels as bytes are known to be in range, or known not to be.
        let table = Tensor::new([10.0, 20.0, 30.0], &device);
        let index = |bytes: &[u8]| Tensor::from_bytes(bytes, bytes.len(), (&device, DType::I32));
        assert_eq!(table.index_select(0, &index(&[2, 0])).to_vec::<f32>().unwrap(), [30.0, 10.0]);
        let error = table.index_select(0, &index(&[2, 3])).eval().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Index { index: 3, axis: 0, extent: 3 }), "{error}");
    }
}

/// Who looks at the words of bools, as an op of the user does, sees 0 and 1, whatever bytes they came from.
#[test]
fn bytes_become_bools_of_zero_and_one() {
    let words = CustomOp::define("words")
        .input("x", DType::Bool)
        .output(DType::U32, |shapes| Ok(shapes[0].clone()))
        .wgsl(
            "@compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                 let i = flat_index(id);
                 if i < output_len() {
                     output[i] = x[i];
                 }
             }",
        )
        .build()
        .unwrap();
    let Some(device) = gpu_device() else { return };
    let flags = Tensor::from_bytes(&[0, 1, 2, 128, 255, 0, 37], 7, (&device, DType::Bool));
    assert_eq!(words.apply(&[&flags]).to_vec::<u32>().unwrap(), [0, 1, 1, 1, 1, 0, 1]);
}

#[test]
fn reading_can_be_awaited() {
    for device in devices() {
        let x = Tensor::arange(1000, &device);
        let (a, b) = ((&x * 2).to_vec_async::<i32>(), (&x + 1).to_vec_async::<i32>());
        // The later one first.
        assert_eq!(pollster::block_on(b).unwrap()[999], 1000, "{device}");
        assert_eq!(pollster::block_on(a).unwrap()[999], 1998, "{device}");
    }
}

/// A wgpu device of this test's own on the tested adapter.
fn own_wgpu() -> Option<(wgpu::Adapter, wgpu::Device, wgpu::Queue)> {
    let name = gpu_device()?.name().to_string();
    let adapter = Adapter::all().into_iter().find(|a| a.id() == name)?.wgpu().clone();
    let request = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&request)).unwrap();
    Some((adapter, device, queue))
}

#[test]
fn a_programs_own_wgpu_device_serves() {
    let Some((adapter, handle, queue)) = own_wgpu() else { return };
    let device = Device::from_wgpu(adapter, handle.clone(), queue.clone()).unwrap();
    let x = Tensor::new([1.0, 2.0, 3.0, 4.0], &device) * 10.0;
    // The program copies the tensor's buffer with commands of its own.
    let buffer = x.wgpu_buffer().unwrap();
    let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
    let copy =
        handle.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false });
    let mut encoder = handle.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(&buffer, 0, &copy, 0, 16);
    queue.submit([encoder.finish()]);
    copy.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
    handle.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let bytes = copy.get_mapped_range(..).unwrap();
    let floats: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(floats, [10.0, 20.0, 30.0, 40.0]);
    assert_eq!((&x + 1.0).to_vec::<f32>().unwrap(), [11.0, 21.0, 31.0, 41.0]);

    // It was asked for without f16.
    let halves = Tensor::ones([2], (&Device::cpu(), DType::F16));
    for tensor in [x.to_dtype(DType::F16), Tensor::zeros([2], (&device, DType::F16)), halves.to_device(&device)] {
        let error = tensor.eval().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoDType { dtype: DType::F16, .. }), "{error}");
        assert!(error.to_string().contains("has no f16: use f32, or the device \"cpu\""), "{error}");
    }
    let widened = Tensor::from_vec(vec![f16::from_f32(0.5)], 1, (&device, DType::F32));
    assert_eq!(widened.to_vec::<f32>().unwrap(), [0.5]);

    let error = Tensor::ones([2], &Device::cpu()).wgpu_buffer().err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::NoDevice { .. }), "{error}");
    assert!(Device::cpu().wgpu().is_none());
}

/// Run by the test below, in a process of its own: it destroys the device that tests share.
#[test]
#[ignore = "another test runs it, in a process of its own"]
fn the_shared_device_is_lost() {
    let device = gpu_device().unwrap();
    let x = Tensor::ones([4], &device);
    device.wgpu().unwrap().0.destroy();
    assert!(matches!(x.to_vec::<f32>().unwrap_err().kind(), ErrorKind::DeviceLost { .. }));
    let again = Device::named(device.name()).unwrap();
    assert_ne!(again, device);
    assert_eq!(Tensor::ones([4], &again).sum(..).item::<f32>().unwrap(), 4.0);
}

#[test]
fn a_name_gives_a_new_device_after_a_loss() {
    if gpu_device().is_none() {
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "the_shared_device_is_lost", "--include-ignored"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
