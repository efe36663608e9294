//! Mixed precision: layers in f16 on parameters of f32, with a scaled loss; beside the same in f32.

#[allow(dead_code)]
#[path = "support/demos.rs"]
mod demos;
#[path = "support/devices.rs"]
mod devices;

use demos::digits;
use devices::{devices, has, own_devices, own_tunings};
use gradus::ir::op::Op;
use gradus::nn::{
    Bilinear, GaussianNll, GroupNorm, InstanceNorm, KlDivergence, MultiMargin, NllLoss, PRelu, Residual, RnnCell,
    TripletMargin, bce_with_logits, weight_norm, weighted_mse_loss,
};
use gradus::prelude::*;
use gradus::tensor::graph::NodeRef;
use gradus::train::{EpochRecord, batches_from, save_weights};
use gradus::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

fn halves() -> impl Iterator<Item = Device> {
    devices().into_iter().filter(|device| has(device, DType::F16))
}

/// A network of digits.
#[derive(Module)]
struct Net {
    layers: Sequential,
    /// What it makes of the 64 pixels of an image.
    #[module(skip)]
    shape: Vec<usize>,
}

impl Net {
    fn convolutional(device: &Device) -> Net {
        let init = Init::new(3, device);
        let layers = Sequential::new()
            .then(Conv2d::new(1, 8, 3, &init).with(Conv::new().padding(1)).without_bias())
            .then(BatchNorm2d::new(8, &init))
            .then(Relu)
            .then(MaxPool(Pool::new(2)))
            .then(Flatten)
            .then(Linear::new(8 * 16, 10, &init));
        Net { layers, shape: vec![1, 8, 8] }
    }

    fn transformer(device: &Device) -> Net {
        let init = Init::new(3, device);
        let layers = Sequential::new()
            .then(Linear::new(8, 16, &init))
            .then(TransformerEncoderLayer::new(16, 2, 32, &init).dropout(0.0, &init))
            .then(Flatten)
            .then(Linear::new(8 * 16, 10, &init));
        Net { layers, shape: vec![8, 8] }
    }

    fn loss(&self, [x, y]: &[Tensor; 2]) -> Tensor {
        cross_entropy(&self.forward(x), y)
    }
}

impl Layer for Net {
    fn forward(&self, x: &Tensor) -> Tensor {
        let shape = [&x.shape()[..1], &self.shape[..]].concat();
        self.layers.forward(&x.reshape(shape))
    }
}

const NETS: [fn(&Device) -> Net; 2] = [Net::convolutional, Net::transformer];

fn weights(model: &impl Module) -> Vec<Vec<f32>> {
    model.state_dict().values().map(|tensor| tensor.to_dtype(DType::F32).to_vec().unwrap()).collect()
}

/// The losses of some steps, in mixed precision or not.
fn losses(device: &Device, net: fn(&Device) -> Net, mixed: bool, steps: usize) -> Result<Vec<f32>> {
    let model = net(device);
    let mut optimiser = Adam::new(1e-2).of(&model);
    if mixed {
        optimiser.scale_losses(LossScale::dynamic().initial(1024.0));
    }
    let data = digits(device, DType::F32)?;
    let mut losses = Vec::new();
    for batch in data.batches(64).shuffled(Key::new(1)).take(steps) {
        let loss = if mixed { autocast(|| model.loss(&batch)) } else { model.loss(&batch) };
        assert_eq!(loss.dtype(), DType::F32);
        optimiser.step(&loss)?;
        losses.push(loss.item::<f32>()?);
    }
    assert_eq!(optimiser.skipped_steps()?, 0);
    Ok(losses)
}

