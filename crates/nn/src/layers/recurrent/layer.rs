//! Recurrent layers along sequences.

use super::{Kind, OfState, Weights};
use crate::{Dropout, Init, Layer, Module, Walk, cast_input, watch};
use gradus_tensor::{Error, ErrorKind, Result, Tensor, cat, stack};

/// What all recurrent layers are.
#[derive(Clone, Debug)]
struct Recurrent {
    kind: Kind,
    /// For each layer, one direction or two.
    layers: Vec<Vec<Weights>>,
    hidden: usize,
    batch_first: bool,
    dropout: Option<Dropout>,
}

/// The output, and the state after the last step of each layer and direction: hidden, and the cell's.
type Walked = (Tensor, [Tensor; 2]);

impl Recurrent {
    #[track_caller]
    fn new(kind: Kind, inputs: usize, hidden: usize, init: &Init) -> Recurrent {
        let layers = vec![vec![Weights::new(kind, inputs, hidden, init)]];
        Recurrent { kind, layers, hidden, batch_first: true, dropout: None }
    }

    fn inputs(&self) -> usize {
        self.layers.first().and_then(|layer| layer.first()).map_or(0, |weights| weights.weight_ih.shape()[1])
    }

    /// New weights for so many layers and directions.
    #[track_caller]
    fn rebuilt(self, count: usize, directions: usize, init: &Init) -> Recurrent {
        let has_bias = self.layers.iter().flatten().all(|weights| weights.bias.is_some());
        let weights = |layer: usize| {
            let inputs = if layer == 0 { self.inputs() } else { directions * self.hidden };
            let one = || {
                let weights = Weights::new(self.kind, inputs, self.hidden, init);
                if has_bias { weights } else { Weights { bias: None, ..weights } }
            };
            (0..directions).map(|_| one()).collect()
        };
        let layers = (0..count).map(weights).collect();
        Recurrent { layers, ..self }
    }

    fn directions(&self) -> usize {
        self.layers.first().map_or(1, Vec::len)
    }

    fn without_bias(mut self) -> Recurrent {
        self.layers.iter_mut().flatten().for_each(|weights| weights.bias = None);
        self
    }

    /// Walks along `x` from a state `[layers · directions, batch, hidden]`, or from zeros.
    #[track_caller]
    fn walk(&self, x: &Tensor, state: Option<[&Tensor; 2]>) -> Result<Walked> {
        let x = &cast_input(x);
        let [first, second, _] = x.dims()?;
        let (time, batch) = if self.batch_first { (1, first) } else { (0, second) };
        if x.shape()[time as usize] == 0 || self.layers.is_empty() {
            let (expected, found) = ("at least one step, and one layer", format!("{}", x.shape()));
            return Err(Error::new("recurrent", ErrorKind::Argument { argument: "the sequence", expected, found }));
        }
        let count = self.layers.len() * self.directions();
        let state = match state {
            Some(state) => {
                for part in state {
                    if let Some(error) = part.error() {
                        return Err(error.clone());
                    }
                    let expected = [count, batch, self.hidden].into();
                    if *part.shape() != expected {
                        let (what, found) = ("the state", part.shape().clone());
                        return Err(Error::new("recurrent", ErrorKind::Shape { what, expected, found }));
                    }
                }
                state.map(cast_input)
            }
            None => {
                let zeros = Tensor::zeros([count, batch, self.hidden], x);
                [zeros.clone(), zeros]
            }
        };
        let (mut x, mut last) = (x.clone(), Vec::with_capacity(count));
        for (number, directions) in self.layers.iter().enumerate() {
            if let (true, Some(dropout)) = (number > 0, &self.dropout) {
                x = dropout.forward(&x);
            }
            let mut outputs = Vec::with_capacity(directions.len());
            for (direction, weights) in directions.iter().enumerate() {
                let at = (number * directions.len() + direction) as isize;
                let from = [0, 1].map(|part: usize| state[part].select_index(0, at));
                let (output, state) = self.direction(weights, &x, time, direction == 1, from)?;
                outputs.push(output);
                last.push(state);
            }
            x = match &outputs[..] {
                [one] => one.clone(),
                all => cat(&all.iter().collect::<Vec<_>>(), -1),
            };
        }
        let state = [0, 1].map(|part: usize| stack(&last.iter().map(|state| &state[part]).collect::<Vec<_>>(), 0));
        Ok((x, state))
    }

    /// One direction of one layer: what it shows at each step, and its last state.
    #[track_caller]
    fn direction(
        &self,
        weights: &Weights,
        x: &Tensor,
        time: isize,
        backwards: bool,
        mut state: [Tensor; 2],
    ) -> Result<Walked> {
        // The inputs of all steps in one product.
        let inputs = weights.input(x);
        if let Some(error) = inputs.error() {
            return Err(error.clone());
        }
        let of_state = OfState::new(weights);
        let steps = x.shape()[time as usize] as isize;
        let order: Box<dyn Iterator<Item = isize>> =
            if backwards { Box::new((0..steps).rev()) } else { Box::new(0..steps) };
        let mut shown = Vec::with_capacity(steps as usize);
        for step in order {
            let input = inputs.select_index(time, step);
            state = self.kind.step(&input, &of_state.project(&state[0]), [&state[0], &state[1]]);
            shown.push(state[0].clone());
        }
        if backwards {
            shown.reverse();
        }
        Ok((stack(&shown.iter().collect::<Vec<_>>(), time), state))
    }

    /// [`walk`](Recurrent::walk), with an error carried by all results.
    #[track_caller]
    fn run(&self, x: &Tensor, state: Option<[&Tensor; 2]>) -> Walked {
        self.walk(x, state).unwrap_or_else(|error| {
            let failed = Tensor::build(x.device(), || Err(error));
            (failed.clone(), [failed.clone(), failed])
        })
    }
}

