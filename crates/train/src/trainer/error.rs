//! Why training stops with an error.

use std::path::PathBuf;

/// Why a run could not go on. What was saved before is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A tensor could not be computed.
    #[error(transparent)]
    Tensor(#[from] gradus_tensor::Error),

    /// A file of tensors could not be read or written.
    #[error(transparent)]
    Data(#[from] gradus_data::DataError),

    /// The source of batches failed.
    #[error("batch {batch} of epoch {epoch}: {source}")]
    Batch {
        /// The epoch, from 0.
        epoch: u64,
        /// The batch in it, from 0.
        batch: usize,
        /// What the source said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The source of batches ended too early.
    #[error("epoch {epoch} ended after {found} batches, but its source says that it has {expected}")]
    Batches {
        /// The epoch, from 0.
        epoch: u64,
        /// What the source promised.
        expected: usize,
        /// What it gave.
        found: usize,
    },

    /// There is nothing to train on, or to predict for.
    #[error("the data have no batch: are there fewer rows than one batch, and is the last one left out?")]
    NoBatches,

    /// The loss is not a finite number.
    #[error(
        "the loss of step {step} is {loss}: try a lower learning rate or clipped gradients; \
         `Trainer::find_nan` names the op where a NaN comes from"
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// NaN or an infinity.
        loss: f64,
    },

    /// A file or folder could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A checkpoint is not what it should be.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        problem: String,
    },

    /// Saved tensors are not those of the model.
    #[error("{}: {source}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What is missing, unexpected, or of another shape or dtype.
        source: gradus_nn::StateError,
    },

    /// A callback failed.
    #[error("{callback}: {source}")]
    Callback {
        /// Its name.
        callback: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// Signals could not be caught.
    #[error("cannot catch Ctrl-C: {0}")]
    Signal(String),
}
