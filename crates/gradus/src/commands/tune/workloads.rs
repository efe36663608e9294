//! What is measured: for each family of kernels some that are small and some that are large, of milliseconds at most.

use crate::commands::bench::inputs::tensor;
use gradus::prelude::*;
use gradus::{Grad, Result, compile};
use std::time::Instant;

type Inputs = Box<dyn Fn(&Device) -> Vec<Tensor>>;
type Function = fn(&[Tensor]) -> Result<Vec<Tensor>>;

/// A workload.
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// The family of its kernels, as `gradus::gpu::tuning::Field::families` names it.
    pub(super) family: &'static str,
    inputs: Inputs,
    function: Function,
}

/// A workload on a device, and what it has computed there.
pub(super) struct Prepared {
    device: Device,
    run: Box<dyn Fn() -> Result<Vec<Tensor>>>,
    pub(super) values: Vec<Values>,
}

impl Workload {
    /// Makes the inputs, plans and compiles, and reads the results.
    pub(super) fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (inputs, compiled) = ((self.inputs)(device), compile(self.function));
        eval(&inputs)?;
        let run = move || compiled.call(&inputs);
        let values = run()?.iter().map(Values::of).collect::<Result<_>>()?;
        Ok(Prepared { device: device.clone(), run: Box::new(run), values })
    }
}

/// A result.
pub(super) struct Values {
    /// Whether every variant computes the same: whole numbers.
    pub(super) are_exact: bool,
    pub(super) numbers: Vec<f64>,
}

impl Values {
    fn of(result: &Tensor) -> Result<Values> {
        let are_exact = !result.dtype().is_float();
        let numbers = result.to_dtype(DType::F32).to_vec::<f32>()?.into_iter().map(f64::from).collect();
        Ok(Values { are_exact, numbers })
    }
}

impl Prepared {
    /// Seconds of an iteration, of so many.
    pub(super) fn sample(&self, count: usize) -> Result<f64> {
        let start = Instant::now();
        (0..count).try_for_each(|_| (self.run)().map(drop))?;
        self.device.synchronise()?;
        Ok(start.elapsed().as_secs_f64() / count as f64)
    }
}

/// The workloads; on an adapter in software they are smaller.
pub(super) fn all(is_software: bool) -> Vec<Workload> {
    let size = |hardware: usize, software: usize| if is_software { software } else { hardware };
    let mut all = Vec::new();
    let mut add = |family, name, shapes: Vec<Vec<usize>>, function: Function| {
        let inputs: Inputs = Box::new(move |device| {
            let input = |(seed, shape): (usize, &Vec<usize>)| tensor(&shape[..], 90 + seed as u32, 1.0, device);
            shapes.iter().enumerate().map(input).collect()
        });
        all.push(Workload { name, family, inputs, function });
    };
    for (name, count) in [("short chain", 1 << 14), ("long chain", size(1 << 22, 1 << 18))] {
        add("map", name, vec![vec![count]; 3], |x| Ok(vec![(&x[0] * &x[1] + &x[2]).gelu()]));
    }

    add("rows", "softmax", vec![vec![size(4096, 128), 1024]], |x| Ok(vec![x[0].softmax(1)]));
    add("rows", "short softmax", vec![vec![size(1 << 14, 1024), 48]], |x| Ok(vec![x[0].softmax(1)]));
    add("rows", "sum", vec![vec![size(1 << 22, 1 << 18)]], |x| Ok(vec![x[0].sum(..)]));
    add("rows", "column sums", vec![vec![size(4096, 1024), size(1024, 128)]], |x| Ok(vec![x[0].sum(0)]));

    let product: Function = |x| Ok(vec![x[0].matmul(&x[1])]);
    let half: Function = |x| Ok(vec![x[0].to_dtype(DType::F16).matmul(&x[1].to_dtype(DType::F16))]);
    let (small, large, long) = (size(256, 64), size(1024, 256), size(1 << 14, 1 << 12));
    add("product", "small product", vec![vec![small, small]; 2], product);
    add("product", "large product", vec![vec![large, large]; 2], product);
    add("product", "product of long rows", vec![vec![32, long], vec![long, 32]], product);
    add("product", "product of f16", vec![vec![size(1024, 128); 2]; 2], half);

    let heads = |length| vec![vec![1, 4, length, 64]; 4];
    add("attention", "attention", heads(size(1024, 128)), |x| {
        Ok(vec![x[0].attention(&x[1], &x[2], &Attention::new().causal())])
    });
    add("attention", "attention's gradient", heads(size(512, 64)), |x| {
        let output = x[0].attention(&x[1], &x[2], &Attention::new());
        Grad::of(&output).cotangent(&x[3]).wrt(&x[..3])
    });

    for (name, shape) in [("cumsum", vec![size(1 << 20, 1 << 16)]), ("cumsums", vec![size(256, 32), 2048])] {
        add("order", name, vec![shape], |x| Ok(vec![x[0].cumsum(-1)]));
    }
    let sort: Function = |x| Ok(vec![x[0].argsort(-1, false)]);
    add("order", "sort", vec![vec![1, size(1 << 18, 1 << 14)]], sort);
    add("order", "sort of rows", vec![vec![size(1024, 32), 512]], sort);
    add("order", "sort of short rows", vec![vec![size(4096, 64), 128]], sort);

    for (name, [tokens, words]) in [
        ("short embedding's gradient", [size(128, 64), 512]),
        ("embedding's gradient", [size(4096, 512), size(8192, 1024)]),
    ] {
        let inputs = move |device: &Device| {
            // Few words are common, most are rare.
            let chosen = tensor([tokens], 97, 1.0, device).square() * words as f64;
            let words = tensor([words, 32], 98, 1.0, device);
            vec![chosen.to_dtype(DType::I32), words, tensor([tokens, 32], 99, 1.0, device)]
        };
        let function: Function = |x| {
            let rows = x[1].index_select(0, &x[0]);
            Grad::of(&rows).cotangent(&x[2]).wrt([&x[1]])
        };
        all.push(Workload { name, family: "scatter", inputs: Box::new(inputs), function });
    }
    all
}
