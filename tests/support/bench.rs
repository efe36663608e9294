//! Gradients on one device after another: a test's body runs on the CPU, where finite differences check the derivatives,
//! and then on a GPU, whose gradients must be near the CPU's.

use crate::devices::{devices, is_cpu};
use gradus::{Device, Grad, Key, Tensor, eval, gradcheck};
use std::cell::{Cell, RefCell};
use std::slice::from_ref;

/// Derivatives: name, order and input, and the elements.
type Seen = (String, Vec<f32>);

thread_local! {
    /// Where the body runs now.
    static DEVICE: RefCell<Device> = RefCell::new(Device::cpu());
    /// What the CPU gave, in order, and how much of it was compared.
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
    static COMPARED: Cell<usize> = const { Cell::new(0) };
}

/// The device on which the body runs.
pub(crate) fn device() -> Device {
    DEVICE.with_borrow(Device::clone)
}

/// Runs a body on every device.
pub(crate) fn on_each_device(body: impl Fn()) {
    SEEN.take();
    for device in devices() {
        DEVICE.set(device);
        COMPARED.set(0);
        body();
    }
    DEVICE.set(Device::cpu());
}

/// A tensor on the device.
pub(crate) fn new(values: impl gradus::tensor::Values) -> Tensor {
    Tensor::new(values, &device())
}

/// Distinct numbers of one sign, or of both, at some distance from 0 and from each other.
fn points<const N: usize>(shape: [usize; N], sign: i32) -> Tensor {
    let count = shape.iter().product::<usize>();
    let order = Key::new(count as u64).shuffled(count);
    let value = |(i, &place): (usize, &usize)| {
        let size = 0.2 + 1.5 * place as f32 / count as f32;
        if sign < 0 || (sign == 0 && i % 2 == 1) { -size } else { size }
    };
    Tensor::from_vec(order.iter().enumerate().map(value).collect(), shape, &device())
}

pub(crate) fn mixed<const N: usize>(shape: [usize; N]) -> Tensor {
    points(shape, 0)
}

pub(crate) fn positive<const N: usize>(shape: [usize; N]) -> Tensor {
    points(shape, 1)
}

/// Checks a function of one tensor.
pub(crate) fn check(name: &str, order: usize, x: &Tensor, f: impl Fn(&Tensor) -> Tensor) {
    check_all(name, order, from_ref(x), |x| f(&x[0]));
}

/// Checks a function against finite differences, and a GPU against the CPU.
pub(crate) fn check_all(name: &str, order: usize, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    if is_cpu(&device()) {
        gradcheck(&f, inputs, order).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    compare(name, order, inputs, f);
}

/// A tensor as one number: the sum of its elements with fixed, different weights.
fn weighted(tensor: &Tensor, stream: usize) -> Tensor {
    let weights = Tensor::rand(tensor.shape(), Key::new(stream as u64), tensor) + 0.5;
    (tensor * weights).sum(..)
}

/// Computes the derivatives of a function up to an order. On the CPU they are noted; on a GPU they must be near the
/// CPU's.
pub(crate) fn compare(name: &str, order: usize, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::tracked).collect();
    let targets: Vec<&Tensor> = leaves.iter().filter(|leaf| leaf.dtype().is_float()).collect();
    let mut value = weighted(&f(&leaves), 0);
    let mut derivatives = Vec::new();
    for order in 1..=order {
        let gradients = Grad::of(&value).allow_unused().wrt(targets.iter().copied());
        let gradients = gradients.unwrap_or_else(|error| panic!("{name}, order {order}: {error}"));
        let parts = gradients.iter().enumerate().map(|(i, gradient)| weighted(gradient, order * 100 + i));
        value = parts.reduce(|a, b| a + b).unwrap_or(value);
        derivatives.extend(gradients.into_iter().enumerate().map(|(i, gradient)| ((order, i), gradient)));
    }
    // All in one run: each kernel is then made once, and read after all have run.
    eval(derivatives.iter().map(|(_, gradient)| gradient)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for ((order, input), gradient) in derivatives {
        let got = (format!("{name}, order {order}, input {input}"), gradient.to_vec::<f32>().unwrap());
        if is_cpu(&device()) {
            SEEN.with_borrow_mut(|seen| seen.push(got));
        } else {
            let place = COMPARED.replace(COMPARED.get() + 1);
            SEEN.with_borrow(|seen| near(&seen[place], &got));
        }
    }
}

/// Whether a GPU's derivatives are within 10⁻⁴ of the CPU's: relative to the largest, or to each where it is above 1,
/// so that large ones do not hide the others.
fn near((name, expected): &Seen, (what, got): &Seen) {
    assert_eq!((name, expected.len()), (what, got.len()), "the body differs between devices");
    let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0f32, |largest, x| largest.max(x.abs()));
    for (i, (&expected, &got)) in expected.iter().zip(got).enumerate() {
        let tolerance = 1e-4 * expected.abs().max(largest.min(1.0));
        let same = expected == got || (expected.is_nan() && got.is_nan());
        assert!(
            same || (got - expected).abs() <= tolerance,
            "{name} [{i}]: {got} on {}, {expected} on the CPU",
            device()
        );
    }
}

/// Compares numbers with what they must be: the same on the CPU, and near on a GPU, which rounds quotients otherwise.
#[track_caller]
pub(crate) fn same(got: impl AsRef<[f32]>, expected: impl AsRef<[f32]>) {
    let (got, expected) = (got.as_ref(), expected.as_ref());
    let tolerance = if is_cpu(&device()) { 0.0 } else { 1e-5 };
    let near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= tolerance * expected.abs().max(1.0);
    let equal = got.len() == expected.len() && got.iter().zip(expected).all(near);
    assert!(equal, "{got:?} on {}, expected {expected:?}", device());
}
