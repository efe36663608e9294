//! Profiles by module, forward and backward, and against ceilings.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, is_cpu, own_devices};
use gradus::prelude::*;
use gradus::tensor::Ceilings;
use gradus::tensor::graph::Scope;
use gradus::{Profile, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Barrier, RwLock};
use std::thread;

/// Tests of what is measured hold this for themselves, the others together.
static CLOCK: RwLock<()> = RwLock::new(());

/// How many kernels of a family each module has, by the module that their time is counted for.
fn counts(profile: &Profile, family: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for run in profile.runs.iter().filter(|run| run.kernel.family == family) {
        *counts.entry(run.modules.first().cloned().unwrap_or_default()).or_default() += 1;
    }
    counts
}

/// What a table says of its modules: their paths, in order, and the microseconds of each.
fn lines(profile: &Profile) -> Vec<(String, f64)> {
    let text = profile.to_string();
    let Some((_, modules)) = text.split_once("by module:\n") else { return Vec::new() };
    let line = |line: &str| {
        let micros = line.split_whitespace().next().unwrap().parse().unwrap();
        let path = line.splitn(2, "  ").last().unwrap().trim();
        (path.rsplit("  ").next().unwrap().trim().to_string(), micros)
    };
    modules.lines().skip(1).map(|text| line(text.trim_start())).collect()
}

fn mlp(device: &Device) -> Sequential {
    let init = Init::new(1, device);
    Sequential::new().then(Linear::new(40, 300, &init)).then(Relu).then(Linear::new(300, 8, &init))
}

#[test]
fn a_step_belongs_to_its_layers() {
    let _clock = CLOCK.read();
    for device in own_devices(None) {
        let model = mlp(&device);
        let mut optimiser = Sgd::new(0.1).of(&model);
        let (x, y) = (Tensor::rand([64, 40], Key::new(2), &device), Tensor::zeros([64, 8], &device));
        let mut step = || {
            let loss = (model.forward(&x) - &y).square().mean(..);
            optimiser.step(&loss)?;
            loss.item::<f32>()
        };
        for _ in 0..3 {
            step().unwrap();
        }
        let (_, profile) = device.profile(&mut step).unwrap();
        // Each layer's product and its weights' gradient; what the second one passes on to the first.
        let products = counts(&profile, "matmul");
        assert_eq!(products, BTreeMap::from([("0".into(), 2), ("2".into(), 3)]), "{device}: {profile}");
        let all: BTreeSet<&str> = profile.runs.iter().flat_map(|run| run.modules.iter().map(String::as_str)).collect();
        assert_eq!(all, BTreeSet::from(["0", "1", "2"]), "{device}: {profile}");

        let lines = lines(&profile);
        let paths: Vec<&str> = lines.iter().map(|(path, _)| path.as_str()).collect();
        let total: f64 = lines.iter().map(|(_, micros)| micros).sum();
        assert!(paths.contains(&"0") && paths.contains(&"2"), "{profile}");
        assert!((total - profile.total().as_secs_f64() * 1e6).abs() < 1.0, "{profile}");
        let trace: serde_json::Value = serde_json::from_str(&profile.to_chrome_trace()).unwrap();
        let modules =
            trace["traceEvents"].as_array().unwrap().iter().filter_map(|event| event["args"]["module"].as_str());
        assert_eq!(modules.filter(|module| module.split(", ").next() == Some("2")).count(), {
            profile.runs.iter().filter(|run| run.modules.first().is_some_and(|path| path == "2")).count()
        });
    }
}

/// A model whose own forward pass does not say that it is one.
#[derive(Module)]
struct Reader {
    words: Embedding,
    layers: Vec<TransformerEncoderLayer>,
    head: Linear,
}

impl Reader {
    fn loss(&self, tokens: &Tensor) -> Tensor {
        let mut x = self.words.forward(tokens);
        for layer in &self.layers {
            x = layer.forward(&x);
        }
        self.head.forward(&x).square().mean(..)
    }
}

