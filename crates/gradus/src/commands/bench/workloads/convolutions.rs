//! Convolutions of a residual network's sizes (He et al., "Deep residual learning", 2016), and their gradients.

use super::super::inputs::{tensor, values};
use super::super::workload::{Cost, Run, Suite, Unit, Workload, worse};
use gradus::prelude::*;
use gradus::{Grad, Result};

const BATCH: usize = 8;

/// From `inputs` to `outputs` channels of square images, padded so that these keep their size.
#[derive(Clone, Copy)]
struct Size {
    kernel: usize,
    inputs: usize,
    outputs: usize,
    extent: usize,
}

#[derive(Clone, Copy)]
enum Part {
    Forward,
    InputGradient,
    WeightGradient,
}

pub(super) fn workloads() -> Vec<Workload> {
    let square = |channels, extent| Size { kernel: 3, inputs: channels, outputs: channels, extent };
    let sizes = [
        ("conv3x3_64", square(64, 56)),
        ("conv3x3_128", square(128, 28)),
        ("conv3x3_256", square(256, 14)),
        ("conv3x3_512", square(512, 7)),
        ("conv1x1_64_256", Size { kernel: 1, inputs: 64, outputs: 256, extent: 56 }),
        ("conv1x1_512_128", Size { kernel: 1, inputs: 512, outputs: 128, extent: 28 }),
    ];
    let parts =
        [("forward", Part::Forward), ("input_grad", Part::InputGradient), ("weight_grad", Part::WeightGradient)];
    let mut all = Vec::new();
    for (name, size) in sizes {
        for (suffix, part) in parts {
            let name = format!("{name}_{suffix}");
            let suite = if name == "conv3x3_64_forward" { Suite::Quick } else { Suite::Full };
            let cost = (Unit::Operations, size.cost());
            all.push(Workload::new(name, suite, cost, move |device| prepare(size, part, device)));
        }
    }
    all
}

impl Size {
    /// Of each part, since each is a product of the same three extents, reads two of input, weight and output, and writes the
    /// third. Products with the padding are counted, as is usual.
    fn cost(&self) -> Cost {
        let count = |shape: [usize; 4]| shape.iter().product::<usize>();
        let [input, weight, output] = [self.input(), self.weight(), self.output()].map(count);
        Cost::operations(2 * BATCH * self.extent * self.extent * weight).and_bytes(4 * (input + weight + output))
    }

    fn input(&self) -> [usize; 4] {
        [BATCH, self.inputs, self.extent, self.extent]
    }

    fn weight(&self) -> [usize; 4] {
        [self.outputs, self.inputs, self.kernel, self.kernel]
    }

    fn output(&self) -> [usize; 4] {
        [BATCH, self.outputs, self.extent, self.extent]
    }
}

fn prepare(size: Size, part: Part, device: &Device) -> Result<Run> {
    let x = tensor(size.input(), 51, 1.0, device);
    let weight = tensor(size.weight(), 52, 1.0, device);
    let cotangent = tensor(size.output(), 53, 1.0, device);
    eval([&x, &weight, &cotangent])?;
    let conv = Conv::new().padding(size.kernel / 2);
    let once = move || -> Result<Tensor> {
        let y = x.conv2d(&weight, &conv);
        let target = match part {
            Part::Forward => return Ok(y),
            Part::InputGradient => &x,
            Part::WeightGradient => &weight,
        };
        Ok(Grad::of(&y).cotangent(&cotangent).wrt([target])?.remove(0))
    };
    let check = format!("{:.1e}", error(&once()?.to_vec::<f32>()?, size, part));
    Ok(Run::of(check, device, move || once()?.eval()))
}

/// The largest error of 64 elements, against sums in f64.
fn error(got: &[f32], size: Size, part: Part) -> f64 {
    let [input, weight, output] = [size.input(), size.weight(), size.output()];
    let [x, w, cotangent] = [(input, 51), (weight, 52), (output, 53)].map(|(shape, seed)| Images::new(shape, seed));
    let Size { kernel, inputs, outputs, extent } = size;
    let padding = kernel / 2;
    let shape = match part {
        Part::Forward => output,
        Part::InputGradient => input,
        Part::WeightGradient => weight,
    };
    let one = |t: usize| {
        let flat = t * 2_654_435_761 % got.len();
        let [_, second, rows, columns] = shape;
        let [a, b] = [flat / (second * rows * columns), flat / (rows * columns) % second];
        let [i, j] = [flat / columns % rows, flat % columns];
        let exact = match part {
            Part::Forward => {
                sum([inputs, kernel, kernel], |c, u, v| x.at([a, c, i + u, j + v], padding) * w.at([b, c, u, v], 0))
            }
            Part::InputGradient => sum([outputs, kernel, kernel], |o, u, v| {
                cotangent.at([a, o, i + 2 * padding - u, j + 2 * padding - v], padding) * w.at([o, b, u, v], 0)
            }),
            Part::WeightGradient => sum([BATCH, extent, extent], |n, r, s| {
                cotangent.at([n, a, r, s], 0) * x.at([n, b, r + i, s + j], padding)
            }),
        };
        (exact - f64::from(got[flat])).abs()
    };
    (0..64).map(one).fold(0.0, worse)
}

fn sum(extents: [usize; 3], term: impl Fn(usize, usize, usize) -> f64) -> f64 {
    let mut sum = 0.0;
    for a in 0..extents[0] {
        for b in 0..extents[1] {
            for c in 0..extents[2] {
                sum += term(a, b, c);
            }
        }
    }
    sum
}

/// What a tensor holds, on the host.
struct Images {
    values: Vec<f32>,
    shape: [usize; 4],
}

impl Images {
    fn new(shape: [usize; 4], seed: u32) -> Images {
        Images { values: values(shape.iter().product(), seed, 1.0), shape }
    }

    /// An element behind so much padding on each side of the last two axes.
    fn at(&self, [a, b, i, j]: [usize; 4], padding: usize) -> f64 {
        let [_, channels, rows, columns] = self.shape;
        match (i.checked_sub(padding), j.checked_sub(padding)) {
            (Some(i), Some(j)) if i < rows && j < columns => {
                f64::from(self.values[((a * channels + b) * rows + i) * columns + j])
            }
            _ => 0.0,
        }
    }
}
