//! Training steps as graphs: a perceptron, a convolutional network and a transformer block, each with Adam.

#[path = "convolution.rs"]
mod convolution;

use convolution::{convolution, pool};
use gradus::ir::{Graph, Plan, plan};
use gradus::tensor::graph::{Trace, trace};
use gradus::{Device, Key, Tensor, value_and_grad};

/// A training step: from a batch, parameters and the optimiser's state to the loss and what replaces them.
pub(crate) struct TrainingStep {
    pub(crate) name: &'static str,
    /// The graph. Parameters and state are donated.
    pub(crate) graph: Graph,
    /// What its input slots hold.
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) scalars: Vec<gradus::ir::Number>,
}

impl TrainingStep {
    /// The plan for a device.
    pub(crate) fn plan(&self, target: &gradus::ir::Target) -> Plan {
        plan(&self.graph, target)
    }
}

/// The three steps.
pub(crate) fn steps(device: &Device) -> [TrainingStep; 3] {
    [perceptron(device), convolutional(device), transformer(device)]
}

/// Draws one tensor after the other.
struct Source<'d> {
    device: &'d Device,
    drawn: u64,
}

impl Source<'_> {
    fn normal<const N: usize>(&mut self, shape: [usize; N]) -> Tensor {
        self.drawn += 1;
        let fan = shape[..N - 1].iter().product::<usize>().max(1) as f64;
        let tensor = Tensor::randn(shape, Key::new(self.drawn), self.device) / fan.sqrt();
        evaluated(tensor)
    }

    fn labels(&mut self, count: usize, classes: i32) -> Tensor {
        let labels: Vec<i32> = (0..count as i32).map(|i| (i * 7 + 3) % classes).collect();
        Tensor::from_vec(labels, [count], self.device)
    }
}

fn evaluated(tensor: Tensor) -> Tensor {
    tensor.eval().expect("a source can be evaluated");
    tensor
}

fn adam(
    name: &'static str,
    parameters: Vec<Tensor>,
    data: &[Tensor],
    loss: impl Fn(&[Tensor]) -> Tensor,
) -> TrainingStep {
    let state: Vec<Tensor> = parameters.iter().chain(&parameters).map(|p| evaluated(p.zeros_like() + 0.0)).collect();
    let (loss, gradients) = value_and_grad(|p| loss(p), &parameters).expect("the step has gradients");
    let mut outputs = vec![loss];
    let (mut means, mut squares) = (Vec::new(), Vec::new());
    for (i, (parameter, gradient)) in parameters.iter().zip(&gradients).enumerate() {
        let mean = &state[i] * 0.9 + gradient * 0.1;
        let square = &state[parameters.len() + i] * 0.999 + gradient.square() * 0.001;
        outputs.push(parameter - (&mean / 0.1) / (square.sqrt() / 0.03 + 1e-8) * 1e-3);
        means.push(mean);
        squares.push(square);
    }
    outputs.extend(means);
    outputs.extend(squares);
    let inputs: Vec<Tensor> = parameters.iter().chain(&state).chain(data).cloned().collect();
    let Trace { mut graph, inputs: all, scalars } = trace(&outputs, &inputs).expect("the step can be traced");
    graph.donated[..parameters.len() + state.len()].fill(true);
    TrainingStep { name, graph, inputs: all, scalars }
}

/// Mean cross-entropy of logits `[n, classes]` with labels `[n]`.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let count = labels.numel();
    -logits.log_softmax(1).gather(1, &labels.reshape([count, 1])).mean(..)
}

/// Layer normalisation over the last axis.
pub(crate) fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor) -> Tensor {
    let centred = x - x.mean_keepdim(-1);
    let variance = centred.square().mean_keepdim(-1);
    centred * (variance + 1e-5).rsqrt() * gain + bias
}

fn perceptron(device: &Device) -> TrainingStep {
    let mut source = Source { device, drawn: 0 };
    let (x, labels) = (source.normal([64, 784]), source.labels(64, 10));
    let sizes = [784, 256, 128, 10];
    let mut parameters = Vec::new();
    for pair in sizes.windows(2) {
        parameters.push(source.normal([pair[0], pair[1]]));
        parameters.push(source.normal([pair[1]]));
    }
    let data = [x.clone(), labels.clone()];
    adam("perceptron", parameters, &data, move |p| {
        let mut h = x.clone();
        for (layer, pair) in p.chunks(2).enumerate() {
            h = h.matmul(&pair[0]) + &pair[1];
            if layer < 2 {
                h = h.relu();
            }
        }
        cross_entropy(&h, &labels)
    })
}

fn convolutional(device: &Device) -> TrainingStep {
    let mut source = Source { device, drawn: 100 };
    let (x, labels) = (source.normal([8, 16, 16, 3]), source.labels(8, 10));
    let parameters = vec![
        source.normal([9, 3, 16]),
        source.normal([16]),
        source.normal([9, 16, 32]),
        source.normal([32]),
        source.normal([4 * 4 * 32, 10]),
        source.normal([10]),
    ];
    let data = [x.clone(), labels.clone()];
    adam("convolutional network", parameters, &data, move |p| {
        let first = pool(&convolution(&x, &p[0], &p[1]).relu());
        let second = pool(&convolution(&first, &p[2], &p[3]).relu());
        cross_entropy(&(second.reshape([8, 4 * 4 * 32]).matmul(&p[4]) + &p[5]), &labels)
    })
}

fn transformer(device: &Device) -> TrainingStep {
    const BATCH: usize = 4;
    const LENGTH: usize = 32;
    const WIDTH: usize = 64;
    const HEADS: usize = 4;
    let mut source = Source { device, drawn: 200 };
    let (x, labels) = (source.normal([BATCH, LENGTH, WIDTH]), source.labels(BATCH * LENGTH, 50));
    let shapes = [[WIDTH, 3 * WIDTH], [WIDTH, WIDTH], [WIDTH, 4 * WIDTH], [4 * WIDTH, WIDTH], [WIDTH, 50]];
    let mut parameters: Vec<Tensor> = shapes.into_iter().map(|shape| source.normal(shape)).collect();
    parameters.extend((0..6).map(|_| source.normal([WIDTH])));
    let order = Tensor::arange(LENGTH, device);
    let position = order.reshape([LENGTH, 1]).ge(order.reshape([1, LENGTH]));
    let data = [x.clone(), labels.clone()];
    adam("transformer block", parameters, &data, move |p| {
        let split = |t: &Tensor| t.reshape([BATCH, LENGTH, HEADS, WIDTH / HEADS]).permute([0, 2, 1, 3]);
        let normal = layer_norm(&x, &p[5], &p[6]);
        let parts = normal.matmul(&p[0]).chunk(-1, 3);
        let (q, k, v) = (split(&parts[0]), split(&parts[1]), split(&parts[2]));
        let scores = q.matmul(&k.t()) * 0.25;
        let masked = position.broadcast_to([BATCH, HEADS, LENGTH, LENGTH]).where_(&scores, -1e9);
        let mixed = masked.softmax(-1).matmul(&v).permute([0, 2, 1, 3]).reshape([BATCH, LENGTH, WIDTH]);
        let attended = &x + mixed.matmul(&p[1]);
        let wide = (layer_norm(&attended, &p[7], &p[8]).matmul(&p[2])).gelu();
        let out = layer_norm(&(attended + wide.matmul(&p[3])), &p[9], &p[10]);
        cross_entropy(&out.reshape([BATCH * LENGTH, WIDTH]).matmul(&p[4]), &labels)
    })
}
