//! What gradus computes: dtypes, shapes, views, the op table, graphs, the passes that turn a graph into a plan, and the
//! contract of a backend. Pure data: no I/O, no device, no threads.
//!
//! ```
//! use gradus_ir::op::{BinaryOp, Op, Type};
//! use gradus_ir::{DType, Graph, Shape, Target, plan};
//!
//! let mut graph = Graph::new();
//! let x = graph.input([2, 3], DType::F32, false);
//! let ty = Type { shape: Shape::new(&[2, 3]), dtype: DType::F32 };
//! let y = graph.add(Op::Binary(BinaryOp::Mul), &[x, x], ty)?;
//! graph.outputs.push(y);
//! assert_eq!(plan(&graph, &Target::default()).kernels.len(), 1);
//! # Ok::<(), gradus_ir::Error>(())
//! ```

mod backend;
mod dtype;
mod error;
mod graph;
pub mod math;
pub mod op;
mod passes;
pub mod philox;
pub mod plan;
pub mod real;
mod shape;
mod view;

pub use backend::{Backend, Buffer, Download, Executable, MemoryStats, Stats, Target};
pub use dtype::{DType, Data, Element, Number};
pub use error::{Error, Result, SourcePlace};
pub use graph::{Graph, Node, NodeId};
/// A number of dtype [`DType::F16`], of the `half` crate.
pub use half::f16;
pub use passes::{
    KernelSummary, Lifetime, Places, PlanMemory, alive_at_once, lifetimes, plan, plan_in_order, plan_unfused,
    share_places,
};
pub use plan::Plan;
pub use shape::Shape;
pub use view::{Guard, View, ViewAxis};
