//! candle on the CPU: the common workloads. Usage: bench WORKLOAD...
#[path = "../../../common.rs"]
mod common;
use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{AdamW, Conv2d, Conv2dConfig, Linear, Optimizer, ParamsAdamW, SGD, loss, ops};
use common::*;

const D: Device = Device::Cpu;

fn t<S: Into<candle_core::Shape>>(shape: S, seed: u32, scale: f32) -> Result<Tensor> {
    let s: candle_core::Shape = shape.into();
    Tensor::from_vec(data(s.elem_count(), seed, scale), s, &D)
}

struct Vars(Vec<Var>);
impl Vars {
    fn var(&mut self, x: Tensor) -> Result<Tensor> {
        let v = Var::from_tensor(&x)?;
        let r = v.as_tensor().clone();
        self.0.push(v);
        Ok(r)
    }
    fn linear(&mut self, i: usize, o: usize, seed: u32) -> Result<Linear> {
        let w = t((i, o), seed, 1.0 / (i as f32).sqrt())?.t()?.contiguous()?;
        let w = self.var(w)?;
        let b = self.var(Tensor::zeros(o, DType::F32, &D)?)?;
        Ok(Linear::new(w, Some(b)))
    }
    fn conv(&mut self, i: usize, o: usize, seed: u32) -> Result<Conv2d> {
        let w = self.var(t((o, i, 3, 3), seed, 1.0 / ((9 * i) as f32).sqrt())?)?;
        let b = self.var(Tensor::zeros(o, DType::F32, &D)?)?;
        Ok(Conv2d::new(w, Some(b), Conv2dConfig { padding: 1, ..Default::default() }))
    }
    fn norm(&mut self, n: usize) -> Result<(Tensor, Tensor)> {
        Ok((self.var(Tensor::ones(n, DType::F32, &D)?)?, self.var(Tensor::zeros(n, DType::F32, &D)?)?))
    }
    fn adam(&self) -> Result<AdamW> {
        AdamW::new(self.0.clone(), ParamsAdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 })
    }
}

fn targets(n: usize) -> Result<Tensor> {
    Tensor::from_vec(labels(n).into_iter().map(|v| v as u32).collect::<Vec<_>>(), n, &D)
}

fn train(name: &str, vars: Vars, forward: impl Fn() -> Result<Tensor>) -> Result<()> {
    let mut opt = vars.adam()?;
    let mut l = Vec::new();
    for _ in 0..11 {
        let x = forward()?;
        opt.backward_step(&x)?;
        l.push(x.to_scalar::<f32>()?);
    }
    measure(name, &format!("{:.6}->{:.6}", l[0], l[10]), |k| {
        for _ in 0..k {
            let x = forward().unwrap();
            opt.backward_step(&x).unwrap();
        }
    });
    Ok(())
}

fn matmul(name: &str, batch: usize, m: usize, k: usize, n: usize) -> Result<()> {
    let (a, b) = (t((batch, m, k), 1, 1.0)?, t((batch, k, n), 2, 1.0)?);
    let (a, b) = if batch == 1 { (a.squeeze(0)?, b.squeeze(0)?) } else { (a, b) };
    let c = a.matmul(&b)?.flatten_all()?.to_vec1::<f32>()?;
    let e = matmul_error(&data(batch * m * k, 1, 1.0), &data(batch * k * n, 2, 1.0), &c, batch, m, k, n);
    measure(name, &format!("{e:.1e}"), |r| {
        for _ in 0..r {
            std::hint::black_box(a.matmul(&b).unwrap());
        }
    });
    Ok(())
}

fn mlp(name: &str, batch: usize) -> Result<()> {
    let mut v = Vars(vec![]);
    let (l1, l2, l3) = (v.linear(784, 512, 11)?, v.linear(512, 256, 12)?, v.linear(256, 10, 13)?);
    let (x, y) = (t((batch, 784), 10, 1.0)?, targets(batch)?);
    train(name, v, || {
        let h = l1.forward(&x)?.relu()?;
        let h = l2.forward(&h)?.relu()?;
        loss::cross_entropy(&l3.forward(&h)?, &y)
    })
}

