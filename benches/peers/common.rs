// Shared by the Rust peers (included with #[path]): deterministic data, timing, one JSON line
// per workload. The Python peer (torch/common.py) repeats the same hash, so every peer starts
// from bit-identical inputs and weights and the `check` values can be compared.
#![allow(dead_code)]
use std::time::Instant;

/// `n` floats in [-scale, scale) from an integer hash of (index, seed).
pub fn data(n: usize, seed: u32, scale: f32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| {
            let mut h = i.wrapping_mul(0x9E37_79B1).wrapping_add(seed.wrapping_mul(0x85EB_CA77));
            h ^= h >> 16;
            h = h.wrapping_mul(0x7FEB_352D);
            h ^= h >> 15;
            h = h.wrapping_mul(0x846C_A68B);
            h ^= h >> 16;
            ((h >> 8) as f32 / 16_777_216.0 * 2.0 - 1.0) * scale
        })
        .collect()
}

pub fn labels(n: usize) -> Vec<usize> {
    (0..n).map(|i| (i * 7 + 3) % 10).collect()
}

/// x in [0,1), y = 3x + noise
pub fn line(n: usize) -> (Vec<f32>, Vec<f32>) {
    let x: Vec<f32> = (0..n).map(|i| i as f32 / n as f32).collect();
    let e = data(n, 77, 0.1);
    let y = x.iter().zip(&e).map(|(x, e)| 3.0 * x + e).collect();
    (x, y)
}

pub fn peak_rss_mb() -> f64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    s.lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .and_then(|v| v.trim().trim_end_matches(" kB").trim().parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// `run(k)` does k iterations and returns only when the device has finished them.
pub fn measure(name: &str, check: &str, mut run: impl FnMut(usize)) {
    let t = Instant::now();
    run(1);
    let first = t.elapsed().as_secs_f64();
    // warm-up: at least 3 iterations and 1 s, at most 20 s
    let t = Instant::now();
    let mut n = 0;
    let mut last = first;
    while n < 3 || t.elapsed().as_secs_f64() < 1.0 {
        let s = Instant::now();
        run(1);
        last = s.elapsed().as_secs_f64();
        n += 1;
        if t.elapsed().as_secs_f64() > 20.0 {
            break;
        }
    }
    let warm = t.elapsed().as_secs_f64();
    let k = ((0.2 / last).ceil() as usize).clamp(1, 100_000);
    let mut s = Vec::new();
    for _ in 0..7 {
        let t = Instant::now();
        run(k);
        s.push(t.elapsed().as_secs_f64() / k as f64);
    }
    emit(name, check, first, warm, k, &s);
}

/// One whole run per sample (the tiny case).
pub fn measure_whole(name: &str, check: &str, mut run: impl FnMut()) {
    let t = Instant::now();
    run();
    let first = t.elapsed().as_secs_f64();
    let s: Vec<f64> = (0..7)
        .map(|_| {
            let t = Instant::now();
            run();
            t.elapsed().as_secs_f64()
        })
        .collect();
    emit(name, check, first, 0.0, 1, &s);
}

fn emit(name: &str, check: &str, first: f64, warm: f64, k: usize, s: &[f64]) {
    let list: Vec<String> = s.iter().map(|v| format!("{v:.9}")).collect();
    println!(
        "{{\"w\":\"{name}\",\"check\":\"{check}\",\"first\":{first:.6},\"warm\":{warm:.3},\"k\":{k},\"rss_mb\":{:.0},\"s\":[{}]}}",
        peak_rss_mb(),
        list.join(",")
    );
}

/// Largest |c - reference| over 64 entries of a [batch,m,n] product, reference in f64.
pub fn matmul_error(a: &[f32], b: &[f32], c: &[f32], batch: usize, m: usize, k: usize, n: usize) -> f64 {
    assert_eq!(c.len(), batch * m * n);
    let mut worst: f64 = 0.0;
    for t in 0..64usize {
        let (z, i, j) = ((t * 5) % batch, (t * 31 + 7) % m, (t * 17 + 3) % n);
        let mut r = 0.0f64;
        for p in 0..k {
            r += a[(z * m + i) * k + p] as f64 * b[(z * k + p) * n + j] as f64;
        }
        let error = (r - c[(z * m + i) * n + j] as f64).abs();
        // NaN stays, which f64::max would pass over.
        if error > worst || error.is_nan() {
            worst = error;
        }
    }
    worst
}
