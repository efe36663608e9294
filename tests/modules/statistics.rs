//! Running statistics.

use crate::devices::own_devices;
use crate::{init, near, normal, values, weighted};
use gradus::nn::*;
use gradus::train::{Adam, Sgd};
use gradus::{Device, ErrorKind, Key, Result, Tensor, compile, eval, grad, vmap};

/// What a batch norm of three channels has seen, worked out on the host.
struct Running {
    mean: [f64; 3],
    var: [f64; 3],
}

impl Running {
    fn see(&mut self, x: &[f32]) {
        for channel in 0..3 {
            let of_channel: Vec<f64> = x.iter().skip(channel).step_by(3).map(|&x| f64::from(x)).collect();
            let n = of_channel.len() as f64;
            let mean = of_channel.iter().sum::<f64>() / n;
            let var = of_channel.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
            self.mean[channel] = 0.9 * self.mean[channel] + 0.1 * mean;
            self.var[channel] = 0.9 * self.var[channel] + 0.1 * var;
        }
    }

    #[track_caller]
    fn check(&self, layer: &BatchNorm, batches: i32) {
        let as_f32 = |x: [f64; 3]| x.map(|x| x as f32);
        near(&values(&layer.running_mean.as_ref().unwrap().tensor()), &as_f32(self.mean), 1e-5);
        near(&values(&layer.running_var.as_ref().unwrap().tensor()), &as_f32(self.var), 1e-5);
        let seen = layer.num_batches_tracked.as_ref().unwrap().tensor();
        assert_eq!(seen.to_vec::<i32>().unwrap(), [batches]);
    }
}

#[test]
fn running_statistics_follow_the_batches() -> Result<()> {
    for device in own_devices(None) {
        let init = init(&device);
        // Nothing that is trained lies before the first; the second sees what changes with each step.
        let (first, between, second) = (BatchNorm::new(3, &init), Linear::new(3, 3, &init), BatchNorm::new(3, &init));
        let model = Sequential::new().then(first.clone()).then(between.clone()).then(second.clone());
        let mut optimiser = Sgd::new(0.05).of(&model);
        let new = || Running { mean: [0.0; 3], var: [1.0; 3] };
        let (mut expected_first, mut expected_second) = (new(), new());
        let batch = |step: u64| Tensor::randn([8, 3], Key::new(step), &device) * 2.0 + step as f64;
        let mut made = 0;
        for step in 0..20 {
            let x = batch(step);
            // By hand, before the step changes what lies between.
            let normal = {
                let x = values(&x);
                let mut y = x.clone();
                for c in 0..3 {
                    let of: Vec<f64> = x.iter().skip(c).step_by(3).map(|&x| f64::from(x)).collect();
                    let mean = of.iter().sum::<f64>() / 8.0;
                    let var = of.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 8.0;
                    y.iter_mut()
                        .skip(c)
                        .step_by(3)
                        .for_each(|y| *y = ((f64::from(*y) - mean) / (var + 1e-5).sqrt()) as f32);
                }
                let weight = first.weight.as_ref().unwrap().tensor();
                Tensor::from_vec(y, [8, 3], &device) * weight + first.bias.as_ref().unwrap().tensor()
            };
            expected_first.see(&values(&x));
            expected_second.see(&values(&between.forward(&normal)));
            optimiser.step(&weighted(&model.forward(&x)))?;
            // What is worked out by hand in step 0 reads weights that nothing has computed yet.
            if step == 1 {
                made = device.stats().plans;
            }
            if step % 7 == 6 {
                expected_first.check(&first, step as i32 + 1);
                expected_second.check(&second, step as i32 + 1);
            }
        }
        // The statistics are computed with the step, by its plan; reading them needs none.
        assert_eq!(device.stats().plans, made, "{device}");
        // In use, nothing changes, and examples do not depend on each other.
        model.eval();
        let x = batch(50);
        let all = values(&model.forward(&x));
        near(&values(&model.forward(&x.slice(0, 2..3))), &all[6..9], 1e-5);
        expected_first.check(&first, 20);
        // Forward passes that nobody computes are seen all the same, however many they are.
        model.train();
        for step in 100..140 {
            let x = batch(step);
            expected_first.see(&values(&x));
            drop(model.forward(&x));
        }
        expected_first.check(&first, 60);
    }
    Ok(())
}

