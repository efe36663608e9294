//! Optimisers, the training loop, metrics, progress and pictures.
