//! Muon, which treats matrices as such.

use super::{AdamW, Chain, Chooser, Common, Rule};
use crate::Schedule;
use crate::optimiser::{Group, Optimiser, Orthogonalise, RateOfMatrix, Select};
use gradus_nn::{Module, Param};
use std::sync::Arc;

/// Momentum of matrices, made orthogonal (Jordan et al. 2024); see [`Orthogonalise`]. What is no matrix (biases, the weights of
/// norms), and what [`adam_for`](Muon::adam_for) names (embeddings and the last layer, as a rule), is updated by AdamW.
///
/// ```
/// use gradus_nn::{Init, Linear};
/// use gradus_tensor::Device;
/// use gradus_train::{AdamW, Muon};
/// let init = Init::new(0, &Device::cpu());
/// let model = vec![Linear::new(4, 4, &init), Linear::new(4, 2, &init)];
/// let optimiser = Muon::new(0.02).adam(AdamW::new(1e-3)).adam_for("1.*").of(&model);
/// // The first layer's weight, and the rest.
/// assert_eq!(optimiser.learning_rates(), [0.02, 1e-3]);
/// ```
#[derive(Clone, Debug)]
pub struct Muon {
    common: Common<Muon>,
    momentum: f64,
    nesterov: bool,
    corrected: bool,
    iterations: usize,
    epsilon: f64,
    rate: RateOfMatrix,
    adam: AdamW,
    adam_for: Paths,
}

/// Which matrices are not Muon's.
#[derive(Clone, Default)]
struct Paths(Vec<Arc<dyn Select + Send + Sync>>);

impl std::fmt::Debug for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Paths({})", self.0.len())
    }
}

impl Muon {
    /// Momentum 0.95 that looks ahead, five iterations, weight decay 0.1 (as in PyTorch), and AdamW with a rate of 10⁻³ for the
    /// rest.
    pub fn new(learning_rate: f64) -> Muon {
        Muon {
            common: Common::new(learning_rate),
            momentum: 0.95,
            nesterov: true,
            corrected: false,
            iterations: 5,
            epsilon: 1e-7,
            rate: RateOfMatrix::Original,
            adam: AdamW::new(1e-3),
            adam_for: Paths::default(),
        }
        .weight_decay(0.1)
    }

    /// The decay rate of the momentum.
    pub fn momentum(self, decay: f64) -> Muon {
        Muon { momentum: decay, ..self }
    }

    /// Takes the momentum as it is, without looking ahead.
    pub fn without_nesterov(self) -> Muon {
        Muon { nesterov: false, ..self }
    }

    /// Corrects the momentum for its start at 0, as optax does.
    pub fn corrected(self) -> Muon {
        Muon { corrected: true, ..self }
    }

    /// How many iterations make the momentum orthogonal.
    pub fn iterations(self, iterations: usize) -> Muon {
        Muon { iterations, ..self }
    }

    /// What is added to the norm of a momentum.
    pub fn epsilon(self, epsilon: f64) -> Muon {
        Muon { epsilon, ..self }
    }

    /// How steps depend on a matrix' size.
    pub fn rate_of_matrix(self, rate: RateOfMatrix) -> Muon {
        Muon { rate, ..self }
    }

    /// What updates all that is no matrix. Its schedule is Muon's unless it has one.
    pub fn adam(self, adam: AdamW) -> Muon {
        Muon { adam, ..self }
    }

    /// Leaves these matrices to AdamW too.
    pub fn adam_for(mut self, paths: impl Select + Send + Sync + 'static) -> Muon {
        self.adam_for.0.push(Arc::new(paths));
        self
    }

    fn links(&self) -> Chain {
        let mut link = Orthogonalise::new(self.momentum).nesterov(self.nesterov).iterations(self.iterations);
        link = link.epsilon(self.epsilon).rate(self.rate);
        self.common.decoupled(vec![Box::new(if self.corrected { link.corrected() } else { link })])
    }
}

impl Rule for Muon {
    fn common(&self) -> &Common<Muon> {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common<Muon> {
        &mut self.common
    }

    fn chain(&self) -> Chain {
        self.links()
    }

    fn groups(&self, before: &dyn Fn() -> Chain, chosen: Chooser) -> Vec<Group> {
        let (paths, of_matrices) = (self.adam_for.clone(), chosen.clone());
        let is_matrix = move |path: &str, parameter: &Param| {
            let left = paths.0.iter().any(|paths| paths.selects(path));
            of_matrices(path, parameter) && parameter.shape().len() >= 2 && !left
        };
        let mut adam = self.adam.clone();
        let common = adam.common_mut();
        common.schedule = common.schedule.take().or(self.common.schedule.clone());
        common.lookahead = common.lookahead.or(self.common.lookahead);
        let muon = self.wrap(before(), self.links(), Arc::new(is_matrix));
        [muon].into_iter().chain(adam.groups(before, chosen)).collect()
    }
}

super::settings! {
    Muon: "Shrinks each matrix by this much of the learning rate, apart from the gradient.";
}
