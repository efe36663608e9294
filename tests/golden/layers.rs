//! Layers and composed ops: outputs, and the gradients of Σ output · cotangent.

use crate::case::{Case, Check, Tolerance, precisions};
use crate::json;
use anyhow::{Context, Result, bail, ensure};
use gradus::nn::{
    Activation, AdaptiveAvgPool, AvgPool, BatchNorm, Bilinear, Conv1d, Conv2d, ConvTranspose2d, Embedding, GroupNorm,
    Gru, GruCell, Init, InstanceNorm, Layer, LayerNorm, Linear, Lstm, LstmCell, LstmState, MaxPool, Module,
    MultiHeadAttention, PRelu, RmsNorm, Rnn, RnnCell, Rotary, SwiGlu, TransformerDecoderLayer, TransformerEncoderLayer,
    Upsample, padding_mask,
};
use gradus::{Attention, Conv, DType, Device, Pool, Tensor, grad};
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) fn cases(file: &Value, device: &Device) -> Result<Vec<Case>> {
    let cases = json::list(file, "cases")?.iter();
    cases.map(|case| Ok(Case::new(json::text(case, "layer")?, || run(case, device)))).collect()
}

type Tensors = BTreeMap<String, Tensor>;

/// The tensors of a field.
fn tensors(case: &Value, key: &str, at: (&Device, DType)) -> Result<Tensors> {
    let entries = json::entries(case, key)?.iter();
    entries.map(|(name, value)| Ok((name.clone(), json::tensor(value, at)?))).collect()
}

/// What a case gives.
struct Given<'a> {
    case: &'a Value,
    device: &'a Device,
    dtype: DType,
    inputs: Tensors,
    parameters: Tensors,
}

impl Given<'_> {
    fn input(&self, name: &str) -> Result<&Tensor> {
        self.inputs.get(name).with_context(|| format!("no input {name:?}"))
    }

    fn parameter(&self, name: &str) -> Result<&Tensor> {
        self.parameters.get(name).with_context(|| format!("no parameter {name:?}"))
    }

    fn init(&self) -> Init {
        Init::new(0, self.device).dtype(self.dtype)
    }

    fn indices(&self, name: &str) -> Result<Tensor> {
        json::tensor(json::field(json::field(self.case, "int_inputs")?, name)?, (self.device, DType::I32))
    }

    fn attribute(&self, name: &str) -> Result<&Value> {
        json::field(json::field(self.case, "attrs")?, name)
    }

    fn axis(&self) -> Result<isize> {
        Ok(self.attribute("dim")?.as_i64().context("an axis is a whole number")? as isize)
    }

    /// Sets the parameters of a layer of the library by their paths, and takes them as targets.
    fn load<L: Module>(&mut self, layer: L) -> Result<L> {
        self.load_renamed(layer, |path| path)
    }

    /// The same where the case has other names for the layer's paths.
    fn load_renamed<L: Module>(&mut self, layer: L, name: impl Fn(&str) -> &str) -> Result<L> {
        let parameters = layer.parameters();
        ensure!(parameters.len() == self.parameters.len(), "the layer has {} parameters", parameters.len());
        for (path, parameter) in parameters {
            parameter.set(self.parameter(name(&path))?.clone())?;
            self.parameters.insert(name(&path).to_string(), parameter.tensor());
        }
        Ok(layer)
    }

    /// A number of the case's attributes, or another where there is none.
    fn number(&self, name: &str, otherwise: usize) -> Result<usize> {
        match self.attribute(name) {
            Ok(value) => value.as_u64().map(|n| n as usize).with_context(|| format!("{name} is a number")),
            Err(_) => Ok(otherwise),
        }
    }

    /// An attribute that must be what the layer does anyway.
    fn expect(&self, name: &str, value: impl Into<Value>) -> Result<()> {
        let value = value.into();
        ensure!(self.attribute(name)? == &value, "{name} is {} in place of {value}", self.attribute(name)?);
        Ok(())
    }
}

