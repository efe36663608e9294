//! Frozen parameters, and states that are loaded.

use crate::devices::devices;
use crate::{init, normal, values, weighted};
use gradus::data::{FloatStorage, Safetensors};
use gradus::nn::*;
use gradus::tensor::graph::NodeRef;
use gradus::train::{Adam, Optimiser};
use gradus::{DType, Device, Result, Tensor, grad};
use std::collections::{BTreeMap, HashSet};

/// The multiply-adds of what gradients read.
fn work(gradients: &[Tensor]) -> usize {
    let mut stack: Vec<NodeRef> = gradients.iter().map(|gradient| NodeRef::new(gradient).unwrap()).collect();
    let (mut seen, mut total) = (HashSet::new(), 0);
    while let Some(node) = stack.pop() {
        if seen.insert(node.id()) {
            total += node.multiply_adds();
            stack.extend(node.operands().unwrap_or_default());
        }
    }
    total
}

#[test]
fn frozen_parameters_stay_and_cost_nothing() -> Result<()> {
    for device in devices() {
        let init = init(&device);
        let model = Sequential::new()
            .then(Linear::new(8, 16, &init))
            .then(Tanh)
            .then(Linear::new(16, 16, &init))
            .then(Tanh)
            .then(Linear::new(16, 4, &init));
        let x = normal([32, 8], &device);
        let cost = || {
            let targets: Vec<Tensor> = model.trainable_parameters().iter().map(|(_, p)| p.tensor()).collect();
            Ok::<_, gradus::Error>(work(&grad(&weighted(&model.forward(&x)), &targets)?))
        };
        let products = 32 * (8 * 16 + 16 * 16 + 16 * 4);
        // Each weight's gradient, and what leads back to each layer but the first.
        assert_eq!(cost()?, products + products + 32 * (16 * 16 + 16 * 4), "{device}");
        assert_eq!(model.freeze_matching("0.*")? + model.freeze_matching("2.**")?, 4);
        // The last weight's gradient alone.
        assert_eq!(cost()?, products + 32 * 16 * 4, "{device}");
        assert_eq!(model.num_parameters(), 8 * 16 + 16 + 16 * 16 + 16 + 16 * 4 + 4);
        let before: Vec<Vec<f32>> = model.parameters().iter().map(|(_, p)| values(&p.tensor())).collect();
        let mut optimiser: Optimiser = Adam::new(0.1).of(&model);
        optimiser.step(&weighted(&model.forward(&x)))?;
        let moved: Vec<bool> =
            model.parameters().iter().zip(&before).map(|((_, p), before)| values(&p.tensor()) != *before).collect();
        assert_eq!(moved, [false, false, false, false, true, true], "{device}");
        assert!(grad(&weighted(&model.forward(&x)), [&model.parameters()[0].1.cell().tensor()]).is_err());
        model.unfreeze_matching("*.weight")?;
        assert_eq!(model.trainable_parameters().len(), 4);
        let error = model.freeze_matching("head.**").unwrap_err().to_string();
        assert!(error.contains("head.**"), "{error}");
    }
    Ok(())
}

#[derive(Module)]
struct Tied {
    encoder: Linear,
    norm: BatchNorm,
    decoder: Linear,
}

impl Tied {
    fn new(seed: u64, device: &Device, dtype: DType) -> Tied {
        let init = Init::new(seed, device).dtype(dtype);
        let encoder = Linear::without_bias(4, 4, &init);
        Tied { norm: BatchNorm::new(4, &init), decoder: encoder.clone(), encoder }
    }
}

