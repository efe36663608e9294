//! Losses: values and gradients per reduction.

use crate::case::{Case, Check, Tolerance, precisions};
use crate::json;
use anyhow::{Context, Result, bail};
use gradus::nn::{CrossEntropy, Reduction, bce_with_logits_reduced, mse_loss_reduced};
use gradus::{DType, Device, Tensor, grad};
use serde_json::Value;

pub(crate) fn cases(file: &Value, device: &Device) -> Result<Vec<Case>> {
    let cases = json::list(file, "cases")?.iter();
    cases.map(|case| Ok(Case::new(json::text(case, "loss")?, || run(case, device)))).collect()
}

fn run(case: &Value, device: &Device) -> Result<()> {
    let mut check = Check::default();
    for (dtype, suffix, tolerance) in precisions(device) {
        let input = json::tensor(json::field(case, "input")?, (device, dtype))?.tracked();
        let loss = loss(case, &input)?;
        // The gradient of unreduced losses is that of their sum.
        let gradient = &grad(&loss.sum(..), [&input])?[0];
        for (got, key) in [(&loss, "value"), (gradient, "grad")] {
            let key = format!("{key}_{suffix}");
            let expected = json::numbers(json::field(case, &key)?)?;
            check.close(&key, &json::values(got)?, &expected, Tolerance::both(tolerance));
        }
    }
    check.finish()
}

fn loss(case: &Value, input: &Tensor) -> Result<Tensor> {
    let reduction = match json::text(case, "reduction")? {
        "none" => Reduction::None,
        "mean" => Reduction::Mean,
        "sum" => Reduction::Sum,
        other => bail!("no reduction is called {other:?}"),
    };
    let target = |dtype| json::tensor(json::field(case, "target")?, (input.device(), dtype));
    Ok(match json::text(case, "loss")? {
        "mse" | "mse_extreme" => mse_loss_reduced(input, &target(input.dtype())?, reduction),
        "bce_with_logits" => bce_with_logits_reduced(input, &target(input.dtype())?, reduction),
        "cross_entropy" | "cross_entropy_all_ignored" | "cross_entropy_spatial_NCHW" => {
            let mut loss = CrossEntropy::new().reduction(reduction);
            for (option, value) in json::entries(case, "extra")? {
                loss = match option.as_str() {
                    "label_smoothing" => loss.label_smoothing(json::number(value)?),
                    "ignore_index" => loss.ignore_index(value.as_i64().context("an index is a whole number")?),
                    "weight" if value.is_null() => loss,
                    "weight" => loss.weight(&json::tensor(value, (input.device(), input.dtype()))?),
                    _ => bail!("cross-entropy has no option {option:?}"),
                };
            }
            loss.loss(input, &target(DType::I32)?)
        }
        other => bail!("no loss is called {other:?}"),
    })
}
