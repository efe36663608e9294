//! What `GRADUS_DEBUG` asks for. It is read once by a process, so that each test runs again in one of its own.

#[path = "support/devices.rs"]
mod devices;

use devices::own_devices;
use gradus::prelude::*;
use gradus::{DType, Error, ErrorKind, Shape};
use std::process::Command;

/// Runs `body` in a process of its own with `GRADUS_DEBUG` set to `words`, and gives what it printed on standard error;
/// in that process, `None`.
fn with_debug(test: &str, words: &str, body: impl FnOnce()) -> Option<String> {
    if std::env::var("GRADUS_DEBUG").as_deref() == Ok(words) {
        body();
        return None;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("GRADUS_DEBUG", words)
        .output()
        .unwrap();
    let (out, errors) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{out}{errors}");
    Some(errors.into_owned())
}

/// Checks that an error names an op, the shape of its result, and a line of this file.
fn names(error: &Error, op: &str, shape: &[usize], line: u32) {
    let kind = ErrorKind::NotANumber { dtype: DType::F32, shape: Shape::new(shape) };
    assert_eq!((error.op(), error.kind()), (op, &kind), "{error}");
    let at = error.location().unwrap();
    assert!(at.file().ends_with("debug.rs") && at.line() == line, "{error}, expected line {line}");
}

#[test]
fn the_op_that_makes_the_first_nan_is_named() {
    with_debug("the_op_that_makes_the_first_nan_is_named", "nan", || {
        for device in own_devices(None) {
            let x = Tensor::new([[4.0, 1.0], [0.0, -1.0]], &device);
            // An infinity is no NaN, and a NaN that was there before is not new.
            assert_eq!((x.recip().abs() * 2.0).max(..).item::<f32>().unwrap(), f32::INFINITY);
            let read = Tensor::new([f32::NAN, 1.0], &device);
            assert!((&read + 1.0).sum(..).item::<f32>().unwrap().is_nan());
            assert!((&x * f64::NAN).sum(..).item::<f32>().unwrap().is_nan());

            let (root, line) = (x.sqrt(), line!());
            let loss = ((&root + &x).exp() * 0.5).sum(..);
            names(&loss.item::<f32>().unwrap_err(), "sqrt", &[2, 2], line);
            // The rest of the program goes on.
            assert_eq!(x.abs().sum(..).item::<f32>().unwrap(), 6.0);

            // Of a gradient: 0 · ∞ at 0, which the op's own line is named for.
            let model = Linear::from_tensors(Tensor::new([[0.0]], &device), None);
            let y = model.forward(&Tensor::ones([1, 1], &device));
            let (y, line) = (y.sqrt(), line!());
            let mut optimiser = Sgd::new(0.1).of(&model);
            let error = optimiser.step(&(y * 0.0).sum(..)).unwrap_err();
            names(&error, error.op(), &[1, 1], line);
            assert_eq!(model.weight.tensor().item::<f32>().unwrap(), 0.0, "a failed step changes nothing");
        }
    });
}

#[test]
fn kernels_are_timed() {
    let body = || {
        for device in own_devices(None) {
            let setting = Linear::new(3, 2, &Init::new(0, &device));
            let mut optimiser = Adam::new(0.1).of(&setting);
            let x = Tensor::ones([4, 3], &device);
            let expected = setting.forward(&x).sum(..).item::<f32>().unwrap();
            let mut losses = Vec::new();
            for _ in 0..3 {
                let loss = setting.forward(&x).sum(..);
                optimiser.step(&loss).unwrap();
                losses.push(loss.item::<f32>().unwrap());
            }
            assert!((losses[0] - expected).abs() < 1e-6 && losses[2] < losses[1] && losses[1] < losses[0]);
            // Indices out of range are found, and nothing is lost.
            let far = Tensor::new([7], &device);
            let failing = setting.weight.tensor() * 0.5 + Tensor::ones([1], &device).gather(0, &far);
            let before = setting.weight.tensor().to_vec::<f32>().unwrap();
            assert!(matches!(setting.weight.set(failing).unwrap_err().kind(), ErrorKind::Index { index: 7, .. }));
            assert_eq!(setting.weight.tensor().to_vec::<f32>().unwrap(), before);
        }
    };
    if let Some(table) = with_debug("kernels_are_timed", "time", body) {
        assert!(table.contains("kernels on cpu"), "{table}");
        let rows = table.lines().filter(|line| line.contains(" µs ") && line.contains('%'));
        assert!(rows.clone().count() > 10 && rows.clone().any(|row| row.contains("matmul")), "{table}");
    }
}

#[test]
fn a_profile_sees_every_kernel_and_changes_nothing() {
    for device in own_devices(None) {
        let model = Linear::new(8, 4, &Init::new(1, &device));
        let mut optimiser = Adam::new(1e-3).of(&model);
        let x = Tensor::rand([16, 8], Key::new(2), &device);
        let mut step = || {
            let loss = model.forward(&x).square().mean(..);
            optimiser.step(&loss)?;
            loss.item::<f32>()
        };
        let first = [step(), step()].map(Result::unwrap);
        let before = device.stats();
        step().unwrap();
        let launches = device.stats().launches - before.launches;
        let (loss, profile) = device.profile(&mut step).unwrap();
        assert!(loss < first[1] && first[1] < first[0], "{device}: {first:?}, then {loss}");
        assert_eq!(profile.runs.len() as u64, launches, "{device}: {profile}");
        let product = profile.runs.iter().find(|run| run.kernel.family == "matmul").unwrap();
        assert!(product.kernel.operations >= 2 * 16 * 8 * 4 && product.kernel.line.contains("debug.rs"), "{product:?}");
        assert!(profile.runs.is_sorted_by_key(|run| run.start));
        let (text, trace) = (profile.to_string(), profile.to_chrome_trace());
        assert!(text.lines().count() > 2 && text.contains("matmul [16, 4]"), "{text}");
        let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
        assert_eq!(trace["traceEvents"].as_array().unwrap().len(), 1 + profile.runs.len());

        // What ran before is found again, and nothing is noted any more.
        let before = device.stats();
        step().unwrap();
        assert_eq!(device.stats().plans, before.plans, "{device}");
        let nested = device.profile(|| device.profile(|| Ok(())).map(drop)).unwrap_err();
        assert!(nested.to_string().contains("a profile of this device is under way"), "{nested}");
        assert_eq!(device.profile(|| Ok(7)).unwrap().0, 7, "a profile that failed is over");
    }
}

#[test]
fn compiled_functions_are_not_measured() {
    for device in own_devices(None) {
        let doubled = gradus::compile(|x: &[Tensor]| Ok(vec![&x[0] * 2.0]));
        let x = Tensor::ones([4], &device);
        x.eval().unwrap();
        let (y, profile) = device.profile(|| doubled.call(std::slice::from_ref(&x))).unwrap();
        assert!(profile.runs.is_empty(), "{profile}");
        assert_eq!(y[0].to_vec::<f32>().unwrap(), [2.0; 4]);
    }
}
