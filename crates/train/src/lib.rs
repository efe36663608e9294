//! Optimisers, schedules, metrics, progress and pictures: what a training loop needs.

pub mod metrics;
mod optimiser;
pub mod picture;
mod progress;
mod schedule;

pub use optimiser::*;
pub use progress::Progress;
pub use schedule::*;
