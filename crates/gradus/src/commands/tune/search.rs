//! The search: one field after the other, each value against the present one, until nothing is faster or time is up.

use super::workloads::{Prepared, Values, Workload, all};
use crate::commands::bench::measure::median;
use anyhow::{Context, bail};
use gradus::gpu::device::{Adapter, Device as Wgpu, Options};
use gradus::gpu::tuning::{Choice, Field};
use gradus::gpu::{Gpu, Tuning, of_device};
use gradus::train::Progress;
use gradus::{Device, ErrorKind};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How much faster a value must be than the present one, twice, in the geometric mean of the workloads that it concerns.
const GAIN: f64 = 1.03;
/// No workload may become slower than by this factor.
const LOSS: f64 = 0.92;
/// Samples of each of two tunings, which take turns: at first, and to confirm what seems faster, since of many values one is by
/// chance. How long a sample lasts at least, in seconds.
const ROUNDS: usize = 3;
const ROUNDS_TO_CONFIRM: usize = 7;
const SAMPLE: f64 = 0.004;
/// Values farther from the default than by this factor are not tried.
const FAR: u64 = 16;
/// How far results may lie apart, of the largest of them: sums in another order, and f16.
const TOLERANCE: f64 = 1e-4;
const TOLERANCE_OF_HALVES: f64 = 4e-3;

/// What was found.
pub(super) struct Found {
    /// Fields that are faster with another value than the default.
    pub(super) choices: BTreeMap<String, Choice>,
    /// Values that fail, or compute something else, and why.
    pub(super) left_out: Vec<String>,
    /// How many fields were looked at, of how many.
    pub(super) looked_at: (usize, usize),
}

/// The time there is, shown second by second.
struct Clock {
    start: Instant,
    time: Duration,
    progress: Progress,
    shown: u64,
}

impl Clock {
    fn start(time: Duration, id: &str) -> Clock {
        let progress = Progress::new(time.as_secs().max(1), format!("tuning {id}"));
        Clock { start: Instant::now(), time, progress, shown: 0 }
    }

    fn is_over(&self) -> bool {
        self.start.elapsed() >= self.time
    }

    fn show(&mut self) {
        let seconds = self.start.elapsed().min(self.time).as_secs();
        self.progress.step(seconds.saturating_sub(self.shown));
        self.shown = seconds;
    }
}

/// An adapter, and what is measured on it.
struct Tuner {
    wgpu: Wgpu,
    id: String,
    default: Tuning,
    workloads: Vec<Workload>,
    /// What each workload computes by default.
    expected: Vec<Vec<Values>>,
    left_out: Vec<String>,
}

/// Looks for a faster tuning until a time is over. The first kernels are compiled before the clock starts.
pub(super) fn search(adapter: &Adapter, time: Duration) -> anyhow::Result<Found> {
    let wgpu = Wgpu::open(adapter, &Options::default()).map_err(of_device)?;
    let default = Tuning::of(&wgpu);
    let workloads = all(wgpu.is_software());
    let mut tuner = Tuner {
        id: adapter.id().into(),
        wgpu,
        default: default.clone(),
        workloads,
        expected: vec![],
        left_out: vec![],
    };
    tuner.compute_expected()?;
    let mut clock = Clock::start(time, &tuner.id);
    let fields: Vec<&Field> = Tuning::FIELDS.iter().filter(|field| field.applies_to(&default)).collect();
    let (mut present, mut gains) = (default.clone(), BTreeMap::new());
    loop {
        let before = present.clone();
        for field in &fields {
            if clock.is_over() {
                break;
            }
            let gain = tuner.tune(field, &mut present, &mut clock)?;
            *gains.entry(field.name).or_insert(1.0) *= gain;
        }
        if present == before || clock.is_over() {
            break;
        }
    }
    let message = if clock.is_over() { "time is up" } else { "nothing else is faster" };
    clock.progress.finish_with(message);
    let mut choices = BTreeMap::new();
    for field in &fields {
        let (default, chosen) = (field.get(&default), field.get(&present));
        if chosen != default {
            let gain = gains.get(field.name).copied().unwrap_or(1.0);
            choices.insert(field.name.to_string(), Choice { default, chosen, gain });
        }
    }
    Ok(Found { choices, left_out: tuner.left_out, looked_at: (gains.len(), fields.len()) })
}

impl Tuner {
    /// A device whose kernels are made by a tuning. All share pipelines and memory.
    fn device(&self, tuning: &Tuning) -> Device {
        Device::from_backend(self.id.clone(), Box::new(Gpu::new(self.wgpu.clone()).with_tuning(tuning.clone())))
    }

    /// Runs every workload as it is by default; those of a dtype that the device has not are dropped.
    fn compute_expected(&mut self) -> anyhow::Result<()> {
        let device = self.device(&self.default);
        let mut kept = Vec::new();
        for workload in std::mem::take(&mut self.workloads) {
            match workload.prepare(&device) {
                Ok(prepared) => {
                    self.expected.push(prepared.values);
                    kept.push(workload);
                }
                Err(error) if matches!(error.kind(), ErrorKind::NoDType { .. }) => {}
                Err(error) => return Err(error).context(format!("{}, as it is by default", workload.name)),
            }
        }
        self.workloads = kept;
        Ok(())
    }

