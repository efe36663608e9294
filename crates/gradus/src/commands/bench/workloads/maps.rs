//! Element-wise chains, reductions, row programs, transposes and random numbers: what the memory's speed decides.

use super::super::inputs::{labels, tensor, values};
use super::super::workload::{Cost, Run, Suite, Unit, Workload, differences};
use gradus::prelude::*;
use gradus::{Result, value_and_grad};

/// Elements of each.
const COUNT: usize = 1 << 22;
const ROWS: [usize; 2] = [4096, 1024];
const CUBE: [usize; 3] = [128, 256, 128];

pub(super) fn workloads() -> Vec<Workload> {
    let bytes = |arrays: usize| (Unit::Bytes, Cost::bytes(arrays * 4 * COUNT));
    let half_bytes = |arrays: usize| (Unit::Bytes, Cost::bytes(arrays * 2 * COUNT));
    let mut all = vec![
        Workload::new("chain", Suite::Quick, bytes(3), |device| chain(&[COUNT], DType::F32, device)),
        Workload::new("chain_f16", Suite::Full, half_bytes(3), |device| chain(&[COUNT], DType::F16, device)),
        Workload::new("chain2d", Suite::Full, bytes(3), |device| chain(&ROWS, DType::F32, device)),
        Workload::new("softmax", Suite::Quick, bytes(2), |device| rows(DType::F32, device, softmax)),
        Workload::new("softmax_f16", Suite::Full, half_bytes(2), |device| rows(DType::F16, device, softmax)),
        Workload::new("layernorm", Suite::Quick, bytes(2), |device| rows(DType::F32, device, layer_norm)),
        Workload::new("layernorm_f16", Suite::Full, half_bytes(2), |device| rows(DType::F16, device, layer_norm)),
        Workload::new("softmax_grad", Suite::Full, bytes(3), |device| row_gradients(device, softmax)),
        Workload::new("layernorm_grad", Suite::Full, bytes(3), |device| row_gradients(device, layer_norm)),
        Workload::new("cross_entropy_32k", Suite::Full, (Unit::Bytes, Cost::bytes(2 * 4 * 512 * 32768)), classes),
        Workload::new("rand", Suite::Full, bytes(1), |device| random(device, |key, on| Tensor::rand([COUNT], key, on))),
        Workload::new("randn", Suite::Full, bytes(1), |device| {
            random(device, |key, on| Tensor::randn([COUNT], key, on))
        }),
    ];
    for axis in 0..3 {
        all.push(Workload::new(format!("sum_axis{axis}"), Suite::Full, bytes(1), move |device| sums(axis, device)));
    }
    all.push(Workload::new("max_axis1", Suite::Full, bytes(1), largest));
    all.push(Workload::new("argmax_axis1", Suite::Full, bytes(1), index_of_largest));
    for (name, order) in [("transpose", [1, 0, 2]), ("transpose_inner", [0, 2, 1]), ("reverse_axes", [2, 1, 0])] {
        all.push(Workload::new(name, Suite::Full, bytes(2), move |device| transpose(order, device)));
    }
    all
}

/// y = gelu(x·w + b), then the sum of y², read back. The sum is of f32: f16 ends at 65,504.
fn chain(shape: &[usize], dtype: DType, device: &Device) -> Result<Run> {
    let input = |seed, scale| {
        let input = tensor(shape, seed, scale, device).to_dtype(dtype);
        input.eval().map(|()| input)
    };
    let (x, w, b) = (input(3, 2.0)?, input(4, 1.0)?, input(5, 1.0)?);
    let sum = move || {
        // Apart from the reading, or what comes before the sum would be held, and so kept, until it is read.
        let sum = (&x * &w + &b).gelu().square().widened().sum(..);
        sum.item::<f32>()
    };
    Ok(Run::of(format!("{:.2}", sum()?), device, move || sum().map(drop)))
}

fn softmax(x: &Tensor, _: &Tensor, _: &Tensor) -> Tensor {
    x.softmax(1)
}

fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor) -> Tensor {
    let centred = x - x.mean_keepdim(-1);
    let variance = centred.square().mean_keepdim(-1);
    centred * (variance + 1e-5).rsqrt() * gain + bias
}

type OfRows = fn(&Tensor, &Tensor, &Tensor) -> Tensor;

fn row_inputs(dtype: DType, device: &Device) -> Result<[Tensor; 3]> {
    let inputs = [tensor(ROWS, 6, 4.0, device), tensor([1024], 7, 1.0, device), tensor([1024], 8, 1.0, device)];
    let inputs = inputs.map(|input| input.to_dtype(dtype));
    eval(&inputs).map(|()| inputs)
}

