//! What a step costs the host: recording, gradients, and a whole cached step of small networks.
//!
//! `cargo bench --bench host`

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gradus::prelude::*;
use std::hint::black_box;

/// The network of the digits demo, with layers scaled down by `divisor`: what is left of the time when the arithmetic is
/// next to nothing is the host's.
struct Setting {
    model: Sequential,
    optimiser: Optimiser,
    x: Tensor,
    y: Tensor,
}

impl Setting {
    fn new(divisor: usize, batch: usize) -> Setting {
        let device = Device::cpu();
        let init = Init::new(42, &device);
        let model = Sequential::new()
            .then(Dropout::new(0.1, &init))
            .then(Linear::new(64 / divisor, 256 / divisor, &init))
            .then(Relu)
            .then(Dropout::new(0.4, &init))
            .then(Linear::new(256 / divisor, 128 / divisor, &init))
            .then(Relu)
            .then(Dropout::new(0.4, &init))
            .then(Linear::new(128 / divisor, 10, &init));
        let optimiser = Adam::new(1e-3).decoupled_weight_decay(1e-2).of(&model);
        let x = Tensor::rand([batch, 64 / divisor], Key::new(0), &device);
        let y = Tensor::zeros([batch], (&device, DType::I32));
        eval([&x, &y]).expect("random numbers can be drawn");
        Setting { model, optimiser, x, y }
    }

    fn loss(&self) -> Tensor {
        CrossEntropy::new().label_smoothing(0.1).loss(&self.model.forward(&self.x), &self.y)
    }
}

fn host(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("digits");
    let setting = Setting::new(1, 64);
    let parameters: Vec<Tensor> = setting.model.parameters().iter().map(|(_, p)| p.tensor()).collect();
    group.bench_function("record forward", |b| b.iter(|| black_box(setting.loss())));
    group.bench_function("record forward and gradients", |b| {
        b.iter(|| black_box(grad(&setting.loss(), &parameters).expect("every parameter is reached")));
    });
    drop(parameters);
    for (name, divisor, batch) in [("step", 1, 64), ("step with next to no arithmetic", 32, 1)] {
        let mut setting = Setting::new(divisor, batch);
        group.bench_function(BenchmarkId::new(name, batch), |b| {
            b.iter(|| {
                let loss = setting.loss();
                setting.optimiser.step(&loss).expect("the step can be taken");
                loss
            });
        });
    }
    group.finish();
}

criterion_group!(benches, host);
criterion_main!(benches);