impl Module for Recurrent {
    fn visit(&self, walk: &mut Walk<'_>) {
        for (number, directions) in self.layers.iter().enumerate() {
            for (weights, suffix) in directions.iter().zip(["", "_reverse"]) {
                let mut field = |name: &str, part: &dyn Module| walk.field(&format!("{name}_l{number}{suffix}"), part);
                field("weight_ih", &weights.weight_ih);
                field("weight_hh", &weights.weight_hh);
                if let Some([ih, hh]) = &weights.bias {
                    field("bias_ih", ih);
                    field("bias_hh", hh);
                }
            }
        }
        if let Some(dropout) = &self.dropout {
            walk.field("dropout", dropout);
        }
    }
}

macro_rules! layers {
    ($($(#[$doc:meta])* $name:ident $kind:ident;)*) => {
        $($(#[$doc])*
        ///
        /// Sequences are `[batch, steps, inputs]`, outputs `[batch, steps, directions · hidden]`;
        /// [`time_first`](Self::time_first) has steps first. States are `[layers · directions, batch, hidden]`, zeros unless given.
        /// Parameters are named as in PyTorch: `weight_ih_l0`, `bias_hh_l1_reverse`, …
        /// They start uniform in ±1/√hidden.
        #[derive(Clone, Debug)]
        pub struct $name(Recurrent);

        impl $name {
            /// One layer, in one direction, with biases.
            #[track_caller]
            pub fn new(inputs: usize, hidden: usize, init: &Init) -> $name {
                $name(Recurrent::new(Kind::$kind, inputs, hidden, init))
            }

            /// So many layers, each on the outputs of the one below, with new weights.
            #[track_caller]
            pub fn layers(self, count: usize, init: &Init) -> $name {
                let directions = self.0.directions();
                $name(self.0.rebuilt(count, directions, init))
            }

            /// Walks along the sequence in both directions, with weights for each, all new; outputs are side by side.
            #[track_caller]
            pub fn bidirectional(self, init: &Init) -> $name {
                let count = self.0.layers.len();
                $name(self.0.rebuilt(count, 2, init))
            }

            /// [`Dropout`] between layers, with probability `p`.
            pub fn dropout(self, p: f64, init: &Init) -> $name {
                $name(Recurrent { dropout: Some(Dropout::new(p, init)), ..self.0 })
            }

            /// Without biases.
            pub fn without_bias(self) -> $name {
                $name(self.0.without_bias())
            }

            /// Sequences are `[steps, batch, inputs]`, and so are outputs: PyTorch's default.
            pub fn time_first(self) -> $name {
                $name(Recurrent { batch_first: false, ..self.0 })
            }
        }

        impl Module for $name {
            fn visit(&self, walk: &mut Walk<'_>) {
                self.0.visit(walk);
            }
        }

        impl Layer for $name {
            /// The outputs of all steps, from a state of zeros.
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                watch(self).output(self.0.run(x, None).0)
            }
        })*
    };
}
layers! {
    /// A recurrent layer with tanh (Elman 1990), or [ReLU](Rnn::relu); a step is that of [`RnnCell`](crate::RnnCell).
    Rnn Tanh;
    /// A long short-term memory (Hochreiter, Schmidhuber 1997); a step is that of [`LstmCell`](crate::LstmCell).
    ///
    /// ```
    /// use gradus_nn::{Init, Lstm, Module};
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let init = Init::new(0, &device);
    /// let lstm = Lstm::new(3, 4, &init).layers(2, &init).bidirectional(&init);
    /// let (y, state) = lstm.run(&Tensor::ones([5, 7, 3], &device), None);
    /// assert_eq!(y.shape()[..], [5, 7, 8]);
    /// assert_eq!(state.cell.shape()[..], [4, 5, 4]);
    /// assert_eq!(lstm.parameters()[4].0, "weight_ih_l0_reverse");
    /// ```
    Lstm Lstm;
    /// A gated recurrent unit (Cho et al. 2014); a step is that of [`GruCell`](crate::GruCell).
    Gru Gru;
}

impl Rnn {
    /// The same layer with ReLU in place of tanh.
    pub fn relu(self) -> Rnn {
        Rnn(Recurrent { kind: Kind::Relu, ..self.0 })
    }

    /// The outputs of all steps, and the state after the last one, from a state (or zeros).
    #[track_caller]
    pub fn run(&self, x: &Tensor, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let call = watch(self);
        let (y, [hidden, _]) = self.0.run(x, state.map(|hidden| [hidden, hidden]));
        (call.output(y), hidden)
    }
}

impl Gru {
    /// The outputs of all steps, and the state after the last one, from a state (or zeros).
    #[track_caller]
    pub fn run(&self, x: &Tensor, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let call = watch(self);
        let (y, [hidden, _]) = self.0.run(x, state.map(|hidden| [hidden, hidden]));
        (call.output(y), hidden)
    }
}

/// The state of an LSTM, `[layers · directions, batch, hidden]` each.
#[derive(Clone, Debug)]
pub struct LstmState {
    /// What it shows.
    pub hidden: Tensor,
    /// What it keeps.
    pub cell: Tensor,
}

impl Lstm {
    /// The outputs of all steps, and the state after the last one, from a state (or zeros).
    #[track_caller]
    pub fn run(&self, x: &Tensor, state: Option<&LstmState>) -> (Tensor, LstmState) {
        let call = watch(self);
        let (y, [hidden, cell]) = self.0.run(x, state.map(|state| [&state.hidden, &state.cell]));
        (call.output(y), LstmState { hidden, cell })
    }
}
