//! The error function on AVX-512, whose vectors look up numbers in tables of sixteen that lie in registers. So each of sixteen
//! intervals has a polynomial of its own, in half the operations of the two that [`gradus_ir::math::erf`] chooses from.

use bytemuck::cast;
use pulp::x86::V4;
use std::arch::x86_64::{__m512, __m512i};

/// The length of an interval. Their middles are its multiples.
const INTERVAL: f32 = 0.255;

/// The end of the last interval, where results are 1.
const END: f32 = 15.49 * INTERVAL;

/// Adding 1.5 · 2²³ rounds to an integer, whose last four bits are the last ones of the sum: those that a look-up takes.
const ROUND: f32 = 12_582_912.0;

/// The polynomials of the intervals, from the constant terms on, in what follows their middles. Fitted as those of
/// [`gradus_ir::math`] are. The first one is that of erf(x) - x.
#[rustfmt::skip]
const COEFFICIENTS: [[f32; 16]; 6] = [
    [
        0.0, 0.281_619_8, 0.529_243_6, 0.720_691_2, 0.850_838, 0.928_631, 0.969_516_2, 0.988_409_46,
        0.996_085_8, 0.998_828_05, 0.999_689_34, 0.999_927_16, 0.999_984_9, 0.999_997_26, 0.999_999_6, 0.999_999_94,
    ],
    [
        0.128_379_17, 1.057_341_1, 0.869_951_55, 0.628_485_26, 0.398_671_42, 0.222_052_22, 0.108_596_33, 0.046_633_195,
        0.017_583_09, 0.005_821_236_4, 0.001_692_214, 4.319_319_6e-4, 9.680_447e-5, 1.905_002_1e-5, 3.291_664_1e-6, 4.994_081e-7,
    ],
    [
        3.291_746_7e-7, -0.269_616_25, -0.443_660_2, -0.480_792_34, -0.406_643_57, -0.283_130_88, -0.166_160_24, -0.083_244_97,
        -0.035_876_125, -0.013_361_651, -0.004_315_241_7, -0.001_204_646, -2.969_230_4e-4, -7.064_002e-5, -2.509_424_8e-5, -3.677_564_6e-6,
    ],
    [
        -0.376_144_26, -0.306_635_08, -0.139_111_55, 0.035_701_282, 0.143_625_16, 0.166_631_98, 0.133_276_49, 0.083_512_23,
        0.042_921_815, 0.018_500_07, 0.006_771_570_5, 0.002_121_580_5, 5.719_779_3e-4, 1.331_957_2e-4, 2.686_519_7e-5, 4.703_201_7e-6,
    ],
    [
        3.245_581_8e-4, 0.127_992_5, 0.181_666_02, 0.146_271_21, 0.062_327_687, -0.010_623_642, -0.045_793_414, -0.046_375_282,
        -0.031_423_666, -0.016_707_737, -0.007_231_798, -0.003_019_513, -7.430_319e-4, 2.564_142e-4, 7.734_892e-4, 9.983_904e-5,
    ],
    [
        0.110_798_426, 0.079_620_28, 0.002_871_468_7, -0.054_927_67, -0.068_111_36, -0.043_909_42, -0.011_568_706_5, 0.008_214_378,
        0.013_023_723, 0.009_839_94, 0.005_324_525_3, 0.002_263_509_4, 7.869_419e-4, 2.281_281_8e-4, 5.585_717e-5, 1.164_413_15e-5,
    ],
];

/// The error function. Error ≤ 1.3 ulp.
#[inline(always)]
pub(crate) fn erf(simd: V4, x: [f32; 16]) -> [f32; 16] {
    let V4 { avx512f: f, .. } = simd;
    let all = |number: f32| f._mm512_set1_ps(number);
    let sign = f._mm512_and_si512(cast(x), f._mm512_set1_epi32(i32::MIN));
    // Of NaN and another the second one is the smaller: NaN stays.
    let a = f._mm512_min_ps(all(END), cast(f._mm512_xor_si512(cast(x), sign)));
    let sum = f._mm512_fmadd_ps(a, all(1.0 / INTERVAL), all(ROUND));
    let t = f._mm512_fmadd_ps(f._mm512_sub_ps(sum, all(ROUND)), all(-INTERVAL), a);
    let interval: __m512i = cast(sum);
    let coefficient = |degree: usize| f._mm512_permutexvar_ps(interval, cast(COEFFICIENTS[degree]));
    // In the first interval, where it is 0, the constant term is x; elsewhere it is larger than t.
    let constant = f._mm512_max_ps(coefficient(0), t);
    let mut y: __m512 = coefficient(5);
    for degree in (1..5).rev() {
        y = f._mm512_fmadd_ps(y, t, coefficient(degree));
    }
    y = f._mm512_fmadd_ps(y, t, constant);
    cast(f._mm512_or_si512(cast(y), sign))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_ir::op::row::Unary;
    use gradus_ir::op::unary::Erf;

    #[test]
    fn is_as_near_as_documented() {
        // Other processors have no such loop.
        let Some(simd) = V4::try_new() else { return };
        let binades = (0..=f32::INFINITY.to_bits()).step_by(1009).map(f32::from_bits);
        let ends = (0..=15).map(|end| (f64::from(INTERVAL) * (f64::from(end) + 0.5)) as f32);
        let ends = ends.flat_map(|end| (end.to_bits() - 40..end.to_bits() + 40).map(f32::from_bits));
        let points: Vec<f32> = binades.chain(ends).collect();
        for points in points.chunks(16) {
            let mut x = [0.0; 16];
            x[..points.len()].copy_from_slice(points);
            let (results, negated) = (erf(simd, x), erf(simd, x.map(|x| -x)));
            for (lane, x) in x.into_iter().enumerate() {
                let (y, want) = (results[lane], Erf::exact(x.into()));
                let exponent = (want.to_bits() >> 52) as i32 - 1023;
                let error = (f64::from(y) - want).abs() / 2f64.powi(exponent.max(-126) - 23);
                assert!(error <= 1.3, "erf({x:e}) = {y:e}, not {want:e}: {error} ulp");
                assert_eq!(negated[lane].to_bits(), (-y).to_bits(), "-{x:e}");
            }
        }
    }

    #[test]
    fn is_one_far_out_and_keeps_nan() {
        let Some(simd) = V4::try_new() else { return };
        let mut x = [0.0; 16];
        x[..5].copy_from_slice(&[3.95, 4.0, f32::MAX, f32::INFINITY, f32::NAN]);
        let y = erf(simd, x);
        assert_eq!(y[..4], [1.0; 4]);
        assert!(y[4].is_nan() && y[5..].iter().all(|y| y.to_bits() == 0));
    }
}
