//! A small transformer that learns to write, character by character.
//!
//! `cargo run --release --example char_lm`
//!
//! Learns from plays of Shakespeare (or any text: `--data FILE`, gzip or not), of which the last tenth is kept to see how well it
//! guesses what it has not read. Writes a sample now and then while it learns, and draws the curves at the end.

use clap::Parser;
use gradus::data::CharText;
use gradus::prelude::*;
use gradus::train::picture::{Chart, Panel};
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    /// The text; by default plays of Shakespeare.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed on the same device gives the same network.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Steps of the optimiser.
    #[arg(long, default_value_t = 600)]
    steps: usize,
    /// Passages per step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Characters of a passage: how far back the network looks.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Numbers for each character.
    #[arg(long, default_value_t = 128)]
    width: usize,
    /// Heads of attention, which divide the width.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Blocks of attention and a perceptron.
    #[arg(long, default_value_t = 2)]
    blocks: usize,
    /// Characters of the last sample.
    #[arg(long, default_value_t = 400)]
    write: usize,
    /// The folder for the picture.
    #[arg(long, default_value = "out/char_lm")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Arguments { seed, steps, batch, context, .. } = arguments;
    let device = Device::named(&arguments.device)?;
    println!("device {}, seed {seed}", device.description());
    let shakespeare = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/tinyshakespeare.txt.gz");
    let text = CharText::read(arguments.data.clone().unwrap_or_else(|| shakespeare.into()))?;
    let (known, unknown) = text.split(0.9);
    anyhow::ensure!(unknown.len() > context, "a tenth of the text is {} characters, too few", unknown.len());
    println!("{} characters, {} different ones", text.len(), text.vocabulary().len());

    let model = Transformer::new(text.vocabulary().len(), &arguments, &Init::new(seed, &device));
    println!("{} parameters", model.num_parameters());

    let rate = 2e-3;
    let mut optimiser = Adam::new(rate).decoupled_weight_decay(0.05).of(&model);
    let (passages, words) = (Rng::new(seed ^ 1), Rng::new(seed ^ 2));
    let mut progress = Progress::new(steps as u64, "learning");
    let (mut losses, mut guesses) = (Vec::new(), Vec::new());
    let report = (steps / 10).max(1);
    for step in 1..=steps {
        // Up to the full rate within a twentieth of the steps, then down along half a cosine.
        let (done, rise) = (step as f64 / steps as f64, 0.05);
        let fall = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        optimiser.set_learning_rate(rate * fall * (done / rise).min(1.0));
        let windows = passages_of(&known, batch, context, passages.key(), &device);
        let loss = model.loss(&windows);
        optimiser.step(&loss)?;
        if step % 10 == 0 {
            losses.push((step as f64, loss.item::<f32>()? as f64));
        }
        progress.step(1);
        if step % report == 0 || step == steps {
            let windows = passages_of(&unknown, 2 * batch, context, Key::new(0), &device);
            let guess = no_grad(|| model.loss(&windows)).item::<f32>()? as f64;
            guesses.push((step as f64, guess));
            let sample = text.decode(model.write(context, 60, words.key())?);
            progress.note(format!("step {step}  loss on unknown text {guess:.3}  {sample:?}"));
        }
    }
    progress.finish_with("learnt");

    println!("{}", text.decode(model.write(context, arguments.write, words.key())?));
    if let Some((_, guess)) = guesses.last() {
        println!("loss on unknown text {guess:.3}, {:.2} bits per character", guess / std::f64::consts::LN_2);
    }
    let panel = Panel::new("Loss").labels("step", "cross-entropy").line("known", losses).line("unknown", guesses);
    let picture = arguments.out.join("curves.svg");
    Chart::new("Characters: learning curves").panel(panel).save(&picture)?;
    println!("picture {}", picture.display());
    Ok(())
}

/// Passages from anywhere in a text, with the character after each of them: `[batch, context + 1]`.
fn passages_of(text: &CharText, batch: usize, context: usize, key: Key, device: &Device) -> Tensor {
    let starts = (0..batch).map(|i| (key.fold_in(i as u64).value() % text.len() as u64) as usize);
    text.windows(starts, context + 1, device)
}

/// A decoder of the kind of GPT-2 (Radford et al., 2019): normalisation before each part, one more before the end.
#[derive(Module)]
struct Transformer {
    characters: Embedding,
    positions: Param,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

#[derive(Module)]
struct Block {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    perceptron_norm: LayerNorm,
    perceptron: Sequential,
}

impl Transformer {
    fn new(vocabulary: usize, arguments: &Arguments, init: &Init) -> Transformer {
        let Arguments { context, width, heads, blocks, .. } = *arguments;
        let small = |shape: [usize; 2]| init.tensor(shape, Initializer::Normal { mean: 0.0, std: 0.02 });
        Transformer {
            characters: Embedding::from_tensor(small([vocabulary, width])),
            positions: Param::new(small([context, width])),
            blocks: (0..blocks).map(|_| Block::new(width, heads, init)).collect(),
            norm: LayerNorm::new(width, init),
            head: Linear::without_bias(width, vocabulary, init),
        }
    }

    /// The mean cross-entropy of each character of `[batch, context + 1]` after the first, given those before it.
    fn loss(&self, windows: &Tensor) -> Tensor {
        let logits = self.forward(&windows.slice(1, ..-1));
        cross_entropy(&logits.flatten_range(0, 1), &windows.slice(1, 1..).flatten())
    }

    /// So many characters, each drawn by its probability.
    fn write(&self, context: usize, length: usize, key: Key) -> gradus::Result<Vec<u32>> {
        let device = self.positions.tensor().device().clone();
        let mut written = vec![0u32];
        for step in 0..length {
            // Windows of one length, so that each step runs the same plan; what comes later is not looked at.
            let mut window: Vec<i32> = written.iter().rev().take(context).rev().map(|&c| c as i32).collect();
            let last = window.len() - 1;
            window.resize(context, 0);
            let x = Tensor::from_vec(window, [1, context], &device);
            let at = Tensor::new([last as i32], &device);
            let next = no_grad(|| {
                let logits = self.forward(&x).flatten_range(0, 1).index_select(0, &at);
                // The largest after adding Gumbel's noise is a draw by the softmax's probabilities.
                let uniform = Tensor::rand(logits.shape(), key.fold_in(step as u64), &device).maximum(1e-20);
                (logits - (-uniform.log()).log()).argmax(1)
            });
            written.push(next.item::<i32>()? as u32);
        }
        Ok(written.split_off(1))
    }
}

impl Layer for Transformer {
    /// Logits `[batch, length, vocabulary]` of the character after each of `x [batch, length]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut y = self.characters.forward(x) + self.positions.tensor();
        for block in &self.blocks {
            y = block.forward(&y);
        }
        self.head.forward(&self.norm.forward(&y))
    }
}

impl Block {
    fn new(width: usize, heads: usize, init: &Init) -> Block {
        Block {
            attention_norm: LayerNorm::new(width, init),
            attention: MultiHeadAttention::new(width, heads, init).with(Attention::new().causal()),
            perceptron_norm: LayerNorm::new(width, init),
            perceptron: Sequential::new().then(Linear::new(width, 4 * width, init)).then(Gelu).then(Linear::new(
                4 * width,
                width,
                init,
            )),
        }
    }
}

impl Layer for Block {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward(&self.attention_norm.forward(x));
        &x + self.perceptron.forward(&self.perceptron_norm.forward(&x))
    }
}