#[test]
fn gradients_of_several_batches_see_each_batch_once() -> Result<()> {
    let device = Device::cpu_with(1, None)?;
    let init = init(&device);
    let layer = BatchNorm::new(3, &init);
    let linear = Linear::new(3, 3, &init);
    let model = Sequential::new().then(linear.clone()).then(layer.clone());
    let mut optimiser = Adam::new(0.01).of(&model);
    let mut expected = Running { mean: [0.0; 3], var: [1.0; 3] };
    let parameters: Vec<Tensor> = model.parameters().iter().map(|(_, p)| p.tensor()).collect();
    let mut total: Option<Vec<Tensor>> = None;
    for step in 0..4 {
        let x = Tensor::randn([8, 3], Key::new(step), &device);
        expected.see(&values(&linear.forward(&x)));
        let gradients = grad(&weighted(&model.forward(&x)), &parameters)?;
        let sum: Vec<Tensor> = match total {
            Some(total) => total.iter().zip(&gradients).map(|(a, b)| a + b).collect(),
            None => gradients,
        };
        eval(&sum)?;
        total = Some(sum);
    }
    drop(parameters);
    optimiser.apply(total.expect("there were batches"))?;
    expected.check(&layer, 4);
    Ok(())
}

#[test]
fn statistics_are_not_kept_where_they_cannot_be() -> Result<()> {
    let device = Device::cpu();
    let layer = BatchNorm::new(3, &init(&device));
    let x = normal([4, 3], &device);
    let compiled = compile(|x| Ok(vec![layer.forward(&x[0])]));
    let error = compiled.call(std::slice::from_ref(&x)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Recording), "{error}");
    let error = vmap(|x| layer.forward(&x[0]), &[normal([2, 4, 3], &device)]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoValue), "{error}");
    let error = layer.forward(&x.slice(0, ..1)).eval().unwrap_err().to_string();
    assert!(error.contains("at least 2 elements a channel"), "{error}");
    let error = layer.forward(&normal([4, 2], &device)).eval().unwrap_err().to_string();
    assert!(error.contains("[3]") && error.contains("[4, 2]"), "{error}");
    assert_eq!(values(&layer.running_mean.as_ref().unwrap().tensor()), [0.0; 3]);
    assert_eq!(layer.num_batches_tracked.as_ref().unwrap().tensor().to_vec::<i32>()?, [0]);
    layer.eval();
    let expected = values(&layer.forward(&x));
    assert_eq!(values(&compile(|x| Ok(vec![layer.forward(&x[0])])).call(std::slice::from_ref(&x))?[0]), expected);
    assert_eq!(values(&vmap(|x| layer.forward(&x[0]), &[x.unsqueeze(0)])?), expected);
    Ok(())
}

/// What PyTorch 2.15 gives with `track_running_stats`.
#[test]
fn running_statistics_of_instances_are_those_of_pytorch() -> Result<()> {
    for device in own_devices(None) {
        let init = init(&device);
        let layer = InstanceNorm::affine(3, &init).with_running_statistics(&init);
        for (k, (_, parameter)) in
            [layer.parameters()[1].clone(), layer.parameters()[0].clone()].into_iter().enumerate()
        {
            let values: Vec<f32> = (0..3).map(|i| ((0.7 * i as f64 + k as f64).sin() * 0.6) as f32).collect();
            parameter.set(Tensor::from_vec(values, [3], &device))?;
        }
        let waves = |shape: [usize; 3]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (0.3 * i as f32).cos()).collect();
            Tensor::from_vec(values, shape, &device)
        };
        drop(layer.forward(&waves([2, 3, 4])));
        let y = layer.forward(&(waves([3, 3, 4]) * 2.0 + 1.0));
        let expected = [
            0.660819, 0.246080, -0.217727, -0.689172, 1.287448, 0.532030, -0.003130, -0.270226, 0.133508, 0.333331,
            0.699355, 1.198885,
        ];
        near(&values(&y.select_index(0, 2)), &expected, 1e-5);
        let running = |buffer: &Option<Buffer>| values(&buffer.as_ref().unwrap().tensor());
        near(&running(&layer.running_mean), &[0.142866, 0.092815, 0.051927], 1e-6);
        near(&running(&layer.running_var), &[0.848991, 0.859470, 0.820317], 1e-6);
        assert_eq!(layer.num_batches_tracked.as_ref().unwrap().tensor().to_vec::<i32>()?, [2]);
        layer.eval();
        let y = layer.forward(&waves([1, 3, 2]));
        near(&values(&y), &[0.469662, 0.445189, 0.856661, 0.725910, 0.730177, 0.599687], 1e-5);
    }
    Ok(())
}

#[test]
fn a_batch_that_overflows_leaves_running_statistics_alone() -> Result<()> {
    let device = Device::cpu();
    let layer = BatchNorm::new(3, &init(&device));
    let x = normal([8, 3], &device);
    let mut expected = Running { mean: [0.0; 3], var: [1.0; 3] };
    drop(layer.forward(&x));
    drop(layer.forward(&(&x * f32::INFINITY)));
    drop(layer.forward(&(&x * f32::NAN)));
    expected.see(&values(&x));
    expected.check(&layer, 3);
    Ok(())
}