fn rows(dtype: DType, device: &Device, f: OfRows) -> Result<Run> {
    let [x, gain, bias] = row_inputs(dtype, device)?;
    let last = f(&x, &gain, &bias).select_index(0, 4095).widened().to_vec::<f32>()?;
    let check = format!("{:.6} {:.6}", last[0], last[1023]);
    Ok(Run::of(check, device, move || f(&x, &gain, &bias).eval()))
}

/// Of the last row's gradient, for a given cotangent: the input read once more, and a cotangent.
fn row_gradients(device: &Device, f: OfRows) -> Result<Run> {
    let [x, gain, bias] = row_inputs(DType::F32, device)?;
    let cotangent = tensor(ROWS, 9, 1.0, device);
    cotangent.eval()?;
    let gradient = move || -> Result<Tensor> {
        let loss = |inputs: &[Tensor]| (f(&inputs[0], &gain, &bias) * &cotangent).sum(..);
        let (_, gradients) = value_and_grad(loss, std::slice::from_ref(&x))?;
        Ok(gradients[0].clone())
    };
    let last = gradient()?.select_index(0, 4095).to_vec::<f32>()?;
    let check = format!("{:.6} {:.6}", last[0], last[1023]);
    Ok(Run::of(check, device, move || gradient()?.eval()))
}

/// Cross-entropy over 32,768 classes, with its gradient: the logits are read, the gradient is written.
fn classes(device: &Device) -> Result<Run> {
    let (logits, labels) = (tensor([512, 32768], 6, 4.0, device), labels(512, device));
    eval([&logits, &labels])?;
    let step = move || -> Result<Tensor> {
        let (loss, gradients) =
            value_and_grad(|inputs: &[Tensor]| cross_entropy(&inputs[0], &labels), std::slice::from_ref(&logits))?;
        eval([&loss, &gradients[0]]).map(|()| loss)
    };
    Ok(Run::of(format!("{:.6}", step()?.item::<f32>()?), device, move || step().map(drop)))
}

fn random(device: &Device, draw: fn(Key, &Device) -> Tensor) -> Result<Run> {
    let check = format!("{:.4}", draw(Key::new(1), device).mean(..).item::<f32>()?);
    let (on, mut drawn) = (device.clone(), 1);
    Ok(Run::of(check, device, move || {
        drawn += 1;
        draw(Key::new(drawn), &on).eval()
    }))
}

/// Along one of three axes, the others kept.
fn sums(axis: usize, device: &Device) -> Result<Run> {
    let x = tensor(CUBE, 6, 1.0, device);
    x.eval()?;
    let sum = move || x.sum(axis as isize);
    Ok(Run::of(format!("{:.2}", sum().square().sum(..).item::<f32>()?), device, move || sum().eval()))
}

/// Of the middle axis; checked by how many elements differ from the host's.
fn largest(device: &Device) -> Result<Run> {
    let x = tensor(CUBE, 6, 1.0, device);
    x.eval()?;
    let max = move || x.max(1);
    let expected: Vec<f32> = lines().map(|line| line.into_iter().fold(f32::MIN, f32::max)).collect();
    Ok(Run::of(differences(&max().to_vec::<f32>()?, &expected), device, move || max().eval()))
}

/// The same, of the index of the first largest element.
fn index_of_largest(device: &Device) -> Result<Run> {
    let x = tensor(CUBE, 6, 1.0, device);
    x.eval()?;
    let argmax = move || x.argmax(1);
    let first = |line: Vec<f32>| (0..line.len()).rev().max_by(|&i, &j| line[i].total_cmp(&line[j]));
    let expected: Vec<i32> = lines().filter_map(first).map(|index| index as i32).collect();
    Ok(Run::of(differences(&argmax().to_vec::<i32>()?, &expected), device, move || argmax().eval()))
}

/// The lines of the cube along its middle axis, in the order in which a reduction gives their results.
fn lines() -> impl Iterator<Item = Vec<f32>> {
    let (values, [planes, rows, columns]) = (values(COUNT, 6, 1.0), CUBE);
    (0..planes * columns).map(move |i| {
        let (plane, column) = (i / columns, i % columns);
        (0..rows).map(|row| values[(plane * rows + row) * columns + column]).collect()
    })
}

/// A copy in another order.
fn transpose(order: [usize; 3], device: &Device) -> Result<Run> {
    let x = tensor(CUBE, 6, 1.0, device);
    x.eval()?;
    let copy = move || x.permute(order.map(|axis| axis as isize)) + 0.0;
    let check = format!("{:.6}", copy().reshape([COUNT]).select_index(0, 12345).item::<f32>()?);
    Ok(Run::of(check, device, move || copy().eval()))
}
