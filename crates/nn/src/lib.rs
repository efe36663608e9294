//! Modules, layers, initialisation and losses.
