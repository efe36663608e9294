//! Linear models, trained to convergence: coefficients, losses and test scores.
//!
//! The objectives are convex, so L-BFGS (and, for the lasso, gradient descent with Nesterov's momentum) comes to the solution that
//! another library found in its own way.

use crate::case::{Case, Check, Tolerance};
use crate::{datasets, json};
use anyhow::{Context, Result, bail, ensure};
use gradus::data::{Standardiser, Table};
use gradus::nn::{Layer, Linear, Module, Param, bce_with_logits, cross_entropy, l2_penalty, mse_loss};
use gradus::train::metrics::{accuracy, mean_squared_error, r2_score, roc_auc};
use gradus::train::{Lbfgs, LbfgsStatus, Sgd};
use gradus::{DType, Device, Tensor};
use serde_json::Value;

/// How small gradients must be, and how still parameters must stand, where coefficients are compared to 5 digits, small ones too.
const PRECISE: f64 = 1e-10;

pub(crate) fn cases(file: &Value, _: &Device) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (section, content) in file.as_object().context("no object")?.iter().filter(|(_, content)| content.is_object()) {
        match content.get("models").and_then(Value::as_object) {
            Some(models) => {
                for (name, model) in models {
                    cases.push(Case::new(format!("{section}/{name}"), || standardised(section, content, name, model)));
                }
            }
            None => cases.push(Case::new(section, || pixels(section, content))),
        }
    }
    Ok(cases)
}

/// A model of the first features of a data set, standardised.
fn standardised(section: &str, content: &Value, name: &str, expected: &Value) -> Result<()> {
    let data = ["diabetes", "breast_cancer", "iris"].into_iter().find(|data| section.starts_with(data));
    let means = json::numbers(json::field(content, "train_mean")?)?;
    let [(train_x, train_y), (test_x, test_y)] = split(data.context("unknown data")?, means.len())?;
    let standardiser = Standardiser::fit(&train_x);
    let mut check = Check::default();
    check.close("train_mean", standardiser.means(), &means, Tolerance::relative(1e-12));
    let deviations = json::numbers(json::field(content, "train_std")?)?;
    check.close("train_std", standardiser.standard_deviations(), &deviations, Tolerance::relative(1e-12));

    let classes = |y: &[f64]| y.iter().fold(0.0f64, |largest, &y| largest.max(y)) as usize + 1;
    let (task, penalty) = match (name.split_once("_alpha_"), expected.get("C")) {
        (None, None) if name == "ols" => (Task::Squares, 0.0),
        (Some(("ridge" | "lasso", alpha)), None) => (Task::Squares, alpha.parse()?),
        (None, Some(c)) => {
            let task = if classes(&train_y) == 2 { Task::Logistic } else { Task::Multinomial(classes(&train_y)) };
            (task, if c.is_null() { 0.0 } else { 1.0 / json::number(c)? })
        }
        _ => bail!("no model is called {name:?}"),
    };
    let train = Rows::new(task, &standardiser.transform(&train_x)?, train_y);
    let test = Rows::new(task, &standardiser.transform(&test_x)?, test_y);
    let model = if name.starts_with("lasso") { lasso(&train, penalty)? } else { task.fit(&train, penalty, PRECISE)? };
    compare(&mut check, model, &train, &test, expected)?;
    check.finish()
}

/// A model of the digits' pixels, divided by 16.
fn pixels(section: &str, expected: &Value) -> Result<()> {
    let c = section.strip_prefix("digits_multinomial_C").with_context(|| format!("no model is called {section:?}"))?;
    let task = Task::Multinomial(10);
    let [train, test] = split("digits", 64)?.map(|(x, y)| {
        let rows = Rows::new(task, &x, y);
        Rows { x: rows.x / 16.0, ..rows }
    });
    let mut check = Check::default();
    // No coefficients are compared here, and scores need fewer digits.
    let model = task.fit(&train, 1.0 / c.parse::<f64>()?, 1e-5)?;
    compare(&mut check, model, &train, &test, expected)?;
    check.finish()
}

/// The first features of a data set and its targets: rows to train on, and every fifth to test on.
fn split(data: &str, features: usize) -> Result<[(Table, Vec<f64>); 2]> {
    let table = datasets::table(data)?;
    let (train, test) = table.split_by(|row| row % 5 != 4);
    Ok([train, test].map(|half| {
        let (mut x, y) = half.split_column(half.columns() - 1);
        while x.columns() > features {
            x = x.split_column(features).0;
        }
        (x, y)
    }))
}

/// Rows as tensors, with targets as the task wants them.
struct Rows {
    task: Task,
    x: Tensor,
    y: Tensor,
    labels: Vec<f64>,
}

impl Rows {
    fn new(task: Task, x: &Table, labels: Vec<f64>) -> Rows {
        let device = Device::cpu();
        let y = Tensor::from_vec(labels.clone(), [labels.len(), 1], &device);
        let y = if let Task::Multinomial(_) = task { y.squeeze(1).to_dtype(DType::I32) } else { y };
        Rows { task, x: x.to_tensor((&device, DType::F64)), y, labels }
    }

    fn loss(&self, model: &Linear) -> Tensor {
        let outputs = model.forward(&self.x);
        match self.task {
            Task::Squares => mse_loss(&outputs, &self.y) / 2.0,
            Task::Logistic => bce_with_logits(&outputs, &self.y),
            Task::Multinomial(_) => cross_entropy(&outputs, &self.y),
        }
    }
}

#[derive(Clone, Copy)]
enum Task {
    Squares,
    Logistic,
    Multinomial(usize),
}

