//! Modules as a whole: names as in PyTorch, gradients and steps of every layer, running statistics, frozen parameters, states and
//! summaries.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, own_devices};
use gradus::data::{FloatStorage, Safetensors};
use gradus::nn::*;
use gradus::tensor::graph::NodeRef;
use gradus::train::{Adam, Optimiser, Sgd};
use gradus::{
    Attention, Conv, DType, Device, ErrorKind, Key, Pool, Result, Tensor, compile, eval, grad, gradcheck, vmap,
};
use std::collections::{BTreeMap, HashSet};

fn init(device: &Device) -> Init {
    Init::new(5, device)
}

fn normal<const N: usize>(shape: [usize; N], device: &Device) -> Tensor {
    Tensor::randn(shape, Key::new(shape.iter().sum::<usize>() as u64), device)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec().unwrap()
}

#[track_caller]
fn near(got: &[f32], expected: &[f32], tolerance: f32) {
    let same = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance * b.abs().max(1.0);
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(same), "{got:?}, expected {expected:?}");
}

/// A layer by name, and a loss that all its parameters are reached by.
struct Made {
    name: &'static str,
    module: Box<dyn Module>,
    loss: Box<dyn Fn() -> Tensor>,
    /// What PyTorch's `state_dict` of the same layer has.
    state: &'static str,
}

/// A number that no symmetry makes constant.
fn weighted(y: &Tensor) -> Tensor {
    let weights = Tensor::rand(y.shape(), Key::new(9), y) + 0.5;
    (y.sin() * weights).sum(..)
}

fn of<L: Layer + Clone + 'static>(name: &'static str, layer: L, x: Tensor, state: &'static str) -> Made {
    let module = layer.clone();
    Made { name, module: Box::new(module), loss: Box::new(move || weighted(&layer.forward(&x))), state }
}

fn with<M: Module + Clone + 'static>(
    name: &'static str,
    module: M,
    loss: impl Fn(&M) -> Tensor + 'static,
    state: &'static str,
) -> Made {
    let own = module.clone();
    Made { name, module: Box::new(module), loss: Box::new(move || loss(&own)), state }
}

const ATTENTION: &str = "in_proj_weight [12, 4] in_proj_bias [12] out_proj.weight [4, 4] out_proj.bias [4]";
const ENCODER_LAYER: &str = "\
    self_attn.in_proj_weight [12, 4] self_attn.in_proj_bias [12] self_attn.out_proj.weight [4, 4] \
    self_attn.out_proj.bias [4] linear1.weight [6, 4] linear1.bias [6] linear2.weight [4, 6] linear2.bias [4] \
    norm1.weight [4] norm1.bias [4] norm2.weight [4] norm2.bias [4]";
const DECODER_LAYER: &str = "\
    self_attn.in_proj_weight [12, 4] self_attn.in_proj_bias [12] self_attn.out_proj.weight [4, 4] \
    self_attn.out_proj.bias [4] multihead_attn.in_proj_weight [12, 4] multihead_attn.in_proj_bias [12] \
    multihead_attn.out_proj.weight [4, 4] multihead_attn.out_proj.bias [4] linear1.weight [6, 4] linear1.bias [6] \
    linear2.weight [4, 6] linear2.bias [4] norm1.weight [4] norm1.bias [4] norm2.weight [4] norm2.bias [4] \
    norm3.weight [4] norm3.bias [4]";
const LSTM: &str = "\
    weight_ih_l0 [16, 3] weight_hh_l0 [16, 4] bias_ih_l0 [16] bias_hh_l0 [16] \
    weight_ih_l0_reverse [16, 3] weight_hh_l0_reverse [16, 4] bias_ih_l0_reverse [16] bias_hh_l0_reverse [16] \
    weight_ih_l1 [16, 8] weight_hh_l1 [16, 4] bias_ih_l1 [16] bias_hh_l1 [16] \
    weight_ih_l1_reverse [16, 8] weight_hh_l1_reverse [16, 4] bias_ih_l1_reverse [16] bias_hh_l1_reverse [16]";

fn weight_normed(layer: Linear) -> Linear {
    weight_norm(&layer.weight).unwrap();
    layer
}

fn spectral_normed(layer: Conv1d, init: &Init) -> Conv1d {
    spectral_norm(&layer.weight, init).unwrap();
    layer
}

