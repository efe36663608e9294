//! Optimisers, metrics, progress and pictures: what a training loop needs.

pub mod metrics;
mod optimiser;
pub mod picture;
mod progress;

pub use optimiser::*;
pub use progress::Progress;
