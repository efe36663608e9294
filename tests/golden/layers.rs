//! Layers and composed ops: outputs, and the gradients of Σ output · cotangent.

use crate::case::{Case, Check, Tolerance, precisions};
use crate::json;
use anyhow::{Context, Result, bail, ensure};
use gradus::nn::{Init, Layer, Linear, Module};
use gradus::{DType, Device, Tensor, grad};
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
        ensure!(case.get("state_after").is_none(), "the state after it is not compared");
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
            let init = Init::new(0, given.device).dtype(given.dtype);
            let bias = given.parameters.contains_key("bias");
            let new = if bias { Linear::new } else { Linear::without_bias };
            given.load(new(inputs, outputs, &init))?.forward(given.input("x")?)
        }
        "prelu" => {
            let x = given.input("x")?;
            // A weight per channel lies along axis 1.
            let weight = given.parameter("weight")?.unsqueeze(0);
            x.prelu((2..x.rank()).fold(weight, |weight, _| weight.unsqueeze(-1)))
        }
        "embedding" => {
            let (weight, index) = (given.parameter("weight")?, given.indices("idx")?);
            let shape: Vec<usize> = index.shape().iter().chain(&weight.shape()[1..]).copied().collect();
            weight.index_select(0, &index.flatten()).reshape(shape)
        }
        "glu" => given.input("x")?.glu(given.axis()?),
        "swiglu_mlp" => {
            let [wg, wu, wd] = [given.parameter("wg")?, given.parameter("wu")?, given.parameter("wd")?].map(Tensor::t);
            let x = given.input("x")?;
            (x.matmul(&wg).silu() * x.matmul(&wu)).matmul(&wd)
        }
        "matmul_batched_broadcast" => given.input("a")?.matmul(given.input("b")?),
        "broadcast_add_mul" => (given.input("a")? + given.input("b")?) * given.input("c")?,
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
