//! Losses: values and gradients per reduction.

use crate::case::{Case, Check, Tolerance, precisions};
use crate::json;
use anyhow::{Context, Result, bail};
use gradus::nn::{
    BinaryCrossEntropy, CosineEmbedding, CrossEntropy, FocalLoss, GaussianNll, KlDivergence, MultiMargin, NllLoss,
    PoissonNll, Reduction, TripletMargin, bce_loss_reduced, bce_with_logits_reduced, hinge_loss_reduced,
    huber_loss_reduced, l1_loss_reduced, mse_loss_reduced, smooth_l1_loss_reduced, soft_margin_loss_reduced,
    squared_hinge_loss_reduced, weighted_mse_loss_reduced,
};
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
        "batchmean" => Reduction::BatchMean,
        other => bail!("no reduction is called {other:?}"),
    };
    let kind = json::text(case, "loss")?;
    let at = (input.device(), input.dtype());
    let target = || json::tensor(json::field(case, "target")?, at);
    let classes = || json::tensor(json::field(case, "target")?, (input.device(), DType::I32));
    let extra = json::entries(case, "extra")?;
    // Each option must be known, or a case would pass without it.
    let known: &[&str] = match kind {
        "huber" => &["delta"],
        "smooth_l1" => &["beta"],
        "weighted_mse" => &["weight"],
        "bce_with_logits" => &["pos_weight", "weight"],
        "cross_entropy" | "cross_entropy_soft_targets" => &["label_smoothing", "weight", "ignore_index"],
        "nll" => &["weight", "ignore_index"],
        "multi_margin" => &["p", "margin", "weight"],
        "cosine_embedding" => &["x2", "margin"],
        "triplet_margin" => &["negative", "margin", "p", "eps", "swap"],
        "gaussian_nll" => &["var", "eps", "full"],
        "poisson_nll" => &["log_input", "full"],
        _ => &[],
    };
    if let Some(option) = extra.keys().find(|option| !known.contains(&option.as_str())) {
        bail!("{kind} has no option {option:?}");
    }
    let option = |name: &str| extra.get(name).with_context(|| format!("no option {name:?}"));
    let number = |name: &str| json::number(option(name)?);
    let tensor = |name: &str| json::tensor(option(name)?, at);
    let is = |name: &str| option(name)?.as_bool().with_context(|| format!("{name} is true or false"));
    Ok(match kind {
        "mse" | "mse_extreme" => mse_loss_reduced(input, &target()?, reduction),
        "weighted_mse" => weighted_mse_loss_reduced(input, &target()?, &tensor("weight")?, reduction),
        "l1" => l1_loss_reduced(input, &target()?, reduction),
        "huber" => huber_loss_reduced(input, &target()?, number("delta")?, reduction),
        "smooth_l1" => smooth_l1_loss_reduced(input, &target()?, number("beta")?, reduction),
        "bce_with_logits" if extra.is_empty() => bce_with_logits_reduced(input, &target()?, reduction),
        "bce_with_logits" => BinaryCrossEntropy::new()
            .positive_weight(&tensor("pos_weight")?)
            .weight(&tensor("weight")?)
            .reduction(reduction)
            .loss(input, &target()?),
        "bce_probabilities" => bce_loss_reduced(input, &target()?, reduction),
        "focal_binary_alpha0.25_gamma2" => {
            FocalLoss::new().alpha(0.25).gamma(2.0).reduction(reduction).loss(input, &target()?)
        }
        "kl_div" => KlDivergence::new().reduction(reduction).loss(input, &target()?),
        "kl_div_log_target" => KlDivergence::new().log_target().reduction(reduction).loss(input, &target()?),
        "nll" => {
            let mut loss = NllLoss::new().reduction(reduction);
            if !extra.is_empty() {
                let ignored = option("ignore_index")?.as_i64().context("an index is a whole number")?;
                loss = loss.weight(&tensor("weight")?).ignore_index(ignored);
            }
            loss.loss(input, &classes()?)
        }
        "hinge" => hinge_loss_reduced(input, &target()?, reduction),
        "squared_hinge" => squared_hinge_loss_reduced(input, &target()?, reduction),
        "soft_margin" => soft_margin_loss_reduced(input, &target()?, reduction),
        "multi_margin" => {
            let loss = MultiMargin::new().margin(number("margin")?).reduction(reduction);
            let loss = if number("p")? == 2.0 { loss.squared() } else { loss };
            let loss = if extra.contains_key("weight") { loss.weight(&tensor("weight")?) } else { loss };
            loss.loss(input, &classes()?)
        }
        "cosine_embedding" => {
            let loss = CosineEmbedding::new().margin(number("margin")?).reduction(reduction);
            loss.loss(input, &tensor("x2")?, &target()?)
        }
        "triplet_margin" => {
            let loss = TripletMargin::new().margin(number("margin")?).norm(number("p")?).epsilon(number("eps")?);
            let loss = if extra.contains_key("swap") && is("swap")? { loss.swap() } else { loss };
            loss.reduction(reduction).loss(input, &target()?, &tensor("negative")?)
        }
        "gaussian_nll" => {
            let loss = GaussianNll::new().epsilon(number("eps")?).reduction(reduction);
            let loss = if is("full")? { loss.full() } else { loss };
            loss.loss(input, &target()?, &tensor("var")?)
        }
        "poisson_nll" => {
            let loss = PoissonNll::new().reduction(reduction);
            let loss = if is("log_input")? { loss } else { loss.of_rates() };
            let loss = if is("full")? { loss.full() } else { loss };
            loss.loss(input, &target()?)
        }
        "cross_entropy" | "cross_entropy_soft_targets" | "cross_entropy_all_ignored" | "cross_entropy_spatial_NCHW" => {
            let mut loss = CrossEntropy::new().reduction(reduction);
            for (option, value) in extra {
                loss = match option.as_str() {
                    "label_smoothing" => loss.label_smoothing(json::number(value)?),
                    "ignore_index" => loss.ignore_index(value.as_i64().context("an index is a whole number")?),
                    "weight" if value.is_null() => loss,
                    _ => loss.weight(&json::tensor(value, at)?),
                };
            }
            let targets = if kind == "cross_entropy_soft_targets" { target()? } else { classes()? };
            loss.loss(input, &targets)
        }
        other => bail!("no loss is called {other:?}"),
    })
}
