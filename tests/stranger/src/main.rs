//! Fits a line on the best device, or on the one that `GRADUS_DEVICE` names. There is no attribute here, and none must be
//! needed.

use gradus::prelude::*;

fn main() -> gradus::Result<()> {
    let device = Device::best()?;
    let x = Tensor::randn([100, 1], Key::new(0), &device);
    let y = &x * 3.0 + 1.0;
    let model = Linear::new(1, 1, &Init::new(42, &device));
    let mut optimiser = Sgd::new(0.1).of(&model);
    for _ in 0..100 {
        optimiser.step(&mse_loss(&model.forward(&x), &y))?;
    }
    let weight = model.weight.tensor().item::<f32>()?;
    println!("weight {weight:.3} on {device}");
    assert!((weight - 3.0).abs() < 1e-2);
    Ok(())
}
