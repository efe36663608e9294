//! Weights that are made of others.

use crate::devices::devices;
use crate::{init, near, normal, values, weighted};
use gradus::nn::*;
use gradus::{Result, grad};

/// By the power method, on the host.
fn largest_singular_value(matrix: &[f32], rows: usize, columns: usize) -> f64 {
    let at = |i: usize, j: usize| f64::from(matrix[i * columns + j]);
    let mut x: Vec<f64> = (0..columns).map(|j| (j as f64 * 0.7).sin() + 0.3).collect();
    let mut largest = 0.0;
    for _ in 0..2000 {
        let y: Vec<f64> = (0..rows).map(|i| (0..columns).map(|j| at(i, j) * x[j]).sum()).collect();
        x = (0..columns).map(|j| (0..rows).map(|i| at(i, j) * y[i]).sum()).collect();
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter_mut().for_each(|x| *x /= norm);
        largest = norm.sqrt();
    }
    largest
}

#[test]
fn normed_weights_are_as_long_as_they_should_be() -> Result<()> {
    for device in devices() {
        let init = init(&device);
        let layer = Linear::new(3, 5, &init);
        let before = values(&layer.weight.tensor());
        weight_norm(&layer.weight)?;
        near(&values(&layer.weight.tensor()), &before, 1e-6);
        assert!(weight_norm(&layer.weight).is_err());
        let parameters = layer.parameters();
        let [g, v] = [0, 1].map(|i| parameters[i].1.tensor());
        // The length of a direction does not matter, so its gradient is orthogonal to it; that of a length is along the weight.
        let loss = weighted(&layer.forward(&normal([4, 3], &device)));
        let gradients = grad(&loss, [&g, &v])?;
        near(&values(&(&gradients[1] * &v).sum(1)), &[0.0; 5], 1e-5);
        layer.parameters()[1].1.set(&v * 3.0)?;
        near(&values(&layer.weight.tensor()), &before, 1e-6);
        layer.parameters()[0].1.set(g.ones_like() * 2.0)?;
        near(&values(&layer.weight.tensor().norm(1)), &[2.0; 5], 1e-6);
        layer.weight.freeze();
        assert_eq!(layer.trainable_parameters().len(), 1);

        let layer = Conv1d::new(4, 6, 3, &init);
        spectral_norm(&layer.weight, &init)?;
        (0..30).for_each(|_| drop(layer.weight.tensor()));
        layer.eval();
        let matrix = layer.weight.tensor().flatten_range(1, -1);
        let largest = largest_singular_value(&values(&matrix), 6, 12);
        assert!((largest - 1.0).abs() < 1e-3, "{largest} on {device}");
        // In use, nothing moves.
        assert_eq!(values(&layer.weight.tensor()), values(&layer.weight.tensor()));
    }
    Ok(())
}
