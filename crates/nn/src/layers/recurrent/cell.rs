//! One step of a recurrent layer.

use super::{Kind, OfState, Weights};
use crate::{Init, Module, Walk, cast_input, watch};
use gradus_tensor::{Error, ErrorKind, Shape, Tensor};

macro_rules! cells {
    ($($(#[$doc:meta])* $name:ident $kind:ident;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            kind: Kind,
            weights: Weights,
        }

        impl $name {
            /// A cell with biases.
            #[track_caller]
            pub fn new(inputs: usize, hidden: usize, init: &Init) -> $name {
                $name { kind: Kind::$kind, weights: Weights::new(Kind::$kind, inputs, hidden, None, init) }
            }

            /// The same cell without its biases.
            pub fn without_bias(mut self) -> $name {
                self.weights.bias = None;
                self
            }
        }

        impl Module for $name {
            fn visit(&self, walk: &mut Walk<'_>) {
                walk.field("weight_ih", &self.weights.weight_ih);
                walk.field("weight_hh", &self.weights.weight_hh);
                if let Some([ih, hh]) = &self.weights.bias {
                    walk.field("bias_ih", ih);
                    walk.field("bias_hh", hh);
                }
            }
        })*
    };
}
cells! {
    /// h' = tanh(W x + b + V h + c) (Elman 1990): `weight_ih [hidden, inputs]`, `weight_hh [hidden, hidden]`, biases `[hidden]`.
    ///
    /// All start uniform in ±1/√hidden, as in PyTorch.
    RnnCell Tanh;
    /// A step of a long short-term memory (Hochreiter, Schmidhuber 1997): c' = f c + i g, h' = o tanh(c'), with gates i, f, o (sigmoid)
    /// and g (tanh) of W x + b + V h + c, stacked in this order: i, f, g, o. `weight_ih [4 · hidden, inputs]`,
    /// `weight_hh [4 · hidden, hidden]`, biases `[4 · hidden]`.
    ///
    /// All start uniform in ±1/√hidden, as in PyTorch.
    LstmCell Lstm;
    /// A step of a gated recurrent unit (Cho et al. 2014): h' = (1 − z) n + z h, with gates r and z (sigmoid), and
    /// n = tanh(W x + b + r (V h + c)), stacked in this order: r, z, n. `weight_ih [3 · hidden, inputs]`,
    /// `weight_hh [3 · hidden, hidden]`, biases `[3 · hidden]`.
    ///
    /// All start uniform in ±1/√hidden, as in PyTorch.
    ///
    /// ```
    /// use gradus_nn::{GruCell, Init};
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let cell = GruCell::new(3, 4, &Init::new(0, &device));
    /// let hidden = cell.step(&Tensor::ones([2, 3], &device), &Tensor::zeros([2, 4], &device));
    /// assert_eq!(hidden.shape()[..], [2, 4]);
    /// ```
    GruCell Gru;
}

impl RnnCell {
    /// The same cell with ReLU in place of tanh.
    pub fn relu(self) -> RnnCell {
        RnnCell { kind: Kind::Relu, ..self }
    }

    /// The state `[batch, hidden]` after an input `[batch, inputs]`.
    #[track_caller]
    pub fn step(&self, x: &Tensor, hidden: &Tensor) -> Tensor {
        let call = watch(self);
        let [hidden, _] = step(self.kind, &self.weights, x, [hidden, hidden]);
        call.output(hidden)
    }
}

impl GruCell {
    /// The state `[batch, hidden]` after an input `[batch, inputs]`.
    #[track_caller]
    pub fn step(&self, x: &Tensor, hidden: &Tensor) -> Tensor {
        let call = watch(self);
        let [hidden, _] = step(self.kind, &self.weights, x, [hidden, hidden]);
        call.output(hidden)
    }
}

impl LstmCell {
    /// The state, `[batch, hidden]` both, after an input `[batch, inputs]`: what the cell shows (h), and what it keeps (c).
    #[track_caller]
    pub fn step(&self, x: &Tensor, hidden: &Tensor, cell: &Tensor) -> (Tensor, Tensor) {
        let call = watch(self);
        let [hidden, cell] = step(self.kind, &self.weights, x, [hidden, cell]);
        (call.output(hidden), cell)
    }
}

#[track_caller]
fn step(kind: Kind, weights: &Weights, x: &Tensor, state: [&Tensor; 2]) -> [Tensor; 2] {
    let input = weights.input(x);
    if input.error().is_some() {
        return [input.clone(), input];
    }
    // A state of one example would broadcast to all.
    let expected: Shape = x.shape().iter().rev().skip(1).rev().copied().chain([weights.weight_hh.shape()[1]]).collect();
    for part in state {
        let misfit = (part.shape() != &expected).then(|| {
            let found = part.shape().clone();
            Error::new("step", ErrorKind::Shape { what: "the state", expected: expected.clone(), found })
        });
        if let Some(error) = part.error().cloned().or(misfit) {
            let failed = Tensor::build(x.device(), || Err(error));
            return [failed.clone(), failed];
        }
    }
    let state = [&cast_input(state[0]), &cast_input(state[1])];
    OfState::new(weights).step(kind, &input, state)
}