#[test]
fn a_transformer_has_the_names_of_its_parameters() {
    let _clock = CLOCK.read();
    for device in own_devices(None) {
        let init = Init::new(3, &device);
        let layers = (0..2).map(|_| TransformerEncoderLayer::new(16, 2, 32, &init)).collect();
        let model = Reader { words: Embedding::new(20, 16, &init), layers, head: Linear::new(16, 5, &init) };
        // Attention without dropout is a kernel of its own.
        model.eval();
        let parameters = model.parameters();
        let tokens = Tensor::from_vec((0..24).map(|i| i % 20).collect::<Vec<i32>>(), [2, 12], &device);
        let step = || -> Result<()> {
            let loss = model.loss(&tokens);
            let weights: Vec<Tensor> = parameters.iter().map(|(_, parameter)| parameter.tensor()).collect();
            eval(&grad(&loss, &weights)?)
        };
        let ((), profile) = device.profile(step).unwrap();
        let known = |path: &String| parameters.iter().any(|(name, _)| name.starts_with(&format!("{path}.")));
        let named = |path: &String| known(path) || path.contains("dropout") || path.contains("activation");
        for run in &profile.runs {
            assert!(run.modules.iter().all(named), "{device}: {:?}", run.modules);
        }
        // The layers are alike, so each has as many kernels of its own, forward and backward.
        let of_layer = |layer: &str| {
            let is_in = |run: &&gradus::KernelRun| run.modules.first().is_some_and(|path| path.starts_with(layer));
            profile.runs.iter().filter(is_in).filter(|run| run.kernel.family == "matmul").count()
        };
        assert_eq!(of_layer("layers.0"), of_layer("layers.1"), "{device}: {profile}");
        assert!(of_layer("layers.0") >= 12 && of_layer("head") >= 3, "{device}: {profile}");
        let attention = profile.runs.iter().filter(|run| run.kernel.family.starts_with("attention"));
        let modules: BTreeSet<&str> = attention.filter_map(|run| Some(run.modules.first()?.as_str())).collect();
        assert_eq!(modules, BTreeSet::from(["layers.0.self_attn", "layers.1.self_attn"]), "{device}: {profile}");

        // A layer's line counts what is in it, and comes before it.
        let lines = lines(&profile);
        let place = |path: &str| lines.iter().position(|(of, _)| of == path).unwrap();
        let (layer, attention) = (place("layers.1"), place("layers.1.self_attn"));
        assert!(place("layers") < layer && layer < attention && lines[layer].1 > lines[attention].1, "{profile}");
    }
}

