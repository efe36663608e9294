//! laziness
