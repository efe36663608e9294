//! The training loop and what it needs: optimisers, schedules, metrics, checkpoints, progress and pictures.

pub mod metrics;
mod optimiser;
pub mod picture;
mod progress;
mod schedule;
mod trainer;

pub use optimiser::*;
pub use progress::Progress;
pub use schedule::*;
pub use trainer::*;