/// Every layer with parameters; those with kernels that others do not have come first.
fn layers(device: &Device) -> Vec<Made> {
    let init = init(device);
    let (rows, sequence) = (normal([6, 3], device), normal([2, 5, 3], device));
    let (wide, memory) = (normal([2, 5, 4], device), normal([2, 3, 4], device));
    let (images, signal) = (normal([2, 4, 5, 6], device), normal([2, 4, 7], device));
    let tokens = Tensor::new([[0, 2, 1], [1, 4, 3]], device);
    let (hidden, cell) = (normal([6, 4], device), normal([4, 6], device).t());
    let pair = normal([6, 2], device);
    let encoder = |init: &Init| TransformerEncoderLayer::new(4, 2, 6, init);
    let stack = (0..2).map(|_| encoder(&init).pre_norm()).collect();
    let stack = TransformerEncoder { layers: stack, norm: Some(LayerNorm::new(4, &init)) };
    vec![
        of(
            "BatchNorm",
            BatchNorm::new(4, &init),
            images.clone(),
            "weight [4] bias [4] running_mean [4] running_var [4] num_batches_tracked []",
        ),
        of("Embedding", Embedding::with_padding(5, 3, 2, &init), tokens, "weight [5, 3]"),
        of(
            "Lstm",
            Lstm::new(3, 4, &init).layers(2, &init).bidirectional(&init).dropout(0.3, &init),
            sequence.clone(),
            LSTM,
        ),
        of(
            "ConvTranspose2d",
            ConvTranspose2d::grouped(4, 6, 3, 2, &init),
            images.clone(),
            "weight [4, 3, 3, 3] bias [6]",
        ),
        with(
            "TransformerDecoderLayer",
            TransformerDecoderLayer::new(4, 2, 6, &init),
            {
                let wide = wide.clone();
                move |layer| weighted(&layer.decode(&wide, &memory, &Attention::new().causal(), &Attention::new()))
            },
            DECODER_LAYER,
        ),
        of("PRelu", PRelu::per_channel(4, &init), images.clone(), "weight [4]"),
        of(
            "Linear, weight norm",
            weight_normed(Linear::new(3, 5, &init)),
            rows.clone(),
            "bias [5] parametrizations.weight.original0 [5, 1] parametrizations.weight.original1 [5, 3]",
        ),
        of(
            "Conv1d, spectral norm",
            spectral_normed(Conv1d::new(4, 6, 3, &init), &init),
            signal.clone(),
            "bias [6] parametrizations.weight.original [6, 4, 3] parametrizations.weight.0._u [6] \
             parametrizations.weight.0._v [12]",
        ),
        of("Linear", Linear::new(3, 5, &init), rows.clone(), "weight [5, 3] bias [5]"),
        with(
            "Bilinear",
            Bilinear::new(3, 2, 5, &init),
            {
                let rows = rows.clone();
                move |layer| weighted(&layer.combine(&rows, &pair))
            },
            "weight [5, 3, 2] bias [5]",
        ),
        of("Conv1d", Conv1d::new(4, 6, 3, &init), signal.clone(), "weight [6, 4, 3] bias [6]"),
        of(
            "Conv2d",
            Conv2d::grouped(4, 6, [3, 2], 2, &init).with(Conv::new().padding(1)),
            images.clone(),
            "weight [6, 2, 3, 2] bias [6]",
        ),
        of("ConvTranspose1d", ConvTranspose1d::new(4, 6, 3, &init), signal.clone(), "weight [4, 6, 3] bias [6]"),
        of("LayerNorm", LayerNorm::new([5, 6], &init), images.clone(), "weight [5, 6] bias [5, 6]"),
        of("RmsNorm", RmsNorm::new(6, &init), images.clone(), "weight [6]"),
        of("GroupNorm", GroupNorm::new(2, 4, &init), images.clone(), "weight [4] bias [4]"),
        of("InstanceNorm", InstanceNorm::affine(4, &init), images, "weight [4] bias [4]"),
        of(
            "Rnn",
            Rnn::new(3, 4, &init),
            sequence.clone(),
            "weight_ih_l0 [4, 3] weight_hh_l0 [4, 4] bias_ih_l0 [4] bias_hh_l0 [4]",
        ),
        of(
            "Gru",
            Gru::new(3, 4, &init),
            sequence,
            "weight_ih_l0 [12, 3] weight_hh_l0 [12, 4] bias_ih_l0 [12] bias_hh_l0 [12]",
        ),
        with(
            "RnnCell",
            RnnCell::new(3, 4, &init),
            {
                let (rows, hidden) = (rows.clone(), hidden.clone());
                move |cell| weighted(&cell.step(&rows, &hidden))
            },
            "weight_ih [4, 3] weight_hh [4, 4] bias_ih [4] bias_hh [4]",
        ),
        with(
            "LstmCell",
            LstmCell::new(3, 4, &init),
            {
                let (rows, hidden) = (rows.clone(), hidden.clone());
                move |layer| {
                    let (hidden, cell) = layer.step(&rows, &hidden, &cell);
                    weighted(&hidden) + weighted(&cell)
                }
            },
            "weight_ih [16, 3] weight_hh [16, 4] bias_ih [16] bias_hh [16]",
        ),
        with(
            "GruCell",
            GruCell::new(3, 4, &init),
            move |cell| weighted(&cell.step(&rows, &hidden)),
            "weight_ih [12, 3] weight_hh [12, 4] bias_ih [12] bias_hh [12]",
        ),
        of("MultiHeadAttention", MultiHeadAttention::new(4, 2, &init).dropout(0.2, &init), wide.clone(), ATTENTION),
        with(
            "MultiHeadAttention, across",
            MultiHeadAttention::across(4, 2, [3, 5], &init),
            {
                let (wide, keys, values) = (wide.clone(), normal([2, 6, 3], device), normal([2, 6, 5], device));
                move |layer| weighted(&layer.attend_with(&wide, &keys, &values, &Attention::new()))
            },
            "q_proj_weight [4, 4] k_proj_weight [4, 3] v_proj_weight [4, 5] in_proj_bias [12] \
             out_proj.weight [4, 4] out_proj.bias [4]",
        ),
        of("TransformerEncoderLayer", encoder(&init), wide.clone(), ENCODER_LAYER),
        of("TransformerEncoder", stack, wide.clone(), ""),
        with(
            "Transformer",
            Transformer::new(4, 2, [1, 1], 6, &init),
            {
                let wide = wide.clone();
                move |model| weighted(&model.transform(&wide, &wide.slice(1, ..3)))
            },
            "",
        ),
        of(
            "GroupedQueryAttention",
            GroupedQueryAttention::new(4, 2, 1, &init).rotary(Rotary::new()),
            wide.clone(),
            "q_proj.weight [4, 4] k_proj.weight [2, 4] v_proj.weight [2, 4] o_proj.weight [4, 4]",
        ),
        of(
            "SwiGlu",
            SwiGlu::new(4, 6, &init),
            wide,
            "gate_proj.weight [6, 4] up_proj.weight [6, 4] down_proj.weight [4, 6]",
        ),
    ]
}

