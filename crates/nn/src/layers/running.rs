//! Running statistics of channels, as batch and instance norm keep them.

use super::batch_norm::wide;
use crate::{Buffer, Init};
use gradus_tensor::{DType, Operand, Placement, Result, Tensor};

/// A layer's running statistics, `[channels]` each, and how many batches they have seen, `[]`.
pub(super) struct Running<'a> {
    mean: &'a Buffer,
    variance: &'a Buffer,
    batches: Option<&'a Buffer>,
}

impl<'a> Running<'a> {
    /// Means, variances and the number of batches before the first one: 0, 1 and 0.
    #[track_caller]
    pub(super) fn start(channels: usize, init: &Init) -> [Option<Buffer>; 3] {
        let on = || Placement { device: init.device().clone(), dtype: Some(wide(init.float_dtype())) };
        let (mean, variance) = (Tensor::zeros([channels], on()), Tensor::ones([channels], on()));
        let batches = Tensor::zeros([0usize; 0], (init.device(), DType::I32));
        [mean, variance, batches].map(|tensor| Some(Buffer::new(tensor)))
    }

    /// The statistics, if a layer keeps any.
    pub(super) fn of([mean, variance, batches]: [&'a Option<Buffer>; 3]) -> Option<Running<'a>> {
        Some(Running { mean: mean.as_ref()?, variance: variance.as_ref()?, batches: batches.as_ref() })
    }

    /// `x [batch, channels, …]` normalised by them.
    #[track_caller]
    pub(super) fn normalise(&self, x: &Tensor, epsilon: f64) -> Tensor {
        let along = |buffer: &Buffer| (2..x.rank()).fold(buffer.tensor(), |vector, _| vector.unsqueeze(-1));
        (x - along(self.mean)) * (along(self.variance) + epsilon).rsqrt()
    }

    /// Brings them nearer to a batch's means and unbiased variances, of one element per channel each: running ← (1 − momentum) ·
    /// running + momentum · batch, or the mean over all batches where there is no momentum. Both come with what they are made of, for
    /// [`Buffer::update`].
    #[track_caller]
    pub(super) fn follow(&self, momentum: Option<f64>, batch: [(Tensor, &Tensor); 2]) -> Result<()> {
        let number = self.batches.map(|batches| batches.tensor() + 1);
        let share = match (momentum, &number) {
            (Some(momentum), _) => Operand::from(momentum),
            (None, Some(number)) => number.to_dtype(self.mean.tensor().dtype()).recip().into(),
            (None, None) => Operand::from(1.0),
        };
        let seen = batch[0].1;
        for (running, (batch, seen)) in [self.mean, self.variance].into_iter().zip(batch) {
            let old = running.tensor();
            let batch = batch.detach().reshape(old.shape());
            let new = &old + (&batch - &old) * share.clone();
            // One overflow must not stay in them for good.
            running.update(&batch.is_finite().where_(new, &old), seen)?;
        }
        match self.batches.zip(number) {
            Some((batches, number)) => batches.update(&number, seen),
            None => Ok(()),
        }
    }
}
