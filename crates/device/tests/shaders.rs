//! Compiling shaders, and what is wrong with those that do not compile.

mod common;

use common::device;
use gradus_device::{Access, Error, Launch, Options, Trust};

const GOOD: &str = "@group(0) @binding(0) var<storage, read_write> v: array<u32>;
@compute @workgroup_size(1) fn main() { v[0] = 7u; }";

#[test]
fn errors_name_shader_line_and_reason() {
    let Some(device) = device(&Options::default()) else { return };
    let cases = [
        // Parsing, names, types, the pipeline's layout, limits.
        (GOOD.replace("7u;", "7u"), Some(2)),
        (GOOD.replace("7u", "seven"), Some(2)),
        (GOOD.replace("7u", "7.5f"), Some(2)),
        (GOOD.replace("binding(0)", "binding(3)"), None),
        (GOOD.replace("read_write", "read").replace("v[0] = 7u", "_ = v[0]"), None),
        (GOOD.replace("size(1)", "size(1, 1, 100000)"), None),
        (GOOD.replace("@compute @workgroup_size(1)", ""), None),
        (String::new(), None),
    ];
    for (source, expected) in cases {
        for trust in [Trust::Trusted, Trust::Checked] {
            match device.pipeline("seven", &source, &[Access::ReadWrite], 0, trust) {
                Err(Error::Shader { label, message, line, source_text }) => {
                    assert_eq!((label.as_str(), line), ("seven", expected), "{message}");
                    assert!(!message.is_empty() && source_text.lines().count() == source.lines().count());
                }
                // A layout that says more than the shader needs is no error.
                Ok(_) if source.contains("_ = v[0]") => {}
                other => panic!("{source}\n{other:?}"),
            }
        }
    }
    let error = device.pipeline("seven", &GOOD.replace("7u", "seven"), &[Access::ReadWrite], 0, Trust::Checked);
    let text = error.unwrap_err().to_string();
    assert!(text.contains("\"seven\"") && text.contains("line 2") && text.contains("no definition in scope"), "{text}");
    // The device goes on.
    let pipeline = device.pipeline("seven", GOOD, &[Access::ReadWrite], 0, Trust::Checked).unwrap();
    let buffer = device.allocate(4).unwrap();
    device.launch(&Launch { pipeline: &pipeline, buffers: &[&buffer], parameters: &[], workgroups: [1; 3] }).unwrap();
    assert_eq!(device.read(&buffer, 4).unwrap(), [7, 0, 0, 0]);
}

#[test]
fn equal_text_is_one_pipeline() {
    let Some(device) = device(&Options::default()) else { return };
    let compile = |source: &str, trust| device.pipeline("p", source, &[Access::ReadWrite], 0, trust).unwrap();
    for _ in 0..3 {
        compile(GOOD, Trust::Trusted);
        compile(GOOD, Trust::Checked);
        compile(&GOOD.replace('7', "8"), Trust::Checked);
    }
    assert_eq!(device.statistics().pipelines, 3);
}

#[test]
fn more_than_the_device_allows_is_an_error() {
    let Some(device) = device(&Options { webgpu_limits: true, ..Options::default() }) else { return };
    let nine = vec![Access::Read; device.limits().storage_buffers + 1];
    let text = device.pipeline("many", GOOD, &nine, 0, Trust::Checked).unwrap_err().to_string();
    assert!(text.contains("\"many\"") && text.contains("9 buffers are more than 8"), "{text}");
    let words = device.limits().parameter_words + 1;
    assert!(matches!(device.pipeline("many", GOOD, &[], words, Trust::Checked), Err(Error::Argument { .. })));
}

#[test]
fn checked_shaders_cannot_run_away() {
    let Some(device) = device(&Options::default()) else { return };
    let source = "@group(0) @binding(0) var<storage, read_write> v: array<u32>;
        var<workgroup> cleared: array<u32, 64>;
        @compute @workgroup_size(1) fn main() {
            let zero = v[0];
            v[1] = 5u / zero + 5u % zero;
            v[1000000] = 9u;
            v[2] = cleared[zero + 3u];
            v[3] = arrayLength(&v);
        }";
    let pipeline = device.pipeline("wild", source, &[Access::ReadWrite], 0, Trust::Checked).unwrap();
    let buffer = device.upload(&[0; 16]).unwrap();
    device.launch(&Launch { pipeline: &pipeline, buffers: &[&buffer], parameters: &[], workgroups: [1; 3] }).unwrap();
    assert_eq!(common::words(&device.read(&buffer, 16).unwrap()), [0, 5, 0, 4]);
}

#[test]
fn half_floats_and_subgroups_where_limits_say_so() {
    let Some(device) = device(&Options::default()) else { return };
    if device.limits().f16 {
        let source = format!("enable f16;\n{}", GOOD.replace("7u", "u32(f16(3.5) * f16(2.0))"));
        let pipeline = device.pipeline("half", &source, &[Access::ReadWrite], 0, Trust::Trusted).unwrap();
        let buffer = device.allocate(4).unwrap();
        device
            .launch(&Launch { pipeline: &pipeline, buffers: &[&buffer], parameters: &[], workgroups: [1; 3] })
            .unwrap();
        assert_eq!(device.read(&buffer, 4).unwrap(), [7, 0, 0, 0]);
    }
    if let Some((least, most)) = device.limits().subgroup_size {
        let source = "@group(0) @binding(0) var<storage, read_write> v: array<u32>;
            @compute @workgroup_size(128) fn main(@builtin(local_invocation_index) i: u32) {
                let sum = subgroupAdd(1u);
                if i == 0u { v[0] = sum; }
            }";
        let pipeline = device.pipeline("subgroups", source, &[Access::ReadWrite], 0, Trust::Trusted).unwrap();
        let buffer = device.allocate(4).unwrap();
        device
            .launch(&Launch { pipeline: &pipeline, buffers: &[&buffer], parameters: &[], workgroups: [1; 3] })
            .unwrap();
        let size = common::words(&device.read(&buffer, 4).unwrap())[0];
        assert!((least..=most).contains(&size), "{size} {least} {most}");
    }
}
