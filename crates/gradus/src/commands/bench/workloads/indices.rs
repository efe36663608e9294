//! Rows by their number: an embedding, and its gradient.

use super::super::inputs::{tensor, values};
use super::super::workload::{Cost, Run, Suite, Unit, Workload, differences, worse};
use gradus::prelude::*;
use gradus::{Grad, Result};

const WORDS: usize = 50_000;
const WIDTH: usize = 256;
const TOKENS: usize = 8192;

pub(super) fn workloads() -> Vec<Workload> {
    let row = 4 * WIDTH;
    // A row is read and written for each token; the gradient has a row for each word.
    let (gathered, scattered) = (Cost::bytes(2 * TOKENS * row), Cost::bytes((TOKENS + WORDS) * row));
    vec![
        Workload::new("embedding", Suite::Full, (Unit::Bytes, gathered), gather),
        Workload::new("embedding_grad", Suite::Full, (Unit::Bytes, scattered), scatter),
    ]
}

/// Words as texts have them: most are rare, and every fifteenth or so is the commonest one.
fn words() -> Vec<i32> {
    let uniform = values(TOKENS, 71, 1.0).into_iter().map(|value| (value + 1.0) / 2.0);
    uniform.map(|u| (u.powi(4) * WORDS as f32) as i32).collect()
}

fn inputs(device: &Device) -> Result<[Tensor; 2]> {
    let inputs = [tensor([WORDS, WIDTH], 72, 1.0, device), Tensor::from_vec(words(), [TOKENS], device)];
    eval(&inputs).map(|()| inputs)
}

/// Checked by how many elements are not those of the table.
fn gather(device: &Device) -> Result<Run> {
    let [table, tokens] = inputs(device)?;
    let rows = move || table.index_select(0, &tokens);
    let table = values(WORDS * WIDTH, 72, 1.0);
    let expected: Vec<f32> =
        words().into_iter().flat_map(|word| &table[word as usize * WIDTH..][..WIDTH]).copied().collect();
    Ok(Run::of(differences(&rows().to_vec::<f32>()?, &expected), device, move || rows().eval()))
}

/// Checked by the largest error of some words' gradients, against sums in f64: of the commonest words, of some that occur, and
/// of others.
fn scatter(device: &Device) -> Result<Run> {
    let [table, tokens] = inputs(device)?;
    let cotangent = tensor([TOKENS, WIDTH], 73, 1.0, device);
    cotangent.eval()?;
    let gradient = move || -> Result<Tensor> {
        let rows = table.index_select(0, &tokens);
        Ok(Grad::of(&rows).cotangent(&cotangent).wrt([&table])?.remove(0))
    };
    let got = gradient()?.to_vec::<f32>()?;
    let (tokens, cotangent) = (words(), values(TOKENS * WIDTH, 73, 1.0));
    let occurring = tokens.iter().step_by(251).map(|&word| word as usize);
    let mut worst = 0.0;
    for word in (0..32).chain(occurring).chain((0..WORDS).step_by(1999)) {
        for i in 0..WIDTH {
            let places = tokens.iter().enumerate().filter(|(_, token)| **token as usize == word);
            let exact: f64 = places.map(|(place, _)| f64::from(cotangent[place * WIDTH + i])).sum();
            worst = worse(worst, (exact - f64::from(got[word * WIDTH + i])).abs());
        }
    }
    Ok(Run::of(format!("{worst:.1e}"), device, move || gradient()?.eval()))
}
