//! What a step costs the host: recording, finding the plan, launching. Tensors are tiny, so that kernels cost next to
//! nothing.
//!
//! `cargo bench --bench host_time -- [device …]` (`cpu` and `software`, unless others are named) prints a table: the
//! fastest of many short rounds in µs per step, the nodes that a step is made of, those that it still records once its graph is
//! known, the kernels that it launches, and what the target of 5 µs + 0.25 µs per node + 1.5 µs per launch allows.

use gradus::prelude::*;
use gradus::tensor::graph::NodeRef;
use gradus::{Result, Stats, compile};
use std::time::{Duration, Instant};

/// Rounds, of which the fastest counts, and how long each is to take: other programs only ever add.
const ROUNDS: usize = 400;
const ROUND: Duration = Duration::from_millis(5);

/// The optimiser and what it trains: 8 → 16 → 16 → 4, with Adam.
struct Perceptron {
    model: Sequential,
    optimiser: Optimiser,
    x: Tensor,
    y: Tensor,
}

impl Perceptron {
    fn new(device: &Device) -> Perceptron {
        let init = Init::new(42, device);
        let model = Sequential::new()
            .then(Linear::new(8, 16, &init))
            .then(Relu)
            .then(Linear::new(16, 16, &init))
            .then(Relu)
            .then(Linear::new(16, 4, &init));
        let optimiser = Adam::new(1e-3).of(&model);
        let x = Tensor::randn([4, 8], Key::new(0), device);
        let y = Tensor::new([0, 1, 2, 3], device);
        Perceptron { model, optimiser, x, y }
    }

    fn step(&mut self) -> Result<()> {
        let loss = cross_entropy(&self.model.forward(&self.x), &self.y);
        self.optimiser.step(&loss)
    }
}

/// Two hundred element-wise ops, one after the other.
fn chain(x: &Tensor) -> Tensor {
    (0..100).fold(x.clone(), |y, _| (y * 1.01).sin())
}

/// A transformer's block: attention with two heads, a residual, layer norm, and a network behind it.
struct Block {
    weights: [Tensor; 6],
}

impl Block {
    fn new(device: &Device) -> Result<Block> {
        let shapes = [[8, 8], [8, 8], [8, 8], [8, 8], [8, 32], [32, 8]];
        let weights = shapes.map(|shape| Tensor::randn(shape, Key::new(1), device) * 0.1);
        eval(&weights)?;
        Ok(Block { weights })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [query, key, value, output, up, down] = &self.weights;
        let heads = |w: &Tensor| x.matmul(w).reshape([4, 2, 4]).permute([1, 0, 2]);
        let scores = heads(query).matmul(&heads(key).t()) * 0.5;
        let mixed = scores.softmax(-1).matmul(&heads(value)).permute([1, 0, 2]).reshape([4, 8]);
        let x = normalised(&(x + mixed.matmul(output)));
        normalised(&(&x + x.matmul(up).gelu().matmul(down)))
    }
}

fn normalised(x: &Tensor) -> Tensor {
    (x - x.mean_keepdim(-1)) / (x.var_keepdim(-1, 0) + 1e-5).sqrt()
}

/// Measures a step and prints its line.
fn measure(device: &Device, name: &str, mut step: impl FnMut() -> Result<()>) -> Result<()> {
    let mut nodes = || -> Result<u64> {
        let probe = || NodeRef::new(&Tensor::zeros([], device)).map(|node| node.id());
        let before = probe()?;
        step()?;
        Ok(probe()? - before - 1)
    };
    // The first steps plan, and fill the pools.
    nodes()?;
    let all = nodes()?;
    for _ in 0..3 {
        nodes()?;
    }
    device.synchronise()?;
    let recorded = nodes()?;
    let (before, start) = (device.stats(), Instant::now());
    for _ in 0..5 {
        step()?;
        device.synchronise()?;
    }
    let steps = (5.0 * ROUND.as_secs_f64() / start.elapsed().as_secs_f64()).max(1.0) as usize;
    let Stats { launches, plans, .. } = device.stats();
    let launches = (launches - before.launches) as f64 / 5.0;
    assert_eq!(plans, before.plans, "{name}: a plan was made");
    let mut fastest = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut spent = Duration::ZERO;
        for _ in 0..steps {
            let start = Instant::now();
            step()?;
            spent += start.elapsed();
            // What a software GPU computes meanwhile would count as the host's.
            device.synchronise()?;
        }
        fastest = fastest.min(spent.as_secs_f64() / steps as f64 * 1e6);
    }
    let target = 5.0 + 0.25 * all as f64 + 1.5 * launches;
    println!("{name:<28} {fastest:9.1} {all:7} {recorded:9} {launches:9.1} {target:9.1}");
    Ok(())
}

fn table(device: &Device) -> Result<()> {
    println!("{device}: {}", device.description());
    println!("{:<28} {:>9} {:>7} {:>9} {:>9} {:>9}", "step", "µs", "nodes", "recorded", "launches", "target");
    let mut perceptron = Perceptron::new(device);
    measure(device, "mlp, adam", || perceptron.step())?;
    measure(device, "mlp, forward", || perceptron.model.forward(&perceptron.x).eval())?;
    measure(device, "mlp, recording", || {
        drop(perceptron.model.forward(&perceptron.x));
        Ok(())
    })?;
    let x = Tensor::randn([4, 8], Key::new(0), device);
    x.eval()?;
    measure(device, "chain of 200", || chain(&x).eval())?;
    measure(device, "chain of 200, recording", || {
        drop(chain(&x));
        Ok(())
    })?;
    let block = Block::new(device)?;
    measure(device, "block", || block.forward(&x).eval())?;
    let compiled = compile(|inputs| Ok(vec![block.forward(&inputs[0])]));
    let inputs = [x];
    measure(device, "block, compiled", || compiled.call(&inputs).map(drop))?;
    println!();
    Ok(())
}

fn main() -> Result<()> {
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let names = if named.is_empty() { vec!["cpu".to_string(), "software".to_string()] } else { named };
    for name in names {
        match Device::named(&name) {
            Ok(device) => table(&device)?,
            Err(error) => println!("{name}: {error}\n"),
        }
    }
    Ok(())
}
