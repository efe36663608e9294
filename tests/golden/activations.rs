//! Values and derivatives of activation functions, element by element and over rows.

use crate::case::{Case, Check, Tolerance, precisions};
use crate::devices::is_cpu;
use crate::json;
use anyhow::{Result, bail};
use gradus::autograd::Grad;
use gradus::{Device, Tensor};
use serde_json::Value;

pub(crate) fn cases(file: &Value, device: &Device) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, case) in json::entries(file, "elementwise")? {
        cases.push(Case::new(name, || elementwise(name, json::field(file, "x")?, case, device)));
    }
    for name in json::entries(file, "rows")?.keys() {
        for case in json::list(&file["rows"], name)? {
            cases.push(Case::new(name, || row(name, json::field(file, "softmax_cotangent")?, case, device)));
        }
    }
    Ok(cases)
}

type Function = Box<dyn Fn(&Tensor) -> Tensor>;

/// A name such as `softshrink_0.5` or `softplus_beta1_thr20` as a function and its numbers.
fn function(name: &str) -> Result<Function> {
    let parts: Vec<&str> = name.split('_').collect();
    let argument = |part: &str| part.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse::<f64>().ok();
    let numbers: Vec<f64> = parts.iter().filter_map(|part| argument(part)).collect();
    let words: Vec<&str> = parts.iter().copied().filter(|part| argument(part).is_none()).collect();
    let plain: fn(&Tensor) -> Tensor = match (words.join("_").as_str(), &numbers[..]) {
        ("sigmoid", []) => Tensor::sigmoid,
        ("tanh", []) => Tensor::tanh,
        ("relu", []) => Tensor::relu,
        ("selu", []) => Tensor::selu,
        ("gelu_erf", []) => Tensor::gelu,
        ("gelu_tanh", []) => Tensor::gelu_tanh,
        ("silu", []) => Tensor::silu,
        ("mish", []) => Tensor::mish,
        ("softsign", []) => Tensor::softsign,
        ("hardtanh", []) => Tensor::hardtanh,
        ("hardsigmoid", []) => Tensor::hardsigmoid,
        ("hardswish", []) => Tensor::hardswish,
        ("logsigmoid", []) => Tensor::log_sigmoid,
        ("exp", []) => Tensor::exp,
        ("tanhshrink", []) => Tensor::tanhshrink,
        // The one name whose number is no argument.
        _ if name == "relu6" => Tensor::relu6,
        ("leaky_relu", &[slope]) => return Ok(Box::new(move |x| x.leaky_relu(slope))),
        ("elu", &[alpha]) => return Ok(Box::new(move |x| x.elu(alpha))),
        ("celu", &[alpha]) => return Ok(Box::new(move |x| x.celu(alpha))),
        ("softshrink", &[lambda]) => return Ok(Box::new(move |x| x.softshrink(lambda))),
        ("hardshrink", &[lambda]) => return Ok(Box::new(move |x| x.hardshrink(lambda))),
        ("softplus", &[beta, threshold]) => return Ok(Box::new(move |x| x.softplus(beta, threshold))),
        _ => bail!("no activation function is called {name:?}"),
    };
    Ok(Box::new(plain))
}

/// A function's value at `x`, and its derivative there.
fn value_and_derivative(f: &Function, x: &Tensor) -> Result<[Vec<f64>; 2]> {
    let x = x.tracked();
    let y = f(&x);
    let derivative = Grad::of(&y).cotangent(&y.ones_like()).wrt([&x])?;
    Ok([json::values(&y)?, json::values(&derivative[0])?])
}

fn elementwise(name: &str, x: &Value, case: &Value, device: &Device) -> Result<()> {
    let f = function(name)?;
    let mut check = Check::default();
    for (dtype, suffix, tolerance) in precisions(device) {
        let x = json::tensor(x, (device, dtype))?;
        let got = value_and_derivative(&f, &x)?;
        // Shaders may take it that nothing is infinite or NaN.
        let numbers = json::values(&x)?;
        let held = |i: usize| is_cpu(device) || numbers[i].is_finite();
        // Far out stands for the limit; the largest powers of x that occur there do not overflow.
        let far = x.is_infinite().where_(x.sign() * 1e12, &x);
        let limits = value_and_derivative(&f, &far)?;
        for ((got, limits), key) in got.iter().zip(&limits).zip(["y", "dy"]) {
            let key = format!("{key}_{suffix}");
            let expected = json::numbers(json::field(case, &key)?)?;
            let got: Vec<f64> = (0..got.len()).map(|i| if held(i) { got[i] } else { expected[i] }).collect();
            // PyTorch keeps the slope of hardsigmoid in f32.
            let exact: Vec<f64> =
                expected.iter().map(|&e| if e == f64::from(1.0f32 / 6.0) { 1.0 / 6.0 } else { e }).collect();
            // Where the other library gives NaN although there is a limit, the limit is right too.
            let limits = limits.iter().map(|&y| if y.abs() > 1e6 { y * f64::INFINITY } else { y });
            let or_limit: Vec<f64> =
                expected.iter().zip(limits).map(|(&e, l)| if e.is_nan() { l } else { e }).collect();
            check.close_to_any(&key, &got, &[&expected, &exact, &or_limit], Tolerance::both(tolerance));
        }
    }
    check.finish()
}

fn row(name: &str, cotangent: &Value, case: &Value, device: &Device) -> Result<()> {
    let f: fn(&Tensor) -> Tensor = match name {
        "softmax" => |x| x.softmax(-1),
        "log_softmax" => |x| x.log_softmax(-1),
        "logsumexp" => |x| x.logsumexp(-1),
        _ => bail!("no function of rows is called {name:?}"),
    };
    let mut check = Check::default();
    for (dtype, suffix, tolerance) in precisions(device) {
        let x = json::tensor(json::field(case, "x")?, (device, dtype))?.tracked();
        let y = f(&x);
        // A function that gives one number has no use for a cotangent per element.
        let cotangent = if y.shape() == x.shape() { json::tensor(cotangent, (device, dtype))? } else { y.ones_like() };
        let dx = &Grad::of(&y).cotangent(&cotangent).wrt([&x])?[0];
        for (got, key) in [(&y, "y"), (dx, "dx")] {
            // f32 results may also be nearer to the truth than the other library's own f32.
            let expected = json::numbers(json::field(case, &format!("{key}_{suffix}"))?)?;
            let truth = json::numbers(json::field(case, &format!("{key}_f64"))?)?;
            let what = format!("{key}_{suffix}");
            check.close_to_any(&what, &json::values(got)?, &[&expected, &truth], Tolerance::both(tolerance));
        }
    }
    check.finish()
}