#[test]
fn equal_layers_that_run_apart_are_told_apart() {
    let _clock = CLOCK.read();
    for device in own_devices(None) {
        let init = Init::new(1, &device);
        let model = Sequential::new().then(Linear::new(6, 6, &init)).then(Linear::new(6, 6, &init));
        let x = Tensor::rand([4, 6], Key::new(2), &device);
        x.eval().unwrap();
        let ((), profile) = device
            .profile(|| {
                let y = model.forward(&x);
                y.eval()?;
                model.forward(&y).eval()
            })
            .unwrap();
        assert_eq!(
            counts(&profile, "matmul"),
            BTreeMap::from([("0".into(), 2), ("1".into(), 2)]),
            "{device}: {profile}"
        );
        let ((), profile) = device
            .profile(|| {
                for path in ["a", "b"] {
                    let scope = Scope::begin(path);
                    let y = x.matmul(&x.t());
                    drop(scope);
                    y.eval()?;
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(
            counts(&profile, "matmul"),
            BTreeMap::from([("a".into(), 1), ("b".into(), 1)]),
            "{device}: {profile}"
        );
    }
}

#[test]
fn threads_have_modules_of_their_own() {
    let _clock = CLOCK.read();
    for device in own_devices(None) {
        let x = Tensor::rand([6, 6], Key::new(2), &device);
        x.eval().unwrap();
        let both = Barrier::new(2);
        let ((), profile) = device
            .profile(|| {
                thread::scope(|threads| {
                    let outer = Scope::begin("outer");
                    threads.spawn(|| {
                        both.wait();
                        let _scope = Scope::begin("other");
                        both.wait();
                        both.wait();
                    });
                    both.wait();
                    both.wait();
                    // The other thread's scope is younger and goes on.
                    let y = x.matmul(&x);
                    both.wait();
                    drop(outer);
                    y.eval()
                })
            })
            .unwrap();
        assert_eq!(counts(&profile, "matmul"), BTreeMap::from([("outer".into(), 1)]), "{device}: {profile}");
    }
}

#[test]
fn without_modules_nothing_is_said_of_them() {
    let _clock = CLOCK.read();
    for device in own_devices(None) {
        let x = Tensor::rand([30, 30], Key::new(1), &device);
        let ((), profile) = device.profile(|| eval([&x.exp(), &x.matmul(&x)])).unwrap();
        assert!(profile.runs.iter().all(|run| run.modules.is_empty()), "{device}: {profile}");
        let (text, trace) = (profile.to_string(), profile.to_chrome_trace());
        assert!(!text.contains("by module") && !text.contains("ceiling") && !trace.contains("module"), "{text}{trace}");
    }
}

/// The seconds that a kernel needs at least are told by what it moves and computes, and by the ceilings.
#[test]
fn a_percentage_is_the_floor_by_the_time() {
    const LENGTH: usize = 256;
    let _clock = CLOCK.read();
    for device in own_devices(None) {
        let (x, w) = (Tensor::rand([1 << 20], Key::new(1), &device), Tensor::rand([LENGTH; 2], Key::new(2), &device));
        eval([&x, &w]).unwrap();
        let ((), mut profile) = device.profile(|| eval([&(&x * 2.0), &w.matmul(&w)])).unwrap();
        let ceilings = |copy, f32| Ceilings { copy, f32, f16: None, dispatch: 1.0, read: 1.0 };
        let (read_and_written, operations) = (((2 * 4) << 20) as f64, (2 * LENGTH.pow(3)) as f64);
        // What binds: for both kernels the bytes that they move (both operands of the product are one array), then
        // their operations.
        let cases = [
            (ceilings(1e3, 1e18), read_and_written / 1e3, (2 * 4 * LENGTH.pow(2)) as f64 / 1e3),
            (ceilings(1e12, 1e9), (1 << 20) as f64 / 1e9, operations / 1e9),
        ];
        for (ceilings, of_map, of_product) in cases {
            profile = profile.against(ceilings);
            for (family, floor) in [("elementwise", of_map), ("matmul", of_product)] {
                let runs: Vec<_> = profile.runs.iter().filter(|run| run.kernel.family == family).collect();
                let [run] = runs[..] else { panic!("{device}: {family}\n{profile}") };
                let (percent, expected) = (profile.percent(run).unwrap(), 100.0 * floor / run.time.as_secs_f64());
                assert!((percent / expected - 1.0).abs() < 1e-9, "{device}: {family} {percent} {expected}\n{profile}");
            }
        }
    }
}

/// The units of what is measured: how far a kernel is from its ceiling is for benchmarks to say, not for a machine that does other
/// things besides.
#[test]
fn ceilings_are_of_the_size_of_what_kernels_reach() {
    let _clock = CLOCK.write();
    for device in devices() {
        let ceilings = device.ceilings().unwrap();
        assert_eq!(device.ceilings().unwrap(), ceilings, "{device}: they are measured once");
        let length = if is_cpu(&device) { 512 } else { 256 };
        let (x, w) = (Tensor::rand([1 << 24], Key::new(1), &device), Tensor::rand([length; 2], Key::new(2), &device));
        let run = || eval([&(&x * 2.0), &w.matmul(&w)]);
        run().unwrap();
        let ((), profile) = device.profile(|| (0..3).try_for_each(|_| run())).unwrap();
        let profile = profile.against(ceilings);
        for family in ["matmul", "elementwise"] {
            let runs = profile.runs.iter().filter(|run| run.kernel.family == family);
            let percent = runs.map(|run| profile.percent(run).unwrap()).fold(0.0, f64::max);
            assert!(percent > 0.1 && percent < 1600.0, "{device}: {family} {percent}\n{profile}");
        }
        assert!(profile.to_string().contains(" ceiling ") && profile.to_chrome_trace().contains("percent_of_ceiling"));
    }
}
