//! Bounds of integers: what is known of an array's values without reading it.
//!
//! An index out of range must be an error, and a GPU can only say so if the host waits for it. Most indices (labels,
//! tokens, shuffled rows) were uploaded from the host, which knows their bounds; these are carried through plans, and
//! only what cannot be shown to be in range is checked on the device.

use gradus_ir::op::{BinaryOp, ReduceOp, ScatterMode, UnaryOp};
use gradus_ir::plan::{BufferId, Family, Instruction, Kernel, Load, Plan};
use gradus_ir::{DType, Data, Number};

/// The least and the largest value, if known. Of no values, `(0, 0)`.
pub(crate) type Range = Option<(i64, i64)>;

/// The range of host data.
pub(crate) fn of_data(data: &Data) -> Range {
    fn bounds<T: Copy + Ord + Into<i64>>(values: &[T]) -> Range {
        let (Some(&low), Some(&high)) = (values.iter().min(), values.iter().max()) else { return Some((0, 0)) };
        Some((low.into(), high.into()))
    }
    match data {
        Data::I32(values) => bounds(values),
        Data::U32(values) => bounds(values),
        _ => None,
    }
}

/// Fills in the ranges of what a kernel of a plan writes; `ranges` has one entry per buffer, known for what it reads. A
/// kernel may write over what an earlier one has read, so the ranges are those of the moment after this kernel.
pub(crate) fn propagate(plan: &Plan, kernel: &Kernel, scalars: &[Number], ranges: &mut [Range]) {
    let dtype = |buffer: BufferId| plan.buffers[buffer].dtype;
    if !kernel.outputs.iter().any(|store| dtype(store.buffer).is_int()) {
        // A buffer that is written over keeps its dtype, and of other dtypes nothing is known.
        return;
    }
    // All of what is known comes from before the kernel: one of its outputs may lie over what another is computed from.
    let written = of_outputs(kernel, ranges, scalars);
    for (store, range) in kernel.outputs.iter().zip(written) {
        let dtype = dtype(store.buffer);
        ranges[store.buffer] = range.filter(|&range| dtype.is_int() && fits(range, dtype));
    }
}

/// The ranges of a kernel's registers.
pub(crate) fn of_registers(kernel: &Kernel, ranges: &[Range], scalars: &[Number]) -> Vec<Range> {
    let mut registers: Vec<Range> = Vec::with_capacity(kernel.expression.instructions.len());
    for (instruction, dtype) in &kernel.expression.instructions {
        let range = match *instruction {
            Instruction::Load(load) | Instruction::Gather { load, .. } => of_load(&kernel.loads[load], ranges),
            Instruction::Scalar(slot) => of_number(scalars[slot], *dtype),
            Instruction::Const(number) => of_number(number, *dtype),
            Instruction::Iota(axis) => Some((0, kernel.space[axis].max(1) as i64 - 1)),
            Instruction::Unary(op, x) => registers[x].and_then(|x| unary(op, x)),
            Instruction::Binary(op, a, b) => binary(op, registers[a], registers[b]),
            Instruction::Select(_, then, otherwise) => union(registers[then], registers[otherwise]),
            Instruction::Cast(x) => match kernel.expression.instructions[x].1 {
                DType::Bool => Some((0, 1)),
                _ => registers[x],
            },
            Instruction::Reduce(ReduceOp::ArgMax | ReduceOp::ArgMin, _) => {
                Some((0, kernel.row_len().max(1) as i64 - 1))
            }
            Instruction::Reduce(ReduceOp::Max | ReduceOp::Min, x) => registers[x],
            Instruction::Index { index, extent, .. } => match registers[index] {
                Some((low, high)) => Some((low.max(0), high.min(extent as i64 - 1))),
                None => Some((0, extent.max(1) as i64 - 1)),
            },
            Instruction::Reduce(..) | Instruction::Compare(..) | Instruction::Random(_) | Instruction::Accumulator => {
                None
            }
        };
        registers.push(range.filter(|&range| !dtype.is_float() && fits(range, *dtype)));
    }
    registers
}

fn of_outputs(kernel: &Kernel, ranges: &[Range], scalars: &[Number]) -> Vec<Range> {
    let one = match kernel.family {
        Family::Elementwise | Family::Reduce { .. } | Family::Contract { .. } => {
            let registers = of_registers(kernel, ranges, scalars);
            return kernel.outputs.iter().map(|store| registers[store.register]).collect();
        }
        Family::Scatter { mode: ScatterMode::Set, .. } => {
            union(of_load(&kernel.loads[0], ranges), of_load(&kernel.loads[2], ranges))
        }
        Family::Scatter { .. } | Family::Scan { .. } | Family::Attention { .. } | Family::Custom(_) => None,
        Family::Sort { .. } => Some((0, kernel.space.last().map_or(0, |&row| row.max(1) as i64 - 1))),
    };
    vec![one; kernel.outputs.len()]
}

fn of_load(load: &Load, ranges: &[Range]) -> Range {
    let padded = load.view.axes.iter().any(|axis| axis.guard.is_some());
    ranges[load.buffer].map(|(low, high)| if padded { (low.min(0), high.max(0)) } else { (low, high) })
}

fn of_number(number: Number, dtype: DType) -> Range {
    dtype.is_int().then(|| (number.to_i64(), number.to_i64()))
}

fn union(a: Range, b: Range) -> Range {
    let ((a_low, a_high), (b_low, b_high)) = (a?, b?);
    Some((a_low.min(b_low), a_high.max(b_high)))
}

fn unary(op: UnaryOp, (low, high): (i64, i64)) -> Range {
    match op {
        UnaryOp::Neg => Some((-high, -low)),
        UnaryOp::Relu => Some((low.max(0), high.max(0))),
        UnaryOp::Abs if low >= 0 => Some((low, high)),
        _ => None,
    }
}

fn binary(op: BinaryOp, a: Range, b: Range) -> Range {
    // A remainder lies between 0 and its divisor, whatever is divided.
    if let (BinaryOp::Rem, Some((low, high))) = (op, b)
        && low > 0
    {
        return Some((0, high - 1));
    }
    let ((a_low, a_high), (b_low, b_high)) = (a?, b?);
    match op {
        BinaryOp::Add => Some((a_low + b_low, a_high + b_high)),
        BinaryOp::Sub => Some((a_low - b_high, a_high - b_low)),
        BinaryOp::Mul => {
            let corners = [(a_low, b_low), (a_low, b_high), (a_high, b_low), (a_high, b_high)];
            let products: Option<Vec<i64>> = corners.into_iter().map(|(a, b)| a.checked_mul(b)).collect();
            products.and_then(|products| Some((*products.iter().min()?, *products.iter().max()?)))
        }
        BinaryOp::Max => Some((a_low.max(b_low), a_high.max(b_high))),
        BinaryOp::Min => Some((a_low.min(b_low), a_high.min(b_high))),
        _ => None,
    }
}

/// Whether a dtype holds the whole range: what wraps around may be anything.
fn fits((low, high): (i64, i64), dtype: DType) -> bool {
    let (least, most) = match dtype {
        DType::I32 => (i32::MIN as i64, i32::MAX as i64),
        _ => (0, u32::MAX as i64),
    };
    least <= low && high <= most
}
