//! Muon: momentum whose singular values are made equal.

use super::{Clock, Step, Transform, correction, norm, running_mean, state_of, zeros};
use gradus_tensor::{Cell, Tensor};

/// Replaces the momentum of each matrix by nearly the nearest orthogonal one (Jordan et al. 2024, "Muon"): five steps of a
/// Newton–Schulz iteration bring all singular values to about 1. Tensors of more axes count as matrices of the first axis by
/// all others; those of fewer are left as momentum.
pub struct Orthogonalise {
    /// The decay rate of the momentum, such as 0.95.
    momentum: f64,
    nesterov: bool,
    corrected: bool,
    coefficients: [f64; 3],
    iterations: usize,
    epsilon: f64,
    rate: RateOfMatrix,
    mean: Vec<Cell>,
}

/// How the step of a matrix `[rows, columns]` depends on its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateOfMatrix {
    /// √max(1, rows / columns): as Muon was first published.
    Original,
    /// 0.2 · √max(rows, columns), so that elements move as far as with AdamW, and rates can be taken from there
    /// (Liu et al. 2025, section 2.2).
    LikeAdam,
}

impl Orthogonalise {
    /// The iteration's coefficients of x, x³ and x⁵, chosen for a steep slope at 0.
    const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];

    /// Momentum with this decay rate, that looks ahead.
    pub fn new(momentum: f64) -> Orthogonalise {
        Orthogonalise {
            momentum,
            nesterov: true,
            corrected: false,
            coefficients: Orthogonalise::COEFFICIENTS,
            iterations: 5,
            epsilon: 1e-7,
            rate: RateOfMatrix::Original,
            mean: Vec::new(),
        }
    }

    /// Whether to look ahead along the momentum.
    pub fn nesterov(self, nesterov: bool) -> Orthogonalise {
        Orthogonalise { nesterov, ..self }
    }

    /// Corrects momentum and gradient for the momentum's start at 0, as optax does.
    pub fn corrected(self) -> Orthogonalise {
        Orthogonalise { corrected: true, ..self }
    }

    /// How many steps of the iteration are taken.
    pub fn iterations(self, iterations: usize) -> Orthogonalise {
        Orthogonalise { iterations, ..self }
    }

    /// What the norm of a matrix is at least.
    pub fn epsilon(self, epsilon: f64) -> Orthogonalise {
        Orthogonalise { epsilon, ..self }
    }

    /// How steps depend on a matrix' size.
    pub fn rate(self, rate: RateOfMatrix) -> Orthogonalise {
        Orthogonalise { rate, ..self }
    }

    fn orthogonal(&self, x: &Tensor) -> Tensor {
        let shape = x.shape().clone();
        let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
        let tall = rows > columns;
        let matrix = x.reshape([rows, columns]);
        let mut x = if tall { matrix.t() } else { matrix };
        x = &x / (norm(&x) + self.epsilon);
        let [a, b, c] = self.coefficients;
        for _ in 0..self.iterations {
            let gram = x.matmul(&x.t());
            let odd = &gram * b + gram.matmul(&gram) * c;
            x = &x * a + odd.matmul(&x);
        }
        let (x, rows, columns) = (if tall { x.t() } else { x }, rows as f64, columns.max(1) as f64);
        let factor = match self.rate {
            RateOfMatrix::Original => (rows / columns).max(1.0).sqrt(),
            RateOfMatrix::LikeAdam => 0.2 * rows.max(columns).sqrt(),
        };
        (x * factor).reshape(shape)
    }
}

impl Transform for Orthogonalise {
    fn init(&mut self, parameters: &[Tensor]) {
        self.mean = zeros(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        let (beta, count) = (self.momentum, clock.count());
        let (of_mean, of_gradient) = match (self.nesterov, self.corrected) {
            (true, true) => (beta / correction(beta, count + 1.0), (1.0 - beta) / correction(beta, count)),
            (true, false) => (beta, 1.0 - beta),
            (false, true) => (1.0 / correction(beta, count), 0.0),
            (false, false) => (1.0, 0.0),
        };
        vec![of_mean, of_gradient]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [of_mean, of_gradient] = step.numbers();
        let pairs = updates.into_iter().zip(&self.mean);
        let ahead = pairs.map(|(gradient, cell)| {
            let mean = running_mean(cell, &gradient, self.momentum, step);
            if self.nesterov { mean * of_mean + gradient * of_gradient } else { mean * of_mean }
        });
        ahead.map(|update| if update.rank() < 2 { update } else { self.orthogonal(&update) }).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("mean", &self.mean).collect()
    }
}