#[test]
fn losses_are_near_those_of_f32() -> Result<()> {
    for device in halves() {
        for (which, net) in NETS.into_iter().enumerate() {
            let [wide, mixed] = [false, true].map(|mixed| losses(&device, net, mixed, 25));
            let (wide, mixed) = (wide?, mixed?);
            assert!(wide != mixed, "something is computed in f16");
            for (step, (a, b)) in wide.iter().zip(&mixed).enumerate() {
                assert!((a - b).abs() < 0.01 * (step + 1) as f32, "{device}, net {which}, step {step}: {a} and {b}");
            }
            let last = |losses: &[f32]| losses[20..].iter().sum::<f32>() / 5.0;
            assert!(last(&wide) < 0.6 * wide[0] && last(&mixed) < 0.6 * mixed[0], "{wide:?} {mixed:?}");
        }
    }
    Ok(())
}

/// The dtypes of all matrix products and attentions that lead to some tensors.
fn products(of: &[Tensor]) -> BTreeSet<String> {
    let mut stack: Vec<NodeRef> = of.iter().map(|tensor| NodeRef::new(tensor).unwrap()).collect();
    let (mut seen, mut dtypes) = (BTreeSet::new(), BTreeSet::new());
    while let Some(node) = stack.pop() {
        if seen.insert(node.id()) {
            let operands = node.operands().unwrap();
            if matches!(node.op(), Op::Contract { .. } | Op::Attention { .. }) {
                let all = operands.iter().chain([&node]).map(|node| node.ty().dtype);
                dtypes.extend(all.filter(|dtype| dtype.is_float()).map(|dtype| dtype.to_string()));
            }
            stack.extend(operands);
        }
    }
    dtypes
}

#[test]
fn products_forward_and_backward_are_of_f16() -> Result<()> {
    let device = Device::cpu();
    let [x, y] = digits(&device, DType::F32)?.tensors().each_ref().map(|tensor| tensor.slice(0, ..8));
    for model in NETS.map(|net| net(&device)) {
        let gradients = |loss: &Tensor| {
            let parameters: Vec<Tensor> = model.parameters().iter().map(|(_, p)| p.tensor()).collect();
            grad(loss, &parameters)
        };
        let batch = [x.clone(), y.clone()];
        let (wide, mixed) = (gradients(&model.loss(&batch))?, gradients(&autocast(|| model.loss(&batch)))?);
        assert_eq!(products(&wide), ["f32".to_string()].into());
        assert_eq!(products(&mixed), ["f16".to_string()].into());
        assert!(mixed.iter().all(|gradient| gradient.dtype() == DType::F32));
    }
    Ok(())
}

#[test]
fn an_overflow_is_skipped_and_counted() -> Result<()> {
    for device in halves() {
        let layer = Linear::from_tensors(Tensor::new([[1.0, -2.0]], &device), None);
        let mut optimiser = Adam::new(0.5).of(&layer);
        optimiser.scale_losses(LossScale::dynamic().initial(2f64.powi(17)).interval(3));
        let x = Tensor::new([[1.0, 0.5]], &device);
        let mut step = |factor: f64| {
            let loss = autocast(|| layer.forward(&x).widened().sum(..) * factor);
            let before = weights(&layer);
            optimiser.step(&loss).unwrap();
            let moved = weights(&layer) != before;
            (moved, optimiser.skipped_steps().unwrap(), optimiser.loss_scale().unwrap().log2())
        };
        // 2¹⁶ and 2¹⁷ are beyond f16.
        let found: Vec<_> = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 1e9, 0.25].map(&mut step).into();
        let expected = [
            (false, 1, 16.0),
            (false, 2, 15.0),
            (true, 2, 15.0),
            (true, 2, 15.0),
            (true, 2, 16.0),
            (false, 3, 15.0),
            (true, 3, 15.0),
            (false, 4, 14.0),
            (true, 4, 14.0),
        ];
        assert_eq!(found, expected, "{device}");
        // Moments were left out, too: those of Adam are of finite gradients alone.
        assert!(optimiser.state().tensors.iter().all(|(_, tensor)| {
            tensor.to_dtype(DType::F32).to_vec::<f32>().unwrap().iter().all(|value| value.is_finite())
        }));
    }
    Ok(())
}

