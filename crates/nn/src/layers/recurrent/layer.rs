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
    /// The width of what is shown, if it is not the hidden one.
    projection: Option<usize>,
    batch_first: bool,
    dropout: Option<Dropout>,
}

/// The output, and the state after the last step of each layer and direction: hidden, and the cell's.
type Walked = (Tensor, [Tensor; 2]);

impl Recurrent {
    #[track_caller]
    fn new(kind: Kind, inputs: usize, hidden: usize, init: &Init) -> Recurrent {
        let layers = vec![vec![Weights::new(kind, inputs, hidden, None, init)]];
        Recurrent { kind, layers, hidden, projection: None, batch_first: true, dropout: None }
    }

    fn inputs(&self) -> usize {
        self.layers.first().and_then(|layer| layer.first()).map_or(0, |weights| weights.weight_ih.shape()[1])
    }

    /// The widths of a state's two parts.
    fn widths(&self) -> [usize; 2] {
        [self.projection.unwrap_or(self.hidden), self.hidden]
    }

    /// New weights for so many layers and directions.
    #[track_caller]
    fn rebuilt(self, count: usize, directions: usize, init: &Init) -> Recurrent {
        let has_bias = self.layers.iter().flatten().all(|weights| weights.bias.is_some());
        let weights = |layer: usize| {
            let inputs = if layer == 0 { self.inputs() } else { directions * self.widths()[0] };
            let one = || {
                let weights = Weights::new(self.kind, inputs, self.hidden, self.projection, init);
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

    /// Walks along `x` from a state `[layers · directions, batch, hidden]`, or from zeros; along each sequence to its own end, where
    /// `lengths [batch]` has them.
    #[track_caller]
    fn walk(&self, x: &Tensor, lengths: Option<&Tensor>, state: Option<[&Tensor; 2]>) -> Result<Walked> {
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
                for (part, width) in state.into_iter().zip(self.widths()) {
                    if let Some(error) = part.error() {
                        return Err(error.clone());
                    }
                    let expected = [count, batch, width].into();
                    if *part.shape() != expected {
                        let (what, found) = ("the state", part.shape().clone());
                        return Err(Error::new("recurrent", ErrorKind::Shape { what, expected, found }));
                    }
                }
                state.map(cast_input)
            }
            None => self.widths().map(|width| Tensor::zeros([count, batch, width], x)),
        };
        let steps = x.shape()[time as usize];
        let inside = lengths.map(|lengths| Inside::new(steps, batch, lengths)).transpose()?;
        let mut x = match &inside {
            // A NaN there would be one in the gradients of weights.
            Some(inside) => inside.of_sequence(time).where_(x, 0.0),
            None => x.clone(),
        };
        let mut last = Vec::with_capacity(count);
        for (number, directions) in self.layers.iter().enumerate() {
            if let (true, Some(dropout)) = (number > 0, &self.dropout) {
                x = dropout.forward(&x);
            }
            let mut outputs = Vec::with_capacity(directions.len());
            for (direction, weights) in directions.iter().enumerate() {
                let at = (number * directions.len() + direction) as isize;
                let from = [0, 1].map(|part: usize| state[part].select_index(0, at));
                let (output, state) = self.direction(weights, &x, inside.as_ref(), time, direction == 1, from)?;
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
        inside: Option<&Inside>,
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
            let next = of_state.step(self.kind, &inputs.select_index(time, step), [&state[0], &state[1]]);
            let Some(inside) = inside.map(|inside| inside.at(step)) else {
                shown.push(next[0].clone());
                state = next;
                continue;
            };
            // Past its end, and before it on the way back, a sequence waits.
            shown.push(inside.where_(&next[0], 0.0));
            state = [0, 1].map(|part: usize| inside.where_(&next[part], &state[part]));
        }
        if backwards {
            shown.reverse();
        }
        Ok((stack(&shown.iter().collect::<Vec<_>>(), time), state))
    }

    /// [`walk`](Recurrent::walk), with an error carried by all results.
    #[track_caller]
    fn run(&self, x: &Tensor, lengths: Option<&Tensor>, state: Option<[&Tensor; 2]>) -> Walked {
        self.walk(x, lengths, state).unwrap_or_else(|error| {
            let failed = Tensor::build(x.device(), || Err(error));
            (failed.clone(), [failed.clone(), failed])
        })
    }
}

/// Which steps of sequences of unequal lengths are theirs, `[batch, steps]`.
struct Inside(Tensor);

impl Inside {
    #[track_caller]
    fn new(steps: usize, batch: usize, lengths: &Tensor) -> Result<Inside> {
        if let Some(error) = lengths.error() {
            return Err(error.clone());
        }
        let (expected, found) = ([batch].into(), lengths.shape().clone());
        if expected != found {
            return Err(Error::new("recurrent", ErrorKind::Shape { what: "the lengths", expected, found }));
        }
        let count = |count: usize| Tensor::arange(count, lengths.device());
        // Looked up and not compared: a length that no sequence can have is then an error of the index.
        let of_length = count(steps).lt(count(steps + 1).unsqueeze(1));
        Ok(Inside(of_length.index_select(0, lengths)))
    }

    /// For a sequence whose steps lie along an axis, 0 or 1.
    fn of_sequence(&self, time: isize) -> Tensor {
        let inside = if time == 1 { self.0.clone() } else { self.0.t() };
        inside.unsqueeze(-1)
    }

    /// For a step, `[batch, 1]`.
    fn at(&self, step: isize) -> Tensor {
        self.0.slice(1, step..step + 1)
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
                if let Some(hr) = &weights.weight_hr {
                    field("weight_hr", hr);
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
                watch(self).output(self.0.run(x, None, None).0)
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
        let (y, [hidden, _]) = self.0.run(x, None, state.map(|hidden| [hidden, hidden]));
        (call.output(y), hidden)
    }

    /// [`run`](Self::run) along sequences of unequal lengths, which are padded at their ends: `lengths [batch]` are integers, how many
    /// steps each sequence has, from 0 to all. As with PyTorch's packed sequences, the state comes from each sequence's own last
    /// step, the way back begins there, and outputs of padding are 0; what the padding holds does not matter.
    ///
    /// A length out of range is an error ([`Index`](ErrorKind::Index)) of the evaluation. Lengths are no part of the plan.
    #[track_caller]
    pub fn run_padded(&self, x: &Tensor, lengths: &Tensor, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let call = watch(self);
        let (y, [hidden, _]) = self.0.run(x, Some(lengths), state.map(|hidden| [hidden, hidden]));
        (call.output(y), hidden)
    }
}

impl Gru {
    /// The outputs of all steps, and the state after the last one, from a state (or zeros).
    #[track_caller]
    pub fn run(&self, x: &Tensor, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let call = watch(self);
        let (y, [hidden, _]) = self.0.run(x, None, state.map(|hidden| [hidden, hidden]));
        (call.output(y), hidden)
    }

    /// [`run`](Self::run) along sequences of unequal lengths, which are padded at their ends: `lengths [batch]` are integers, how many
    /// steps each sequence has, from 0 to all. As with PyTorch's packed sequences, the state comes from each sequence's own last
    /// step, the way back begins there, and outputs of padding are 0; what the padding holds does not matter.
    ///
    /// A length out of range is an error ([`Index`](ErrorKind::Index)) of the evaluation. Lengths are no part of the plan.
    ///
    /// ```
    /// use gradus_nn::{Gru, Init};
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let gru = Gru::new(1, 4, &Init::new(0, &device));
    /// let x = Tensor::new([[[1.0], [2.0], [3.0]], [[4.0], [f32::NAN], [f32::NAN]]], &device);
    /// let (y, state) = gru.run_padded(&x, &Tensor::new([3, 1], &device), None);
    /// assert_eq!(y.select_index(0, 1).slice(0, 1..).to_vec::<f32>()?, [0.0; 8]);
    /// let (_, alone) = gru.run(&x.slice(0, 1..).slice(1, ..1), None);
    /// assert_eq!(state.slice(1, 1..).to_vec::<f32>()?, alone.to_vec::<f32>()?);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn run_padded(&self, x: &Tensor, lengths: &Tensor, state: Option<&Tensor>) -> (Tensor, Tensor) {
        let call = watch(self);
        let (y, [hidden, _]) = self.0.run(x, Some(lengths), state.map(|hidden| [hidden, hidden]));
        (call.output(y), hidden)
    }
}

/// The state of an LSTM, `[layers · directions, batch, hidden]` each.
#[derive(Clone, Debug)]
pub struct LstmState {
    /// What it shows; as wide as a [projection](Lstm::projected), if there is one.
    pub hidden: Tensor,
    /// What it keeps.
    pub cell: Tensor,
}

impl Lstm {
    /// Shows `size` linear combinations of the hidden state (Sak et al. 2014), which are the hidden part of the state too:
    /// `weight_hr_l0 [size, hidden]`, …; PyTorch's `proj_size`. 0 takes the projection away. All weights are new.
    ///
    /// ```
    /// use gradus_nn::{Init, Lstm};
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let init = Init::new(0, &device);
    /// let (y, state) = Lstm::new(3, 8, &init).projected(2, &init).run(&Tensor::ones([5, 7, 3], &device), None);
    /// assert_eq!(y.shape()[..], [5, 7, 2]);
    /// assert_eq!((&state.hidden.shape()[..], &state.cell.shape()[..]), (&[1, 5, 2][..], &[1, 5, 8][..]));
    /// ```
    #[track_caller]
    pub fn projected(self, size: usize, init: &Init) -> Lstm {
        let (count, directions) = (self.0.layers.len(), self.0.directions());
        let projection = (size > 0).then_some(size);
        Lstm(Recurrent { projection, ..self.0 }.rebuilt(count, directions, init))
    }

    /// The outputs of all steps, and the state after the last one, from a state (or zeros).
    #[track_caller]
    pub fn run(&self, x: &Tensor, state: Option<&LstmState>) -> (Tensor, LstmState) {
        let call = watch(self);
        let (y, [hidden, cell]) = self.0.run(x, None, state.map(|state| [&state.hidden, &state.cell]));
        (call.output(y), LstmState { hidden, cell })
    }

    /// [`run`](Self::run) along sequences of unequal lengths, which are padded at their ends: `lengths [batch]` are integers, how many
    /// steps each sequence has, from 0 to all. As with PyTorch's packed sequences, the state comes from each sequence's own last
    /// step, the way back begins there, and outputs of padding are 0; what the padding holds does not matter.
    ///
    /// A length out of range is an error ([`Index`](ErrorKind::Index)) of the evaluation. Lengths are no part of the plan.
    #[track_caller]
    pub fn run_padded(&self, x: &Tensor, lengths: &Tensor, state: Option<&LstmState>) -> (Tensor, LstmState) {
        let call = watch(self);
        let (y, [hidden, cell]) = self.0.run(x, Some(lengths), state.map(|state| [&state.hidden, &state.cell]));
        (call.output(y), LstmState { hidden, cell })
    }
}
