//! Optimisers: parameters and loss after some steps on small problems.

use crate::case::{Case, Check, Tolerance, precisions};
use crate::devices::is_cpu;
use crate::json;
use anyhow::{Context, Result, bail, ensure};
use gradus::nn::{Module, Param};
use gradus::train::{
    AdaBelief, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Lamb, Lars, Lion, Muon, NAdam, Optimiser, RAdam,
    RmsProp, Rprop, Schedule, ScheduleFreeAdamW, Sgd, Yogi,
};
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
        // optax's matrices are [inputs, outputs], and Muon looks at which is which.
        let transposed = json::text(run, "optimizer")? == "optax_muon";
        let turned = |tensor: &Tensor| if transposed { tensor.t() } else { tensor.clone() };
        let parameter = Param::new(turned(&start));
        let mut optimiser = optimiser(run, &parameter)?;
        let recorded = |suffix: &str| json::entries(run, &format!("after_steps_{suffix}"));
        let mut steps = recorded(suffix)?.keys().map(|step| Ok((step.parse()?, step))).collect::<Result<Vec<_>>>()?;
        steps.sort();
        for (count, step) in steps {
            while optimiser.steps() < count {
                optimiser.step(&loss(&turned(&parameter.tensor())))?;
            }
            let expected = &recorded(suffix)?[step];
            let gap = match dtype {
                DType::F32 => json::number(json::field(json::field(run, "max_abs_f64_f32_gap")?, step)?)?,
                _ => 0.0,
            };
            let tolerance = match dtype {
                // These were orthogonalised in bf16: around the minimum, where steps of a fixed size go back and forth, the
                // same in another order of operations is 0.07 away.
                _ if json::text(run, "optimizer")?.ends_with("bf16_ns") => {
                    Tolerance::both(if count <= 10 { 1e-2 } else { 0.1 })
                }
                DType::F32 if is_cpu(device) => Tolerance { absolute: 10.0 * gap, relative: f32::EPSILON.into() },
                // What is told of f64 below is so in f32, on the CPU too, by 4e-3 where the mean of squares is divided before it
                // is multiplied. So a GPU cannot be told right from wrong as closely, whose own roundings are others.
                DType::F32
                    if json::text(run, "optimizer")? == "adafactor"
                        && count > 10
                        && device.name().starts_with("gpu") =>
                {
                    Tolerance::both(1e-2)
                }
                // A GPU divides and takes roots less exactly than both runs did.
                DType::F32 => Tolerance { absolute: 10.0 * gap + 2e-6, relative: 2e-6 },
                // Where it has converged, squares are below Adafactor's ε, and what is divided by them grows: in another order of
                // operations PyTorch itself is 3e-8 away.
                _ if json::text(run, "optimizer")? == "adafactor" && count > 10 => Tolerance::both(1e-7),
                _ => Tolerance::both(1e-10),
            };
            let what = |what| format!("{what} after {step} steps in {suffix}");
            let parameters = json::numbers(json::field(expected, "params")?)?;
            check.close(&what("parameters"), &json::values(&turned(&parameter.tensor()))?, &parameters, tolerance);

            let exact = recorded("f64")?.get(step).with_context(|| format!("no step {step} in f64"))?;
            let [expected, exact] = [expected, exact].map(|at| json::number(&at["loss"]));
            let (expected, exact) = (expected?, exact?);
            let tolerance =
                Tolerance { absolute: tolerance.absolute.max(10.0 * (expected - exact).abs()), ..tolerance };
            let got = loss(&turned(&parameter.tensor()));
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

    /// Whether it is there and true.
    fn flag(&mut self, key: &str) -> bool {
        self.0.remove(key) == Some(&Value::Bool(true))
    }
}

