//! Metrics of predictions, and of the course of training.

use crate::case::{Case, Check, Tolerance};
use crate::json;
use anyhow::{Context, Result, bail};
use gradus::train::metrics::{ConfusionMatrix, average_precision, log_loss, roc_auc};
use gradus::train::{Dynamics, SampleDynamics};
use gradus::{DType, Device, Tensor};
use serde_json::Value;

pub(crate) fn cases(file: &Value, _: &Device) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (task, case) in json::entries(file, "metrics")? {
        let names = case.as_object().context("no metrics")?.keys();
        for name in names.filter(|name| !matches!(name.as_str(), "y" | "pred" | "note")) {
            cases.push(Case::new(format!("{task}/{name}"), || metric(file, task, name, case)));
        }
    }
    for section in file.as_object().into_iter().flatten().map(|(name, _)| name) {
        if section == "training_dynamics" {
            cases.push(Case::new(section, || dynamics(json::field(file, section)?)));
        } else if !matches!(section.as_str(), "metrics" | "calibration_binary") {
            cases.push(Case::new(section, || bail!("no such metrics")));
        }
    }
    Ok(cases)
}

/// What is told of each sample from its logits in every epoch.
fn dynamics(case: &Value) -> Result<()> {
    let (logits, shape) = json::array(json::field(case, "logits")?)?;
    let [_, rows, classes] = shape[..] else { bail!("logits of shape {shape:?}") };
    let labels: Vec<i32> = json::numbers(json::field(case, "labels")?)?.into_iter().map(|label| label as i32).collect();
    let mut dynamics = Dynamics::new(rows);
    for (epoch, logits) in logits.chunks(rows * classes).enumerate() {
        // In two batches, of which the second comes first.
        for batch in [rows / 2..rows, 0..rows / 2] {
            let count = batch.len();
            let own = logits[batch.start * classes..batch.end * classes].to_vec();
            let own = Tensor::from_vec(own, [count, classes], (&Device::cpu(), DType::F64));
            let labels = Tensor::new(&labels[batch.clone()], &Device::cpu());
            dynamics.record(epoch as u64, &batch.collect::<Vec<_>>(), &own, &labels)?;
        }
    }
    let samples = dynamics.samples();
    let all = |of: &dyn Fn(&SampleDynamics) -> f64| samples.iter().map(of).collect::<Vec<f64>>();
    let mut check = Check::default();
    for (name, got) in [
        ("aum", all(&|sample| sample.area_under_margin)),
        ("confidence_mean_true_prob", all(&|sample| sample.confidence)),
        ("variability_population_std", all(&|sample| sample.variability)),
        ("correctness", all(&|sample| sample.correctness)),
        ("forgetting_events", all(&|sample| sample.forgetting_events as f64)),
        ("never_learned", dynamics.never_learned().into_iter().map(|sample| sample as f64).collect()),
        ("el2n_last_epoch", all(&|sample| sample.last_el2n)),
        ("el2n_mean", all(&|sample| sample.el2n)),
        ("mean_loss", all(&|sample| sample.loss)),
    ] {
        check.close(name, &got, &json::numbers(json::field(case, name)?)?, Tolerance::both(1e-9));
    }
    check.finish()
}

fn metric(file: &Value, task: &str, name: &str, case: &Value) -> Result<()> {
    let got = match task {
        "binary" => {
            // The probabilities may stand in another section; a file without them cannot be checked.
            let source = json::field(file, "calibration_binary")?;
            let p = json::numbers(json::field(source, "p")?)?;
            let labels: Vec<bool> = json::numbers(json::field(source, "y")?)?.into_iter().map(|y| y == 1.0).collect();
            let classes = |yes: &mut dyn Iterator<Item = bool>| yes.map(usize::from).collect::<Vec<_>>();
            let (predicted, truth) = (classes(&mut p.iter().map(|&p| p >= 0.5)), classes(&mut labels.iter().copied()));
            match name {
                "roc_auc" => vec![roc_auc(&p, &labels)?],
                "average_precision" => vec![average_precision(&p, &labels)?],
                "log_loss" => vec![log_loss(&p, &labels)?],
                "mcc" => vec![ConfusionMatrix::from_predictions(&predicted, &truth, 2)?.matthews_correlation()?],
                "f1" => vec![ConfusionMatrix::from_predictions(&predicted, &truth, 2)?.per_class()[1].f1],
                _ => bail!("no metric of two classes is called {name:?}"),
            }
        }
        "multiclass" => {
            let classes = |key| -> Result<Vec<usize>> {
                Ok(json::numbers(json::field(case, key)?)?.into_iter().map(|class| class as usize).collect())
            };
            let (labels, predicted) = (classes("y")?, classes("pred")?);
            let count = labels.iter().chain(&predicted).max().map_or(0, |largest| largest + 1);
            let matrix = ConfusionMatrix::from_predictions(&predicted, &labels, count)?;
            match name {
                "confusion_rows_true" => matrix.counts().iter().map(|&count| count as f64).collect(),
                "f1_macro" => vec![matrix.macro_average()?.f1],
                "f1_micro" => vec![matrix.micro_average()?.f1],
                "f1_weighted" => vec![matrix.weighted_average()?.f1],
                "balanced_accuracy" => vec![matrix.balanced_accuracy()?],
                "cohen_kappa" => vec![matrix.cohen_kappa()?],
                "mcc" => vec![matrix.matthews_correlation()?],
                _ => bail!("no metric of several classes is called {name:?}"),
            }
        }
        _ => bail!("no metrics of {task:?}"),
    };
    let mut check = Check::default();
    check.close(name, &got, &json::numbers(json::field(case, name)?)?, Tolerance::both(1e-9));
    check.finish()
}
