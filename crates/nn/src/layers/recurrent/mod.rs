//! Recurrent layers: what a step computes, cells of one step, and layers that walk along sequences.

mod cell;
mod layer;

pub use cell::{GruCell, LstmCell, RnnCell};
pub use layer::{Gru, Lstm, LstmState, Rnn};

use crate::{Init, Initializer, Param, cast_input};
use gradus_tensor::Tensor;

/// What a step computes from the projections of input and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tanh,
    Relu,
    Lstm,
    Gru,
}

impl Kind {
    /// How many times the hidden width the projections are.
    fn gates(self) -> usize {
        match self {
            Kind::Tanh | Kind::Relu => 1,
            Kind::Gru => 3,
            Kind::Lstm => 4,
        }
    }

    /// The state after a step, from the projected input and the projected state `[batch, gates · hidden]`: hidden, and for an LSTM
    /// the cell's, which alone is sure to have the width of a gate.
    #[track_caller]
    fn step(self, input: &Tensor, projected: &Tensor, [hidden, cell]: [&Tensor; 2]) -> [Tensor; 2] {
        let width = cell.shape().last().copied().unwrap_or(0) as isize;
        let gate = |x: &Tensor, number: isize| x.slice(-1, number * width..(number + 1) * width);
        match self {
            Kind::Tanh => [(input + projected).tanh(), cell.clone()],
            Kind::Relu => [(input + projected).relu(), cell.clone()],
            Kind::Lstm => {
                let gates = input + projected;
                let [input, forget, output] = [0, 1, 3].map(|number| gate(&gates, number).sigmoid());
                let cell = forget * cell + input * gate(&gates, 2).tanh();
                [output * cell.tanh(), cell]
            }
            Kind::Gru => {
                let [reset, update] = [0, 1].map(|number| (gate(input, number) + gate(projected, number)).sigmoid());
                let new = (gate(input, 2) + reset * gate(projected, 2)).tanh();
                // (1 − update) · new + update · hidden
                [&new + update * (hidden - &new), cell.clone()]
            }
        }
    }
}

/// The parameters of one direction of a layer.
#[derive(Clone, Debug)]
struct Weights {
    weight_ih: Param,
    weight_hh: Param,
    bias: Option<[Param; 2]>,
    /// What an LSTM shows of its hidden state, if that is not all.
    weight_hr: Option<Param>,
}

impl Weights {
    /// Uniform in ±1/√hidden, as in PyTorch, where `projection` is the width of what is shown, if it is not `hidden`.
    #[track_caller]
    fn new(kind: Kind, inputs: usize, hidden: usize, projection: Option<usize>, init: &Init) -> Weights {
        let bound = 1.0 / (hidden.max(1) as f64).sqrt();
        let rows = kind.gates() * hidden;
        let new = |shape: &[usize]| Param::new(init.tensor(shape, Initializer::Uniform { low: -bound, high: bound }));
        let (weight_ih, weight_hh) = (new(&[rows, inputs]), new(&[rows, projection.unwrap_or(hidden)]));
        let bias = Some([new(&[rows]), new(&[rows])]);
        let weight_hr = projection.map(|projection| new(&[projection, hidden]));
        Weights { weight_ih, weight_hh, bias, weight_hr }
    }

    /// The projection of inputs `[..., inputs]`.
    #[track_caller]
    fn input(&self, x: &Tensor) -> Tensor {
        let product = cast_input(x).matmul(&self.weight_ih.tensor().t());
        match &self.bias {
            Some([bias, _]) => product + bias.tensor(),
            None => product,
        }
    }
}

/// The weights that a state meets, read once for a whole sequence.
struct OfState {
    weight: Tensor,
    bias: Option<Tensor>,
    projection: Option<Tensor>,
}

impl OfState {
    #[track_caller]
    fn new(weights: &Weights) -> OfState {
        let bias = weights.bias.as_ref().map(|[_, bias]| bias.tensor());
        let projection = weights.weight_hr.as_ref().map(|weight| weight.tensor().t());
        OfState { weight: weights.weight_hh.tensor().t(), bias, projection }
    }

    /// The state after a step from the projected input.
    #[track_caller]
    fn step(&self, kind: Kind, input: &Tensor, [hidden, cell]: [&Tensor; 2]) -> [Tensor; 2] {
        let product = hidden.matmul(&self.weight);
        let projected = match &self.bias {
            Some(bias) => product + bias,
            None => product,
        };
        let [next, cell] = kind.step(input, &projected, [hidden, cell]);
        match &self.projection {
            Some(projection) => [next.matmul(projection), cell],
            None => [next, cell],
        }
    }
}