#[test]
fn paths_and_shapes_are_those_of_pytorch() {
    let device = Device::cpu();
    for Made { name, module, state, .. } in layers(&device) {
        let prefixed = |prefix: &str, text: &str| -> Vec<String> {
            let words: Vec<&str> = text.split(' ').collect();
            let starts: Vec<usize> =
                (0..words.len()).filter(|&i| words[i].starts_with(|c: char| c.is_alphabetic())).collect();
            let ends = starts.iter().skip(1).copied().chain([words.len()]);
            starts.iter().zip(ends).map(|(&start, end)| format!("{prefix}{}", words[start..end].join(" "))).collect()
        };
        let mut expected = match name {
            "TransformerEncoder" => [0, 1]
                .iter()
                .flat_map(|i| prefixed(&format!("layers.{i}."), ENCODER_LAYER))
                .chain(prefixed("norm.", "weight [4] bias [4]"))
                .collect(),
            "Transformer" => [
                prefixed("encoder.layers.0.", ENCODER_LAYER),
                prefixed("encoder.norm.", "weight [4] bias [4]"),
                prefixed("decoder.layers.0.", DECODER_LAYER),
                prefixed("decoder.norm.", "weight [4] bias [4]"),
            ]
            .concat(),
            _ => prefixed("", state),
        };
        expected.sort();
        let got = module.state_dict();
        let mut got: Vec<String> = got.iter().map(|(path, tensor)| format!("{path} {}", tensor.shape())).collect();
        got.sort();
        assert_eq!(got, expected, "{name}");
    }
}

/// A step of each layer's parameters; on a GPU of those layers with kernels of their own.
#[test]
fn every_parameter_of_every_layer_moves_after_a_step() {
    for device in devices() {
        let some = if device.name().starts_with("cpu") { usize::MAX } else { 6 };
        for Made { name, module, loss, .. } in layers(&device).into_iter().take(some) {
            let before: Vec<(String, Vec<f32>)> =
                module.parameters().into_iter().map(|(path, p)| (path, values(&p.tensor()))).collect();
            let mut optimiser = Sgd::new(0.1).of(&*module);
            optimiser.step(&loss()).unwrap_or_else(|error| panic!("{name} on {device}: {error}"));
            assert!(!before.is_empty(), "{name}");
            for ((path, before), (_, parameter)) in before.iter().zip(module.parameters()) {
                let after = values(&parameter.tensor());
                assert!(after.iter().all(|x| x.is_finite()), "{name}, {path}: {after:?}");
                // The bias of keys shifts all logits of a query alike, and so has a gradient of 0; it is a part here.
                assert_ne!(*before, after, "{name}: {path} did not move on {device}");
            }
        }
    }
}

