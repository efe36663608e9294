//! What a summary counts.

use crate::{init, values};
use gradus::nn::*;
use gradus::{Conv, Device, Pool, Result, Tensor};

#[derive(Module)]
struct Net {
    stem: Conv2d,
    body: Sequential,
    attention: MultiHeadAttention,
    head: Linear,
}

impl Layer for Net {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.body.forward(&self.stem.forward(x));
        Tensor::build(x.device(), || {
            let [batch, channels, height, width] = x.dims()?;
            let tokens = x.reshape([batch, channels, height * width]).transpose(1, 2);
            Ok(self.head.forward(&self.attention.forward(&tokens).mean(1)))
        })
    }
}

#[test]
fn a_summary_counts_what_each_layer_does() -> Result<()> {
    let device = Device::cpu_with(1, None)?;
    let init = init(&device);
    let body = Sequential::new()
        .then(BatchNorm::new(8, &init))
        .then(Relu)
        .then(MaxPool(Pool::new(2)))
        .then(Residual(Conv2d::new(8, 8, 3, &init).with(Conv::new().padding(1))))
        .then(Relu)
        .then(Dropout::new(0.5, &init));
    let stem = Conv2d::new(3, 8, 3, &init).with(Conv::new().padding(1));
    let net = Net { stem, body, attention: MultiHeadAttention::new(8, 2, &init), head: Linear::new(8, 10, &init) };
    net.stem.freeze();
    let launched = device.stats();
    let summary = summary(&net, [2, 3, 8, 8])?;
    assert_eq!(device.stats().plans, launched.plans, "nothing is computed");
    assert!(values(&net.body.buffers()[0].1.tensor()).iter().all(|&x| x == 0.0), "nothing changes");
    let rows: Vec<(&str, &str, usize, usize, usize)> = summary
        .layers
        .iter()
        .map(|row| (row.path.as_str(), row.kind.as_str(), row.depth, row.parameters, row.multiply_adds))
        .collect();
    let expected = [
        ("", "Net", 0, 0, 0),
        ("stem", "Convolution<2>", 1, 3 * 8 * 9 + 8, 2 * 8 * 64 * 27),
        ("body", "Sequential", 1, 0, 0),
        ("body.0", "BatchNorm", 2, 16, 0),
        ("body.1", "Relu", 2, 0, 0),
        ("body.2", "MaxPool", 2, 0, 0),
        ("body.3", "Residual<Convolution<2>>", 2, 0, 0),
        ("body.3.0", "Convolution<2>", 3, 8 * 8 * 9 + 8, 2 * 8 * 16 * 72),
        ("body.4", "Relu", 2, 0, 0),
        ("body.5", "Dropout", 2, 0, 0),
        // The projection, and logits and sums of values of two heads of width 4.
        ("attention", "MultiHeadAttention", 1, 24 * 8 + 24, 2 * 16 * 24 * 8 + 2 * 2 * 16 * 16 * 8),
        ("attention.out_proj", "Linear", 2, 72, 2 * 16 * 64),
        ("head", "Linear", 1, 90, 2 * 80),
    ];
    assert_eq!(rows, expected);
    assert_eq!(summary.parameters, net.num_parameters());
    assert_eq!(summary.trainable_parameters, net.num_parameters() - (3 * 8 * 9 + 8));
    assert_eq!(summary.layers[6].output.as_ref().map(|shape| shape.to_vec()), Some(vec![2, 8, 4, 4]));
    let text = summary.to_string();
    let shown = [
        "Net                                [2, 10]                  –              –",
        "├─ stem: Convolution<2>            [2, 8, 8, 8]  224 (frozen)         27,648",
        "│  ├─ 3: Residual<Convolution<2>>  [2, 8, 4, 4]             –              –",
        "│  │  └─ 0: Convolution<2>         [2, 8, 4, 4]           584         18,432",
        "│  └─ out_proj: Linear             [2, 16, 8]              72          2,048",
        "└─ head: Linear                    [2, 10]                 90            160",
    ];
    for line in shown {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
    // Layers without a size are told apart by the order of their calls, and shared ones count once.
    let shared = Linear::new(4, 4, &init);
    let twice = Sequential::new().then(shared.clone()).then(Relu).then(shared).then(Relu);
    let summary = gradus::nn::summary(&twice, [1, 4])?;
    assert_eq!(summary.parameters, 20);
    assert_eq!(summary.layers.iter().map(|row| row.uses).collect::<Vec<_>>(), [1; 5]);
    assert!(gradus::nn::summary(&twice, [1, 5]).is_err());
    Ok(())
}
