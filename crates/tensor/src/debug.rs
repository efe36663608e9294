//! What the environment asks to be shown or done differently.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::extract::{Extraction, Role};
use crate::node::{Node, Value};
use gradus_ir::op::Op;
use gradus_ir::{Buffer, Data, Error as ErrorKind, Number};
use std::cell::Cell as StdCell;
use std::sync::{Arc, LazyLock};

/// `GRADUS_DEBUG` (words with commas between them), `GRADUS_FUSE` and `GRADUS_EAGER`.
pub(crate) struct Debug {
    /// `GRADUS_DEBUG=plan`: print every new plan.
    pub(crate) plan: bool,
    /// `GRADUS_DEBUG=time`: run one kernel at a time and print how long each took.
    pub(crate) time: bool,
    /// `GRADUS_DEBUG=nan`: the op that makes the first NaN of an evaluation is an error.
    pub(crate) nan: bool,
    /// `GRADUS_DEBUG=wgsl`: print every new kernel of a GPU.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))]
    pub(crate) wgsl: bool,
    /// Unless `GRADUS_FUSE=0`: several ops may share a kernel.
    pub(crate) fuse: bool,
    /// `GRADUS_EAGER=1`: evaluate every op where it is called.
    pub(crate) eager: bool,
}

pub(crate) static DEBUG: LazyLock<Debug> = LazyLock::new(|| {
    let words = std::env::var("GRADUS_DEBUG").unwrap_or_default();
    let asks = |word| words.split(',').any(|w| w.trim() == word);
    Debug {
        plan: asks("plan"),
        time: asks("time"),
        nan: asks("nan"),
        wgsl: asks("wgsl"),
        fuse: std::env::var("GRADUS_FUSE").map_or(true, |v| v != "0"),
        eager: std::env::var("GRADUS_EAGER").is_ok_and(|v| v == "1"),
    }
});

thread_local! {
    static FINDS_NAN: StdCell<bool> = const { StdCell::new(false) };
}

/// Runs `work`, in which the op that makes the first NaN of an evaluation is an error with its line, as `GRADUS_DEBUG=nan`
/// has it for a whole program. What is evaluated is computed twice, and every tensor of it is read.
///
/// ```
/// use gradus_tensor::{Device, Tensor, find_nan};
///
/// let x = Tensor::new([1.0, -1.0], &Device::cpu());
/// let error = find_nan(|| x.log().exp().to_vec::<f32>()).unwrap_err();
/// assert!(error.to_string().starts_with("log"), "{error}");
/// ```
///
/// # Errors
/// If a NaN is made; or as `work`.
pub fn find_nan<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            FINDS_NAN.set(self.0);
        }
    }
    let _restore = Restore(FINDS_NAN.replace(true));
    work()
}

/// Whether evaluations of this thread look for NaN.
pub(crate) fn looks_for_nan() -> bool {
    DEBUG.nan || FINDS_NAN.get()
}

/// Computes what is pending behind `roots` once more, keeping every float, and fails if an op makes a NaN of
/// operands without one. Infinities pass: masks are made of them.
pub(crate) fn check_for_nan(device: &Device, roots: &[Arc<Node>]) -> Result<()> {
    let mut planner = device.planner();
    let marks = planner.marks.next();
    let nodes = marks.collect(roots);
    let mut extraction = Extraction::new(marks, nodes.len());
    for node in nodes {
        let kept = node.ty.dtype.is_float() && !node.is_number();
        if extraction.computed(node, kept).is_err() {
            // The evaluation itself waits for another thread's run, or reports it.
            return Ok(());
        }
    }
    if extraction.outputs().next().is_none() {
        return Ok(());
    }
    let executable = planner.plans.executable(device, &extraction)?;
    drop(planner);
    let value = |node: &Arc<Node>| match &node.state().value {
        Value::Ready(buffer) => Some(buffer.clone()),
        Value::Pending | Value::Gone => None,
    };
    let mut inputs: Vec<Option<Buffer>> = extraction.leaves().map(|(leaf, _)| value(leaf)).collect();
    let mut inputs_too = inputs.clone().into_iter();
    // What fails here fails in the evaluation, which says so.
    let Ok(outputs) = executable.run(&mut inputs, &extraction.scalars) else { return Ok(()) };
    let mut outputs = outputs.into_iter();
    let mut tainted: Vec<bool> = Vec::with_capacity(extraction.entries.len());
    for (entry, operands) in extraction.with_operands() {
        let node = &entry.node;
        let has_nan = match entry.role {
            Role::Leaf | Role::Donated => has_nan(device, inputs_too.next().flatten())?,
            Role::Kept => has_nan(device, outputs.next())?,
            Role::Computed => {
                let number = if let Op::Const(number) = node.op { Some(number) } else { node.number };
                matches!(number, Some(Number::Float(x)) if x.is_nan())
            }
        };
        let is_new = entry.role == Role::Kept && !operands.iter().any(|&operand| tainted[operand]);
        if has_nan && is_new {
            let kind = ErrorKind::NotANumber { dtype: node.ty.dtype, shape: node.ty.shape.clone() };
            return Err(Error::located(node.op.name(), kind, node.location));
        }
        tainted.push(has_nan);
    }
    Ok(())
}

fn has_nan(device: &Device, buffer: Option<Buffer>) -> Result<bool> {
    let Some(buffer) = buffer else { return Ok(false) };
    Ok(match device.backend().read(&buffer)? {
        Data::F16(values) => values.iter().any(|x| x.is_nan()),
        Data::F32(values) => values.iter().any(|x| x.is_nan()),
        Data::F64(values) => values.iter().any(|x| x.is_nan()),
        Data::Bool(_) | Data::I32(_) | Data::U32(_) => false,
    })
}
