//! Layer-sequential unit variance.

use super::{Init, Initializer};
use crate::parts::Parts;
use crate::{Bilinear, ConvTranspose, Convolution, Layer, Linear, Param};
use gradus_tensor::{Result, Tensor, no_grad};
use std::any::type_name;

/// How often a layer is scaled at most, and how near to 1 its variance has to be (Mishkin, Matas 2016).
const MOST_TRIALS: usize = 10;
const TOLERANCE: f64 = 0.01;

/// Layer-sequential unit variance (Mishkin, Matas, "All you need is a good init", 2016): the weights of linear and convolutional
/// layers start orthogonal, and are then scaled, one layer after the other, so that what each gives for this batch has variance 1.
/// Layers act as in use meanwhile: without dropout, with running statistics. Weights that are frozen stay as they are, and so do
/// those of layers that give the same everywhere (variance 0).
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, Relu, Sequential, lsuv};
/// use gradus_tensor::{Device, Key, Tensor};
/// let device = Device::cpu();
/// let init = Init::new(0, &device);
/// let model = (0..8).fold(Sequential::new(), |model, _| model.then(Relu).then(Linear::new(32, 32, &init)));
/// let batch = Tensor::randn([64, 32], Key::new(1), &device);
/// assert!(model.forward(&batch).var(.., 0).item::<f32>()? < 0.1);
/// lsuv(&model, &batch, &init)?;
/// assert!((model.forward(&batch).var(.., 0).item::<f32>()? - 1.0).abs() < 0.02);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// # Errors
/// What the forward pass carries as an error.
#[track_caller]
pub fn lsuv(model: &(impl Layer + ?Sized), batch: &Tensor, init: &Init) -> Result<()> {
    let parts = Parts::of(model);
    let pass = || no_grad(|| parts.watched_in_use(|| model.forward(batch)));
    let (output, calls) = pass();
    if let Some(error) = output.error() {
        return Err(error.clone());
    }
    // Calls with the weights that they use; of a weight that is used several times, the first counts.
    let mut weights: Vec<(usize, &Param)> = Vec::new();
    for (call, place) in parts.places_of(&calls).into_iter().enumerate() {
        let (path, kind) = &parts.paths[place];
        let name = if path.is_empty() { "weight".to_string() } else { format!("{path}.weight") };
        let weight = parts.parameters.iter().find(|(path, _)| *path == name).filter(|_| is_linear(kind));
        if let Some((_, weight)) = weight
            && !weight.is_frozen()
            && !weights.iter().any(|(_, other)| other.cell().same(weight.cell()))
        {
            weights.push((call, weight));
        }
    }
    for (_, weight) in &weights {
        let now = weight.tensor();
        let key = init.rng().key();
        weight.set(Initializer::Orthogonal { gain: 1.0 }.tensor(now.shape(), key, &now))?;
    }
    for (call, weight) in weights {
        for _ in 0..MOST_TRIALS {
            // What comes after this layer is recorded, and never computed.
            let (_, mut calls) = pass();
            let Some(output) = calls.swap_remove(call).output else { break };
            let variance =
                output.to_device(&gradus_tensor::Device::cpu()).to_dtype(gradus_tensor::DType::F64).var(.., 0);
            let variance = variance.item::<f64>()?;
            if !variance.is_normal() || (variance - 1.0).abs() < TOLERANCE {
                break;
            }
            let now = weight.tensor();
            weight.set((now.widened() / variance.sqrt()).to_dtype(now.dtype()))?;
        }
    }
    Ok(())
}

/// Whether a type is a layer whose output grows with its weight.
fn is_linear(kind: &str) -> bool {
    let kinds = [
        type_name::<Linear>(),
        type_name::<Bilinear>(),
        type_name::<Convolution<1>>(),
        type_name::<Convolution<2>>(),
        type_name::<Convolution<3>>(),
        type_name::<ConvTranspose<1>>(),
        type_name::<ConvTranspose<2>>(),
        type_name::<ConvTranspose<3>>(),
    ];
    kinds.contains(&kind)
}
