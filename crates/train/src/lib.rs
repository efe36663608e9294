//! The training loop and what it needs: optimisers, schedules, metrics, checkpoints, tools against over-fitting, pruning, logs,
//! progress and pictures.

mod cross_validation;
mod dynamics;
mod early_stopping;
pub mod log;
pub mod metrics;
mod optimiser;
mod over_fitting;
pub mod picture;
mod progress;
mod prune;
mod range_test;
mod schedule;
mod snapshot;
mod study;
mod trainer;

pub use cross_validation::{CrossValidationError, FoldError, cross_validate};
pub use dynamics::{Dynamics, DynamicsError, RecordDynamics, SampleDynamics};
pub use early_stopping::{EarlyStopping, EarlyStoppingState};
pub use optimiser::*;
pub use over_fitting::{OverFitting, OverFittingWarning};
pub use progress::Progress;
pub use prune::{Masks, Pruned, StructuredPruning};
pub use range_test::{RangeCurve, RangePoint, RangeTest};
pub use schedule::*;
pub use snapshot::Snapshot;
pub use study::{SearchSpace, Study, StudyError, Trial, TrialError};
pub use trainer::*;
