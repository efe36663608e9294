//! Layers and composed ops: outputs, and the gradients of Σ output · cotangent.

use crate::case::{Case, Check, Tolerance, precisions};
use crate::json;
use anyhow::{Context, Result, bail, ensure};
use gradus::nn::{Embedding, Init, Layer, LayerNorm, Linear, Module, MultiHeadAttention, RmsNorm};
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
        let parameters = layer.parameters();
        ensure!(parameters.len() == self.parameters.len(), "the layer has {} parameters", parameters.len());
        for (path, parameter) in parameters {
            parameter.set(self.parameter(&path)?.clone())?;
            self.parameters.insert(path, parameter.tensor());
        }
        Ok(layer)
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
        let outputs = forward(&mut given)?;
        // The weights of attention, which count as state there, are never stored.
        let state = case.get("state_after").and_then(Value::as_object);
        let compared = state.is_none_or(|state| state.keys().all(|name| name == "attn_weights_per_head"));
        ensure!(compared, "the state after it is not compared");
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

/// The named outputs of a layer.
fn forward(given: &mut Given<'_>) -> Result<Vec<(&'static str, Tensor)>> {
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
            let number = |name: &str, otherwise: usize| match given.attribute(name) {
                Ok(value) => value.as_u64().map(|n| n as usize).with_context(|| format!("{name} is a number")),
                Err(_) => Ok(otherwise),
            };
            let conv = Conv::new().stride(number("stride", 1)?).padding(number("padding", 0)?);
            let conv = conv.dilation(number("dilation", 1)?).groups(number("groups", 1)?);
            let (x, weight, more) = (given.input("x")?, given.parameter("weight")?, number("output_padding", 0)?);
            let y = match kind {
                "conv1d" => x.conv1d(weight, &conv),
                "conv2d" => x.conv2d(weight, &conv),
                _ => x.conv_transpose(weight, &conv, more),
            };
            match given.parameters.get("bias") {
                Some(bias) => &y + (2..x.rank()).fold(bias.clone(), |bias, _| bias.unsqueeze(-1)),
                None => y,
            }
        }
        kind @ ("max_pool2d" | "max_pool2d_ties" | "avg_pool2d") => {
            let number = |name: &str| given.attribute(name)?.as_u64().map(|n| n as usize).context("a number");
            let pool = Pool::new(number("kernel")?).stride(number("stride")?).padding(number("padding")?);
            let x = given.input("x")?;
            if kind == "avg_pool2d" { x.avg_pool(&pool) } else { x.max_pool(&pool) }
        }
        "adaptive_avg_pool2d" => {
            let parts = json::list(json::field(given.case, "attrs")?, "out")?;
            let parts: Vec<usize> = parts.iter().filter_map(Value::as_u64).map(|n| n as usize).collect();
            given.input("x")?.adaptive_avg_pool(parts)
        }
        "global_avg_pool2d" => {
            let (x, y) = (given.input("x")?, json::array(json::field(json::field(given.case, "outputs")?, "y")?)?);
            x.adaptive_avg_pool(1).reshape(y.1)
        }
        "upsample_nearest2x" | "upsample_bilinear2x" => {
            let x = given.input("x")?;
            let size: Vec<usize> = x.shape()[2..].iter().map(|n| 2 * n).collect();
            match given.attribute("align_corners") {
                Ok(align) => x.resize_linear(size, align == true),
                Err(_) => x.resize_nearest(size),
            }
        }
        "prelu" => {
            let x = given.input("x")?;
            // A weight per channel lies along axis 1.
            let weight = given.parameter("weight")?.unsqueeze(0);
            x.prelu((2..x.rank()).fold(weight, |weight, _| weight.unsqueeze(-1)))
        }
        "embedding" => {
            let [things, width] = given.parameter("weight")?.dims()?;
            let (index, init) = (given.indices("idx")?, given.init());
            given.load(Embedding::new(things, width, &init))?.forward(&index)
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
            let heads = given.attribute("heads")?.as_u64().context("heads is a number")? as usize;
            let width = x.shape()[2];
            given.load(MultiHeadAttention::new(width, heads, &init))?.forward(&x)
        }
        "glu" => given.input("x")?.glu(given.axis()?),
        "swiglu_mlp" => {
            let [wg, wu, wd] = [given.parameter("wg")?, given.parameter("wu")?, given.parameter("wd")?].map(Tensor::t);
            let x = given.input("x")?;
            (x.matmul(&wg).silu() * x.matmul(&wu)).matmul(&wd)
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
            return Ok(vec![("var", var), ("mean", x.mean(axis)), ("std", std), ("max", x.max(axis))]);
        }
        "l2_normalize" => {
            let x = given.input("x")?;
            x / x.norm_keepdim(-1).maximum(json::number(given.attribute("eps")?)?)
        }
        other => bail!("no layer is called {other:?}"),
    };
    Ok(vec![("y", y)])
}
