//! Ops on tensors: primitives by their users' names, and what is composed of them.

mod activation;
mod arithmetic;
mod compare;
mod create;
mod index;
mod matmul;
mod reduce;
pub(crate) mod view;
