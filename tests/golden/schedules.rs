//! Schedules of the learning rate: the rate of each step.

use crate::case::{Case, Check, Tolerance};
use crate::json;
use anyhow::{Context, Result, bail, ensure};
use gradus::Device;
use gradus::train::{Cyclic, OneCycle, Plateau, Schedule};
use serde_json::Value;

pub(crate) fn cases(file: &Value, _: &Device) -> Result<Vec<Case>> {
    let schedules = json::list(file, "schedules")?.iter();
    schedules.map(|case| Ok(Case::new(json::text(case, "name")?, || check(case)))).collect()
}

fn check(case: &Value) -> Result<()> {
    let mut check = Check::default();
    let tolerance = Tolerance { absolute: 1e-17, relative: 1e-7 };
    if case.get("metrics").is_some() {
        let metrics = json::numbers(json::field(case, "metrics")?)?;
        let expected = json::numbers(json::field(case, "lr_after_each_metric")?)?;
        let mut plateau = plateau(json::field(case, "hyper")?)?;
        let mut rate = json::number(json::field(case, "base_lr")?)?;
        let mut rates = Vec::new();
        for metric in metrics {
            if plateau.observe(metric) {
                rate = plateau.next(rate);
            }
            rates.push(rate);
        }
        check.close("rate", &rates, &expected, tolerance);
        return check.finish();
    }
    let expected = json::numbers(json::field(case, "lr")?)?;
    let (schedule, momentum) = schedule(case)?;
    let values = |schedule: &Schedule| (0..expected.len() as u64).map(|step| schedule.at(step)).collect::<Vec<_>>();
    check.close("rate", &values(&schedule), &expected, tolerance);
    if let Some(expected) = case.get("momentum") {
        let momentum = momentum.context("no momentum")?;
        check.close("momentum", &values(&momentum), &json::numbers(expected)?, tolerance);
    }
    check.finish()
}

/// The rates of a case, and its momenta if it has some.
fn schedule(case: &Value) -> Result<(Schedule, Option<Schedule>)> {
    let hyper = json::field(case, "hyper")?;
    let number = |key: &str| json::number(json::field(hyper, key)?);
    let steps = |key: &str| Ok::<_, anyhow::Error>(number(key)? as u64);
    let base = case.get("base_lr").map(json::number).transpose()?.unwrap_or(1.0);
    let factor = match json::text(case, "name")? {
        "step" => Schedule::step(steps("step_size")?, number("gamma")?),
        "exponential" => Schedule::exponential(number("gamma")?),
        "cosine_beyond_tmax" => Schedule::cosine_wave(steps("T_max")?, number("eta_min")? / base),
        "cosine_warm_restarts" => Schedule::cosine_restarts(steps("T_0")?, steps("T_mult")?, number("eta_min")? / base),
        "one_cycle" => {
            let (start, end) = (1.0 / number("div_factor")?, 1.0 / number("final_div_factor")?);
            let cycle = OneCycle::new(steps("total_steps")?).rise(number("pct_start")?).from_to(start, start * end);
            let cycle = if hyper["anneal"] == "linear" { cycle.linear() } else { cycle };
            let cycle = if hyper["three_phase"] == true { cycle.three_phases() } else { cycle };
            let momentum = cycle.momentum(number("base_momentum")?, number("max_momentum")?);
            return Ok((cycle.rate().times(number("max_lr")?), Some(momentum)));
        }
        "polynomial" => Schedule::polynomial(steps("total_iters")?, number("power")?, 0.0),
        "constant_factor" => Schedule::constant_for(steps("total_iters")?, number("factor")?),
        "cyclic_triangular2" => {
            let cyclic = Cyclic::new(number("base_lr")?, number("max_lr")?, steps("step_size_up")?);
            return Ok((cyclic.falling_over(steps("step_size_down")?).halving().schedule(), None));
        }
        "sequential_linear_warmup_then_cosine" => {
            let (warmup, cosine) = (json::field(hyper, "warmup")?, json::field(hyper, "cosine")?);
            let of = |section: &Value, key| json::number(json::field(section, key)?);
            let rising = Schedule::linear(of(warmup, "start_factor")?, 1.0, of(warmup, "total_iters")? as u64);
            let falling = Schedule::cosine_wave(of(cosine, "T_max")? as u64, of(cosine, "eta_min")? / base);
            rising.then(steps("milestone")?, falling)
        }
        "optax_warmup_cosine_decay" => {
            let (peak, warmup) = (number("peak")?, steps("warmup_steps")?);
            // optax counts the warm-up among the steps of the decay.
            let falling = Schedule::cosine(steps("decay_steps")? - warmup, number("end")? / peak);
            Schedule::linear(number("init")? / peak, 1.0, warmup).then(warmup, falling).times(peak)
        }
        "optax_piecewise_constant" => {
            let boundaries = json::entries(hyper, "boundaries")?.iter();
            let boundaries = boundaries.map(|(step, factor)| Ok((step.parse()?, json::number(factor)?)));
            Schedule::piecewise(boundaries.collect::<Result<Vec<_>>>()?).times(number("init")?)
        }
        name => bail!("no schedule is called {name:?}"),
    };
    Ok((factor.times(base), None))
}

fn plateau(hyper: &Value) -> Result<Plateau> {
    let number = |key: &str| json::number(json::field(hyper, key)?);
    let plateau = if json::text(hyper, "mode")? == "min" { Plateau::falling() } else { Plateau::rising() };
    let plateau = plateau.factor(number("factor")?).patience(number("patience")? as u64);
    ensure!(number("eps")? == 1e-8, "another least change");
    let plateau = match json::text(hyper, "threshold_mode")? {
        "rel" => plateau.relative_threshold(number("threshold")?),
        _ => plateau.absolute_threshold(number("threshold")?),
    };
    Ok(plateau.cooldown(number("cooldown")? as u64).smallest(number("min_lr")?))
}