fn main() -> Result<()> {
    for w in std::env::args().skip(1) {
        match w.as_str() {
            "mm256" => matmul(&w, 1, 256, 256, 256)?,
            "mm512" => matmul(&w, 1, 512, 512, 512)?,
            "mm1024" => matmul(&w, 1, 1024, 1024, 1024)?,
            "mm2048" => matmul(&w, 1, 2048, 2048, 2048)?,
            "bmm" => matmul(&w, 32, 128, 64, 128)?,
            "chain" | "chain2d" => {
                let (x, a, b) = (t(1 << 22, 3, 2.0)?, t(1 << 22, 4, 1.0)?, t(1 << 22, 5, 1.0)?);
                let f = || -> Result<f32> {
                    let y = ((&x * &a)? + &b)?.gelu_erf()?;
                    (&y * &y)?.sum_all()?.to_scalar::<f32>()
                };
                measure(&w, &format!("{:.2}", f()?), |k| {
                    for _ in 0..k {
                        std::hint::black_box(f().unwrap());
                    }
                });
            }
            "softmax" | "layernorm" => {
                let x = t((4096, 1024), 6, 4.0)?;
                let (g, b) = (t(1024, 7, 1.0)?, t(1024, 8, 1.0)?);
                let f = || {
                    if w == "softmax" { ops::softmax_last_dim(&x) } else { ops::layer_norm(&x, &g, &b, 1e-5) }
                };
                let c = f()?.get(4095)?.to_vec1::<f32>()?;
                measure(&w, &format!("{:.6} {:.6}", c[0], c[1023]), |k| {
                    for _ in 0..k {
                        std::hint::black_box(f().unwrap());
                    }
                });
            }
            "mlp128" => mlp(&w, 128)?,
            "mlp1024" => mlp(&w, 1024)?,
            "cnn64" => {
                let mut v = Vars(vec![]);
                let (c1, c2, fc) = (v.conv(1, 8, 21)?, v.conv(8, 16, 22)?, v.linear(784, 10, 23)?);
                let (x, y) = (t((64, 1, 28, 28), 20, 1.0)?, targets(64)?);
                train(&w, v, || {
                    let h = c1.forward(&x)?.relu()?.max_pool2d(2)?;
                    let h = c2.forward(&h)?.relu()?.max_pool2d(2)?;
                    loss::cross_entropy(&fc.forward(&h.flatten_from(1)?)?, &y)
                })?
            }
            "tfm8" => {
                let (b, s, d, h) = (8usize, 128usize, 128usize, 4usize);
                let mut v = Vars(vec![]);
                let (n1, n2) = (v.norm(d)?, v.norm(d)?);
                let (q, k, vv, o) =
                    (v.linear(d, d, 31)?, v.linear(d, d, 32)?, v.linear(d, d, 33)?, v.linear(d, d, 34)?);
                let (f1, f2) = (v.linear(d, 4 * d, 35)?, v.linear(4 * d, d, 36)?);
                let (x, y) = (t((b, s, d), 30, 1.0)?, t((b, s, d), 37, 1.0)?);
                let m: Vec<u8> = (0..s * s).map(|i| (i % s > i / s) as u8).collect();
                let mask = Tensor::from_vec(m, (1, 1, s, s), &D)?;
                let neg = Tensor::full(f32::NEG_INFINITY, (b, h, s, s), &D)?;
                let heads = |z: Tensor| z.reshape((b, s, h, d / h))?.transpose(1, 2)?.contiguous();
                train(&w, v, || {
                    // the fused ops::layer_norm and ops::softmax_last_dim have no backward
                    let z = ops::layer_norm_slow(&x, &n1.0, &n1.1, 1e-5)?;
                    let (q, k, vv) = (heads(q.forward(&z)?)?, heads(k.forward(&z)?)?, heads(vv.forward(&z)?)?);
                    let sc = (q.matmul(&k.t()?)? * (1.0 / ((d / h) as f64).sqrt()))?;
                    let sc = mask.broadcast_as((b, h, s, s))?.where_cond(&neg, &sc)?;
                    let a = ops::softmax(&sc, 3)?.matmul(&vv)?;
                    let a = o.forward(&a.transpose(1, 2)?.reshape((b, s, d))?)?;
                    let r = (&x + a)?;
                    let z = ops::layer_norm_slow(&r, &n2.0, &n2.1, 1e-5)?;
                    let z = f2.forward(&f1.forward(&z)?.gelu_erf()?)?;
                    loss::mse(&(r + z)?, &y)
                })?
            }
            "linreg" => {
                let (x, y) = line(100);
                let (x, y) = (Tensor::from_vec(x, (100, 1), &D)?, Tensor::from_vec(y, (100, 1), &D)?);
                let run = || -> Result<f32> {
                    let mut v = Vars(vec![]);
                    let l = v.linear(1, 1, 41)?;
                    let mut opt = SGD::new(v.0.clone(), 0.01)?;
                    let mut last = 0.0;
                    for i in 1..=1000 {
                        let e = loss::mse(&l.forward(&x)?, &y)?;
                        opt.backward_step(&e)?;
                        if i % 100 == 0 {
                            last = e.to_scalar::<f32>()?;
                        }
                    }
                    Ok(last)
                };
                measure_whole(&w, &format!("{:.6}", run()?), || {
                    run().unwrap();
                });
            }
            _ => panic!("unknown workload {w}"),
        }
    }
    Ok(())
}
