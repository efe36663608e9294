//! Results for people: a table, a picture, and what changed against earlier results.

use super::measure::Measurement;
use super::workload::{Cost, Unit};
use crate::commands::table::table;
use gradus::Ceilings;

/// A measurement with what it is compared with.
pub(super) struct Entry {
    pub(super) measurement: Measurement,
    pub(super) unit: Unit,
    pub(super) cost: Cost,
}

impl Entry {
    fn rate(&self) -> String {
        let per_second = 1.0 / self.measurement.median();
        match self.unit {
            Unit::Operations => format!("{:.1} GFLOP/s", self.cost.operations * per_second / 1e9),
            Unit::Bytes => format!("{:.1} GB/s", self.cost.bytes * per_second / 1e9),
            Unit::Steps => format!("{per_second:.1} steps/s"),
            Unit::Time => String::new(),
        }
    }

    /// The share of the least time, in percent, and what binds; nothing where no least time is known.
    pub(super) fn share(&self, ceilings: &Ceilings) -> Option<(f64, &'static str)> {
        let Cost { bytes, operations, half } = self.cost;
        let floor = ceilings.floor(bytes, operations, half, self.measurement.launches);
        let known = self.cost.bytes + self.cost.operations > 0.0;
        known.then(|| (100.0 * floor.seconds / self.measurement.median(), floor.name))
    }

    fn cells(&self, ceilings: &Ceilings) -> [String; 7] {
        let measurement = &self.measurement;
        let (share, bound) = match self.share(ceilings) {
            Some((share, bound)) => (format!("{share:.0} %"), bound),
            None => Default::default(),
        };
        [
            measurement.w.clone(),
            seconds(measurement.median()),
            format!("{:.0} %", 100.0 * measurement.spread()),
            self.rate(),
            share,
            bound.into(),
            seconds(measurement.first),
        ]
    }
}

pub(super) fn ceilings_line(ceilings: &Ceilings) -> String {
    let f16 = ceilings.f16.map_or(String::new(), |rate| format!(", f16 {:.0} GFLOP/s", rate / 1e9));
    format!(
        "ceilings: copy {:.1} GB/s, f32 {:.0} GFLOP/s{f16}, dispatch {}, read-back {}",
        ceilings.copy / 1e9,
        ceilings.f32 / 1e9,
        seconds(ceilings.dispatch),
        seconds(ceilings.read),
    )
}

pub(super) fn results(entries: &[Entry], ceilings: &Ceilings) -> String {
    let heading = ["workload", "time", "spread", "rate", "of ceiling", "bound by", "first"];
    table(heading, &entries.iter().map(|entry| entry.cells(ceilings)).collect::<Vec<_>>())
}

/// A line for each reason why workloads were left out, with their names.
pub(super) fn skipped(workloads: &[(String, String)]) -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, reason) in workloads {
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    reasons.iter().map(|(reason, names)| format!("skipped {}: {reason}\n", names.join(", "))).collect()
}

/// A time with three digits, in the unit that suits it.
pub(super) fn seconds(time: f64) -> String {
    let (scaled, unit) = match time {
        t if t < 1e-3 => (t * 1e6, "µs"),
        t if t < 1.0 => (t * 1e3, "ms"),
        t => (t, "s"),
    };
    let decimals = if scaled < 10.0 {
        2
    } else if scaled < 100.0 {
        1
    } else {
        0
    };
    format!("{scaled:.decimals$} {unit}")
}

/// How measurements compare with earlier ones of the same workload and device, as a table, and the names of those that
/// became slower by more than the noise of both.
pub(super) fn comparison(now: &[Measurement], before: &[Measurement]) -> (String, Vec<String>) {
    let mut slower = Vec::new();
    let mut rows = Vec::new();
    for new in now {
        let Some(old) = before.iter().rev().find(|old| old.w == new.w && old.device == new.device) else { continue };
        let ratio = new.median() / old.median();
        let noise = 0.05 + new.spread() + old.spread();
        let verdict = match ratio {
            r if r > 1.0 + noise => "slower",
            r if r < 1.0 / (1.0 + noise) => "faster",
            _ => "",
        };
        if verdict == "slower" {
            slower.push(format!("{} on {}", new.w, new.device));
        }
        let (new_time, old_time) = (seconds(new.median()), seconds(old.median()));
        let cells = [&new.device, &new.w, &old_time, &new_time].map(String::clone);
        let [device, workload, old_time, new_time] = cells;
        rows.push([device, workload, old_time, new_time, format!("{ratio:.2}"), verdict.to_string()]);
    }
    (table(["device", "workload", "before", "now", "ratio", ""], &rows), slower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(device: &str, s: [f64; 3]) -> Measurement {
        let text = r#"{"w": "x", "check": "", "first": 1, "warm": 1, "k": 1, "rss_mb": 1, "s": []}"#;
        Measurement { device: device.into(), s: s.to_vec(), ..serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!([1.234e-6, 4.56e-2, 0.1234, 2.5].map(seconds), ["1.23 µs", "45.6 ms", "123 ms", "2.50 s"]);
    }

    #[test]
    fn what_is_skipped_for_one_reason_is_one_line() {
        let workloads = [("a", "no f16"), ("b", "too large"), ("c", "no f16")];
        let workloads = workloads.map(|(name, reason)| (name.to_string(), reason.to_string()));
        assert_eq!(skipped(&workloads), "skipped a, c: no f16\nskipped b: too large\n");
        assert_eq!(skipped(&[]), "");
    }

    #[test]
    fn only_what_is_beyond_the_noise_is_slower() {
        let old = [measured("cpu", [1.0; 3]), measured("gpu", [1.0; 3])];
        assert_eq!(comparison(&[measured("cpu", [1.04; 3])], &old).1, [""; 0]);
        assert_eq!(comparison(&[measured("cpu", [1.2; 3])], &old).1, ["x on cpu"]);
        assert_eq!(comparison(&[measured("software", [9.0; 3])], &old).1, [""; 0]);
    }
}
