//! Normal numbers between two limits: the inverse of the distribution function, at uniform numbers between its values there.

use gradus_tensor::{DType, Error, ErrorKind, Key, Placement, Shape, Tensor};

/// The numbers of standard deviations beyond which nothing is told apart: 1 − Φ is below an f64's digits there.
const FAR: f64 = 8.0;

#[track_caller]
pub(super) fn tensor(shape: Shape, key: Key, on: Placement, [mean, std]: [f64; 2], [low, high]: [f64; 2]) -> Tensor {
    let is_sound = std >= 0.0 && low <= high && mean.is_finite() && std.is_finite();
    if !is_sound || (std > 0.0 && ((low - mean) / std >= FAR || (high - mean) / std <= -FAR)) {
        let found = format!("{low} ..= {high} for mean {mean} and deviation {std}");
        let expected = "low <= high, within 8 deviations of the mean";
        let kind = ErrorKind::Argument { argument: "low ..= high", expected, found };
        return Tensor::build(&on.device, || Err(Error::new("initialise", kind)));
    }
    if std == 0.0 {
        return Tensor::full(shape, mean.clamp(low, high), on);
    }
    let dtype = on.dtype.unwrap_or(DType::F32);
    // Of what lies on one side, the side below, where the distribution function has more digits.
    let [a, b] = [low, high].map(|limit| ((limit - mean) / std).clamp(-FAR, FAR));
    let is_above = a > 0.0;
    let (a, b) = if is_above { (-b, -a) } else { (a, b) };
    let wide = Placement { dtype: Some(if dtype == DType::F16 { DType::F32 } else { dtype }), ..on };
    let [from, to] = [a, b].map(error_function);
    let drawn = Tensor::rand(shape, key, wide) * (to - from) + from;
    let standard = inverse_error_function(&drawn) * std::f64::consts::SQRT_2;
    let standard = if is_above { -standard } else { standard };
    (standard * std + mean).clamp(low, high).to_dtype(dtype)
}

/// erf(x / √2).
fn error_function(x: f64) -> f64 {
    let x = x / std::f64::consts::SQRT_2;
    // By a series whose terms have one sign, so that nothing cancels: 2/√π e^(−x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!.
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > sum.abs() * 1e-17 {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
}

/// The inverse of the error function: Giles, "Approximating the erfinv function", 2010, to f32's precision, and a step of Newton's
/// method where more digits are there.
#[track_caller]
fn inverse_error_function(y: &Tensor) -> Tensor {
    const NEAR: [f64; 9] = [
        2.810_226_36e-8,
        3.432_739_39e-7,
        -3.523_387_7e-6,
        -4.391_506_54e-6,
        2.185_808_7e-4,
        -1.253_725_03e-3,
        -4.177_681_640e-3,
        2.466_407_27e-1,
        1.501_409_41,
    ];
    const FAR: [f64; 9] = [
        -2.002_142_57e-4,
        1.009_505_58e-4,
        1.349_343_22e-3,
        -3.673_428_44e-3,
        5.739_507_73e-3,
        -7.622_461_3e-3,
        9.438_870_47e-3,
        1.001_674_06,
        2.832_976_82,
    ];
    let horner =
        |x: &Tensor, terms: &[f64; 9]| terms[1..].iter().fold(x.zeros_like() + terms[0], |sum, &term| sum * x + term);
    // At ±1 it is infinite; nearer than this, an f32 cannot be.
    let inside = y.clamp(-1.0 + 6e-8, 1.0 - 6e-8);
    let w = -((-&inside + 1.0) * (&inside + 1.0)).log();
    let (near, far) = (horner(&(&w - 2.5), &NEAR), horner(&(w.relu().sqrt() - 3.0), &FAR));
    let mut x = w.lt(5.0).where_(near, far) * &inside;
    if y.dtype() == DType::F64 {
        for _ in 0..2 {
            let slope = (-x.square()).exp() * std::f64::consts::FRAC_2_SQRT_PI;
            x = &x - (x.erf() - &inside) / slope;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_tensor::Device;

    #[test]
    fn the_error_function_and_its_inverse() {
        // erf(x/√2) of 0.5, 1, 2, 3, from tables.
        for (x, expected) in
            [(0.5, 0.382_924_922_548), (1.0, 0.682_689_492_137), (2.0, 0.954_499_736_104), (3.0, 0.997_300_203_937)]
        {
            assert!((error_function(x) - expected).abs() < 1e-12 && error_function(-x) == -error_function(x));
        }
        assert!((error_function(8.0) - 1.0).abs() < 1e-14);
        let y: Vec<f64> = (-99..100).map(|i| i as f64 / 100.0).collect();
        for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 4e-7)] {
            let y = Tensor::from_vec(y.clone(), [y.len()], &Device::cpu()).to_dtype(dtype);
            let error = (inverse_error_function(&y).to_dtype(DType::F64).erf() - y.to_dtype(DType::F64)).abs().max(..);
            assert!(error.item::<f64>().unwrap() < tolerance, "{dtype}: {error}");
        }
    }
}
