//! Timing: the first iteration apart, a warm-up, then samples of which the median counts.

use super::workload::Workload;
use gradus::Device;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Samples of a workload, and how long each takes.
const SAMPLES: usize = 7;
const SAMPLE: Duration = Duration::from_millis(200);
/// The warm-up lasts so long and so many iterations, but not longer than that.
const WARM_UP: (Duration, usize, Duration) = (Duration::from_secs(1), 3, Duration::from_secs(20));

/// What was measured of a workload on a device. As a line of JSON it has the names that the programs of other libraries use
/// too (`benches/peers`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measurement {
    /// The workload's name.
    pub(super) w: String,
    /// The device's name.
    #[serde(default)]
    pub(super) device: String,
    /// What shows that the result is right.
    pub(super) check: String,
    /// Seconds of the first iteration, which plans and compiles.
    pub(super) first: f64,
    /// Seconds of the warm-up after it.
    pub(super) warm: f64,
    /// Iterations of a sample.
    pub(super) k: usize,
    /// The most memory of the host that the process had, in MB; 0 where the system does not say.
    pub(super) rss_mb: f64,
    /// The most memory of the device that was in use at once since it was opened, in MB.
    #[serde(default)]
    pub(super) device_mb: f64,
    /// Kernels that an iteration runs.
    #[serde(default)]
    pub(super) launches: f64,
    /// Seconds of an iteration, one number per sample.
    pub(super) s: Vec<f64>,
}

impl Measurement {
    /// Measures a workload.
    pub(super) fn of(workload: &Workload, device: &Device) -> gradus::Result<Measurement> {
        // Inputs and the checked iterations come before; planning and compiling are in the first of them.
        let start = Instant::now();
        let mut run = (workload.prepare)(device)?;
        let first = start.elapsed();
        let mut sample = |count: usize| -> gradus::Result<Duration> {
            let start = Instant::now();
            (run.iterate)(count)?;
            Ok(start.elapsed())
        };
        let mut last = sample(1)?;
        let start = Instant::now();
        let mut count = 1;
        if !run.whole {
            let (least, iterations, most) = WARM_UP;
            let mut done = 0;
            while (done < iterations || start.elapsed() < least) && start.elapsed() < most {
                last = sample(1)?;
                done += 1;
            }
            count = (SAMPLE.as_secs_f64() / last.as_secs_f64().max(1e-9)).ceil().clamp(1.0, 1e5) as usize;
        }
        let warm = start.elapsed();
        let launches = device.stats().launches;
        let samples: Vec<Duration> = (0..SAMPLES).map(|_| sample(count)).collect::<gradus::Result<_>>()?;
        let launches = (device.stats().launches - launches) as f64 / (SAMPLES * count) as f64;
        Ok(Measurement {
            w: workload.name.clone(),
            device: device.name().into(),
            check: run.check,
            first: first.as_secs_f64(),
            warm: warm.as_secs_f64(),
            k: count,
            rss_mb: peak_rss_mb(),
            device_mb: device.memory().peak as f64 / 1e6,
            launches,
            s: samples.iter().map(|sample| sample.as_secs_f64() / count as f64).collect(),
        })
    }

    /// The median of the samples, in seconds.
    pub(super) fn median(&self) -> f64 {
        median(&self.s)
    }

    /// How far the samples lie apart, of their median: the range without the smallest and the largest.
    pub(super) fn spread(&self) -> f64 {
        let mut sorted = self.s.clone();
        sorted.sort_by(f64::total_cmp);
        match &sorted[..] {
            [_, inner @ .., _] if !inner.is_empty() => (inner[inner.len() - 1] - inner[0]) / self.median(),
            _ => 0.0,
        }
    }
}

/// The middle one of some numbers; NaN of none.
pub(in crate::commands) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The most memory that this process has had, in MB, where the system tells it in `/proc`.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|value| value.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(s: &[f64]) -> Measurement {
        let text = r#"{"w": "x", "check": "", "first": 1, "warm": 1, "k": 1, "rss_mb": 1, "s": []}"#;
        Measurement { s: s.to_vec(), ..serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn the_spread_forgets_an_outlier_on_either_side() {
        let measurement = measured(&[2.0, 2.2, 9.0, 1.0, 2.0, 1.8, 2.0]);
        assert_eq!(measurement.median(), 2.0);
        assert!((measurement.spread() - 0.2).abs() < 1e-12);
        assert_eq!(measured(&[1.0, 2.0]).spread(), 0.0);
        assert!(median(&[]).is_nan());
    }
}
