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
}

pub(super) fn workloads() -> Vec<Workload> {
    let square = |n: usize| Product { batch: 1, m: n, k: n, n };
    let named = |n: usize| (format!("mm{n}"), if n == 4096 { Suite::Full } else { Suite::Quick }, square(n));
    let batched = Product { batch: 32, m: 128, k: 64, n: 128 };
    let others = [
        ("bmm".into(), Suite::Quick, batched),
        // One row, a few rows, and a long sum.
        ("mm_vector".into(), Suite::Full, Product { batch: 1, m: 1, k: 4096, n: 4096 }),
        ("mm_skinny".into(), Suite::Full, Product { batch: 1, m: 8, k: 4096, n: 4096 }),
        ("mm_deep".into(), Suite::Full, Product { batch: 1, m: 64, k: 65536, n: 64 }),
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
    let Product { batch, m, k, n } = product;
    let cost = Cost { half: dtype == DType::F16, ..Cost::operations(2 * batch * m * k * n) };
    let cost = cost.and_bytes(dtype.size() * batch * (m * k + k * n + m * n));
    Workload::new(name, suite, (Unit::Operations, cost), move |device| prepare(product, dtype, device))
}

fn prepare(product: Product, dtype: DType, device: &Device) -> Result<Run> {
    let Product { batch, m, k, n } = product;
    let matrices = |rows, columns, seed| {
        let shape = if batch == 1 { vec![rows, columns] } else { vec![batch, rows, columns] };
        let matrices = tensor(shape, seed, 1.0, device).to_dtype(dtype);
        matrices.eval().map(|()| matrices)
    };
    let (a, b) = (matrices(m, k, 1)?, matrices(k, n, 2)?);
    let check = format!("{:.1e}", error(&a.matmul(&b), product)?);
    Ok(Run::of(check, device, move || a.matmul(&b).eval()))
}

/// The largest error of 64 elements of the product, against f64.
fn error(got: &Tensor, Product { batch, m, k, n }: Product) -> Result<f64> {
    let got = got.to_dtype(DType::F32).to_vec::<f32>()?;
    let (a, b) = (values(batch * m * k, 1, 1.0), values(batch * k * n, 2, 1.0));
    let one = |t: usize| {
        let (z, i, j) = ((t * 5) % batch, (t * 31 + 7) % m, (t * 17 + 3) % n);
        let exact: f64 = (0..k).map(|p| f64::from(a[(z * m + i) * k + p]) * f64::from(b[(z * k + p) * n + j])).sum();
        (exact - f64::from(got[(z * m + i) * n + j])).abs()
    };
    Ok((0..64).map(one).fold(0.0, worse))
}