    /// The values to try, those nearest to the default first.
    fn candidates(&self, field: &Field, present: &Tuning) -> Vec<u64> {
        let default = field.get(&self.default);
        let is_near = |value: u64| value <= 1 || (value <= FAR * default && default <= FAR * value);
        let other = |value: &u64| *value != field.get(present) && is_near(*value);
        let mut candidates: Vec<u64> = field.candidates.iter().copied().filter(other).collect();
        candidates.sort_by_key(|value| value.max(&default) / (*value.min(&default)).max(1));
        candidates
    }

    /// Tries the values of a field; changes the tuning to the best one, and tells how many times faster that is.
    fn tune(&mut self, field: &Field, present: &mut Tuning, clock: &mut Clock) -> anyhow::Result<f64> {
        let concerned: Vec<usize> =
            (0..self.workloads.len()).filter(|&i| field.families.contains(&self.workloads[i].family)).collect();
        let mut best = self.prepare(&concerned, present)?;
        let mut gain = 1.0;
        for value in self.candidates(field, present) {
            if clock.is_over() {
                break;
            }
            clock.progress.message(format_args!("{} {value}", field.name));
            let mut tuning = present.clone();
            field.set(&mut tuning, value)?;
            let measured = self.prepare(&concerned, &tuning).and_then(|candidate| {
                let mut gain = gain_of(&best, &candidate, ROUNDS)?;
                if gain >= GAIN {
                    gain = gain_of(&best, &candidate, ROUNDS_TO_CONFIRM)?;
                }
                Ok((candidate, gain))
            });
            match measured {
                Ok((candidate, more)) if more >= GAIN => {
                    clock.progress.note(format_args!("{} {value}: {:+.0} %", field.name, 100.0 * (more - 1.0)));
                    (best, *present) = (candidate, tuning);
                    gain *= more;
                }
                Ok(_) => {}
                Err(error) => {
                    let line = format!("{} {value} is left out: {error:#}", field.name);
                    clock.progress.note(&line);
                    self.left_out.push(line);
                    if let Some(reason) = self.wgpu.lost() {
                        bail!("the device is lost: {reason}");
                    }
                }
            }
            clock.show();
        }
        Ok(gain)
    }

    /// Prepares workloads with a tuning.
    ///
    /// # Errors
    /// If one fails, or computes something else than by default.
    fn prepare(&self, concerned: &[usize], tuning: &Tuning) -> anyhow::Result<Vec<Prepared>> {
        let device = self.device(tuning);
        let prepare = |&i: &usize| {
            let workload = &self.workloads[i];
            let prepared = workload.prepare(&device).context(workload.name)?;
            let tolerance = if workload.name.contains("f16") { TOLERANCE_OF_HALVES } else { TOLERANCE };
            let distance = distance(&prepared.values, &self.expected[i]);
            if distance > tolerance {
                bail!("{} differs from what it is by default by {distance:.1e} of its largest value", workload.name);
            }
            Ok(prepared)
        };
        concerned.iter().map(prepare).collect()
    }
}

/// How many times faster a candidate is: the geometric mean. Nothing if one of its workloads becomes much slower.
fn gain_of(present: &[Prepared], candidate: &[Prepared], rounds: usize) -> anyhow::Result<f64> {
    let mut logarithms = 0.0;
    for (present, candidate) in present.iter().zip(candidate) {
        // Both warm, and as many iterations as last long enough.
        let seconds = present.sample(1)?.min(present.sample(1)?);
        candidate.sample(1)?;
        let count = (SAMPLE / seconds).clamp(1.0, 1000.0) as usize;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            before.push(present.sample(count)?);
            after.push(candidate.sample(count)?);
        }
        let gain = median(&before) / median(&after);
        if gain < LOSS {
            return Ok(gain);
        }
        logarithms += gain.ln();
    }
    Ok((logarithms / present.len().max(1) as f64).exp())
}

/// The largest distance of two results, of the largest value of the second; infinite where one is no number or missing, or
/// a whole number differs.
fn distance(got: &[Values], expected: &[Values]) -> f64 {
    let of_one = |(got, expected): (&Values, &Values)| {
        let (are_exact, got, expected) = (expected.are_exact, &got.numbers, &expected.numbers);
        if got.len() != expected.len() || (are_exact && got != expected) {
            return f64::INFINITY;
        }
        let largest = expected.iter().fold(f64::MIN_POSITIVE, |largest, value| value.abs().max(largest));
        let distances = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs() / largest);
        distances.fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
    };
    let missing = if got.len() == expected.len() { 0.0 } else { f64::INFINITY };
    got.iter().zip(expected).map(of_one).fold(missing, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const N: usize>(results: [&[f64]; N], are_exact: bool) -> [Values; N] {
        results.map(|numbers| Values { are_exact, numbers: numbers.to_vec() })
    }

    #[test]
    fn what_differs_is_seen() {
        let expected = values([&[1.0, -4.0], &[0.5]], false);
        assert_eq!(distance(&expected, &expected), 0.0);
        assert_eq!(distance(&values([&[1.0, -3.0], &[0.5]], false), &expected), 0.25);
        let infinite = |got: &[Values]| distance(got, &expected) == f64::INFINITY;
        assert!(infinite(&values([&[1.0, -4.0]], false)), "a result is missing");
        assert!(infinite(&values([&[1.0], &[0.5]], false)), "a number is missing");
        assert!(infinite(&values([&[1.0, f64::NAN], &[0.5]], false)));
        let indices = values([&[1e6, 1.0]], true);
        assert_eq!(distance(&values([&[1e6, 2.0]], true), &indices), f64::INFINITY);
    }
}
