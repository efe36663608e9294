//! Attention against loops over queries and keys, on every device; gradients to the second order; and the memory that it
//! takes, which does not grow with the product of queries and keys.

#[path = "support/bench.rs"]
#[allow(dead_code)]
mod bench;
#[path = "support/devices.rs"]
mod devices;

use bench::{check_all, device, mixed, on_each_device};
use gradus::{Attention, Device, Grad, Key, Result, Tensor, checkpoint, eval, grad, vmap};
use std::slice::from_ref;

/// What attention is: `query [h, q, d]`, `key [s, k, d]`, `value [s, k, v]`; `visible` and `bias` of head, query and key.
fn written(
    [query, key, value]: [&Tensor; 3],
    scale: f64,
    visible: impl Fn(usize, usize, usize) -> bool,
    bias: impl Fn(usize, usize, usize) -> f64,
) -> Vec<f64> {
    let host = |x: &Tensor| x.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
    let ([heads, queries, width], [shared, keys, _]) = (query.dims::<3>().unwrap(), key.dims::<3>().unwrap());
    let values = value.dims::<3>().unwrap()[2];
    let (q, k, v) = (host(query), host(key), host(value));
    let mut out = vec![0.0; heads * queries * values];
    for head in 0..heads {
        let slice = head / (heads / shared);
        for i in 0..queries {
            let logit = |j: usize| {
                let dot = (0..width).map(|d| q[(head * queries + i) * width + d] * k[(slice * keys + j) * width + d]);
                dot.sum::<f64>() * scale + bias(head, i, j)
            };
            let seen: Vec<usize> = (0..keys).filter(|&j| visible(head, i, j)).collect();
            let total: f64 = seen.iter().map(|&j| logit(j).exp()).sum();
            for j in seen {
                for d in 0..values {
                    out[(head * queries + i) * values + d] +=
                        logit(j).exp() / total * v[(slice * keys + j) * values + d];
                }
            }
        }
    }
    out
}

#[track_caller]
fn close(got: &Tensor, expected: &[f64]) {
    let values = got.to_vec::<f32>().unwrap();
    assert_eq!(values.len(), expected.len());
    for (i, (&g, &e)) in values.iter().zip(expected).enumerate() {
        assert!((g as f64 - e).abs() <= 1e-5 * (1.0 + e.abs()), "[{i}]: {g} in place of {e} on {}", got.device());
    }
}

/// The largest difference.
fn distance(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).abs().max(..).item().unwrap()
}

fn random<const N: usize>(shape: [usize; N], seed: u64, device: &Device) -> Tensor {
    Tensor::randn(shape, Key::new(seed), device)
}

#[test]
fn values_are_those_of_loops() -> Result<()> {
    for device in devices::devices() {
        for (heads, shared, queries, keys, width, values) in
            // On the CPU, more queries than are computed at once, and so many keys that these are fewer.
            [
                (1, 1, 1, 1, 1, 1),
                (4, 2, 6, 9, 8, 5),
                (6, 2, 9, 7, 3, 4),
                (2, 1, 150, 300, 8, 5),
                (1, 1, 140, 5000, 4, 3),
            ]
        {
            let query = random([heads, queries, width], 1, &device);
            let (key, value) = (random([shared, keys, width], 2, &device), random([shared, keys, values], 3, &device));
            let scale = 1.0 / (width as f64).sqrt();
            let operands = [&query, &key, &value];
            let always = |_, _, _| true;
            let none = |_, _, _| 0.0;

            let y = query.attention(&key, &value, &Attention::new());
            assert_eq!(y.shape()[..], [heads, queries, values]);
            close(&y, &written(operands, scale, always, none));
            close(&query.attention(&key, &value, &Attention::new().scale(0.3)), &written(operands, 0.3, always, none));

            let before = |_, i: usize, j: usize| j + queries <= i + keys;
            let y = query.attention(&key, &value, &Attention::new().causal());
            close(&y, &written(operands, scale, before, none));

            // A mask of keys, one of each head's queries and keys, and one that hides all from the first query.
            let hidden = |j: usize| j % 3 != 1;
            let mask = Tensor::from_vec((0..keys).map(hidden).collect(), [keys], &device);
            let y = query.attention(&key, &value, &Attention::new().mask(&mask));
            close(&y, &written(operands, scale, |_, _, j| hidden(j), none));
            let look = |h: usize, i: usize, j: usize| i > 0 && (h + 2 * i + j) % 4 != 1;
            let all = (0..heads * queries * keys).map(|n| look(n / (queries * keys), n / keys % queries, n % keys));
            let mask = Tensor::from_vec(all.collect(), [heads, queries, keys], &device);
            let both = Attention::new().mask(&mask).causal();
            let y = query.attention(&key, &value, &both);
            close(&y, &written(operands, scale, |h, i, j| look(h, i, j) && before(h, i, j), none));

            // What is added to the logits.
            let slopes = random([heads, 1, keys], 4, &device);
            let added = slopes.to_vec::<f32>()?;
            let y = query.attention(&key, &value, &Attention::new().mask(&slopes).causal());
            close(&y, &written(operands, scale, before, |h, _, j| added[h * keys + j] as f64));
        }
        // Without heads, and with axes in front of them.
        let [q, k, v] = [1, 2, 3].map(|seed| random([5, 4], seed, &device));
        let y = q.attention(&k, &v, &Attention::new());
        let three = [&q, &k, &v].map(|x| x.unsqueeze(0));
        close(&y, &written(three.each_ref(), 0.5, |_, _, _| true, |_, _, _| 0.0));
        let four = [&q, &k, &v].map(|x| x.reshape([1, 1, 5, 4]).broadcast_to([3, 2, 5, 4]));
        let repeated = four[0].attention(&four[1], &four[2], &Attention::new());
        assert!(distance(&repeated, &y.broadcast_to([3, 2, 5, 4])) < 1e-6);
    }
    Ok(())
}

