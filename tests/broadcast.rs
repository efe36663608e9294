//! Rows that are read again for every row of a larger tensor, of any width: values against naive loops, on every device.

#[allow(dead_code)] // This file uses a part of it.
#[path = "support/bench.rs"]
mod bench;
#[path = "support/devices.rs"]
mod devices;

use bench::{device, on_each_device};
use gradus::{Key, Result, Tensor};

/// Widths on both sides of those that blocks hold several whole rows of, some of them no multiple of a vector.
const WIDTHS: [usize; 9] = [255, 256, 257, 384, 1000, 1001, 2047, 4096, 4099];

#[test]
fn a_row_for_all_rows_is_found_wherever_a_block_begins() {
    let body = || -> Result<()> {
        for width in WIDTHS {
            let (rows, on) = (20_000 / width + 50, &device());
            let x = Tensor::randn([rows, width], Key::new(1), on);
            let (gain, bias) = (Tensor::randn([width], Key::new(2), on), Tensor::randn([rows, 1], Key::new(3), on));
            let noise = Tensor::rand([rows, width], Key::new(4), on);
            let [xs, gains, biases] = [&x, &gain, &bias].map(|tensor| tensor.to_vec::<f32>());
            let (xs, gains, biases) = (xs?, gains?, biases?);
            let noises = noise.to_vec::<f32>()?;
            // Drawn anew beside what it is multiplied by.
            let drawn = Tensor::rand([rows, width], Key::new(4), on);
            let [affine, noisy] = [(&x - &bias) * &gain, &gain * drawn].map(|tensor| tensor.to_vec::<f32>());
            for (i, (affine, noisy)) in affine?.into_iter().zip(noisy?).enumerate() {
                let (row, column) = (i / width, i % width);
                assert_eq!(affine, (xs[i] - biases[row]) * gains[column], "{width}: {row}, {column}");
                assert_eq!(noisy, gains[column] * noises[i], "{width}: {row}, {column}");
            }
        }
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

/// Widths, and elements of which the CPU takes long blocks, if they are read where they lie, or asks for outputs ahead too.
const MANY: [(usize, usize); 8] = [
    (256, 300_000),
    (384, 300_000),
    (1000, 300_000),
    (1000, 2_200_000),
    (1001, 300_000),
    (4099, 300_000),
    (16_384, 300_000),
    (16_385, 300_000),
];

#[test]
fn many_rows_are_normalised_as_one_is() {
    let body = || -> Result<()> {
        for (width, elements) in MANY {
            let (rows, on) = (elements / width + 1, &device());
            let x = Tensor::randn([rows, width], Key::new(1), on) + 3.0;
            let (gain, bias) = (Tensor::randn([width], Key::new(2), on), Tensor::randn([width], Key::new(3), on));
            let centred = &x - x.mean_keepdim(-1);
            let normalised = &centred * (centred.square().mean_keepdim(-1) + 1e-5).rsqrt() * &gain + &bias;
            let affine = &x * &gain + &bias;
            let [xs, gains, biases] = [&x, &gain, &bias].map(|tensor| tensor.to_vec::<f32>());
            let (xs, gains, biases) = (xs?, gains?, biases?);
            let [normalised, affine] = [normalised, affine].map(|tensor| tensor.to_vec::<f32>());
            let (normalised, affine) = (normalised?, affine?);
            for row in 0..rows {
                let of_row = row * width..(row + 1) * width;
                let x: Vec<f64> = xs[of_row.clone()].iter().map(|&x| f64::from(x)).collect();
                let mean = x.iter().sum::<f64>() / width as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let got = normalised[of_row.clone()].iter().zip(&affine[of_row.clone()]);
                for (column, (&normalised, &affine)) in got.enumerate() {
                    let (gain, bias) = (gains[column], biases[column]);
                    let unit = (x[column] - mean) / (variance + 1e-5).sqrt();
                    let wanted = unit * f64::from(gain) + f64::from(bias);
                    let error = (f64::from(normalised) - wanted).abs();
                    assert!(
                        error <= 1e-5 * (1.0 + unit.abs() * f64::from(gain).abs()),
                        "{width}: {row}, {column}: {error}"
                    );
                    assert_eq!(affine, xs[row * width + column] * gain + bias, "{width}: {row}, {column}");
                }
            }
        }
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn rows_of_two_lengths_are_found_beside_each_other() {
    let body = || -> Result<()> {
        for [rows, groups, width] in [[400, 2, 512], [300, 3, 256], [80, 4, 1001]] {
            let on = &device();
            let x = Tensor::randn([rows, groups, width], Key::new(1), on);
            let gain = Tensor::randn([width], Key::new(2), on);
            let bias = Tensor::randn([groups, width], Key::new(3), on);
            let affine = (&x * &gain + &bias).to_vec::<f32>()?;
            let turned = (&x * &bias + &gain).to_vec::<f32>()?;
            let sums = (&x * &gain + &bias).sum(-1).to_vec::<f32>()?;
            let [xs, gains, biases] = [&x, &gain, &bias].map(|tensor| tensor.to_vec::<f32>());
            let (xs, gains, biases) = (xs?, gains?, biases?);
            for (i, &x) in xs.iter().enumerate() {
                let (gain, bias) = (gains[i % width], biases[i % (groups * width)]);
                assert_eq!((affine[i], turned[i]), (x * gain + bias, x * bias + gain), "{groups} of {width}: {i}");
            }
            for (row, (sum, affine)) in sums.into_iter().zip(affine.chunks(width)).enumerate() {
                let exact: f64 = affine.iter().map(|&x| f64::from(x)).sum();
                let size: f64 = affine.iter().map(|&x| f64::from(x).abs()).sum();
                assert!((f64::from(sum) - exact).abs() <= 1e-6 * size, "{groups} of {width}, row {row}: {sum}");
            }
        }
        Ok(())
    };
    on_each_device(|| body().unwrap());
}
