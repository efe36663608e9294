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
