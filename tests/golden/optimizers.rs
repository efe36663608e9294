//! Optimisers: parameters and loss after some steps on small problems.

use crate::case::{Case, Check, Tolerance, precisions};
use crate::devices::is_cpu;
use crate::json;
use anyhow::{Context, Result, bail, ensure};
use gradus::nn::{Module, Param};
use gradus::train::{Adam, Optimiser, Sgd};
use gradus::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) fn cases(file: &Value, device: &Device) -> Result<Vec<Case>> {
    let problems = json::field(file, "problems")?;
    let runs = json::list(file, "runs")?.iter();
    runs.map(|run| Ok(Case::new(json::text(run, "optimizer")?, || check(problems, run, device)))).collect()
}

fn check(problems: &Value, run: &Value, device: &Device) -> Result<()> {
    let mut check = Check::default();
    for (dtype, suffix, _) in precisions(device) {
        let (start, loss) = problem(problems, json::text(run, "problem")?, (device, dtype))?;
        let parameter = Param::new(start);
        let (mut optimiser, rate_decay) = optimiser(run, &parameter)?;
        let recorded = |suffix: &str| json::entries(run, &format!("after_steps_{suffix}"));
        let mut steps = recorded(suffix)?.keys().map(|step| Ok((step.parse()?, step))).collect::<Result<Vec<_>>>()?;
        steps.sort();
        for (count, step) in steps {
            while optimiser.steps() < count {
                optimiser.step(&loss(&parameter.tensor()))?;
                optimiser.set_learning_rate(optimiser.learning_rate() * rate_decay);
            }
            let expected = &recorded(suffix)?[step];
            let gap = match dtype {
                DType::F32 => json::number(json::field(json::field(run, "max_abs_f64_f32_gap")?, step)?)?,
                _ => 0.0,
            };
            let tolerance = match dtype {
                DType::F32 if is_cpu(device) => Tolerance { absolute: 10.0 * gap, relative: f32::EPSILON.into() },
                // A GPU divides and takes roots less exactly than both runs did.
                DType::F32 => Tolerance { absolute: 10.0 * gap + 2e-6, relative: 2e-6 },
                _ => Tolerance::both(1e-10),
            };
            let what = |what| format!("{what} after {step} steps in {suffix}");
            let parameters = json::numbers(json::field(expected, "params")?)?;
            check.close(&what("parameters"), &json::values(&parameter.tensor())?, &parameters, tolerance);

            let exact = recorded("f64")?.get(step).with_context(|| format!("no step {step} in f64"))?;
            let [expected, exact] = [expected, exact].map(|at| json::number(&at["loss"]));
            let (expected, exact) = (expected?, exact?);
            let tolerance =
                Tolerance { absolute: tolerance.absolute.max(10.0 * (expected - exact).abs()), ..tolerance };
            let got = loss(&parameter.tensor());
            check.close(&what("loss"), &json::values(&got)?, &[expected], tolerance);
        }
    }
    check.finish()
}

type Loss = Box<dyn Fn(&Tensor) -> Tensor>;

/// Where a problem starts, and its loss.
fn problem(problems: &Value, name: &str, at: (&Device, DType)) -> Result<(Tensor, Loss)> {
    let problem = json::field(problems, name)?;
    let tensor = |key| json::tensor(json::field(problem, key)?, at);
    Ok(match json::text(problem, "f")? {
        "0.5*x^T A x - b^T x" => {
            let (a, b) = (tensor("A")?, tensor("b")?);
            (tensor("x0")?, Box::new(move |x| x.dot(&a.matmul(x)) * 0.5 - b.dot(x)))
        }
        "(1-x)^2+100(y-x^2)^2" => {
            let loss = |point: &Tensor| {
                let (x, y) = (point.select_index(0, 0), point.select_index(0, 1));
                (&x - 1.0).square() + (y - x.square()).square() * 100.0
            };
            (tensor("x0")?, Box::new(loss))
        }
        "0.5*||W B - C||_F^2, W row-major 3x4" => {
            let (b, c) = (tensor("B")?, tensor("C")?);
            (tensor("W0")?, Box::new(move |w| (w.matmul(&b) - &c).square().sum(..) * 0.5))
        }
        f => bail!("unknown problem {f:?}"),
    })
}

/// Named options that are taken one by one.
struct Options<'a>(BTreeMap<&'a str, &'a Value>);

impl Options<'_> {
    fn number(&mut self, key: &str) -> Result<Option<f64>> {
        self.0.remove(key).map(json::number).transpose()
    }

    fn or(&mut self, key: &str, default: f64) -> Result<f64> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    fn flag(&mut self, key: &str) -> bool {
        self.0.remove(key) == Some(&Value::Bool(true))
    }
}

/// The optimiser of a run, and what its learning rate is multiplied by after each step.
fn optimiser(run: &Value, model: &impl Module) -> Result<(Optimiser, f64)> {
    let given = json::entries(run, "hyper")?.iter().chain(json::entries(run, "extra")?);
    let mut options = Options(given.map(|(key, value)| (key.as_str(), value)).collect());
    let learning_rate = options.number("lr")?.context("no learning rate")?;
    let weight_decay = options.or("weight_decay", 0.0)?;
    let rate_decay = options.or("expdecay", 1.0)?;
    let (clip_norm, clip_value) = (options.number("clip_norm")?, options.number("clip_value")?);
    // PyTorch's runs name their class, others only the optimiser.
    let path = json::text(run, "source")?.strip_prefix("torch.optim.");
    let class = path.and_then(|path| path.rsplit('.').next()).unwrap_or(json::text(run, "optimizer")?);
    let optimiser = match class {
        "SGD" => {
            let mut sgd = Sgd::new(learning_rate).weight_decay(weight_decay);
            sgd = sgd.momentum(options.or("momentum", 0.0)?).dampening(options.or("dampening", 0.0)?);
            sgd = if options.flag("nesterov") { sgd.nesterov() } else { sgd };
            sgd = clip_norm.into_iter().fold(sgd, Sgd::clip_norm);
            clip_value.into_iter().fold(sgd, Sgd::clip_value).of(model)
        }
        "Adam" | "AdamW" | "optax_adam" | "optax_adamw" => {
            let (beta1, beta2) = match options.0.remove("betas") {
                Some(betas) => (json::number(&betas[0])?, json::number(&betas[1])?),
                None => (options.or("b1", 0.9)?, options.or("b2", 0.999)?),
            };
            let adam = Adam::new(learning_rate).betas(beta1, beta2).epsilon(options.or("eps", 1e-8)?);
            let decoupled = matches!(class, "AdamW" | "optax_adamw");
            let decay = if decoupled { Adam::decoupled_weight_decay } else { Adam::weight_decay };
            let adam = clip_norm.into_iter().fold(decay(adam, weight_decay), Adam::clip_norm);
            clip_value.into_iter().fold(adam, Adam::clip_value).of(model)
        }
        _ => bail!("no optimiser is called {class:?}"),
    };
    ensure!(options.0.is_empty(), "{class} has no options {:?}", options.0.keys());
    Ok((optimiser, rate_decay))
}