/// The optimiser of a run.
fn optimiser(run: &Value, model: &impl Module) -> Result<Optimiser> {
    let given = json::entries(run, "hyper")?.iter().chain(json::entries(run, "extra")?);
    let mut o = Options(given.map(|(key, value)| (key.as_str(), value)).collect());
    o.0.remove("note");
    let rate = o.number("lr")?.context("no learning rate")?;
    let decay = o.or("weight_decay", 0.0)?;
    let (clip_norm, clip_value) = (o.number("clip_norm")?, o.number("clip_value")?);
    let per_step = Schedule::exponential(o.or("expdecay", 1.0)?);
    let betas = match o.0.remove("betas") {
        Some(betas) => (json::number(&betas[0])?, json::number(&betas[1])?),
        None => (o.or("b1", 0.9)?, o.or("b2", 0.999)?),
    };
    // PyTorch's runs name their class, others only the optimiser.
    let path = json::text(run, "source")?.strip_prefix("torch.optim.");
    let class = path.and_then(|path| path.rsplit('.').next()).unwrap_or(json::text(run, "optimizer")?);
    let optimiser = match class {
        "SGD" => {
            let sgd = Sgd::new(rate).weight_decay(decay).momentum(o.or("momentum", 0.0)?);
            let sgd = sgd.dampening(o.or("dampening", 0.0)?).schedule(per_step);
            let sgd = if o.flag("nesterov") { sgd.nesterov() } else { sgd };
            let sgd = clip_norm.into_iter().fold(sgd, Sgd::clip_norm);
            clip_value.into_iter().fold(sgd, Sgd::clip_value).of(model)
        }
        "Adam" | "optax_adam" | "optax_nadam" => {
            let adam = Adam::new(rate).betas(betas.0, betas.1).epsilon(o.or("eps", 1e-8)?).weight_decay(decay);
            let adam = if o.flag("amsgrad") { adam.amsgrad() } else { adam };
            let adam = if class == "optax_nadam" { adam.nesterov() } else { adam };
            adam.schedule(per_step).of(model)
        }
        "AdamW" | "optax_adamw" => {
            AdamW::new(rate).betas(betas.0, betas.1).epsilon(o.or("eps", 1e-8)?).weight_decay(decay).of(model)
        }
        "NAdam" => {
            let nadam = NAdam::new(rate).betas(betas.0, betas.1).epsilon(o.or("eps", 1e-8)?);
            nadam.momentum_decay(o.or("momentum_decay", 4e-3)?).weight_decay(decay).of(model)
        }
        "RAdam" => RAdam::new(rate).betas(betas.0, betas.1).epsilon(o.or("eps", 1e-8)?).weight_decay(decay).of(model),
        "Adamax" => Adamax::new(rate).betas(betas.0, betas.1).epsilon(o.or("eps", 1e-8)?).weight_decay(decay).of(model),
        "optax_adabelief" => {
            let belief = AdaBelief::new(rate).betas(betas.0, betas.1);
            belief.epsilons(o.or("eps", 1e-16)?, o.or("eps_root", 1e-16)?).weight_decay(decay).of(model)
        }
        "optax_yogi" => {
            let yogi = Yogi::new(rate).betas(betas.0, betas.1).epsilon(o.or("eps", 1e-3)?);
            yogi.initial(o.or("initial_accumulator", 1e-6)?).weight_decay(decay).of(model)
        }
        "RMSprop" | "optax_rmsprop_bias_uncorrected" => {
            ensure!(!o.flag("eps_in_sqrt"), "no ε inside of the root");
            let smoothing = o.number("decay")?.map_or_else(|| o.or("alpha", 0.99), Ok)?;
            let rms = RmsProp::new(rate).decay(smoothing).epsilon(o.or("eps", 1e-8)?).weight_decay(decay);
            let rms = rms.momentum(o.or("momentum", 0.0)?);
            if o.flag("centered") { rms.centred().of(model) } else { rms.of(model) }
        }
        "Adagrad" => {
            let adagrad = Adagrad::new(rate).epsilon(o.or("eps", 1e-10)?).rate_decay(o.or("lr_decay", 0.0)?);
            adagrad.initial(o.or("initial_accumulator_value", 0.0)?).weight_decay(decay).of(model)
        }
        "Adadelta" => {
            let adadelta = Adadelta::new(rate).decay(o.or("rho", 0.9)?).epsilon(o.or("eps", 1e-6)?);
            adadelta.weight_decay(decay).of(model)
        }
        "Adafactor" => {
            let epsilons = o.0.remove("eps").context("no eps")?;
            let adafactor = Adafactor::new(rate).decay(o.or("beta2_decay", -0.8)?).clip(o.or("d", 1.0)?);
            let adafactor = adafactor.epsilons(json::number(&epsilons[0])?, json::number(&epsilons[1])?);
            adafactor.weight_decay(decay).of(model)
        }
        "Rprop" => {
            let [factors, sizes] = ["etas", "step_sizes"].map(|key| o.0.remove(key).context("missing"));
            let (factors, sizes) = (json::numbers(factors?)?, json::numbers(sizes?)?);
            Rprop::new(rate).factors(factors[0], factors[1]).sizes(sizes[0], sizes[1]).of(model)
        }
        "lion" | "optax_lion" => {
            // What is so called there multiplies the decay by the rate of the start alone.
            ensure!(!o.flag("decoupled_weight_decay"), "no decay apart from the learning rate");
            Lion::new(rate).betas(betas.0, betas.1).weight_decay(decay).of(model)
        }
        "Muon" | "optax_muon" => {
            let iterations = o.or("ns_steps", 5.0)? as usize;
            let muon = Muon::new(rate).iterations(iterations).weight_decay(decay).epsilon(o.or("eps", 1e-7)?);
            let momentum = o.number("beta")?.map_or_else(|| o.or("momentum", 0.95), Ok)?;
            let muon = muon.momentum(momentum);
            let muon = if o.flag("nesterov") { muon } else { muon.without_nesterov() };
            let coefficients = o.0.remove("ns_coeffs").map(json::numbers).transpose()?;
            ensure!(coefficients.is_none_or(|c| c == [3.4445, -4.775, 2.0315]), "other coefficients");
            if class == "Muon" { muon.of(model) } else { muon.corrected().of(model) }
        }
        "optax_lamb" => {
            Lamb::new(rate).betas(betas.0, betas.1).epsilon(o.or("eps", 1e-6)?).weight_decay(decay).of(model)
        }
        "optax_lars" => {
            let lars = Lars::new(rate).trust(o.or("trust_coefficient", 1e-3)?).epsilon(o.or("eps", 0.0)?);
            let lars = lars.momentum(o.or("momentum", 0.9)?).weight_decay(decay);
            if o.flag("nesterov") { lars.nesterov().of(model) } else { lars.of(model) }
        }
        "optax_schedule_free_adamw" => {
            let free = ScheduleFreeAdamW::new(rate).betas(betas.0, betas.1).epsilon(o.or("eps", 1e-8)?);
            free.weight_decay(decay).of(model)
        }
        _ => bail!("no optimiser is called {class:?}"),
    };
    ensure!(o.0.is_empty(), "{class} has no options {:?}", o.0.keys());
    Ok(optimiser)
}
