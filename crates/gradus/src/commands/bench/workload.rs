//! What is measured: a workload's name, what it must at least move and compute, and how to run it.

use gradus::{Device, Result};

/// Which runs measure a workload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Suite {
    /// What says most, in a minute or two.
    Quick,
    /// Everything.
    Full,
}

/// In what a workload's speed is told.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    /// Operations per second.
    Operations,
    /// Bytes per second.
    Bytes,
    /// Iterations per second.
    Steps,
    /// The time itself.
    Time,
}

/// What one iteration must at least do, however clever the program.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    /// Bytes that are read or written once.
    pub(super) bytes: f64,
    /// Additions and multiplications of floats.
    pub(super) operations: f64,
    /// Whether these are of f16.
    pub(super) half: bool,
}

impl Cost {
    pub(super) fn bytes(bytes: usize) -> Cost {
        Cost { bytes: bytes as f64, ..Cost::default() }
    }

    pub(super) fn operations(operations: usize) -> Cost {
        Cost { operations: operations as f64, ..Cost::default() }
    }

    pub(super) fn and_bytes(self, bytes: usize) -> Cost {
        Cost { bytes: bytes as f64, ..self }
    }
}

/// How a workload is run.
pub(super) struct Run {
    /// A number that shows that what was computed is right, the same on every device but for rounding.
    pub(super) check: String,
    /// So many iterations; returns once the device has finished them.
    pub(super) iterate: Box<dyn FnMut(usize) -> Result<()>>,
    /// Whether a sample is one iteration, however short.
    pub(super) whole: bool,
}

impl Run {
    /// Iterations of `once`, then waiting for the device.
    pub(super) fn of(check: String, device: &Device, mut once: impl FnMut() -> Result<()> + 'static) -> Run {
        let device = device.clone();
        let iterate = move |count: usize| {
            for _ in 0..count {
                once()?;
            }
            device.synchronise()
        };
        Run { check, iterate: Box::new(iterate), whole: false }
    }
}

type Prepare = Box<dyn Fn(&Device) -> Result<Run>>;

/// A workload.
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) suite: Suite,
    pub(super) unit: Unit,
    pub(super) cost: Cost,
    /// Makes its inputs on a device.
    pub(super) prepare: Prepare,
}

impl Workload {
    pub(super) fn new(
        name: impl Into<String>,
        suite: Suite,
        (unit, cost): (Unit, Cost),
        prepare: impl Fn(&Device) -> Result<Run> + 'static,
    ) -> Workload {
        Workload { name: name.into(), suite, unit, cost, prepare: Box::new(prepare) }
    }
}

/// How many elements are wrong of what must be right bit by bit, for a check.
pub(super) fn differences<T: PartialEq>(got: &[T], expected: &[T]) -> String {
    let wrong = got.iter().zip(expected).filter(|(got, expected)| got != expected).count();
    format!("{} wrong", wrong + got.len().abs_diff(expected.len()))
}

/// The larger one of two errors, for a check. NaN is larger than any, where `f64::max` would pass over it.
pub(super) fn worse(a: f64, b: f64) -> f64 {
    if b <= a || a.is_nan() { a } else { b }
}