#[test]
fn gradients_of_layers_are_those_of_finite_differences() -> Result<()> {
    let device = Device::cpu();
    let init = init(&device);
    let x = normal([2, 4, 4], &device) * 0.5;
    let layers: Vec<(&str, Box<dyn Layer>)> = vec![
        ("batch norm", Box::new(BatchNorm::new(4, &init))),
        ("group norm", Box::new(GroupNorm::new(2, 4, &init))),
        ("instance norm", Box::new(InstanceNorm::affine(4, &init))),
        ("grouped queries", Box::new(GroupedQueryAttention::new(4, 2, 1, &init).rotary(Rotary::new()))),
        ("encoder", Box::new(TransformerEncoderLayer::new(4, 2, 6, &init).activation(Activation::Gelu))),
        ("LSTM", Box::new(Lstm::new(4, 3, &init).bidirectional(&init))),
        ("GRU", Box::new(Gru::new(4, 3, &init))),
        ("SwiGLU", Box::new(SwiGlu::new(4, 6, &init))),
        ("residual", Box::new(Residual(Linear::new(4, 4, &init)))),
    ];
    for (name, layer) in layers {
        if name != "batch norm" {
            layer.eval();
        }
        let result = gradcheck(|x| layer.forward(&x[0]), std::slice::from_ref(&x), 1);
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let (p, t) = (Tensor::new([0.2, 0.6, 0.9], &device), Tensor::new([0.0, 1.0, 0.3], &device));
    gradcheck(|x| bce_loss(&x[0], &x[1]), &[p.clone(), t.clone()], 2)?;
    gradcheck(|x| FocalLoss::new().gamma(1.5).loss(&x[0], &x[1]), &[p.clone(), t.clone()], 2)?;
    gradcheck(|x| GaussianNll::new().loss(&x[0], &x[1], &x[2]), &[p.clone(), t.clone(), p.clone() + 0.5], 2)?;
    gradcheck(|x| KlDivergence::new().loss(&x[0], &x[1]), &[p.log(), p.clone()], 2)?;
    gradcheck(|x| PoissonNll::new().of_rates().full().loss(&x[0], &t), &[p], 2)
}

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
            if step == 3 {
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

/// The multiply-adds of what gradients read.
fn work(gradients: &[Tensor]) -> usize {
    let mut stack: Vec<NodeRef> = gradients.iter().map(|gradient| NodeRef::new(gradient).unwrap()).collect();
    let (mut seen, mut total) = (HashSet::new(), 0);
    while let Some(node) = stack.pop() {
        if seen.insert(node.id()) {
            total += node.multiply_adds();
            stack.extend(node.operands().unwrap_or_default());
        }
    }
    total
}

#[test]
fn frozen_parameters_stay_and_cost_nothing() -> Result<()> {
    for device in devices() {
        let init = init(&device);
        let model = Sequential::new()
            .then(Linear::new(8, 16, &init))
            .then(Tanh)
            .then(Linear::new(16, 16, &init))
            .then(Tanh)
            .then(Linear::new(16, 4, &init));
        let x = normal([32, 8], &device);
        let cost = || {
            let targets: Vec<Tensor> = model.trainable_parameters().iter().map(|(_, p)| p.tensor()).collect();
            Ok::<_, gradus::Error>(work(&grad(&weighted(&model.forward(&x)), &targets)?))
        };
        let products = 32 * (8 * 16 + 16 * 16 + 16 * 4);
        // Each weight's gradient, and what leads back to each layer but the first.
        assert_eq!(cost()?, products + products + 32 * (16 * 16 + 16 * 4), "{device}");
        assert_eq!(model.freeze_matching("0.*")? + model.freeze_matching("2.**")?, 4);
        // The last weight's gradient alone.
        assert_eq!(cost()?, products + 32 * 16 * 4, "{device}");
        assert_eq!(model.num_parameters(), 8 * 16 + 16 + 16 * 16 + 16 + 16 * 4 + 4);
        let before: Vec<Vec<f32>> = model.parameters().iter().map(|(_, p)| values(&p.tensor())).collect();
        let mut optimiser: Optimiser = Adam::new(0.1).of(&model);
        optimiser.step(&weighted(&model.forward(&x)))?;
        let moved: Vec<bool> =
            model.parameters().iter().zip(&before).map(|((_, p), before)| values(&p.tensor()) != *before).collect();
        assert_eq!(moved, [false, false, false, false, true, true], "{device}");
        assert!(grad(&weighted(&model.forward(&x)), [&model.parameters()[0].1.cell().tensor()]).is_err());
        model.unfreeze_matching("*.weight")?;
        assert_eq!(model.trainable_parameters().len(), 4);
        let error = model.freeze_matching("head.**").unwrap_err().to_string();
        assert!(error.contains("head.**"), "{error}");
    }
    Ok(())
}

#[derive(Module)]
struct Tied {
    encoder: Linear,
    norm: BatchNorm,
    decoder: Linear,
}

impl Tied {
    fn new(seed: u64, device: &Device, dtype: DType) -> Tied {
        let init = Init::new(seed, device).dtype(dtype);
        let encoder = Linear::without_bias(4, 4, &init);
        Tied { norm: BatchNorm::new(4, &init), decoder: encoder.clone(), encoder }
    }
}

#[test]
fn states_load_whole_or_not_at_all() {
    for device in devices() {
        let [a, b] = [1, 2].map(|seed| Tied::new(seed, &device, DType::F32));
        let state = a.state_dict();
        let paths: Vec<&str> = state.keys().map(String::as_str).collect();
        let expected = [
            "decoder.weight",
            "encoder.weight",
            "norm.bias",
            "norm.num_batches_tracked",
            "norm.running_mean",
            "norm.running_var",
            "norm.weight",
        ];
        assert_eq!(paths, expected);
        let before: Vec<Vec<f32>> = b.parameters().iter().map(|(_, p)| values(&p.tensor())).collect();
        let unchanged = || {
            let now: Vec<Vec<f32>> = b.parameters().iter().map(|(_, p)| values(&p.tensor())).collect();
            assert_eq!(now, before, "{device}");
        };
        let mut wrong = state.clone();
        wrong.remove("norm.bias");
        wrong.remove("norm.running_var");
        wrong.insert("head.weight".into(), Tensor::zeros([2], &device));
        wrong.insert("norm.weight".into(), Tensor::zeros([5], &device));
        wrong.insert("norm.num_batches_tracked".into(), Tensor::new(0.5, &device));
        match b.load_state_dict(&wrong).unwrap_err() {
            StateError::Misfits(misfits) => {
                assert_eq!(misfits.missing, ["norm.bias", "norm.running_var"]);
                assert_eq!(misfits.unexpected, ["head.weight"]);
                assert_eq!(misfits.shapes, [("norm.weight".into(), [4].into(), [5].into())]);
                assert_eq!(misfits.dtypes, [("norm.num_batches_tracked".into(), DType::I32, DType::F32)]);
                let text = StateError::Misfits(misfits).to_string();
                assert!(text.contains("norm.weight (expected [4], found [5])"), "{text}");
            }
            other => panic!("{other}"),
        }
        unchanged();
        // A shape that does not fit is an error also where the rest need not.
        assert!(StateLoader::new().lenient().into(&b, &wrong).is_err());
        wrong.remove("norm.weight");
        wrong.remove("norm.num_batches_tracked");
        wrong.insert("norm.running_mean".into(), &Tensor::ones([4], &device) + Tensor::ones([3], &device));
        assert!(matches!(StateLoader::new().lenient().into(&b, &wrong), Err(StateError::Tensor(_))));
        unchanged();
        // Of tied weights one name is enough.
        wrong.insert("norm.running_mean".into(), Tensor::full([4], 7.0, &device));
        wrong.remove("decoder.weight");
        let loaded = StateLoader::new().lenient().into(&b, &wrong).unwrap();
        assert_eq!(loaded.loaded, ["encoder.weight", "norm.running_mean"]);
        assert_eq!(loaded.missing, ["norm.weight", "norm.bias", "norm.running_var", "norm.num_batches_tracked"]);
        assert_eq!(loaded.unexpected, ["head.weight"]);
        assert_eq!(values(&b.decoder.weight.tensor()), values(&a.encoder.weight.tensor()));
        assert_eq!(values(&b.norm.running_mean.as_ref().unwrap().tensor()), [7.0; 4]);
        // Under other names, with a beginning that others lack.
        let mut renamed: BTreeMap<String, Tensor> = state
            .iter()
            .map(|(name, tensor)| (format!("model.{}", name.replace("norm", "bn")), tensor.clone()))
            .collect();
        renamed.insert("optimiser.step".into(), Tensor::new(3, &device));
        let loader = StateLoader::new().prefix("model.").rename(|name| Some(name.replace("bn", "norm")));
        loader.into(&b, &renamed).unwrap();
        assert_eq!(values(&b.norm.running_mean.as_ref().unwrap().tensor()), [0.0; 4]);
    }
    // In another dtype, through a file, from the CPU to any device.
    let a = Tied::new(3, &Device::cpu(), DType::F64);
    let mut file = Safetensors { tensors: a.state_dict(), ..Safetensors::default() };
    let mut bytes = Vec::new();
    file.to_writer(&mut bytes, FloatStorage::AsTheyAre).unwrap();
    file = Safetensors::from_reader(&bytes[..], "state", &Device::cpu()).unwrap();
    for device in devices() {
        let b = Tied::new(4, &device, DType::F32);
        b.load_state_dict(&file.tensors).unwrap();
        assert_eq!(values(&b.encoder.weight.tensor()), values(&a.encoder.weight.tensor().to_dtype(DType::F32)));
    }
}

#[derive(Module)]
struct Net {
    stem: Conv2d,
    body: Sequential,
    attention: MultiHeadAttention,
    head: Linear,
}

impl Layer for Net {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.body.forward(&self.stem.forward(x));
        Tensor::build(x.device(), || {
            let [batch, channels, height, width] = x.dims()?;
            let tokens = x.reshape([batch, channels, height * width]).transpose(1, 2);
            Ok(self.head.forward(&self.attention.forward(&tokens).mean(1)))
        })
    }
}

#[test]
fn a_summary_counts_what_each_layer_does() -> Result<()> {
    let device = Device::cpu_with(1, None)?;
    let init = init(&device);
    let body = Sequential::new()
        .then(BatchNorm::new(8, &init))
        .then(Relu)
        .then(MaxPool(Pool::new(2)))
        .then(Residual(Conv2d::new(8, 8, 3, &init).with(Conv::new().padding(1))))
        .then(Relu)
        .then(Dropout::new(0.5, &init));
    let stem = Conv2d::new(3, 8, 3, &init).with(Conv::new().padding(1));
    let net = Net { stem, body, attention: MultiHeadAttention::new(8, 2, &init), head: Linear::new(8, 10, &init) };
    net.stem.freeze();
    let launched = device.stats();
    let summary = summary(&net, [2, 3, 8, 8])?;
    assert_eq!(device.stats().plans, launched.plans, "nothing is computed");
    assert!(values(&net.body.buffers()[0].1.tensor()).iter().all(|&x| x == 0.0), "nothing changes");
    let rows: Vec<(&str, &str, usize, usize, usize)> = summary
        .layers
        .iter()
        .map(|row| (row.path.as_str(), row.kind.as_str(), row.depth, row.parameters, row.multiply_adds))
        .collect();
    let expected = [
        ("", "Net", 0, 0, 0),
        ("stem", "Convolution<2>", 1, 3 * 8 * 9 + 8, 2 * 8 * 64 * 27),
        ("body", "Sequential", 1, 0, 0),
        ("body.0", "BatchNorm", 2, 16, 0),
        ("body.1", "Relu", 2, 0, 0),
        ("body.2", "MaxPool", 2, 0, 0),
        ("body.3", "Residual<Convolution<2>>", 2, 0, 0),
        ("body.3.0", "Convolution<2>", 3, 8 * 8 * 9 + 8, 2 * 8 * 16 * 72),
        ("body.4", "Relu", 2, 0, 0),
        ("body.5", "Dropout", 2, 0, 0),
        // The projection, and logits and sums of values of two heads of width 4.
        ("attention", "MultiHeadAttention", 1, 24 * 8 + 24, 2 * 16 * 24 * 8 + 2 * 2 * 16 * 16 * 8),
        ("attention.out_proj", "Linear", 2, 72, 2 * 16 * 64),
        ("head", "Linear", 1, 90, 2 * 80),
    ];
    assert_eq!(rows, expected);
    assert_eq!(summary.parameters, net.num_parameters());
    assert_eq!(summary.trainable_parameters, net.num_parameters() - (3 * 8 * 9 + 8));
    assert_eq!(summary.layers[6].output.as_ref().map(|shape| shape.to_vec()), Some(vec![2, 8, 4, 4]));
    let text = summary.to_string();
    let shown = [
        "Net                                [2, 10]                  –              –",
        "├─ stem: Convolution<2>            [2, 8, 8, 8]  224 (frozen)         27,648",
        "│  ├─ 3: Residual<Convolution<2>>  [2, 8, 4, 4]             –              –",
        "│  │  └─ 0: Convolution<2>         [2, 8, 4, 4]           584         18,432",
        "│  └─ out_proj: Linear             [2, 16, 8]              72          2,048",
        "└─ head: Linear                    [2, 10]                 90            160",
    ];
    for line in shown {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
    // Layers without a size are told apart by the order of their calls, and shared ones count once.
    let shared = Linear::new(4, 4, &init);
    let twice = Sequential::new().then(shared.clone()).then(Relu).then(shared).then(Relu);
    let summary = gradus::nn::summary(&twice, [1, 4])?;
    assert_eq!(summary.parameters, 20);
    assert_eq!(summary.layers.iter().map(|row| row.uses).collect::<Vec<_>>(), [1; 5]);
    assert!(gradus::nn::summary(&twice, [1, 5]).is_err());
    Ok(())
}

#[test]
fn misuse_is_an_error_that_says_what_is_wrong() {
    let device = Device::cpu();
    let init = init(&device);
    let (rows, images, sequence) = (normal([4, 3], &device), normal([2, 4, 5, 6], &device), normal([2, 5, 4], &device));
    let lstm = Lstm::new(4, 3, &init);
    let state = |batch| {
        let hidden = normal([1, batch, 3], &device);
        LstmState { cell: hidden.clone(), hidden }
    };
    let (memory, wide) = (normal([2, 3, 5], &device), normal([2, 5, 5], &device));
    let bad_init = Initializer::TruncatedNormal { mean: 0.0, std: f64::NAN, low: -1.0, high: 1.0 };
    let errors: Vec<(Tensor, &str)> = vec![
        (lstm.forward(&rows), "rank 3"),
        (lstm.forward(&wide), "matrix product"),
        (lstm.run(&sequence, Some(&state(3))).0, "the state has shape [1, 3, 3], expected [1, 2, 3]"),
        (lstm.run(&sequence.slice(1, ..0), None).1.hidden, "at least one step"),
        (Gru::new(4, 3, &init).layers(0, &init).forward(&sequence), "one layer"),
        (RnnCell::new(3, 2, &init).step(&rows, &normal([1, 2], &device)), "expected [4, 2]"),
        (MultiHeadAttention::new(4, 3, &init).forward(&sequence), "3 heads of width 4"),
        (MultiHeadAttention::new(4, 0, &init).forward(&sequence), "0 heads of width 4"),
        (MultiHeadAttention::new(4, 2, &init).attend(&sequence, &memory), "matrix product"),
        (GroupedQueryAttention::new(4, 2, 0, &init).forward(&sequence), "share 0"),
        (Rotary::new().rotate(&rows, 0), "even width"),
        (GroupNorm::new(3, 4, &init).forward(&images), "4 channels in 3 groups"),
        (InstanceNorm::new(3).forward(&images), "3 channels"),
        (LayerNorm::new(5, &init).forward(&images), "do not broadcast"),
        (PRelu::per_channel(3, &init).forward(&images), "do not broadcast"),
        (PRelu::per_channel(4, &init).forward(&normal([2, 1, 3], &device)), "prelu"),
        (Residual(Linear::new(3, 1, &init)).forward(&rows), "what the layer gives has shape [4, 1]"),
        (Bilinear::new(3, 3, 2, &init).combine(&rows, &rows.slice(0, ..2)), "all axes but the last"),
        (Dropout2d::new(-0.5, &init).forward(&images), "a probability"),
        (AlphaDropout::new(f64::NAN, &init).forward(&images), "a probability"),
        (DropPath::new(2.0, &init).forward(&images), "a probability"),
        (GlobalAvgPool.forward(&rows), "spatial"),
        (AdaptiveAvgPool::new([1, 2, 3]).forward(&images), "spatial"),
        (Upsample::nearest([2, 2, 2]).forward(&images), "spatial"),
        (Upsample::linear(0).forward(&images), "at least 1"),
        (ConvTranspose2d::new(3, 2, 3, &init).forward(&images), "4 channels"),
        (Conv1d::new(4, 2, 3, &init).forward(&images), "rank 3"),
        (init.tensor([2], bad_init), "within 8 deviations"),
        (init.tensor([2], Initializer::Orthogonal { gain: 1.0 }), "rank 2"),
        (huber_loss(&rows, &rows, -1.0), "greater than 0"),
        (FocalLoss::new().gamma(f64::NAN).loss(&rows, &rows), "at least 0"),
        (TripletMargin::new().norm(0.5).loss(&rows, &rows, &rows), "at least 1"),
        (TripletMargin::new().loss(&rows, &rows, &rows.slice(0, ..1)), "the negative has shape [1, 3]"),
        (MultiMargin::new().loss(&rows, &Tensor::zeros([3], (&device, DType::I32))), "expected [4]"),
        (CrossEntropy::new().weight(&Tensor::ones([2], &device)).loss(&rows, &rows), "the weight has shape [2]"),
        (CosineEmbedding::new().loss(&rows, &rows, &rows), "the targets has shape [4, 3], expected [4]"),
        (BinaryCrossEntropy::new().weight(&Tensor::ones([2, 4, 3], &device)).loss(&rows, &rows), "the weight"),
        (l1_loss(&rows, &rows.to_dtype(DType::F64)), "differ"),
    ];
    for (tensor, expected) in errors {
        let error = tensor.eval().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    let weight = Param::new(rows.clone());
    assert!(max_norm([&weight], 0.0).is_err() && max_norm([&weight], f64::NAN).is_err());
    assert!(spectral_norm(&Param::new(normal([3], &device)), &init).is_err());
    let embedding = Embedding::new(3, 2, &init).forward(&Tensor::new([3], &device)).eval().unwrap_err();
    assert!(matches!(embedding.kind(), ErrorKind::Index { .. }), "{embedding}");
}

#[test]
fn layers_of_f16_give_nearly_what_those_of_f32_do() -> Result<()> {
    let device = Device::cpu();
    let make = |dtype: DType| -> Vec<(&str, Box<dyn Layer>)> {
        let init = Init::new(3, &device).dtype(dtype);
        vec![
            ("batch norm", Box::new(BatchNorm::new(4, &init))),
            ("group norm", Box::new(GroupNorm::new(2, 4, &init))),
            ("LSTM", Box::new(Lstm::new(4, 3, &init).bidirectional(&init))),
            ("GRU", Box::new(Gru::new(4, 3, &init))),
            ("grouped queries", Box::new(GroupedQueryAttention::new(4, 2, 1, &init).rotary(Rotary::new()))),
            ("encoder", Box::new(TransformerEncoderLayer::new(4, 2, 6, &init).dropout(0.0, &init))),
            ("weight norm", Box::new(weight_normed(Linear::new(4, 4, &init)))),
            ("PReLU", Box::new(PRelu::new(&init))),
        ]
    };
    let x = normal([2, 4, 4], &device);
    for ((name, narrow), (_, wide)) in make(DType::F16).into_iter().zip(make(DType::F32)) {
        // The state is converted on its way.
        narrow.load_state_dict(&wide.state_dict()).unwrap();
        for training in [true, false] {
            if !training {
                narrow.eval();
                wide.eval();
            }
            let y = narrow.forward(&x.to_dtype(DType::F16));
            assert_eq!(y.dtype(), DType::F16, "{name}");
            near(&values(&y.to_dtype(DType::F32)), &values(&wide.forward(&x)), 1e-2);
        }
        for (path, buffer) in narrow.buffers() {
            let (narrow, wide) = (buffer.tensor(), wide.state_dict()[&path].clone());
            near(&values(&narrow.to_dtype(DType::F32)), &values(&wide.to_dtype(DType::F32)), 1e-2);
        }
    }
    Ok(())
}

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

#[test]
fn dropout_keeps_means_and_variances() -> Result<()> {
    for device in devices() {
        let init = init(&device);
        let x = Tensor::randn([64, 64, 8], Key::new(0), &device);
        let moments = |y: &Tensor| -> Result<(f32, f32)> { Ok((y.mean(..).item()?, y.var(.., 0).item()?)) };
        let (mean, var) = moments(&AlphaDropout::new(0.3, &init).forward(&x))?;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.04, "{mean} {var} on {device}");
        let ones = x.ones_like();
        let kept = |y: &Tensor, axes: [i32; 1]| values(&y.mean(axes)).into_iter().all(|m| m == 0.0 || m == 2.0);
        let y = Dropout2d::new(0.5, &init).forward(&ones);
        assert!(kept(&y, [2]) && (moments(&y)?.0 - 1.0).abs() < 0.1, "{device}");
        let y = DropPath::new(0.5, &init).forward(&ones);
        assert!(kept(&y.flatten_range(1, -1), [1]) && (moments(&y)?.0 - 1.0).abs() < 0.5, "{device}");
        for layer in [&AlphaDropout::new(0.3, &init) as &dyn Layer, &DropPath::new(0.3, &init)] {
            layer.eval();
            assert_eq!(values(&layer.forward(&x)), values(&x));
        }
    }
    Ok(())
}

#[test]
fn losses_are_finite_at_extremes_and_refuse_to_broadcast() -> Result<()> {
    type Loss = fn(&Tensor, &Tensor) -> Tensor;
    // Not the functions themselves: through a pointer, they do not see where they are called.
    #[allow(clippy::redundant_closure)]
    let losses: [(&str, Loss); 12] = [
        ("mse", |x, t| mse_loss(x, t)),
        ("l1", |x, t| l1_loss(x, t)),
        ("huber", |x, t| huber_loss(x, t, 1.0)),
        ("smooth_l1", |x, t| smooth_l1_loss(x, t, 1.0)),
        ("bce_with_logits", |x, t| bce_with_logits(x, t)),
        ("binary cross-entropy", |x, t| BinaryCrossEntropy::new().loss(x, t)),
        ("focal", |x, t| FocalLoss::new().gamma(0.5).loss(x, t)),
        ("hinge", |x, t| hinge_loss(x, t)),
        ("squared_hinge", |x, t| squared_hinge_loss(x, t)),
        ("soft_margin", |x, t| soft_margin_loss(x, t)),
        ("kl", |x, t| KlDivergence::new().loss(x, t)),
        ("bce", |x, t| bce_loss(&x.sigmoid(), t)),
    ];
    for device in devices() {
        for (name, loss) in losses {
            let x = Tensor::new([[-1e9, 1e9, 0.0, 300.0, -300.0, 1e-20]], &device).tracked();
            for target in [0.0, 1.0] {
                let target = Tensor::full([1, 6], target, &device);
                let y = loss(&x, &target);
                let gradient = values(&grad(&y, [&x])?[0]);
                let is_finite = y.item::<f32>()?.is_finite() && gradient.iter().all(|g| g.is_finite());
                assert!(is_finite, "{name} on {device}: {y}, {gradient:?}");
            }
            for target in [Tensor::zeros([6], &device), Tensor::zeros([1, 1], &device), Tensor::zeros([6, 1], &device)]
            {
                let error = loss(&x, &target).eval().unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Shape { .. }), "{name}: {error}");
                assert!(error.location().is_some_and(|at| at.file().ends_with("modules.rs")), "{name}: {error}");
            }
        }
        // What is impossible and predicted to be so costs nothing.
        let log_p = Tensor::new([f32::NEG_INFINITY, 0.0], &device).tracked();
        let p = Tensor::new([0.0, 1.0], &device);
        let loss = KlDivergence::new().loss(&log_p, &p);
        assert_eq!((loss.item::<f32>()?, values(&grad(&loss, [&log_p])?[0])), (0.0, vec![0.0, -0.5]), "{device}");
        let logits = Tensor::new([[f32::NEG_INFINITY, 0.0]], &device);
        let loss = CrossEntropy::new().loss(&logits, &p.unsqueeze(0));
        assert_eq!(loss.item::<f32>()?, 0.0, "{device}");
    }
    Ok(())
}
