//! A line search for the strong Wolfe conditions.

/// A place on the line, with what the function is there.
#[derive(Clone, Debug)]
pub(super) struct Point<G> {
    /// How far along the line.
    pub(super) at: f64,
    pub(super) value: f64,
    /// The derivative along the line.
    pub(super) slope: f64,
    /// What else was computed there.
    pub(super) rest: G,
}

/// How much of the decrease that the slope promises is enough.
const DECREASE: f64 = 1e-4;
/// What share of the slope may be left.
const CURVATURE: f64 = 0.9;

/// A point where the function is sufficiently lower and its slope sufficiently flat (Nocedal, Wright 2006, Algorithms 3.5 and
/// 3.6, with cubic interpolation); or, where `evaluations` do not find one, the lowest that is lower enough. `None` if there is
/// none. Values that are not finite count as too high.
///
/// Near a minimum values differ by less than the rounding of them, `noise`, and slopes alone tell (the approximate conditions of
/// Hager, Zhang 2005, equation 4.1).
pub(super) fn strong_wolfe<G: Clone, E>(
    start: &Point<G>,
    noise: f64,
    first: f64,
    mut evaluations: usize,
    mut function: impl FnMut(f64) -> Result<Point<G>, E>,
) -> Result<Option<Point<G>>, E> {
    let low_enough = |p: &Point<G>| {
        let by_value = p.value <= start.value + DECREASE * p.at * start.slope;
        let alike = noise > 0.0 && (p.value - start.value).abs() <= noise;
        let by_slope = alike && p.slope <= (2.0 * DECREASE - 1.0) * start.slope;
        p.value.is_finite() && (by_value || by_slope)
    };
    let flat_enough = |p: &Point<G>| p.slope.abs() <= -CURVATURE * start.slope;
    let mut lowest = start.clone();
    let mut at = first;
    // Further out, until the minimum is behind.
    let mut high = loop {
        if evaluations == 0 {
            return Ok((lowest.at > 0.0).then_some(lowest));
        }
        evaluations -= 1;
        let point = function(at)?;
        let low = low_enough(&point);
        if low && flat_enough(&point) {
            return Ok(Some(point));
        }
        if !low || point.value >= lowest.value && lowest.at > 0.0 {
            break point;
        }
        let before = std::mem::replace(&mut lowest, point);
        if lowest.slope >= 0.0 {
            break before;
        }
        let next = cubic_minimum(&before, &lowest).unwrap_or(2.0 * at);
        at = next.clamp(at + 0.1 * (at - before.at), 10.0 * at);
    };
    // Between the lowest point and the other end.
    while evaluations > 0 {
        let (left, right) = (lowest.at.min(high.at), lowest.at.max(high.at));
        let width = right - left;
        if width <= f64::EPSILON * right {
            break;
        }
        let middle = 0.5 * (left + right);
        let at = cubic_minimum(&lowest, &high).unwrap_or(middle).clamp(left + 0.1 * width, right - 0.1 * width);
        evaluations -= 1;
        let point = function(at)?;
        let low = low_enough(&point);
        if low && flat_enough(&point) {
            return Ok(Some(point));
        }
        if !low || point.value >= lowest.value {
            high = point;
            continue;
        }
        if point.slope * (high.at - lowest.at) >= 0.0 {
            high = lowest;
        }
        lowest = point;
    }
    Ok((lowest.at > 0.0).then_some(lowest))
}

/// Where the cubic through two points with their slopes has its minimum (Nocedal, Wright 2006, equation 3.59).
fn cubic_minimum<G>(a: &Point<G>, b: &Point<G>) -> Option<f64> {
    let d1 = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.at - b.at);
    let d2 = (b.at - a.at).signum() * (d1 * d1 - a.slope * b.slope).sqrt();
    let at = b.at - (b.at - a.at) * (b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2);
    at.is_finite().then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches along `value` from 0, and checks both conditions.
    fn search(value: impl Fn(f64) -> f64, first: f64) -> (f64, usize) {
        let slope = |x: f64| (value(x + 1e-6) - value(x - 1e-6)) / 2e-6;
        let point = |at: f64| Point { at, value: value(at), slope: slope(at), rest: () };
        let mut count = 0;
        let evaluate = |at: f64| {
            count += 1;
            Ok::<_, ()>(point(at))
        };
        let start = point(0.0);
        assert!(start.slope < 0.0);
        let found = strong_wolfe(&start, 0.0, first, 40, evaluate).unwrap().expect("there is a lower point");
        assert!(found.value <= start.value + DECREASE * found.at * start.slope);
        assert!(found.slope.abs() <= -CURVATURE * start.slope);
        (found.at, count)
    }

    #[test]
    fn it_meets_both_conditions_from_any_first_step() {
        for first in [1e-6, 1e-3, 1.0, 1e3, 1e8] {
            search(|x| (x - 3.0).powi(2), first);
            search(|x| -x / (x * x + 2.0), first);
            search(|x| (x + 0.004_f64).powi(5) - 2.0 * (x + 0.004).powi(4), first);
            // Infinite beyond 2.
            search(|x| if x < 2.0 { -x - 0.1 * (2.0 - x).ln() } else { f64::INFINITY }, first);
            search(|x| if x < 2.0 { (x - 1.5).powi(2) } else { f64::NAN }, first);
        }
        let (_, count) = search(|x| (x - 3.0).powi(2), 1.0);
        assert!(count <= 3, "{count} evaluations for a parabola");
    }

    #[test]
    fn below_the_noise_of_values_slopes_decide() {
        // A parabola whose values are rounded to whole numbers.
        let point = |at: f64| Point { at, value: 100.0, slope: 1e-3 * (at - 1.0), rest: () };
        let search = |noise| strong_wolfe(&point(0.0), noise, 5.0, 20, |at| Ok::<_, ()>(point(at))).unwrap();
        assert!(search(0.0).is_none());
        let found = search(1e-9).expect("the slope is flatter at 1").at;
        assert!((0.1..=1.9).contains(&found), "{found}");
    }

    #[test]
    fn where_nothing_is_lower_there_is_nothing() {
        let mut count = 0;
        let start = Point { at: 0.0, value: 1.0, slope: -1.0, rest: () };
        let found = strong_wolfe(&start, 0.0, 1.0, 20, |at| {
            count += 1;
            Ok::<_, ()>(Point { at, value: 2.0, slope: f64::NAN, rest: () })
        });
        assert!(found.unwrap().is_none());
        assert!(count <= 20);
    }
}
