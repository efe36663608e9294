//! A case and its outcome, and the comparison of numbers.

use crate::devices::{has, is_cpu};
use anyhow::{Result, bail};
use gradus::{DType, Device};

/// A case that was run.
pub(crate) struct Case {
    pub(crate) kind: String,
    pub(crate) outcome: Result<()>,
}

impl Case {
    /// Runs a case.
    pub(crate) fn new(kind: impl Into<String>, run: impl FnOnce() -> Result<()>) -> Case {
        Case { kind: kind.into(), outcome: run() }
    }
}

/// The precisions in which a device computes values and gradients: dtype, suffix of the fields, and tolerance.
pub(crate) fn precisions(device: &Device) -> Vec<(DType, &'static str, f64)> {
    let single = if is_cpu(device) { 1e-6 } else { 1e-5 };
    let all = [(DType::F64, "f64", 1e-12), (DType::F32, "f32", single)];
    all.into_iter().filter(|&(dtype, ..)| has(device, dtype)).collect()
}

/// How far two numbers may be apart: `absolute + relative · |expected|`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f64,
    pub(crate) relative: f64,
}

impl Tolerance {
    /// The same number for both.
    pub(crate) const fn both(tolerance: f64) -> Tolerance {
        Tolerance { absolute: tolerance, relative: tolerance }
    }

    pub(crate) const fn relative(relative: f64) -> Tolerance {
        Tolerance { absolute: 0.0, relative }
    }

    /// Nothing.
    pub(crate) const EXACT: Tolerance = Tolerance::both(0.0);

    /// Whether a number is near enough; NaN is near NaN, and infinity near itself.
    pub(crate) fn admits(self, got: f64, expected: f64) -> bool {
        let near = (got - expected).abs() <= self.absolute + self.relative * expected.abs();
        got == expected || (got.is_nan() && expected.is_nan()) || (expected.is_finite() && near)
    }
}

/// Compares what was computed with what was expected, and remembers what differs.
#[derive(Default)]
pub(crate) struct Check(Vec<String>);

impl Check {
    /// Each of `got` must be near its expected number.
    pub(crate) fn close(&mut self, what: &str, got: &[f64], expected: &[f64], tolerance: Tolerance) {
        self.close_to_any(what, got, &[expected], tolerance);
    }

    /// Each of `got` must be near one of several expected numbers.
    pub(crate) fn close_to_any(&mut self, what: &str, got: &[f64], expected: &[&[f64]], tolerance: Tolerance) {
        if let Some(wrong) = expected.iter().find(|expected| expected.len() != got.len()) {
            return self.0.push(format!("{what}: got {} numbers, expected {}", got.len(), wrong.len()));
        }
        let admitted = |i: usize| expected.iter().any(|expected| tolerance.admits(got[i], expected[i]));
        let wrong: Vec<usize> = (0..got.len()).filter(|&i| !admitted(i)).collect();
        if let Some(&first) = wrong.first() {
            let expected: Vec<String> = expected.iter().map(|expected| format!("{:?}", expected[first])).collect();
            self.0.push(format!(
                "{what}: {} of {} differ, first [{first}]: got {:?}, expected {}, {tolerance:?}",
                wrong.len(),
                got.len(),
                got[first],
                expected.join(" or "),
            ));
        }
    }

    /// An error that says all that differed.
    pub(crate) fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { bail!("{}", self.0.join("; ")) }
    }
}
