//! Ops on tensors: primitives by their users' names, and what is composed of them.

mod activation;
mod arithmetic;
pub(crate) mod attention;
mod compare;
pub(crate) mod conv;
mod create;
pub(crate) mod einsum;
mod index;
mod matmul;
pub(crate) mod order;
pub(crate) mod pool;
mod reduce;
pub(crate) mod resize;
pub(crate) mod view;
pub(crate) mod window;
