//! What a processor can do at most: how fast it copies, and multiplies and adds.

use crate::parallel;
use crate::team::{self, Team};
use gradus_ir::Result;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Elements that a thread copies at a time.
const BLOCK: usize = 1 << 16;
/// Steps of a sample, each with so many independent multiply-adds: a millisecond, so that some samples are without an interruption
/// also where other programs are at work.
const STEPS: usize = 1 << 18;
const ABREAST: usize = 12;
const SAMPLES: usize = 100;

/// Copies, as far as both slices go; within an operation of the user with the threads of its device.
pub fn copy(from: &[f32], to: &mut [f32]) {
    let elements = from.len().min(to.len());
    let pieces = to[..elements].chunks_mut(BLOCK).zip(from[..elements].chunks(BLOCK)).collect();
    let copied = parallel::map(pieces, elements, |(to, from): (&mut [f32], &[f32])| {
        to.copy_from_slice(from);
        Ok(())
    });
    copied.expect("no piece fails");
}

/// Operations on f32 per second of all threads: independent multiply-adds in registers, of which each counts as two.
///
/// # Errors
/// If threads cannot be started.
pub fn multiply_add_rate() -> Result<f64> {
    struct Accumulate;
    impl pulp::WithSimd for Accumulate {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, simd: S) -> usize {
            let (factor, term) = (simd.splat_f32s(0.5), simd.splat_f32s(std::hint::black_box(0.25)));
            let mut sums = [term; ABREAST];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = simd.mul_add_f32s(*sum, factor, term);
                }
            }
            std::hint::black_box(sums);
            2 * STEPS * sums.len() * S::F32_LANES
        }
    }
    let rate = |_| {
        let (start, operations) = (Instant::now(), AtomicUsize::new(0));
        team::share(team::size(), true, &|_| {
            operations.fetch_add(pulp::Arch::new().dispatch(Accumulate), Relaxed);
        });
        operations.into_inner() as f64 / start.elapsed().as_secs_f64()
    };
    Ok(Team::global()?.enter(|| (0..SAMPLES).map(rate).fold(0.0, f64::max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_whole() {
        let from: Vec<f32> = (0..3 * BLOCK / 2).map(|i| i as f32).collect();
        let mut to = vec![-1.0; from.len() + 3];
        copy(&from, &mut to);
        assert!(to[..from.len()] == from && to[from.len()..] == [-1.0; 3]);
        copy(&from, &mut to[..5]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it measures")]
    fn a_rate_is_a_rate() {
        let rate = multiply_add_rate().unwrap();
        assert!(rate.is_finite() && rate > 1e7, "{rate}");
    }
}
