//! Matrix products.

use super::super::inputs::{tensor, values};
use super::super::workload::{Cost, Run, Suite, Unit, Workload, worse};
use gradus::{DType, Device, Result, Tensor};

/// A product of `a [batch, m, k]` and `b [batch, k, n]`.
#[derive(Clone, Copy)]
struct Product {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    /// Whether b lies in memory as a layer's weight does, row by row of [n, k].
    is_weight: bool,
}

pub(super) fn workloads() -> Vec<Workload> {
    let product = |batch: usize, m: usize, k: usize, n: usize| Product { batch, m, k, n, is_weight: false };
    let linear = |m: usize, k: usize, n: usize| Product { is_weight: true, ..product(1, m, k, n) };
    let square = |n: usize| product(1, n, n, n);
    let named = |n: usize| (format!("mm{n}"), if n == 4096 { Suite::Full } else { Suite::Quick }, square(n));
    let others = [
        ("bmm".into(), Suite::Quick, product(32, 128, 64, 128)),
        // One row, a few rows, and a long sum.
        ("mm_vector".into(), Suite::Full, product(1, 1, 4096, 4096)),
        ("mm_skinny".into(), Suite::Full, product(1, 8, 4096, 4096)),
        ("mm_deep".into(), Suite::Full, product(1, 64, 65536, 64)),
        // What a linear layer does to a row, a few rows, and more.
        ("linear1".into(), Suite::Full, linear(1, 1024, 4096)),
        ("linear2".into(), Suite::Full, linear(2, 1024, 4096)),
        ("linear8".into(), Suite::Full, linear(8, 1024, 4096)),
        ("linear64".into(), Suite::Full, linear(64, 1024, 1024)),
        ("linear512".into(), Suite::Full, linear(512, 512, 512)),
    ];
    let mut all = Vec::new();
    for (name, suite, product) in [256, 512, 1024, 2048, 4096].map(named).into_iter().chain(others) {
        let half = format!("{name}_f16");
        all.push(workload(name, suite, product, DType::F32));
        all.push(workload(half, Suite::Full, product, DType::F16));
    }
    all
}

fn workload(name: String, suite: Suite, product: Product, dtype: DType) -> Workload {
    let Product { batch, m, k, n, .. } = product;
    let cost = Cost { half: dtype == DType::F16, ..Cost::operations(2 * batch * m * k * n) };
    let cost = cost.and_bytes(dtype.size() * batch * (m * k + k * n + m * n));
    Workload::new(name, suite, (Unit::Operations, cost), move |device| prepare(product, dtype, device))
}

fn prepare(product: Product, dtype: DType, device: &Device) -> Result<Run> {
    let Product { batch, m, k, n, is_weight } = product;
    let matrices = |rows, columns, seed| {
        let shape = if batch == 1 { vec![rows, columns] } else { vec![batch, rows, columns] };
        let matrices = tensor(shape, seed, 1.0, device).to_dtype(dtype);
        matrices.eval().map(|()| matrices)
    };
    let (a, b) = (matrices(m, k, 1)?, if is_weight { matrices(n, k, 2)?.t() } else { matrices(k, n, 2)? });
    let check = format!("{:.1e}", error(&a.matmul(&b), product)?);
    Ok(Run::of(check, device, move || a.matmul(&b).eval()))
}

/// The largest error of 64 elements of the product, against f64.
fn error(got: &Tensor, Product { batch, m, k, n, is_weight }: Product) -> Result<f64> {
    let got = got.to_dtype(DType::F32).to_vec::<f32>()?;
    let (a, b) = (values(batch * m * k, 1, 1.0), values(batch * k * n, 2, 1.0));
    let one = |t: usize| {
        let (z, i, j) = ((t * 5) % batch, (t * 31 + 7) % m, (t * 17 + 3) % n);
        let b_at = |p: usize| if is_weight { j * k + p } else { (z * k + p) * n + j };
        let exact: f64 = (0..k).map(|p| f64::from(a[(z * m + i) * k + p]) * f64::from(b[b_at(p)])).sum();
        (exact - f64::from(got[(z * m + i) * n + j])).abs()
    };
    Ok((0..64).map(one).fold(0.0, worse))
}
