//! An op of one's own: the squared distances of points and prototypes, and prototypes that learn where clusters are.
//!
//! `cargo run --release --example custom_op`
//!
//! Composed of broadcasts, the distances of m points and n prototypes in k dimensions are a sum over an array of m · n · k
//! differences. The op has a function for the CPU, WGSL for GPUs, and a gradient, which is composed of matrix
//! products. Values and gradients are compared with the composed version's.

use clap::Parser;
use gradus::prelude::*;
use gradus::train::picture::{Chart, Panel};
use gradus::{Cell, CustomOp, assign};

#[derive(Parser)]
struct Arguments {
    /// Where to compute: best, cpu, gpu, gpu:1, software, or a part of an adapter's name.
    #[arg(long, default_value = "best")]
    device: String,
    /// The same seed gives the same points.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Steps of gradient descent.
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// The folder for the picture.
    #[arg(long, default_value = "out/custom_op")]
    out: std::path::PathBuf,
}

/// Points of a cluster.
const POINTS: usize = 200;
/// Where the clusters are.
const CLUSTERS: [[f32; 2]; 3] = [[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]];

/// Of x [m, k] and y [n, k], the squared distances [m, n] of their rows.
fn squared_distances() -> gradus::Result<CustomOp> {
    CustomOp::define("squared_distances")
        .input("x", DType::F32)
        .input("y", DType::F32)
        .output(DType::F32, |shapes| match (&shapes[0][..], &shapes[1][..]) {
            (&[m, k], &[n, other]) if k == other => Ok([m, n].into()),
            _ => Err("expected two matrices with rows of one length".into()),
        })
        .cpu(|inputs, output| {
            let (x, y) = (inputs[0].values::<f32>()?, inputs[1].values::<f32>()?);
            let (k, n) = (inputs[0].shape()[1], output.shape()[1]);
            for (i, distance) in output.values::<f32>()?.iter_mut().enumerate() {
                let rows = x[i / n * k..][..k].iter().zip(&y[i % n * k..][..k]);
                *distance = rows.map(|(a, b)| (a - b) * (a - b)).sum();
            }
            Ok(())
        })
        .wgsl(
            "@compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                 let i = flat_index(id);
                 if i >= output_len() {
                     return;
                 }
                 let size = x_shape(1u);
                 let row = i / output_shape(1u);
                 let other = i % output_shape(1u);
                 var sum = 0.0;
                 for (var k = 0u; k < size; k++) {
                     let difference = x[row * size + k] - y[other * size + k];
                     sum += difference * difference;
                 }
                 output[i] = sum;
             }",
        )
        .gradient(|inputs, _distances, g| {
            let (x, y) = (&inputs[0], &inputs[1]);
            let of_x = (x * g.sum_keepdim(1) - g.matmul(y)) * 2.0;
            let of_y = (y * g.t().sum_keepdim(1) - g.t().matmul(x)) * 2.0;
            vec![Some(of_x), Some(of_y)]
        })
        .build()
}

fn composed(x: &Tensor, y: &Tensor) -> Tensor {
    (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(2)
}

fn main() -> anyhow::Result<()> {
    let Arguments { device, seed, epochs, out } = Arguments::parse();
    let device = Device::named(&device)?;
    println!("device {}", device.description());

    let distances = squared_distances()?;
    let centres = Tensor::new(CLUSTERS, &device);
    let points = Tensor::randn([3 * POINTS, 2], Key::new(seed), &device) * 0.4 + centres.repeat(0, POINTS);
    points.eval()?;

    // The nearest prototype of each point moves towards it.
    let prototypes = Cell::parameter(&centres * 0.01);
    let loss_of = |distances: Tensor| distances.min(1).mean(..);
    for epoch in 1..=epochs {
        let now = prototypes.tensor();
        let loss = loss_of(distances.apply(&[&points, &now]));
        let gradient = grad(&loss, [&now])?.remove(0);
        assign([(prototypes.clone(), &now - gradient * 0.5)])?;
        if epoch % 10 == 0 {
            println!("epoch {epoch} loss {:.6}", loss.item::<f32>()?);
        }
    }

    let now = prototypes.tensor();
    let farthest = (&now - &centres).square().sum(1).sqrt().max(..).item::<f32>()?;
    println!("farthest prototype from its cluster's centre {farthest:.3}");
    let gradient = |distances: Tensor| grad(&loss_of(distances), [&now]).map(|mut gradients| gradients.remove(0));
    let (custom, other) = (distances.apply(&[&points, &now]), composed(&points, &now));
    let values = (&custom - &other).abs().max(..).item::<f32>()?;
    let gradients = (gradient(custom)? - gradient(other)?).abs().max(..).item::<f32>()?;
    println!("largest difference from the composed op: values {values:.1e} gradients {gradients:.1e}");

    let pairs = |x: &Tensor| -> gradus::Result<Vec<(f64, f64)>> {
        Ok(x.to_vec::<f32>()?.chunks(2).map(|point| (point[0] as f64, point[1] as f64)).collect())
    };
    let panel = Panel::new("Clusters").labels("x", "y").points("points", pairs(&points)?);
    let picture = out.join("clusters.svg");
    Chart::new("Prototypes").panel(panel.points("prototypes", pairs(&now)?)).save(&picture)?;
    println!("picture {}", picture.display());
    Ok(())
}
