// Activation functions and the error function. Needs bits.wgsl and math.wgsl.

/// max(x, 0) that keeps NaN: it replaces what lies between −0 and −∞ by its bits.
fn relu(x: Real) -> Real {
    let below_zero = bitcast<Word>(x) - Word(SIGN_BIT + 1u) < Word(INFINITY_AS_BITS);
    return select(x, Real(0.0), below_zero);
}

/// 1 / (1 + e⁻ˣ), relatively accurate down to underflow: with t = e⁻|ˣ| and q = t / (1 + t) it is 1 − q for positive x
/// and q for negative, the latter as t − t q where t is small, since that passes on fewer roundings.
fn sigmoid(x: Real) -> Real {
    let t = exponential(-abs(x));
    let q = t / (1.0 + t);
    let negative = select(t - t * q, q, t > Real(0.5));
    return keep_nan(x, select(1.0 - q, negative, is_negative(x)));
}

/// ln(1 + eˣ) as max(x, 0) + ln(1 + e⁻|ˣ|), which neither overflows nor cancels.
fn softplus(x: Real) -> Real {
    let t = exponential(-abs(x));
    // 1 + t lies in [1, 2]: above 4/3 its half is nearer to 1.
    let halved = t > Real(1.0 / 3.0);
    let f = select(t, 0.5 * t - 0.5, halved);
    let y = logarithm_parts(f, select(Real(0.0), Real(1.0), halved));
    return keep_nan(x, y + relu(x));
}

/// tanh x: an odd polynomial below 0.6, 1 − 2 / (e²ˣ + 1) above.
fn hyperbolic_tangent(x: Real) -> Real {
    let a = abs(x);
    let z = a * a;
    var q = Real(-0.0058979667);
    q = q * z + 0.020798625;
    q = q * z - 0.053784717;
    q = q * z + 0.13331936;
    q = q * z - 0.333333;
    let near = a + a * (z * q);
    let far = 1.0 - 2.0 / (exponential(min(2.0 * a, Real(20.0))) + 1.0);
    return keep_nan(x, with_sign_of(x, select(far, near, a < Real(0.6))));
}

/// 2/√π ∫₀ˣ e^(−t²) dt: an odd polynomial below 1, and 1 − p(|x|)⁴ above, where p is a polynomial for the fourth root
/// of 1 − erf (after Abramowitz and Stegun 7.1.28, which spares an exponential).
fn erf(x: Real) -> Real {
    let a = abs(x);
    let z = a * a;
    var q = Real(-0.0005629282);
    q = q * z + 0.004916959;
    q = q * z - 0.026710717;
    q = q * z + 0.112801544;
    q = q * z - 0.37612322;
    q = q * z + 0.12837912;
    let near = a + a * q;
    // From 3.92 on erf rounds to 1.
    let t = min(a, Real(4.0)) - 1.25;
    var p = Real(-0.00016482867);
    p = p * t + 0.0015792253;
    p = p * t - 0.0036807393;
    p = p * t - 0.009314702;
    p = p * t + 0.044081915;
    p = p * t + 0.0402504;
    p = p * t - 0.40412936;
    p = p * t + 0.52694273;
    p = p * p;
    let far = 1.0 - p * p;
    return keep_nan(x, with_sign_of(x, select(far, near, a < Real(1.0))));
}
