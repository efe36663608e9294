// Comparisons of floats. Needs bits.wgsl.
//
// Floats of one sign are ordered as their bits are. So they are compared as integers: no compiler can drop the cases of
// NaN (which compares false, and `not_equal` true), and subnormal numbers differ from zero on every device.

/// An integer that orders like x; −0 and +0 are equal. Means nothing for NaN.
fn order(x: Real) -> Int {
    let size = bitcast<Int>(magnitude(x));
    return select(size, -size, is_negative(x));
}

fn are_numbers(a: Real, b: Real) -> Mask {
    return !(is_nan(a) | is_nan(b));
}

fn equal(a: Real, b: Real) -> Mask {
    return (order(a) == order(b)) & are_numbers(a, b);
}

fn not_equal(a: Real, b: Real) -> Mask {
    return !equal(a, b);
}

fn less(a: Real, b: Real) -> Mask {
    return (order(a) < order(b)) & are_numbers(a, b);
}

fn less_equal(a: Real, b: Real) -> Mask {
    return (order(a) <= order(b)) & are_numbers(a, b);
}

fn greater(a: Real, b: Real) -> Mask {
    return less(b, a);
}

fn greater_equal(a: Real, b: Real) -> Mask {
    return less_equal(b, a);
}
