//! Optimisers, the training loop, metrics, progress and pictures.

pub mod metrics;
pub mod picture;
mod progress;

pub use progress::Progress;
