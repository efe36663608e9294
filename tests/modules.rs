//! Modules as a whole: names as in PyTorch, gradients and steps of every layer, misuse, f16; and, by family, what the layers
//! promise beyond golden numbers.

#[path = "support/devices.rs"]
mod devices;
#[path = "modules/losses.rs"]
mod losses;
#[path = "modules/recurrent.rs"]
mod recurrent;
#[path = "modules/states.rs"]
mod states;
#[path = "modules/statistics.rs"]
mod statistics;
#[path = "modules/summaries.rs"]
mod summaries;
#[path = "modules/weights.rs"]
mod weights;

use devices::devices;
use gradus::nn::*;
use gradus::train::Sgd;
use gradus::{Attention, Conv, DType, Device, ErrorKind, Key, Result, Tensor, gradcheck};

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
        of("InstanceNorm", InstanceNorm::affine(4, &init), images.clone(), "weight [4] bias [4]"),
        of(
            "InstanceNorm, running",
            InstanceNorm::affine(4, &init).with_running_statistics(&init),
            images,
            "weight [4] bias [4] running_mean [4] running_var [4] num_batches_tracked []",
        ),
        of(
            "Lstm, projected",
            Lstm::new(3, 4, &init).projected(2, &init),
            sequence.clone(),
            "weight_ih_l0 [16, 3] weight_hh_l0 [16, 2] bias_ih_l0 [16] bias_hh_l0 [16] weight_hr_l0 [2, 4]",
        ),
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
        ("projected LSTM", Box::new(Lstm::new(4, 3, &init).projected(2, &init))),
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
        (lstm.clone().projected(2, &init).run(&sequence, Some(&state(2))).0, "expected [1, 2, 2]"),
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
        (InstanceNorm::new(3).with_running_statistics(&init).forward(&rows.unsqueeze(-1)), "at least 2 elements"),
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
