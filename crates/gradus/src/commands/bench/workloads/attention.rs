//! Causal attention, and its gradient, of eight heads of width 64.

use super::super::inputs::{tensor, values};
use super::super::workload::{Cost, Run, Suite, Unit, Workload, worse};
use gradus::prelude::*;
use gradus::{Grad, Result};

const HEADS: usize = 8;
const WIDTH: usize = 64;

pub(super) fn workloads() -> Vec<Workload> {
    let mut all = Vec::new();
    for length in [512, 1024, 2048, 4096] {
        let pairs = HEADS * length * (length + 1) / 2;
        let product = 2 * WIDTH * pairs;
        let array = 4 * HEADS * length * WIDTH;
        let suite = if length == 1024 { Suite::Quick } else { Suite::Full };
        // Two products: logits, and weighted values. Queries, keys and values are read, the output is written.
        let cost = Cost::operations(2 * product).and_bytes(4 * array);
        let name = format!("attention_{length}_forward");
        all.push(Workload::new(name, suite, (Unit::Operations, cost), move |device| forward(length, device)));
        // Four more: of weights, values, queries and keys. Who does not store the weights computes the logits once more, which
        // is not counted. The cotangent is read, and three gradients are written.
        let cost = Cost::operations(6 * product).and_bytes(8 * array);
        let name = format!("attention_{length}_grad");
        all.push(Workload::new(name, Suite::Full, (Unit::Operations, cost), move |device| gradient(length, device)));
    }
    all
}

/// Seeds and scales of queries, keys and values: logits far enough apart that some keys count for more than others.
const INPUTS: [(u32, f32); 3] = [(61, 4.0), (62, 2.0), (63, 1.0)];

fn inputs(length: usize, device: &Device) -> Result<[Tensor; 3]> {
    let inputs = INPUTS.map(|(seed, scale)| tensor([1, HEADS, length, WIDTH], seed, scale, device));
    eval(&inputs).map(|()| inputs)
}

fn forward(length: usize, device: &Device) -> Result<Run> {
    let [query, key, value] = inputs(length, device)?;
    let causal = Attention::new().causal();
    let output = move || query.attention(&key, &value, &causal);
    let host = Host::new(length);
    let error = host.error(&output().to_vec::<f32>()?);
    Ok(Run::of(format!("{error:.1e}"), device, move || output().eval()))
}

fn gradient(length: usize, device: &Device) -> Result<Run> {
    let inputs = inputs(length, device)?;
    let causal = Attention::new().causal();
    let step = move |cotangent: &Tensor| -> Result<Vec<Tensor>> {
        let [query, key, value] = &inputs;
        let output = query.attention(key, value, &causal);
        let mut all = Grad::of(&output).cotangent(cotangent).wrt(&inputs)?;
        all.push(output);
        eval(&all).map(|()| all)
    };
    let host = Host::new(length);
    let sparse = Tensor::from_vec(host.cotangent(), [1, HEADS, length, WIDTH], device);
    let got = step(&sparse)?;
    let got = got.iter().map(Tensor::to_vec).collect::<Result<Vec<Vec<f32>>>>()?;
    let check = format!("{:.1e} {:.1e}", host.error(&got[3]), host.error_of_gradients(&got[..3]));
    let cotangent = tensor([1, HEADS, length, WIDTH], 64, 1.0, device);
    cotangent.eval()?;
    Ok(Run::of(check, device, move || step(&cotangent).map(drop)))
}

/// Attention in f64, query by query.
struct Host {
    length: usize,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
}

impl Host {
    fn new(length: usize) -> Host {
        let [query, key, value] = INPUTS.map(|(seed, scale)| values(HEADS * length * WIDTH, seed, scale));
        Host { length, query, key, value }
    }

    /// The row of a head in an array: where its elements begin.
    fn at(&self, head: usize, row: usize) -> usize {
        (head * self.length + row) * WIDTH
    }

    /// Some queries of each head, others in each, among them the last one.
    fn queries(&self) -> impl Iterator<Item = (usize, usize)> {
        let length = self.length;
        (0..HEADS).flat_map(move |head| (0..4).map(move |i| (head, length - 1 - i * (length / 4 + 3 * head))))
    }

    /// A query's weights of the keys up to itself.
    fn weights(&self, head: usize, query: usize) -> Vec<f64> {
        let (from, scale) = (self.at(head, query), 1.0 / (WIDTH as f64).sqrt());
        let logit = |key: usize| scale * dot(&self.query[from..][..WIDTH], &self.key[self.at(head, key)..][..WIDTH]);
        let logits: Vec<f64> = (0..=query).map(logit).collect();
        let largest = logits.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        logits.iter().map(|logit| (logit - largest).exp() / total).collect()
    }

    /// The largest error of these queries' outputs.
    fn error(&self, output: &[f32]) -> f64 {
        let mut worst = 0.0;
        for (head, query) in self.queries() {
            let weights = self.weights(head, query);
            for i in 0..WIDTH {
                let of_key = |(key, weight): (usize, &f64)| weight * f64::from(self.value[self.at(head, key) + i]);
                let exact: f64 = weights.iter().enumerate().map(of_key).sum();
                worst = worse(worst, (exact - f64::from(output[self.at(head, query) + i])).abs());
            }
        }
        worst
    }

    /// A cotangent that is not zero for these queries alone: so little is the gradient known from, in full.
    fn cotangent(&self) -> Vec<f32> {
        let mut cotangent = vec![0.0; HEADS * self.length * WIDTH];
        let dense = values(cotangent.len(), 64, 1.0);
        for (head, query) in self.queries() {
            let row = self.at(head, query)..self.at(head, query + 1);
            cotangent[row.clone()].copy_from_slice(&dense[row]);
        }
        cotangent
    }

    /// The largest error of all elements of the gradients of queries, keys and values.
    fn error_of_gradients(&self, got: &[Vec<f32>]) -> f64 {
        let scale = 1.0 / (WIDTH as f64).sqrt();
        let cotangent = self.cotangent();
        let mut exact = [(); 3].map(|()| vec![0.0; cotangent.len()]);
        for (head, query) in self.queries() {
            let (weights, from) = (self.weights(head, query), self.at(head, query));
            let of_output = &cotangent[from..][..WIDTH];
            let of_weights: Vec<f64> =
                (0..=query).map(|key| dot(of_output, &self.value[self.at(head, key)..][..WIDTH])).collect();
            let mean: f64 = weights.iter().zip(&of_weights).map(|(weight, of_weight)| weight * of_weight).sum();
            for (key, (weight, of_weight)) in weights.iter().zip(&of_weights).enumerate() {
                let (to, of_logit) = (self.at(head, key), scale * weight * (of_weight - mean));
                for i in 0..WIDTH {
                    exact[0][from + i] += of_logit * f64::from(self.key[to + i]);
                    exact[1][to + i] += of_logit * f64::from(self.query[from + i]);
                    exact[2][to + i] += weight * f64::from(of_output[i]);
                }
            }
        }
        let errors =
            exact.iter().flatten().zip(got.iter().flatten()).map(|(exact, got)| (exact - f64::from(*got)).abs());
        errors.fold(0.0, worse)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
