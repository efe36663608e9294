//! Pruning: weights set to zero and kept there, or units taken out.

mod masks;
mod structured;

pub use masks::Masks;
pub(crate) use masks::masked;
pub use structured::{Pruned, StructuredPruning};