#[test]
fn gradients_agree_with_finite_differences() {
    on_each_device(|| {
        let inputs = [mixed([4, 3, 2]), mixed([2, 5, 2]), mixed([2, 5, 3])];
        let mask = Tensor::from_vec((0..15).map(|i| i % 4 != 1 && i > 4).collect(), [3, 5], &device());
        let bias = mixed([4, 1, 5]);
        for (name, options, order) in [
            ("attention", Attention::new(), 2),
            ("causal attention", Attention::new().causal(), 2),
            ("masked attention", Attention::new().mask(&mask), 2),
            ("attention with a bias", Attention::new().mask(&bias).causal(), 2),
        ] {
            check_all(name, order, &inputs, |x| x[0].attention(&x[1], &x[2], &options));
        }
        // One tensor in every place, and the bias.
        check_all("attention to itself", 2, &[mixed([2, 3, 2])], |x| x[0].attention(&x[0], &x[0], &Attention::new()));
        check_all("bias", 2, &[mixed([2, 3, 2]), mixed([1, 3, 3])], |x| {
            x[0].attention(&x[0], &x[0], &Attention::new().mask(&x[1]).scale(1.0))
        });
    });
}

/// More queries and keys than are computed at once, against products and a softmax.
#[test]
fn gradients_of_many_rows_are_those_of_products() -> Result<()> {
    for device in devices::devices() {
        for (queries, keys) in [(150, 300), (300, 150), (140, 5000), (5000, 140)] {
            let key = [random([1, keys, 4], 2, &device), random([1, keys, 3], 3, &device)].map(|x| x.tracked());
            let (query, [key, value]) = (random([2, queries, 4], 1, &device).tracked(), key);
            let slope = random([2, queries, 3], 4, &device);
            let hidden = |n: usize| n % 5 == 1;
            let mask = Tensor::from_vec((0..keys).map(|n| !hidden(n)).collect(), [keys], &device);
            let added =
                Tensor::from_vec((0..keys).map(|n| if hidden(n) { -1e4f32 } else { 0.0 }).collect(), [keys], &device);
            let inputs = [&query, &key, &value];
            let attended = query.attention(&key, &value, &Attention::new().mask(&mask));
            let logits = query.matmul(&key.transpose(-1, -2)) * 0.5 + &added;
            let composed = logits.softmax(-1).matmul(&value);
            let of = |y: &Tensor| grad(&(y * &slope).sum(..), inputs);
            for (got, expected) in of(&attended)?.iter().zip(&of(&composed)?) {
                let size = expected.square().mean(..).sqrt().item::<f32>()?;
                assert!(
                    distance(got, expected) < 1e-3 * size,
                    "{queries} by {keys} on {device}: {}",
                    distance(got, expected)
                );
            }
        }
    }
    Ok(())
}

