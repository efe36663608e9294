//! Is a whole-tensor sum right, alone and behind elementwise work? One line per size.
#[path = "../../../common.rs"]
mod common;
#[path = "../device.rs"]
mod device;
use burn::prelude::*;
use burn::tensor::activation::gelu;

fn main() {
    let dev = device::device();
    for p in [10usize, 14, 16, 18, 20, 21, 22] {
        let n = 1usize << p;
        let ones = Tensor::<1>::from_data(TensorData::new(vec![1.0f32; n], [n]), &dev);
        dev.sync().unwrap();
        let s0 = ones.clone().sum().into_scalar::<f32>();
        let s1 = (ones.clone() * 1.0 + 0.0).sum().into_scalar::<f32>();
        let host = common::data(n, 3, 2.0);
        let want: f64 = host.iter().map(|v| (*v as f64) * (*v as f64)).sum();
        let x = Tensor::<1>::from_data(TensorData::new(host, [n]), &dev);
        let s2 = (x.clone() * x.clone()).sum().into_scalar::<f32>();
        let y = x.clone() * x.clone();
        dev.sync().unwrap();
        let host_sum: f64 = y.clone().into_data().try_to_vec::<f32>().unwrap().iter().map(|v| *v as f64).sum();
        let s3 = y.sum().into_scalar::<f32>();
        let g = gelu(x);
        let g2: f64 =
            g.clone().into_data().try_to_vec::<f32>().unwrap().iter().map(|v| (*v as f64) * (*v as f64)).sum();
        let s4 = (g.clone() * g).sum().into_scalar::<f32>();
        println!(
            "n=2^{p} sum(1)={s0} sum(1*1+0)={s1} want {n} | sum(x*x) fused={s2} read-back-then-host={host_sum:.2} after-sync={s3} want {want:.2} | gelu^2 {s4} host {g2:.2}"
        );
    }
}
