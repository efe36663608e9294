//! Adafactor: the mean of squares of a matrix from its rows and columns alone.

use super::{Clock, Step, Transform, norm};
use crate::Schedule;
use gradus_tensor::{Cell, Tensor};

/// What Adafactor knows of the squares of a parameter's gradients.
enum Squares {
    /// Means over the last axis, and over the one before.
    Factored {
        rows: Cell,
        columns: Cell,
    },
    Whole(Cell),
}

/// Divides by the root of the running mean of squares, which for matrices is the product of means over rows and columns, so
/// that the state is small; clips the update's root mean square, and scales by the parameter's own
/// (Shazeer, Stern 2018, Algorithms 4 and 5; as in PyTorch). It contains the learning rate: the size of step t is at most
/// `1/√t` of the parameter's.
pub struct ScaleByAdafactor {
    decay: f64,
    epsilons: (f64, f64),
    clip: f64,
    weight_decay: Schedule,
    squares: Vec<Squares>,
}

impl ScaleByAdafactor {
    /// The exponent d of the decay rate 1 − tᵈ of the means, such as −0.8; what squares are at least the square of, and the
    /// least root mean square of a parameter; and the largest root mean square of an update.
    pub fn new(decay: f64, epsilons: (f64, f64), clip: f64) -> ScaleByAdafactor {
        ScaleByAdafactor { decay, epsilons, clip, weight_decay: 0.0.into(), squares: Vec::new() }
    }

    /// Shrinks each parameter by this much of the learning rate.
    pub fn weight_decay(self, rate: impl Into<Schedule>) -> ScaleByAdafactor {
        ScaleByAdafactor { weight_decay: rate.into(), ..self }
    }
}

impl Transform for ScaleByAdafactor {
    fn init(&mut self, parameters: &[Tensor]) {
        let squares = |parameter: &Tensor| {
            let zeros = parameter.widened().zeros_like();
            match zeros.rank() {
                0 | 1 => Squares::Whole(Cell::buffer(zeros)),
                _ => Squares::Factored {
                    rows: Cell::buffer(zeros.sum_keepdim(-1)),
                    columns: Cell::buffer(zeros.sum_keepdim(-2)),
                },
            }
        };
        self.squares = parameters.iter().map(squares).collect();
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        let size = clock.learning_rate().min(1.0 / clock.count().sqrt());
        let decay = clock.learning_rate() * self.weight_decay.at(clock.number() - 1);
        vec![clock.count().powf(self.decay), -size, decay]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [share, down, decay] = step.numbers();
        let parameters = step.parameters();
        let mut mean = |cell: &Cell, value: Tensor| {
            let old = cell.tensor();
            let mean = &old + (value - &old) * share;
            step.assign(cell, &mean);
            mean
        };
        let scale = |((gradient, parameter), squares): ((Tensor, &Tensor), &Squares)| {
            let square = gradient.square();
            let squares = match squares {
                Squares::Whole(cell) => mean(cell, square),
                Squares::Factored { rows, columns } => {
                    let rows = mean(rows, square.mean_keepdim(-1));
                    let columns = mean(columns, square.mean_keepdim(-2));
                    let whole = rows.mean_keepdim(-2).maximum(self.epsilons.0);
                    rows * columns / whole
                }
            };
            let update = gradient / squares.maximum(self.epsilons.0 * self.epsilons.0).sqrt();
            let root = (update.numel() as f64).sqrt();
            let parameter = parameter.widened();
            let own = (norm(&parameter) / root).maximum(self.epsilons.1);
            let clip = (norm(&update) / (root * self.clip)).maximum(1.0);
            update * (own * down / clip) - parameter * decay
        };
        updates.into_iter().zip(parameters).zip(&self.squares).map(scale).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        let mut state = Vec::new();
        for (index, squares) in self.squares.iter().enumerate() {
            match squares {
                Squares::Whole(cell) => state.push(("square", index, cell.clone())),
                Squares::Factored { rows, columns } => {
                    state.push(("rows", index, rows.clone()));
                    state.push(("columns", index, columns.clone()));
                }
            }
        }
        state
    }
}
