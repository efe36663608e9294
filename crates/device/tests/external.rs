//! Devices that a program brings along, and adapters as they are found.

mod common;

use common::{adapter, affine, bytes, launch_affine, words};
use gradus_device::{Adapter, Device, Error, Kind, Options, Selector, Trust, select, wgpu};

#[test]
fn adapters_have_names_and_can_be_selected() {
    let Some(_) = adapter() else { return };
    let adapters = Adapter::all();
    for (index, adapter) in adapters.iter().enumerate() {
        let (id, software) = (adapter.id(), adapter.kind() == Kind::Software);
        assert_eq!(id.starts_with("software"), software, "{id}");
        assert!(!adapter.name().is_empty() && !adapter.backend().is_empty());
        assert_eq!(select(&adapters, &Selector::parse(id)).unwrap().index, index);
        assert_eq!(adapter.capabilities().len(), 8);
        let immediates = adapter.capabilities().into_iter().find(|c| c.name == "immediates").unwrap();
        assert_eq!(immediates.present, adapter.features().contains(wgpu::Features::IMMEDIATES));
    }
    let ids = |adapters: &[Adapter]| adapters.iter().map(|a| a.id().to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&adapters), ids(&Adapter::all()));
}

#[test]
fn a_device_says_what_it_is() {
    for device in common::devices() {
        assert_eq!(device.is_software(), device.info().kind == Kind::Software);
        assert_eq!(device.wgpu().0.adapter_info().name, device.info().name);
    }
}

#[test]
fn a_programs_own_device_serves() {
    let Some(adapter) = adapter() else { return };
    // Without any feature, with a handler of its own.
    let (raw, queue) = pollster::block_on(adapter.wgpu().request_device(&Default::default())).unwrap();
    let (to, heard) = std::sync::mpsc::channel();
    let to = std::sync::Mutex::new(to);
    raw.on_uncaptured_error(std::sync::Arc::new(move |e: wgpu::Error| drop(to.lock().unwrap().send(e.to_string()))));
    let device = Device::from_wgpu(adapter.wgpu().clone(), raw.clone(), queue.clone(), &Options::default()).unwrap();
    assert_eq!((device.info().id.as_str(), device.limits().immediate_bytes), ("external", 0));

    let source = device.upload(&bytes(&[4; 16])).unwrap();
    let target = device.allocate(64).unwrap();
    launch_affine(&device, &affine(&device), &source, &target, [10, 2]).unwrap();
    // The program's own work on our buffer, after what was launched.
    device.flush().unwrap();
    let mut encoder = raw.create_command_encoder(&Default::default());
    encoder.clear_buffer(target.wgpu(), 0, Some(8));
    queue.submit([encoder.finish()]);
    let mut expected = [42; 16];
    expected[..2].fill(0);
    assert_eq!(words(&device.read(&target, 64).unwrap()), expected);

    // Our errors do not reach the program's handler; its own do.
    assert!(matches!(device.pipeline("bad", "nonsense", &[], 0, Trust::Checked), Err(Error::Shader { .. })));
    assert!(heard.try_recv().is_err());
    let usage = wgpu::BufferUsages::empty();
    drop(raw.create_buffer(&wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false }));
    assert!(heard.try_recv().is_ok());
}

#[test]
fn work_that_wgpu_refuses_is_an_error_of_the_flush_and_then_over() {
    let Some(device) = common::device(&Options::default()) else { return };
    let pipeline = affine(&device);
    let (a, b) = (device.upload(&[1; 64]).unwrap(), device.allocate(64).unwrap());
    // A buffer that is destroyed behind our back.
    launch_affine(&device, &pipeline, &a, &b, [1, 0]).unwrap();
    b.wgpu().destroy();
    let error = device.flush().unwrap_err();
    assert!(matches!(&error, Error::Invalid { message, .. } if message.contains("destroyed")), "{error}");
    let c = device.allocate(128).unwrap();
    launch_affine(&device, &pipeline, &a, &c, [1, 0]).unwrap();
    assert_eq!(device.read(&c, 4).unwrap(), [1; 4]);
    // Errors of calls to wgpu outside of this crate are raised by the next call, once.
    let usage = wgpu::BufferUsages::empty();
    drop(device.wgpu().0.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage,
        mapped_at_creation: false,
    }));
    assert!(matches!(device.allocate(4), Err(Error::Invalid { .. })));
    assert!(device.allocate(4).is_ok());
}