/// f16 ends at 6·10⁻⁸.
#[test]
fn small_gradients_survive_where_losses_are_scaled() -> Result<()> {
    for device in halves() {
        let layer = Linear::from_tensors(Tensor::new([[1.0]], &device), None);
        let mut optimiser = Sgd::new(1.0).of(&layer);
        let loss = || autocast(|| layer.forward(&Tensor::ones([1, 1], &device)).widened().sum(..) * 1e-9);
        assert_eq!(optimiser.gradients(&loss())?[0].item::<f32>()?, 0.0);
        optimiser.scale_losses(LossScale::fixed(65536.0));
        let gradient = optimiser.gradients(&loss())?[0].item::<f32>()?;
        assert!((gradient - 1e-9).abs() < 1e-12, "{gradient}");
        optimiser.accumulate(&loss())?;
        optimiser.accumulate(&loss())?;
        optimiser.step_accumulated()?;
        assert_eq!(optimiser.loss_scale()?, 65536.0);
    }
    Ok(())
}

#[test]
fn settings_that_make_no_sense_are_errors_of_the_step() {
    let layer = Linear::new(1, 1, &Init::new(0, &Device::cpu()));
    let dynamic = LossScale::dynamic;
    let wrong = [
        dynamic().initial(0.0),
        dynamic().initial(f64::NAN),
        LossScale::fixed(1e30),
        dynamic().growth(0.5),
        dynamic().growth(f64::INFINITY),
        dynamic().backoff(0.0),
        dynamic().backoff(2.0),
    ];
    for scale in wrong {
        let mut optimiser = Sgd::new(1.0).of(&layer);
        optimiser.scale_losses(scale);
        let error = optimiser.step(&layer.weight.tensor().sum(..)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Argument { .. }), "{error}");
    }
}

/// The scale and the number of good steps are no part of a plan.
#[test]
fn steps_make_no_plans() -> Result<()> {
    for net in NETS {
        for device in own_devices(None).into_iter().filter(|device| has(device, DType::F16)) {
            let model = net(&device);
            let mut optimiser = Adam::new(1e-2).of(&model);
            optimiser.scale_losses(LossScale::dynamic().initial(2f64.powi(24)).interval(2));
            let batch = digits(&device, DType::F32)?.tensors().each_ref().map(|tensor| tensor.slice(0, ..16));
            eval(&batch)?;
            let mut plans = Vec::new();
            for _ in 0..25 {
                let loss = autocast(|| model.loss(&batch));
                optimiser.step(&loss)?;
                plans.push(device.stats().plans);
            }
            assert!(plans.iter().all(|&made| made == plans[0]), "{device}: {plans:?}");
            let skipped = optimiser.skipped_steps()?;
            assert!((2..20).contains(&skipped), "{skipped}");
        }
    }
    Ok(())
}

#[test]
fn a_run_that_goes_on_has_equal_bits() {
    let device = Device::cpu();
    let fit = |folder: &std::path::Path, epochs: &[u64]| -> (Vec<Vec<f32>>, Vec<EpochRecord>) {
        let mut end = None;
        for &epochs in epochs {
            let model = &Net::convolutional(&device);
            let data = digits(&device, DType::F32).unwrap().tensors().each_ref().map(|tensor| tensor.slice(0, ..160));
            // One batch overflows, whatever the scale.
            let source = batches_from(10, |epoch, batch| {
                let [x, y] = data.each_ref().map(|t| t.slice(0, 16 * batch as isize..16 * (batch as isize + 1)));
                Ok([if (epoch, batch) == (2, 4) { x * 1e6 } else { x }, y])
            });
            let mut trainer = Trainer::new(model, Adam::new(1e-2).of(model), Net::loss)
                .mixed_precision(LossScale::dynamic().initial(2f64.powi(22)).interval(7))
                .metric("accuracy", |model, [x, y]| model.forward(x).argmax(1).eq(y).to_dtype(DType::F32).mean(..))
                .accumulate(2)
                .epochs(epochs)
                .checkpoints(Checkpoints::new(folder).resume(true))
                .quiet();
            trainer.fit(&source, Some(&source)).unwrap();
            assert!(trainer.optimiser().loss_scale().unwrap() < 2f64.powi(22));
            save_weights(model, folder.join("model.safetensors")).unwrap();
            end = Some((weights(model), trainer.history().epochs.clone()));
        }
        end.unwrap()
    };
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (whole, parts) = (fit(whole.path(), &[4]), fit(parts.path(), &[1, 3, 4]));
    assert!(whole == parts, "{:?} {:?}", whole.1, parts.1);
    let skipped: Vec<u64> = whole.1.iter().map(|epoch| epoch.skipped).collect();
    assert!(skipped[0] > 1 && skipped[2] >= 1, "{skipped:?}");
    assert!(whole.1[3].train_loss < whole.1[0].train_loss);
}