impl Task {
    /// The model that minimises Σ loss + `penalty` / 2 · ‖w‖².
    fn fit(self, rows: &Rows, penalty: f64, precision: f64) -> Result<Linear> {
        let outputs = if let Task::Multinomial(classes) = self { classes } else { 1 };
        let [count, features] = rows.x.dims()?;
        let penalty = penalty / count as f64;
        let zeros = |shape: &[usize]| Tensor::zeros(shape, &rows.x);
        let model = Linear::from_tensors(zeros(&[outputs, features]), Some(zeros(&[outputs])));
        let objective = || rows.loss(&model) + l2_penalty([&model.weight]).expect("a weight") * (penalty / 2.0);
        let mut optimiser =
            Lbfgs::new().history(20).gradient_tolerance(precision * 1e-2).change_tolerance(0.0).of(&model);
        let progress = optimiser.minimise(2000, objective)?;
        ensure!(progress.state != LbfgsStatus::Descending, "no convergence: {progress:?}");
        // Now no digit of the loss is left to fall, which says half of those of the coefficients. Gradients tell more.
        descend(&model, 0.1, precision, || Some(objective()))?;
        Ok(model)
    }
}

/// The model that minimises the mean of squares / 2 + `penalty` · Σ|w|.
///
/// With w = u² − v² the penalty is that of the smooth Σ u² + v², and what is minimal in u and v is so in w (Hoff 2017).
fn lasso(rows: &Rows, penalty: f64) -> Result<Linear> {
    let [_, features] = rows.x.dims()?;
    let start = || Param::new(Tensor::ones([1, features], &rows.x));
    let roots = [start(), start()];
    let bias = Param::new(Tensor::zeros([1], &rows.x));
    let weight = || roots[0].tensor().square() - roots[1].tensor().square();
    let objective = || {
        let outputs = rows.x.matmul(&weight().t()) + bias.tensor();
        Some(mse_loss(&outputs, &rows.y) / 2.0 + l2_penalty(&roots)? * penalty)
    };
    descend(&vec![roots[0].clone(), roots[1].clone(), bias.clone()], 1e-3, PRECISE, objective)?;
    Ok(Linear::from_tensors(weight(), Some(bias.tensor())))
}

/// Minimises an objective until 200 steps change no parameter by more than `precision` times the largest one.
fn descend(model: &impl Module, rate: f64, precision: f64, objective: impl Fn() -> Option<Tensor>) -> Result<()> {
    let mut optimiser = Sgd::new(rate).momentum(0.99).nesterov().of(model);
    let parameters = || -> Result<Vec<f64>> {
        let parts =
            model.parameters().iter().map(|(_, part)| json::values(&part.tensor())).collect::<Result<Vec<_>>>()?;
        Ok(parts.concat())
    };
    let mut before = parameters()?;
    for _ in 0..200 {
        for _ in 0..200 {
            optimiser.step(&objective().context("a model has weights")?)?;
        }
        let now = parameters()?;
        let largest = now.iter().fold(0.0, |largest: f64, w| largest.max(w.abs()));
        if now.iter().zip(&before).all(|(now, before)| (now - before).abs() <= precision * largest) {
            return Ok(());
        }
        before = now;
    }
    bail!("no convergence after {} steps", optimiser.steps())
}

/// Compares everything that is expected of a model.
fn compare(check: &mut Check, model: Linear, train: &Rows, test: &Rows, expected: &Value) -> Result<()> {
    let bias = model.bias.as_ref().context("a model has an intercept")?.tensor();
    for (name, value) in expected.as_object().context("no numbers")? {
        let (rows, score) = match name.split_once('_') {
            Some(("train", score)) => (train, score),
            Some(("test", score)) => (test, score),
            _ => (test, name.as_str()),
        };
        let outputs = model.forward(&rows.x);
        let predicted = || -> Result<Vec<usize>> {
            let classes = match rows.task {
                Task::Squares => bail!("no classes"),
                Task::Logistic => outputs.squeeze(1).gt(0.0).to_dtype(DType::I32),
                Task::Multinomial(_) => outputs.argmax(1),
            };
            Ok(classes.to_vec::<i32>()?.into_iter().map(|class| class as usize).collect())
        };
        let truth: Vec<usize> = rows.labels.iter().map(|&label| label as usize).collect();
        let trained = Tolerance { absolute: 1e-9, relative: 1e-5 };
        let (got, tolerance) = match score {
            "C" | "objective_gradient_max_abs" | "features" => continue,
            "coef" => (json::values(&model.weight.tensor())?, trained),
            "intercept" => (json::values(&bias)?, trained),
            "mse" => (vec![mean_squared_error(&json::values(&outputs)?, &rows.labels)?], trained),
            "r2" => (vec![r2_score(&json::values(&outputs)?, &rows.labels)?], trained),
            "log_loss_mean" => (json::values(&rows.loss(&model))?, trained),
            "accuracy" => (vec![accuracy(&predicted()?, &truth)?], Tolerance::EXACT),
            "correct" => {
                let right = predicted()?.iter().zip(&truth).filter(|(predicted, label)| predicted == label).count();
                (vec![right as f64], Tolerance::EXACT)
            }
            "n_test" => (vec![truth.len() as f64], Tolerance::EXACT),
            "auc" => {
                let labels: Vec<bool> = rows.labels.iter().map(|&label| label == 1.0).collect();
                (vec![roc_auc(&json::values(&outputs)?, &labels)?], Tolerance::both(1e-12))
            }
            _ => bail!("no score is called {name:?}"),
        };
        let expected = json::numbers(value)?;
        ensure!(!expected.is_empty(), "no numbers in {name:?}");
        check.close(name, &got, &expected, tolerance);
    }
    Ok(())
}