#[test]
fn states_load_whole_or_not_at_all() {
    for device in devices() {
        let [a, b] = [1, 2].map(|seed| Tied::new(seed, &device, DType::F32));
        let state = a.state_dict();
        let paths: Vec<&str> = state.keys().map(String::as_str).collect();
        let expected = [
            "decoder.weight",
            "encoder.weight",
            "norm.bias",
            "norm.num_batches_tracked",
            "norm.running_mean",
            "norm.running_var",
            "norm.weight",
        ];
        assert_eq!(paths, expected);
        let before: Vec<Vec<f32>> = b.parameters().iter().map(|(_, p)| values(&p.tensor())).collect();
        let unchanged = || {
            let now: Vec<Vec<f32>> = b.parameters().iter().map(|(_, p)| values(&p.tensor())).collect();
            assert_eq!(now, before, "{device}");
        };
        let mut wrong = state.clone();
        wrong.remove("norm.bias");
        wrong.remove("norm.running_var");
        wrong.insert("head.weight".into(), Tensor::zeros([2], &device));
        wrong.insert("norm.weight".into(), Tensor::zeros([5], &device));
        wrong.insert("norm.num_batches_tracked".into(), Tensor::new(0.5, &device));
        match b.load_state_dict(&wrong).unwrap_err() {
            StateError::Misfits(misfits) => {
                assert_eq!(misfits.missing, ["norm.bias", "norm.running_var"]);
                assert_eq!(misfits.unexpected, ["head.weight"]);
                assert_eq!(misfits.shapes, [("norm.weight".into(), [4].into(), [5].into())]);
                assert_eq!(misfits.dtypes, [("norm.num_batches_tracked".into(), DType::I32, DType::F32)]);
                let text = StateError::Misfits(misfits).to_string();
                assert!(text.contains("norm.weight (expected [4], found [5])"), "{text}");
            }
            other => panic!("{other}"),
        }
        unchanged();
        // A shape that does not fit is an error also where the rest need not.
        assert!(StateLoader::new().lenient().into(&b, &wrong).is_err());
        wrong.remove("norm.weight");
        wrong.remove("norm.num_batches_tracked");
        wrong.insert("norm.running_mean".into(), &Tensor::ones([4], &device) + Tensor::ones([3], &device));
        assert!(matches!(StateLoader::new().lenient().into(&b, &wrong), Err(StateError::Tensor(_))));
        unchanged();
        // Of tied weights one name is enough.
        wrong.insert("norm.running_mean".into(), Tensor::full([4], 7.0, &device));
        wrong.remove("decoder.weight");
        let loaded = StateLoader::new().lenient().into(&b, &wrong).unwrap();
        assert_eq!(loaded.loaded, ["encoder.weight", "norm.running_mean"]);
        assert_eq!(loaded.missing, ["norm.weight", "norm.bias", "norm.running_var", "norm.num_batches_tracked"]);
        assert_eq!(loaded.unexpected, ["head.weight"]);
        assert_eq!(values(&b.decoder.weight.tensor()), values(&a.encoder.weight.tensor()));
        assert_eq!(values(&b.norm.running_mean.as_ref().unwrap().tensor()), [7.0; 4]);
        // Under other names, with a beginning that others lack.
        let mut renamed: BTreeMap<String, Tensor> = state
            .iter()
            .map(|(name, tensor)| (format!("model.{}", name.replace("norm", "bn")), tensor.clone()))
            .collect();
        renamed.insert("optimiser.step".into(), Tensor::new(3, &device));
        let loader = StateLoader::new().prefix("model.").rename(|name| Some(name.replace("bn", "norm")));
        loader.into(&b, &renamed).unwrap();
        assert_eq!(values(&b.norm.running_mean.as_ref().unwrap().tensor()), [0.0; 4]);
    }
    // In another dtype, through a file, from the CPU to any device.
    let a = Tied::new(3, &Device::cpu(), DType::F64);
    let mut file = Safetensors { tensors: a.state_dict(), ..Safetensors::default() };
    let mut bytes = Vec::new();
    file.to_writer(&mut bytes, FloatStorage::AsTheyAre).unwrap();
    file = Safetensors::from_reader(&bytes[..], "state", &Device::cpu()).unwrap();
    for device in devices() {
        let b = Tied::new(4, &device, DType::F32);
        b.load_state_dict(&file.tensors).unwrap();
        assert_eq!(values(&b.encoder.weight.tensor()), values(&a.encoder.weight.tensor().to_dtype(DType::F32)));
    }
}
