//! Sharpness-aware minimisation.

use super::{Optimiser, Swapped};
use gradus_tensor::{Result, Tensor};

/// Takes the gradients of an optimiser's steps not where the weights are, but where the loss is largest nearby: at
/// `w + ρ g / |g|` (SAM: Foret et al. 2021, equation 2). What it finds is flat, and often generalises better; a step costs two
/// passes.
///
/// ```
/// use gradus_nn::Linear;
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::{Sam, Sgd};
///
/// let model = Linear::from_tensors(Tensor::new([[1.0]], &Device::cpu()), None);
/// let mut sam = Sam::new(Sgd::new(0.25).of(&model), 0.5);
/// let loss = sam.step(|| model.weight.tensor().square().sum(..))?;
/// assert_eq!(loss.item::<f32>()?, 1.0);
/// // The gradient is that at 1.5.
/// assert!((model.weight.tensor().item::<f32>()? - 0.25).abs() < 1e-6);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub struct Sam {
    optimiser: Optimiser,
    radius: f64,
    adaptive: bool,
}

impl Sam {
    /// With this optimiser, and `radius` ρ (such as 0.05).
    pub fn new(optimiser: Optimiser, radius: f64) -> Sam {
        Sam { optimiser, radius, adaptive: false }
    }

    /// Measures distances relative to each weight: `w + ρ w² g / |w g|` (ASAM: Kwon et al. 2021, equation 8). Radii are about
    /// ten times larger.
    pub fn adaptive(self) -> Sam {
        Sam { adaptive: true, ..self }
    }

    /// One step. `loss` is called twice, and has to look at the same examples; its first value comes back. Layers that keep
    /// running statistics see both passes.
    ///
    /// # Errors
    /// As [`Optimiser::step`]; weights and state are then as before.
    #[track_caller]
    pub fn step(&mut self, mut loss: impl FnMut() -> Tensor) -> Result<Tensor> {
        let first = loss();
        let gradients: Vec<Tensor> = self.optimiser.gradients(&first)?.iter().map(Tensor::widened).collect();
        let parameters: Vec<Tensor> = self.optimiser.parameters().iter().map(|(_, p)| p.master().detach()).collect();
        let weighted = |(gradient, parameter): (&Tensor, &Tensor)| {
            if self.adaptive { gradient * parameter.widened() } else { gradient.clone() }
        };
        let squares = gradients.iter().zip(&parameters).map(|pair| weighted(pair).square().sum(..));
        let Some(norm) = squares.reduce(|a, b| a + b).map(|squares| squares.sqrt()) else {
            return Ok(first);
        };
        let scale = self.radius / (norm + 1e-12);
        let mut moved = Vec::with_capacity(gradients.len());
        for ((_, cell), (gradient, old)) in self.optimiser.parameters().iter().zip(gradients.iter().zip(&parameters)) {
            let old = old.widened();
            let way = if self.adaptive { gradient * old.square() } else { gradient.clone() };
            moved.push((cell.cell().clone(), (old + way * &scale).to_dtype(cell.tensor().dtype())));
        }
        drop((gradients, parameters));
        let swapped = Swapped::new(moved)?;
        let gradients = self.optimiser.gradients(&loss());
        drop(swapped);
        self.optimiser.apply(gradients?)?;
        Ok(first)
    }

    /// The optimiser that takes the steps.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// The optimiser that takes the steps, to change its learning rate or load its state: there is no other.
    pub fn optimiser_mut(&mut self) -> &mut Optimiser {
        &mut self.optimiser
    }
}