#[test]
fn checkpoints_and_vmap_take_it() -> Result<()> {
    for device in devices::devices() {
        let options = Attention::new().causal();
        let x: Vec<Tensor> = (1..4).map(|seed| random([3, 2, 5, 4], seed, &device).tracked()).collect();
        let plain = grad(&x[0].attention(&x[1], &x[2], &options).square().sum(..), &x)?;
        let again = checkpoint(|x| x[0].attention(&x[1], &x[2], &options), &x);
        let again = grad(&again.square().sum(..), &x)?;
        let each = vmap(
            |x| {
                let loss = x[0].attention(&x[1], &x[2], &options).square().sum(..);
                grad(&loss, x).unwrap()
            },
            &x,
        )?;
        for (expected, got) in plain.iter().zip(&again).chain(plain.iter().zip(&each)) {
            assert!(distance(expected, got) < 1e-5, "on {device}");
        }
    }
    Ok(())
}

/// A sequence four times as long takes four times the memory of a training step, and much less than its logits.
#[test]
fn memory_grows_with_the_sequence() -> Result<()> {
    let mut peaks = Vec::new();
    for length in [256, 1024] {
        for device in devices::own_devices(None) {
            let x: Vec<Tensor> = (1..4).map(|seed| random([2, length, 8], seed, &device).tracked()).collect();
            eval(&x)?;
            let before = device.memory().in_use;
            let y = x[0].attention(&x[1], &x[2], &Attention::new().causal());
            eval(&Grad::of(&y).cotangent(&y).wrt(&x)?)?;
            peaks.push((device.to_string(), length, device.memory().peak - before));
        }
    }
    let devices = peaks.len() / 2;
    for ((name, _, short), (_, length, long)) in peaks[..devices].iter().zip(&peaks[devices..]) {
        let logits = 2 * length * length * 4;
        assert!(*long < 5 * short && *long < logits / 10, "{short} and {long} bytes on {name}, logits {logits}");
    }
    Ok(())
}

#[test]
fn what_needs_the_same_weights_is_one_kernel() -> Result<()> {
    for device in devices::own_devices(None) {
        let x = random([2, 6, 4], 1, &device).tracked();
        eval([&x])?;
        let before = device.stats().launches;
        let y = x.attention(&x, &x, &Attention::new());
        eval(&Grad::of(&y).cotangent(&x.detach()).wrt([&x])?)?;
        // The scale, attention, the scalar products of output and cotangent, three cotangents, at once on a CPU, and their sum.
        let expected = if devices::is_cpu(&device) { 5 } else { 7 };
        assert_eq!(device.stats().launches - before, expected, "on {device}");
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = |shape: &[usize]| Tensor::ones(shape.to_vec(), &Device::cpu());
    let fails = |y: Tensor, message: &str| {
        let error = y.error().unwrap_or_else(|| panic!("no error: {message}")).to_string();
        assert!(error.starts_with("attention at ") && error.contains(message), "{error}");
        assert!(error.contains("tests/attention.rs"), "{error}");
    };
    let (q, options) = (x(&[4, 3, 2]), Attention::new());
    fails(x(&[3]).attention(&x(&[3]), &x(&[3]), &options), "queries [batch…, heads, queries, width]");
    fails(q.attention(&x(&[3, 2]), &q, &options), "keys and values of rank 3");
    fails(q.attention(&x(&[3, 5, 2]), &x(&[3, 5, 2]), &options), "4 heads of queries cannot share 3 of keys evenly");
    fails(q.attention(&x(&[2, 5, 3]), &x(&[2, 5, 2]), &options), "the keys");
    fails(q.attention(&x(&[2, 5, 2]), &x(&[2, 6, 2]), &options), "the values");
    fails(q.attention(&x(&[2, 0, 2]), &x(&[2, 0, 2]), &options), "at least one key");
    fails(q.attention(&x(&[2, 5, 2]), &x(&[2, 5, 2]), &options.mask(&x(&[4, 5]))), "the mask");
    let whole = q.to_dtype(gradus::DType::I32);
    fails(whole.attention(&whole, &whole, &Attention::new().scale(1.0)), "i32");
    let ok = q.attention(&q, &q, &Attention::new());
    assert!(Grad::of(&ok).wrt(from_ref(&q)).is_err(), "a single number is needed");
}