#[test]
fn a_device_without_f16_is_an_error() -> Result<()> {
    for device in own_tunings().into_iter().filter(|device| !has(device, DType::F16)) {
        let layer = Linear::new(2, 1, &Init::new(0, &device));
        let mut optimiser = Sgd::new(1.0).of(&layer);
        optimiser.scale_losses(LossScale::dynamic());
        let before = weights(&layer);
        let loss = autocast(|| layer.forward(&Tensor::ones([3, 2], &device)).widened().mean(..));
        let error: Error = optimiser.step(&loss).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoDType { .. }), "{error}");
        assert_eq!(weights(&layer), before);
    }
    Ok(())
}

/// Each takes inputs of f32, and what it gives leads to its parameters in f32.
#[test]
fn every_kind_of_layer_computes_in_f16() -> Result<()> {
    let device = Device::cpu();
    let init = Init::new(5, &device);
    let x = |shape: &[usize]| Tensor::randn(shape, Key::new(2), &device);
    let check = |name: &str, parameters: Vec<(String, gradus::nn::Param)>, y: Tensor| {
        assert_eq!(y.dtype(), DType::F16, "{name}: {y}");
        let masters: Vec<Tensor> = parameters.iter().map(|(_, p)| p.tensor()).collect();
        for gradient in grad(&y.widened().square().sum(..), &masters).unwrap() {
            assert_eq!(gradient.dtype(), DType::F32, "{name}");
            let values = gradient.to_vec::<f32>().unwrap();
            assert!(values.iter().all(|value| value.is_finite()) && values.iter().any(|&v| v != 0.0), "{name}");
        }
    };
    let layers: Vec<(&str, Box<dyn Layer>, Tensor)> = vec![
        ("linear", Box::new(Linear::new(6, 4, &init)), x(&[5, 6])),
        ("conv", Box::new(Conv1d::new(6, 4, 3, &init)), x(&[2, 6, 7])),
        ("transposed conv", Box::new(ConvTranspose1d::new(6, 4, 3, &init)), x(&[2, 6, 7])),
        ("attention", Box::new(MultiHeadAttention::new(6, 2, &init)), x(&[2, 5, 6])),
        ("embedding", Box::new(Embedding::new(4, 3, &init)), Tensor::arange(4, &device)),
        ("prelu", Box::new(PRelu::new(&init)), x(&[9])),
        ("residual", Box::new(Residual(Linear::new(6, 6, &init))), x(&[5, 6])),
        ("encoder", Box::new(TransformerEncoderLayer::new(6, 2, 8, &init).pre_norm()), x(&[2, 5, 6])),
        ("rnn", Box::new(Rnn::new(6, 4, &init)), x(&[2, 5, 6])),
        ("lstm", Box::new(Lstm::new(6, 4, &init).bidirectional(&init)), x(&[2, 5, 6])),
        ("gru", Box::new(Gru::new(6, 4, &init)), x(&[2, 5, 6])),
        ("swiglu", Box::new(SwiGlu::new(6, 8, &init)), x(&[5, 6])),
    ];
    for (name, layer, x) in &layers {
        check(name, layer.parameters(), autocast(|| layer.forward(x)));
    }
    let bilinear = Bilinear::new(3, 4, 5, &init);
    check("bilinear", bilinear.parameters(), autocast(|| bilinear.combine(&x(&[2, 3]), &x(&[2, 4]))));
    let cell = RnnCell::new(3, 4, &init);
    check("cell", cell.parameters(), autocast(|| cell.step(&x(&[2, 3]), &x(&[2, 4]))));
    let normed = Linear::new(6, 4, &init);
    weight_norm(&normed.weight)?;
    check("weight norm", normed.parameters(), autocast(|| normed.forward(&x(&[5, 6]))));
    Ok(())
}