fn run(case: &Value, device: &Device) -> Result<()> {
    let mut check = Check::default();
    for (dtype, ..) in precisions(device) {
        let tracked = |key| -> Result<Tensors> {
            Ok(tensors(case, key, (device, dtype))?
                .into_iter()
                .map(|(name, tensor)| (name, tensor.tracked()))
                .collect())
        };
        let mut given = Given { case, device, dtype, inputs: tracked("inputs")?, parameters: tracked("params")? };
        let Forward { outputs, state } = forward(&mut given)?;
        let expected = case.get("state_after").and_then(Value::as_object);
        for (name, expected) in expected.into_iter().flatten() {
            let got = state.iter().find(|(other, _)| other == name).with_context(|| format!("no state {name:?}"))?;
            let (expected, shape) = json::array(expected)?;
            ensure!(got.1.shape()[..] == shape, "{name}: shape {} in place of {shape:?}", got.1.shape());
            check.close(&format!("{name} {dtype}"), &json::values(&got.1)?, &expected, Tolerance::both(1e-5));
        }
        let cotangents = tensors(case, "cotangent", (device, dtype))?;
        let weighted = |(name, output): &(&str, Tensor)| {
            let cotangent = cotangents.get(*name).with_context(|| format!("no cotangent {name:?}"))?;
            Ok((output * cotangent).sum(..))
        };
        let terms = outputs.iter().map(weighted).collect::<Result<Vec<_>>>()?;
        let loss = terms.into_iter().reduce(|a, b| a + b).context("no outputs")?;
        let gradients = grad(&loss, given.inputs.values().chain(given.parameters.values()))?;

        let fields = given.inputs.keys().map(|name| ("grad_inputs", name.as_str()));
        let fields = fields.chain(given.parameters.keys().map(|name| ("grad_params", name.as_str())));
        let outputs = outputs.iter().map(|(name, output)| (("outputs", *name), output));
        for ((field, name), got) in outputs.chain(fields.zip(&gradients)) {
            let (expected, shape) = json::array(json::field(json::field(case, field)?, name)?)?;
            ensure!(got.shape()[..] == shape, "{field} {name}: shape {} in place of {shape:?}", got.shape());
            check.close(&format!("{field} {name} {dtype}"), &json::values(got)?, &expected, Tolerance::both(1e-5));
        }
    }
    check.finish()
}

