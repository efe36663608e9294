//! What a processor can do at most: how fast it copies, and multiplies and adds.

use rayon::prelude::*;
use std::time::Instant;

/// Elements that a thread copies at a time.
const BLOCK: usize = 1 << 16;
/// Steps of a measurement, each with so many independent multiply-adds.
const STEPS: usize = 1 << 20;
const ABREAST: usize = 12;

/// Copies with all threads, as far as both slices go.
pub fn copy(from: &[f32], to: &mut [f32]) {
    let (from, to) = (from.par_chunks(BLOCK), to.par_chunks_mut(BLOCK));
    to.zip(from).for_each(|(to, from)| {
        let len = to.len().min(from.len());
        to[..len].copy_from_slice(&from[..len]);
    });
}

/// Operations on f32 per second of all threads: independent multiply-adds in registers, of which each counts as two.
pub fn multiply_add_rate() -> f64 {
    struct Accumulate;
    impl pulp::WithSimd for Accumulate {
        type Output = f64;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, simd: S) -> f64 {
            let (factor, term) = (simd.splat_f32s(0.5), simd.splat_f32s(std::hint::black_box(0.25)));
            let mut sums = [term; ABREAST];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = simd.mul_add_f32s(*sum, factor, term);
                }
            }
            std::hint::black_box(sums);
            2.0 * (STEPS * sums.len() * S::F32_LANES) as f64
        }
    }
    let rate = |_| {
        let start = Instant::now();
        let operations: Vec<f64> = rayon::broadcast(|_| pulp::Arch::new().dispatch(Accumulate));
        operations.iter().sum::<f64>() / start.elapsed().as_secs_f64()
    };
    (0..8).map(rate).fold(0.0, f64::max)
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
        let rate = multiply_add_rate();
        assert!(rate.is_finite() && rate > 1e7, "{rate}");
    }
}