/// A weight that f16 does not know takes part as it is, and inputs of f32 stay so.
#[test]
fn normalisations_are_in_f32() -> Result<()> {
    let device = Device::cpu();
    let init = Init::new(5, &device);
    let (batch, instance) = (BatchNorm::new(4, &init), InstanceNorm::affine(4, &init));
    let (group, layer, rms) = (GroupNorm::new(2, 4, &init), LayerNorm::new(4, &init), RmsNorm::new(4, &init));
    let layers: [&dyn Layer; 5] = [&batch, &instance, &group, &layer, &rms];
    let x = Tensor::randn([3, 4, 4], Key::new(1), &device);
    for layer in layers {
        for (_, parameter) in layer.parameters() {
            parameter.set(parameter.tensor() + 1.0 / 8192.0)?;
        }
        let (wide, mixed) = (layer.forward(&x), autocast(|| layer.forward(&x)));
        assert_eq!(wide.to_vec::<f32>()?, mixed.to_vec::<f32>()?);
        let half = autocast(|| layer.forward(&x.to_dtype(DType::F16)));
        assert_eq!(half.dtype(), DType::F16);
        let expected = layer.forward(&x.to_dtype(DType::F16).to_dtype(DType::F32)).to_dtype(DType::F16);
        assert_eq!(half.to_vec::<gradus::f16>()?, expected.to_vec::<gradus::f16>()?);
    }
    assert!(batch.buffers().iter().all(|(_, buffer)| buffer.tensor().dtype() != DType::F16));
    Ok(())
}

/// Predictions of f16 meet targets of f32.
#[test]
fn losses_are_of_f32() {
    let device = Device::cpu();
    let wide = Tensor::randn([6, 3], Key::new(1), &device);
    let narrow = wide.to_dtype(DType::F16);
    let target = Tensor::randn([6, 3], Key::new(2), &device).sigmoid();
    let classes = Tensor::arange(6, &device) % 3;
    let signs = Tensor::new([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], &device);
    type Loss<'a> = (&'a str, &'a dyn Fn(&Tensor) -> Tensor);
    let losses: [Loss; 11] = [
        ("mse", &|x| mse_loss(x, &target)),
        ("weighted mse", &|x| weighted_mse_loss(x, &target, &target)),
        ("bce", &|x| bce_with_logits(x, &target)),
        ("cross-entropy", &|x| cross_entropy(x, &classes)),
        ("soft cross-entropy", &|x| cross_entropy(x, &target)),
        ("nll", &|x| NllLoss::new().loss(&x.log_softmax(1), &classes)),
        ("kl", &|x| KlDivergence::new().loss(&x.log_softmax(1), &target)),
        ("gaussian", &|x| GaussianNll::new().loss(x, &target, &target)),
        ("multi-margin", &|x| MultiMargin::new().loss(x, &classes)),
        ("cosine", &|x| gradus::nn::CosineEmbedding::new().loss(x, &target, &signs)),
        ("triplet", &|x| TripletMargin::new().loss(x, &target, &(&target * -1.0))),
    ];
    for (name, loss) in losses {
        let mixed = autocast(|| loss(&narrow));
        assert_eq!(mixed.dtype(), DType::F32, "{name}: {mixed}");
        let [a, b] = [mixed, loss(&wide)].map(|loss| loss.item::<f32>().unwrap());
        assert!((a - b).abs() < 3e-3 * b.abs().max(1.0), "{name}: {a} and {b}");
    }
}