/// What a layer gives, by name, and its state then.
struct Forward {
    outputs: Vec<(&'static str, Tensor)>,
    state: Vec<(&'static str, Tensor)>,
}

impl Forward {
    fn of(outputs: Vec<(&'static str, Tensor)>) -> Result<Forward> {
        Ok(Forward { outputs, state: Vec::new() })
    }
}

fn forward(given: &mut Given<'_>) -> Result<Forward> {
    let y = match json::text(given.case, "layer")? {
        "linear" => {
            let (outputs, inputs) = match given.parameter("weight")?.shape()[..] {
                [outputs, inputs] => (outputs, inputs),
                _ => bail!("a weight is a matrix"),
            };
            let init = given.init();
            let bias = given.parameters.contains_key("bias");
            let new = if bias { Linear::new } else { Linear::without_bias };
            given.load(new(inputs, outputs, &init))?.forward(given.input("x")?)
        }
        kind @ ("conv1d" | "conv2d" | "conv_transpose2d") => {
            let conv = Conv::new().stride(given.number("stride", 1)?).padding(given.number("padding", 0)?);
            let (conv, groups) = (conv.dilation(given.number("dilation", 1)?), given.number("groups", 1)?);
            let (x, weight, init) =
                (given.input("x")?.clone(), given.parameter("weight")?.shape().clone(), given.init());
            let has_bias = given.parameters.contains_key("bias");
            let (kernel, more) = (weight[2..].to_vec(), given.number("output_padding", 0)?);
            match kind {
                "conv1d" => {
                    let layer = Conv1d::grouped(weight[1] * groups, weight[0], kernel, groups, &init).with(conv);
                    given.load(if has_bias { layer } else { layer.without_bias() })?.forward(&x)
                }
                "conv2d" => {
                    let layer = Conv2d::grouped(weight[1] * groups, weight[0], kernel, groups, &init).with(conv);
                    given.load(if has_bias { layer } else { layer.without_bias() })?.forward(&x)
                }
                _ => {
                    let layer = ConvTranspose2d::grouped(weight[0], weight[1] * groups, kernel, groups, &init);
                    let layer = layer.with(conv).output_padding(more);
                    given.load(if has_bias { layer } else { layer.without_bias() })?.forward(&x)
                }
            }
        }
        kind @ ("max_pool2d" | "max_pool2d_ties" | "avg_pool2d") => {
            let pool = Pool::new(given.number("kernel", 0)?).stride(given.number("stride", 0)?);
            let pool = pool.padding(given.number("padding", 0)?);
            let x = given.input("x")?;
            if kind == "avg_pool2d" { AvgPool(pool).forward(x) } else { MaxPool(pool).forward(x) }
        }
        "adaptive_avg_pool2d" => {
            let parts = json::list(json::field(given.case, "attrs")?, "out")?;
            let parts: Vec<usize> = parts.iter().filter_map(Value::as_u64).map(|n| n as usize).collect();
            AdaptiveAvgPool::new(parts).forward(given.input("x")?)
        }
        "global_avg_pool2d" => AdaptiveAvgPool::new(1).forward(given.input("x")?),
        "upsample_nearest2x" => Upsample::nearest(2).forward(given.input("x")?),
        "upsample_bilinear2x" => {
            let layer = Upsample::linear(2);
            let aligned = given.attribute("align_corners")? == true;
            (if aligned { layer.align_corners() } else { layer }).forward(given.input("x")?)
        }
        "prelu" => {
            let (x, channels, init) = (given.input("x")?.clone(), given.parameter("weight")?.numel(), given.init());
            given.load(PRelu::per_channel(channels, &init))?.forward(&x)
        }
        "batch_norm" => {
            let (x, init) = (given.input("x")?.clone(), given.init());
            let epsilon = json::number(given.attribute("eps")?)?;
            let momentum = given.attribute("momentum")?.as_f64();
            let layer = given.load(BatchNorm::new(x.shape()[1], &init).epsilon(epsilon).momentum(momentum))?;
            let buffers: BTreeMap<String, _> = layer.buffers().into_iter().collect();
            for name in ["running_mean", "running_var"] {
                let before = json::tensor(given.attribute(&format!("{name}_before"))?, (given.device, given.dtype))?;
                buffers.get(name).context("no such buffer")?.set(before)?;
            }
            let batches = given.number("num_batches_tracked_before", 0)? as i32;
            buffers["num_batches_tracked"].set(Tensor::new(batches, given.device))?;
            if given.attribute("train")? == false {
                layer.eval();
            }
            let y = layer.forward(&x);
            let names = ["running_mean", "running_var", "num_batches_tracked"];
            let state = names.map(|name| (name, buffers[name].tensor()));
            return Ok(Forward { outputs: vec![("y", y)], state: state.into() });
        }
        kind @ ("group_norm" | "instance_norm") => {
            let (x, init) = (given.input("x")?.clone(), given.init());
            let (channels, epsilon) = (x.shape()[1], json::number(given.attribute("eps")?)?);
            if kind == "group_norm" {
                let groups = given.number("groups", 0)?;
                given.load(GroupNorm::new(groups, channels, &init).epsilon(epsilon))?.forward(&x)
            } else {
                given.load(InstanceNorm::affine(channels, &init).epsilon(epsilon))?.forward(&x)
            }
        }
        kind @ ("rnn_cell" | "gru_cell") => {
            let [x, h] = ["x", "h"].map(|name| given.input(name).cloned());
            let ((x, h), init) = ((x?, h?), given.init());
            let (inputs, hidden) = (x.shape()[1], h.shape()[1]);
            let h = match kind {
                "rnn_cell" => given.load(RnnCell::new(inputs, hidden, &init))?.step(&x, &h),
                _ => given.load(GruCell::new(inputs, hidden, &init))?.step(&x, &h),
            };
            return Forward::of(vec![("h", h)]);
        }
        "lstm_cell" => {
            let [x, h, c] = ["x", "h", "c"].map(|name| given.input(name).cloned());
            let ((x, h, c), init) = ((x?, h?, c?), given.init());
            let cell = given.load(LstmCell::new(x.shape()[1], h.shape()[1], &init))?;
            let (h, c) = cell.step(&x, &h, &c);
            return Forward::of(vec![("h", h), ("c", c)]);
        }
        kind @ ("lstm" | "gru" | "rnn") => {
            let is = |name: &str| given.attribute(name).is_ok_and(|value| value == true);
            let is_not = |name: &str| given.attribute(name).is_ok_and(|value| value == false);
            let (two_ways, time_first, without_bias) = (is("bidirectional"), is_not("batch_first"), is_not("bias"));
            let state = match given.attribute("initial_state")?.as_str() {
                Some("given") => Some((given.input("h_0")?.clone(), given.inputs.get("c_0").cloned())),
                _ => None,
            };
            let (x, init, layers) = (given.input("x")?.clone(), given.init(), given.number("layers", 1)?);
            let (inputs, hidden) = (x.shape()[2], given.parameter("weight_hh_l0")?.shape()[1]);
            macro_rules! layer {
                ($layer:ident) => {{
                    let layer = $layer::new(inputs, hidden, &init).layers(layers, &init);
                    let layer = if two_ways { layer.bidirectional(&init) } else { layer };
                    let layer = if time_first { layer.time_first() } else { layer };
                    if without_bias { layer.without_bias() } else { layer }
                }};
            }
            match kind {
                "lstm" => {
                    let state = state.map(|(hidden, cell)| {
                        Ok::<_, anyhow::Error>(LstmState { hidden, cell: cell.context("no c_0")? })
                    });
                    let (y, state) = given.load(layer!(Lstm))?.run(&x, state.transpose()?.as_ref());
                    return Forward::of(vec![("y", y), ("h_n", state.hidden), ("c_n", state.cell)]);
                }
                "gru" => {
                    let (y, h) = given.load(layer!(Gru))?.run(&x, state.as_ref().map(|(hidden, _)| hidden));
                    return Forward::of(vec![("y", y), ("h_n", h)]);
                }
                _ => {
                    given.expect("nonlinearity", "relu")?;
                    let (y, h) = given.load(layer!(Rnn).relu())?.run(&x, state.as_ref().map(|(hidden, _)| hidden));
                    return Forward::of(vec![("y", y), ("h_n", h)]);
                }
            }
        }
        "bilinear" => {
            let ([outputs, left, right], init) = (given.parameter("weight")?.dims()?, given.init());
            let (x, z) = (given.input("x")?.clone(), given.input("z")?.clone());
            given.load(Bilinear::new(left, right, outputs, &init))?.combine(&x, &z)
        }
        "rotary" => {
            let rotary = Rotary::new().base(json::number(given.attribute("base")?)?);
            let rotary = if given.attribute("interleaved")? == true { rotary.interleaved() } else { rotary };
            rotary.rotate(given.input("x")?, given.number("offset", 0)?)
        }
        "transformer_decoder_layer" => {
            given.expect("activation", "gelu_erf")?;
            given.expect("dropout", 0)?;
            given.expect("causal", true)?;
            let (x, memory, init) = (given.input("x")?.clone(), given.input("memory")?.clone(), given.init());
            let (width, hidden) = (x.shape()[2], given.number("ff", 0)?);
            let layer = TransformerDecoderLayer::new(width, given.number("heads", 0)?, hidden, &init);
            let layer = layer.activation(Activation::Gelu).dropout(0.0, &init);
            let layer = if given.attribute("norm_first")? == true { layer.pre_norm() } else { layer };
            given.load(layer)?.decode(&x, &memory, &Attention::new().causal(), &Attention::new())
        }
        "transformer_encoder_layer" => {
            given.expect("dropout", 0)?;
            let activation = match given.attribute("activation")?.as_str() {
                Some("gelu_erf") => Activation::Gelu,
                Some("relu") => Activation::Relu,
                other => bail!("no activation is called {other:?}"),
            };
            let (x, init) = (given.input("x")?.clone(), given.init());
            let (width, hidden) = (x.shape()[2], given.number("ff", 0)?);
            let layer = TransformerEncoderLayer::new(width, given.number("heads", 0)?, hidden, &init);
            let layer = layer.activation(activation).dropout(0.0, &init);
            let layer = layer.epsilon(json::number(given.attribute("eps")?)?);
            let layer = if given.attribute("norm_first")? == true { layer.pre_norm() } else { layer };
            let attention = Attention::new();
            let attention = if given.attribute("causal")? == true { attention.causal() } else { attention };
            given.load(layer)?.encode(&x, &attention)
        }
        "embedding" => {
            let [things, width] = given.parameter("weight")?.dims()?;
            let (index, init) = (given.indices("idx")?, given.init());
            let layer = match given.attribute("padding_idx") {
                Ok(_) => Embedding::with_padding(things, width, given.number("padding_idx", 0)?, &init),
                Err(_) => Embedding::new(things, width, &init),
            };
            given.load(layer)?.forward(&index)
        }
        kind @ ("layer_norm" | "rms_norm") => {
            let (shape, epsilon) = (given.parameter("weight")?.shape().clone(), json::number(given.attribute("eps")?)?);
            let (init, x) = (given.init(), given.input("x")?.clone());
            if kind == "layer_norm" {
                given.load(LayerNorm { epsilon, ..LayerNorm::new(shape, &init) })?.forward(&x)
            } else {
                given.load(RmsNorm { epsilon, ..RmsNorm::new(shape, &init) })?.forward(&x)
            }
        }
        "multi_head_attention" => {
            let (x, init) = (given.input("x")?.clone(), given.init());
            let (width, heads) = (x.shape()[2], given.number("heads", 0)?);
            if given.attribute("across").is_ok() {
                given.expect("causal", false)?;
                let (key, value) = (given.input("key")?.clone(), given.input("value")?.clone());
                let widths = [key.shape()[2], value.shape()[2]];
                let layer = given.load(MultiHeadAttention::across(width, heads, widths, &init))?;
                return Forward::of(vec![("y", layer.attend_with(&x, &key, &value, &Attention::new()))]);
            }
            let mut attention = Attention::new();
            if given.attribute("causal")? == true {
                attention = attention.causal();
            }
            let ignored = given.attribute("key_padding_mask_true_is_ignored")?;
            if !ignored.is_null() {
                let ignored = json::tensor(ignored, (given.device, DType::I32))?;
                attention = attention.mask(&padding_mask(&ignored.eq(0)));
            }
            let layer = MultiHeadAttention::new(width, heads, &init);
            let without_bias = given.attribute("bias").is_ok_and(|bias| bias == false);
            let layer = given.load(if without_bias { layer.without_bias() } else { layer })?;
            let weights = layer.weights(&x, &x, &attention);
            let outputs = vec![("y", layer.attend_with(&x, &x, &x, &attention))];
            return Ok(Forward { outputs, state: vec![("attn_weights_per_head", weights)] });
        }
        "glu" => given.input("x")?.glu(given.axis()?),
        "swiglu_mlp" => {
            let (hidden, width) = (given.parameter("wg")?.shape()[0], given.parameter("wg")?.shape()[1]);
            let (x, init) = (given.input("x")?.clone(), given.init());
            fn name(path: &str) -> &str {
                match path {
                    "gate_proj.weight" => "wg",
                    "up_proj.weight" => "wu",
                    _ => "wd",
                }
            }
            given.load_renamed(SwiGlu::new(width, hidden, &init), name)?.forward(&x)
        }
        "matmul_batched_broadcast" => given.input("a")?.matmul(given.input("b")?),
        "broadcast_add_mul" => (given.input("a")? + given.input("b")?) * given.input("c")?,
        "scaled_dot_product_attention" => {
            ensure!(given.attribute("mask")? == "none", "a mask");
            given.input("q")?.attention(given.input("k")?, given.input("v")?, &Attention::new())
        }
        "cumsum" => given.input("x")?.cumsum(given.axis()?),
        "gather" => given.input("x")?.gather(given.axis()?, &given.indices("idx")?),
        "reduce_var_mean" => {
            let (x, axis) = (given.input("x")?, given.axis()?);
            let correction = usize::from(given.attribute("unbiased")? == true);
            let (var, std) = (x.var(axis, correction), x.std(axis, correction));
            return Forward::of(vec![("var", var), ("mean", x.mean(axis)), ("std", std), ("max", x.max(axis))]);
        }
        "l2_normalize" => {
            let x = given.input("x")?;
            x / x.norm_keepdim(-1).maximum(json::number(given.attribute("eps")?)?)
        }
        other => bail!("no layer is called {other:?}"),
    };
    Forward::of(vec![("y", y)])
}
