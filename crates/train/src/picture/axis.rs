//! From numbers to positions along an axis, and where to put its ticks.

/// Numbers beyond this are treated as infinite, so that no difference between two overflows.
const LARGEST: f64 = 1e300;

/// The range of one axis: linear, or logarithmic with positive numbers only.
pub(super) struct Axis {
    log: bool,
    /// In decades if logarithmic.
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis on which all the values that it can show fit with some air.
    pub(super) fn fit(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let mut axis = Self { log, low: f64::INFINITY, high: f64::NEG_INFINITY };
        for value in values.filter_map(|value| axis.coordinate(value)).collect::<Vec<_>>() {
            axis.low = axis.low.min(value);
            axis.high = axis.high.max(value);
        }
        if axis.low > axis.high {
            (axis.low, axis.high) = (0.0, 1.0);
        }
        let (span, size) = (axis.high - axis.low, axis.low.abs().max(axis.high.abs()));
        // All values equal, but for rounding: show some range around them.
        let air = match span > 1e-9 * size {
            true => 0.04 * span,
            false if size > 0.0 && !log => 0.1 * size,
            false => 0.5,
        };
        axis.low -= air;
        axis.high += air;
        axis
    }

    /// Where a value is, from 0 to 1; none for what the axis cannot show.
    pub(super) fn position(&self, value: f64) -> Option<f64> {
        Some((self.coordinate(value)? - self.low) / (self.high - self.low))
    }

    fn coordinate(&self, value: f64) -> Option<f64> {
        match (value.abs() <= LARGEST, self.log) {
            (true, false) => Some(value),
            (true, true) if value > 0.0 => Some(value.log10()),
            _ => None,
        }
    }

    /// Positions from 0 to 1 and labels of about `count` ticks.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let values = match self.log {
            false => linear_ticks(self.low, self.high, count),
            true => log_ticks(self.low, self.high, count),
        };
        let visible = |label: (f64, String)| {
            let position = self.position(label.0).filter(|position| (0.0..=1.0).contains(position));
            position.map(|position| (position, label.1))
        };
        values.into_iter().filter_map(visible).collect()
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear_ticks(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / count.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = power
        * match rough / power {
            ..1.5 => 1.0,
            ..3.5 => 2.0,
            ..7.5 => 5.0,
            _ => 10.0,
        };
    let first = (low / step).ceil();
    let values: Vec<f64> =
        (0..=2 * count).map(|i| (first + i as f64) * step).take_while(|value| *value <= high).collect();
    let largest = low.abs().max(high.abs());
    let exponent = step.log10().floor();
    let label = |value: f64| {
        if largest < 1e6 && exponent >= -5.0 {
            format!("{value:.*}", (-exponent).max(0.0) as usize)
        } else {
            let digits = (largest.log10().floor() - exponent).clamp(0.0, 12.0) as usize;
            scientific(value, digits)
        }
    };
    values.into_iter().map(|value| (value, with_minus_sign(&label(value)))).collect()
}

/// Powers of ten, of which some are left out if there are many; or, on a short axis, 1, 2 and 5 times them.
fn log_ticks(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let decades = high - low;
    if decades < 0.7 {
        return linear_ticks(10_f64.powf(low), 10_f64.powf(high), count);
    }
    let stride = (decades / count.max(1) as f64).round().max(1.0) as i32;
    let factors: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let first = (low.floor() as i32).div_euclid(stride) * stride;
    let is_plain = low > -4.5 && high < 4.5;
    let tick = |factor: f64, exponent: i32| {
        let value = factor * 10_f64.powi(exponent);
        let label = match is_plain {
            true => format!("{value:.*}", (-exponent).max(0) as usize),
            false => scientific(value, 0),
        };
        (value, with_minus_sign(&label))
    };
    (first..=high.ceil() as i32)
        .step_by(stride as usize)
        .flat_map(|exponent| factors.iter().map(move |&factor| tick(factor, exponent)))
        .collect()
}

fn scientific(value: f64, digits: usize) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.digits$e}") }
}

fn with_minus_sign(label: &str) -> String {
    let is_zero = !label.contains(|c: char| c.is_ascii_digit() && c != '0');
    if is_zero { label.trim_start_matches('-').to_owned() } else { label.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], log: bool) -> Vec<String> {
        let axis = Axis::fit(values.iter().copied(), log);
        axis.ticks(5).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn round_numbers() {
        assert_eq!(labels(&[0.0, 10.0], false), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(&[-0.31, 0.27], false), ["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2"]);
        assert_eq!(labels(&[0.0, 3.1e7], false), ["0", "5.0e6", "1.0e7", "1.5e7", "2.0e7", "2.5e7", "3.0e7"]);
        assert_eq!(labels(&[1e-3, 1e2], true), ["0.001", "0.01", "0.1", "1", "10", "100"]);
        assert_eq!(labels(&[1.0, 9.0], true), ["1", "2", "5"]);
        assert_eq!(labels(&[1e-8, 1e1], true), ["1e−8", "1e−6", "1e−4", "1e−2", "1e0"]);
        assert_eq!(labels(&[0.30, 0.44], true), ["0.30", "0.32", "0.34", "0.36", "0.38", "0.40", "0.42", "0.44"]);
    }

    #[test]
    fn what_cannot_be_shown_is_skipped() {
        let values = [f64::NAN, 1.0, f64::INFINITY, 3.0, -f64::INFINITY, f64::MAX];
        let axis = Axis::fit(values.into_iter(), false);
        assert!((axis.position(2.0).unwrap() - 0.5).abs() < 1e-12);
        assert_eq!(axis.position(f64::NAN), None);
        let axis = Axis::fit([0.0, -1.0, 1.0, 100.0].into_iter(), true);
        assert!((axis.position(10.0).unwrap() - 0.5).abs() < 1e-12);
        assert_eq!(axis.position(0.0), None);
    }

    #[test]
    fn any_range_has_few_ticks_inside() {
        let numbers = [0.0, 5e-324, 1e-310, 1e-9, 1.0, 1.0 + 1e-15, 12345.678, 1e17, 1e299, -1e299, -1.0];
        for a in numbers {
            for b in numbers {
                for log in [false, true] {
                    let ticks = Axis::fit([a, b].into_iter(), log).ticks(5);
                    assert!(ticks.len() <= 11, "{a} {b} {log}: {ticks:?}");
                    assert!(ticks.iter().all(|(position, _)| (0.0..=1.0).contains(position)));
                    let ordinary = |x: f64| x == 0.0 || x.abs() > 1e-300;
                    assert!(ticks.len() >= 2 || !ordinary(a) || !ordinary(b), "{a} {b} {log}: {ticks:?}");
                }
            }
        }
    }
}
