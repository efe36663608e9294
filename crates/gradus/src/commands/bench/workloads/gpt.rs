//! A decoder of the kind of GPT-2 (Radford et al., 2019) that learns characters, as the example `char_lm` does, at the size that
//! small GPUs are usually measured with.

use super::super::inputs::{tensor, values};
use super::super::workload::{Cost, Run, Suite, Unit, Workload};
use super::training::{linear, train_after};
use gradus::Result;
use gradus::prelude::*;
use std::rc::Rc;

const BATCH: usize = 16;
const LENGTH: usize = 256;
const WIDTH: usize = 384;
const HEADS: usize = 6;
const BLOCKS: usize = 6;
const CHARACTERS: usize = 65;

pub(super) fn workloads() -> Vec<Workload> {
    // The weights of all products: of each block four of attention and eight of the network, and the last one.
    let weights = BLOCKS * 12 * WIDTH * WIDTH + CHARACTERS * WIDTH;
    // Biases, norms, and what characters and positions start from.
    let parameters = weights + BLOCKS * 13 * WIDTH + (CHARACTERS + LENGTH + 2) * WIDTH + CHARACTERS;
    // Of the logits and their use a half, since the rest is masked.
    let attention = BLOCKS * BATCH * 2 * LENGTH * LENGTH * WIDTH;
    let forward = 2 * BATCH * LENGTH * weights + attention;
    let cost = Cost::operations(3 * forward).and_bytes(4 * 7 * parameters);
    vec![Workload::new("gpt", Suite::Full, (Unit::Steps, cost), step)]
}

/// Random characters: the loss starts near ln 65.
fn step(device: &Device) -> Result<Run> {
    let model = Rc::new(Gpt::new(device)?);
    let characters = values(BATCH * LENGTH + 1, 95, 1.0).into_iter();
    let characters: Vec<i32> = characters.map(|value| ((value + 1.0) / 2.0 * CHARACTERS as f32) as i32).collect();
    // What comes next is what is to be found out.
    let x = Tensor::from_vec(characters[..BATCH * LENGTH].to_vec(), [BATCH, LENGTH], device);
    let y = Tensor::from_vec(characters[1..].to_vec(), [BATCH * LENGTH], device);
    let shared = model.clone();
    train_after(2, device, &*model, move || cross_entropy(&shared.forward(&x).flatten_range(0, 1), &y))
}

#[derive(Module)]
struct Gpt {
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
    network_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Gpt {
    /// Weights are numbers that other libraries can start from too.
    fn new(device: &Device) -> Result<Gpt> {
        let init = Init::new(0, device);
        let norm = || LayerNorm::new(WIDTH, &init);
        let block = |seed: u32| -> Result<Block> {
            let attention = MultiHeadAttention::new(WIDTH, HEADS, &init).with(Attention::new().causal());
            if let Some(weight) = &attention.in_proj_weight {
                weight.set(linear(WIDTH, 3 * WIDTH, seed, device).weight.tensor())?;
            }
            attention.out_proj.weight.set(linear(WIDTH, WIDTH, seed + 1, device).weight.tensor())?;
            Ok(Block {
                attention_norm: norm(),
                attention,
                network_norm: norm(),
                up: linear(WIDTH, 4 * WIDTH, seed + 2, device),
                down: linear(4 * WIDTH, WIDTH, seed + 3, device),
            })
        };
        Ok(Gpt {
            characters: Embedding::from_tensor(tensor([CHARACTERS, WIDTH], 200, 0.035, device)),
            positions: Param::new(tensor([LENGTH, WIDTH], 201, 0.035, device)),
            blocks: (0..BLOCKS as u32).map(|i| block(210 + 10 * i)).collect::<Result<_>>()?,
            norm: norm(),
            head: linear(WIDTH, CHARACTERS, 202, device),
        })
    }
}

impl Layer for Gpt {
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut y = self.characters.forward(x) + self.positions.tensor();
        for block in &self.blocks {
            y = &y + block.attention.forward(&block.attention_norm.forward(&y));
            y = &y + block.down.forward(&block.up.forward(&block.network_norm.forward(&y)).gelu());
        }
        self.head.forward(&self.norm.forward(&y))
    }
}
