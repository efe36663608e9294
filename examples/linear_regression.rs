//! The first program of deep-learning texts, done right: fit a line by gradient descent.
//!
//! `cargo run --release --example linear_regression`
//!
//! 100 points of y = 3 x + noise; one weight, one bias, mean squared error, plain gradient descent. The texts' version
//! adds noise of shape `[100, 1]` to targets of shape `[100]`, which broadcasts to `[100, 100]` and fits the wrong thing
//! without a word; here the loss of unequal shapes is an error.

use clap::Parser;
use gradus::prelude::*;
use gradus::train::picture::{Chart, Panel};

#[derive(Parser)]
struct Arguments {
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed gives the same points.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Steps of gradient descent.
    #[arg(long, default_value_t = 1000)]
    epochs: usize,
    /// The folder for the picture.
    #[arg(long, default_value = "out/linear_regression")]
    out: std::path::PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { device, seed, epochs, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}", device.description());

    let rng = Rng::new(seed);
    let x = Tensor::randn([100, 1], rng.key(), &device);
    let noise = Tensor::randn([100, 1], rng.key(), &device) * 0.1;
    let y = &x * 3.0 + noise;
    gradus::eval([&x, &y])?;

    let model = Linear::new(1, 1, &Init::new(seed, &device));
    let mut optimiser = Sgd::new(0.01).of(&model);
    let mut losses = Vec::with_capacity(epochs);
    for epoch in 1..=epochs {
        let loss = mse_loss(&model.forward(&x), &y);
        optimiser.step(&loss)?;
        losses.push(loss.item::<f32>()? as f64);
        if epoch % 100 == 0 {
            println!("epoch {epoch} loss {:.6}", losses[epoch - 1]);
        }
    }

    let weight = model.weight.tensor().item::<f32>()? as f64;
    let bias = match &model.bias {
        Some(bias) => bias.tensor().item::<f32>()? as f64,
        None => 0.0,
    };
    // The least-squares line: slope cov(x, y) / var(x), through the means.
    let slope = ((&x - x.mean(..)) * (&y - y.mean(..))).mean(..) / x.var(.., 0);
    let offset = y.mean(..) - &slope * x.mean(..);
    let (slope, offset) = (slope.item::<f32>()? as f64, offset.item::<f32>()? as f64);
    println!("gradient descent  weight {weight:.4} bias {bias:.4}");
    println!("closed form       weight {slope:.4} bias {offset:.4}");

    let points = x.to_vec::<f32>()?.into_iter().zip(y.to_vec::<f32>()?).map(|(x, y)| (x as f64, y as f64));
    let ends = [x.min(..).item::<f32>()? as f64, x.max(..).item::<f32>()? as f64];
    let line = |weight: f64, bias: f64| ends.map(|x| (x, weight * x + bias));
    let picture = out.join("fit.svg");
    Chart::new("Linear regression")
        .panel(
            Panel::new("Points and lines")
                .labels("x", "y")
                .points("points", points)
                .line("gradient descent", line(weight, bias))
                .line("closed form", line(slope, offset)),
        )
        .panel(
            Panel::new("Loss")
                .labels("epoch", "mean squared error")
                .log_y()
                .line("", losses.iter().enumerate().map(|(i, &loss)| (i as f64 + 1.0, loss))),
        )
        .save(&picture)?;
    println!("picture {}", picture.display());
    Ok(())
}
