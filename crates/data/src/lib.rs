//! Data sources, data sets and batches.
