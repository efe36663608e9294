//! Kernels: what each family of a plan becomes in WGSL. A kernel is one launch, or a few with buffers between them.

mod accumulator;
mod attention;
mod check;
mod contract;
mod custom;
mod elementwise;
mod lines;
mod operand;
mod reduce;
mod scan;
mod scatter;
mod sort;
mod together;
mod unpack;

use crate::compiler::Compiler;
use gradus_ir::plan::{Family, Kernel};
use gradus_ir::{Error, Result};

pub(crate) use check::check;
pub use custom::check_wgsl;
pub(crate) use together::{compile as compile_together, together};
pub(crate) use unpack::unpack;

/// Adds the launches of a kernel.
pub(crate) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel) -> Result<()> {
    if kernel.outputs.iter().all(|store| compiler.buffers[store.buffer].len == 0) {
        return Ok(());
    }
    match &kernel.family {
        Family::Elementwise => elementwise::compile(compiler, kernel),
        Family::Reduce { axes } => reduce::compile(compiler, kernel, *axes),
        Family::Contract { batch, contracted, operands } => {
            contract::compile(compiler, kernel, *batch, *contracted, operands)
        }
        Family::Scatter { mode, axis } => scatter::compile(compiler, kernel, *mode, *axis),
        Family::Scan { op, axis } => scan::compile(compiler, kernel, *op, *axis),
        Family::Attention { parts, causal } => attention::compile(compiler, kernel, parts, *causal),
        Family::Sort { descending, kept } => sort::compile(compiler, kernel, *descending, *kept),
        Family::Custom(op) => custom::compile(compiler, kernel, op),
    }
}

/// The only output of a kernel.
fn only_output(kernel: &Kernel) -> Result<gradus_ir::plan::Store> {
    match &kernel.outputs[..] {
        [store] => Ok(store.clone()),
        _ => Err(Error::Backend(format!("a {} kernel with several outputs", kernel.family_name()))),
    }
}
