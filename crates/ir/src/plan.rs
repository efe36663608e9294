//! Plans: lists of kernels over buffers, ready for a backend.

use crate::graph::NodeId;
use crate::op::attention::AttentionPart;
use crate::op::custom::Custom;
use crate::op::{BinaryOp, CompareOp, ReduceOp, ScanOp, ScatterMode, UnaryOp};
use crate::{DType, Number, Shape, View};
use smallvec::SmallVec;

/// The position of a buffer in its plan.
pub type BufferId = usize;

/// The position of an instruction in its expression.
pub type Register = usize;

/// A list of kernels and the buffers between them.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every buffer that the kernels read or write.
    pub buffers: Vec<Buffer>,
    /// The kernels, in the order to run.
    pub kernels: Vec<Kernel>,
    /// The buffers that hold the graph's outputs, whole and row-major.
    pub outputs: Vec<BufferId>,
}

/// A buffer of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The dtype of its elements.
    pub dtype: DType,
    /// The number of its elements.
    pub len: usize,
    /// The input slot that it comes from; others are made by a kernel.
    pub input: Option<usize>,
}

/// One launch: for every index of `space`, loads, an expression, and what the family does around it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What happens around the expression.
    pub family: Family,
    /// The iteration space.
    pub space: Shape,
    /// The buffers read and how indices of the space find their elements.
    pub loads: Vec<Load>,
    /// What is computed at each index.
    pub expression: Expression,
    /// What is written.
    pub outputs: Vec<Store>,
    /// The nodes of the graph that are computed here, for tables and messages.
    pub nodes: Vec<NodeId>,
}

/// The algorithm of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Each index of the space writes one element of each output.
    Elementwise,
    /// A row program: the `axes` trailing axes of the space are a row, along which [`Instruction::Reduce`] combines
    /// elements; other instructions may read what it gives, at each element of the row or once for the row.
    Reduce {
        /// How many trailing axes make up a row.
        axes: usize,
    },
    /// The general matrix product of two operands, `[batch…, free_a…, contracted…]` and `[batch…, free_b…, contracted…]`,
    /// each an expression over loads of that shape. The space is `[batch…, free_a…, free_b…]`; the kernel's expression
    /// is applied to each sum.
    Contract {
        /// How many leading axes are batch axes.
        batch: usize,
        /// How many trailing axes of both operands are summed over.
        contracted: usize,
        /// What is multiplied.
        operands: [Expression; 2],
    },
    /// Load 0 copied, with load 2 (updates) added or set where load 1 (index) says. The space is the updates'.
    Scatter {
        /// Adds or sets.
        mode: ScatterMode,
        /// The axis that is indexed.
        axis: usize,
    },
    /// What is carried along an axis of the space, from load 0, or from loads 0 and 1.
    Scan {
        /// What is carried.
        op: ScanOp,
        /// The axis.
        axis: usize,
    },
    /// The indices (i32) that put the elements of load 0 along the last axis of the space into order, or the first few of these.
    Sort {
        /// Whether the largest comes first.
        descending: bool,
        /// How many indices of each row are stored.
        kept: usize,
    },
    /// Parts of one attention, an output each. Its operands are the loads, none of them padded; the space is that of the rows of
    /// what is computed.
    Attention {
        /// What is computed: one part, the output and the logarithms of the sums, or, for targets that join them, several gradients.
        parts: SmallVec<[AttentionPart; 2]>,
        /// Whether it is causal.
        causal: bool,
    },
    /// A user's op, on loads that are whole buffers. The space is the output's.
    Custom(Custom),
}

/// A buffer seen through a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    /// Which buffer.
    pub buffer: BufferId,
    /// Where an index finds its element.
    pub view: View,
}

/// A register written to a whole buffer, row-major.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// Which buffer. One that is also loaded is updated in place.
    pub buffer: BufferId,
    /// Which register.
    pub register: Register,
    /// Whether it is written once for each row and not for each element.
    pub per_row: bool,
}

/// Instructions in order; each reads earlier registers and fills its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Expression {
    /// The instructions and the dtype of each result.
    pub instructions: Vec<(Instruction, DType)>,
}

/// One instruction of an [`Expression`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// The element of a load at this index.
    Load(usize),
    /// The number in a scalar slot.
    Scalar(usize),
    /// A number of the library.
    Const(Number),
    /// The index along an axis of the space.
    Iota(usize),
    /// Random number of this index, keyed by a scalar slot.
    Random(usize),
    /// What the family hands to its epilogue.
    Accumulator,
    /// A unary row.
    Unary(UnaryOp, Register),
    /// A binary row.
    Binary(BinaryOp, Register, Register),
    /// A comparison row.
    Compare(CompareOp, Register, Register),
    /// `(condition, then, otherwise)`.
    Select(Register, Register, Register),
    /// Conversion to this instruction's dtype.
    Cast(Register),
    /// The element of a load at this index, but along `axis` at the register's value.
    Gather {
        /// Which load.
        load: usize,
        /// The indexed axis.
        axis: usize,
        /// The index.
        index: Register,
    },
    /// The elements of a register along the row combined: one value for the row. An index counts elements of the row.
    Reduce(ReduceOp, Register),
    /// An index as it is; one outside of `0 .. extent` is an error of the run.
    Index {
        /// The index.
        index: Register,
        /// The axis that it indexes, for messages.
        axis: usize,
        /// The extent of this axis.
        extent: usize,
    },
}

impl Instruction {
    /// The registers that it reads.
    pub fn operands(&self) -> SmallVec<[Register; 3]> {
        match *self {
            Instruction::Load(_)
            | Instruction::Scalar(_)
            | Instruction::Const(_)
            | Instruction::Iota(_)
            | Instruction::Random(_)
            | Instruction::Accumulator => SmallVec::new(),
            Instruction::Unary(_, x) | Instruction::Cast(x) | Instruction::Reduce(_, x) => [x].as_slice().into(),
            Instruction::Gather { index, .. } | Instruction::Index { index, .. } => [index].as_slice().into(),
            Instruction::Binary(_, a, b) | Instruction::Compare(_, a, b) => [a, b].as_slice().into(),
            Instruction::Select(condition, then, other) => [condition, then, other].as_slice().into(),
        }
    }

    /// The load that it reads.
    pub fn load(&self) -> Option<usize> {
        match *self {
            Instruction::Load(load) | Instruction::Gather { load, .. } => Some(load),
            _ => None,
        }
    }

    /// The same with its loads and registers found where they are now.
    pub fn renumbered(&self, load: impl Fn(usize) -> usize, r: impl Fn(Register) -> Register) -> Instruction {
        match *self {
            Instruction::Load(at) => Instruction::Load(load(at)),
            Instruction::Unary(op, x) => Instruction::Unary(op, r(x)),
            Instruction::Binary(op, a, b) => Instruction::Binary(op, r(a), r(b)),
            Instruction::Compare(op, a, b) => Instruction::Compare(op, r(a), r(b)),
            Instruction::Select(condition, then, other) => Instruction::Select(r(condition), r(then), r(other)),
            Instruction::Cast(x) => Instruction::Cast(r(x)),
            Instruction::Gather { load: at, axis, index } => {
                Instruction::Gather { load: load(at), axis, index: r(index) }
            }
            Instruction::Reduce(op, x) => Instruction::Reduce(op, r(x)),
            Instruction::Index { index, axis, extent } => Instruction::Index { index: r(index), axis, extent },
            Instruction::Scalar(_)
            | Instruction::Const(_)
            | Instruction::Iota(_)
            | Instruction::Random(_)
            | Instruction::Accumulator => self.clone(),
        }
    }
}

impl Expression {
    /// The element of load `load`, as it is.
    pub fn of_load(load: usize, dtype: DType) -> Expression {
        Expression { instructions: vec![(Instruction::Load(load), dtype)] }
    }

    /// Adds an instruction and gives its register; one that is there already is not added again.
    pub fn push(&mut self, instruction: Instruction, dtype: DType) -> Register {
        let entry = (instruction, dtype);
        self.instructions.iter().position(|other| *other == entry).unwrap_or_else(|| {
            self.instructions.push(entry);
            self.instructions.len() - 1
        })
    }

    /// The dtype of a register.
    pub fn dtype(&self, register: Register) -> DType {
        self.instructions[register].1
    }

    /// Which registers are needed to know some of them.
    pub fn needed(&self, registers: impl IntoIterator<Item = Register>) -> Vec<bool> {
        let mut needed = vec![false; self.instructions.len()];
        registers.into_iter().for_each(|register| needed[register] = true);
        for register in (0..needed.len()).rev().collect::<Vec<_>>() {
            if needed[register] {
                self.instructions[register].0.operands().iter().for_each(|&operand| needed[operand] = true);
            }
        }
        needed
    }

    /// For each register, how many reductions follow one upon the other before it is known: the number of times that a
    /// row has to be walked along.
    pub fn passes(&self) -> Vec<usize> {
        let mut passes: Vec<usize> = Vec::with_capacity(self.instructions.len());
        for (instruction, _) in &self.instructions {
            let before = instruction.operands().iter().map(|&r| passes[r]).max().unwrap_or(0);
            passes.push(before + matches!(instruction, Instruction::Reduce(..)) as usize);
        }
        passes
    }

    /// For each register, whether it is the same along a row of the axes from `split` on, to judge by what it is made of and by
    /// the loads' views.
    pub fn per_row<'v>(&self, view: impl Fn(usize) -> &'v View, split: usize) -> Vec<bool> {
        let stands = |load: usize| {
            let rest = view(load).axes.get(split..).unwrap_or_default();
            rest.iter().all(|axis| axis.stride == 0 && axis.guard.is_none())
        };
        let mut per_row: Vec<bool> = Vec::with_capacity(self.instructions.len());
        for (instruction, _) in &self.instructions {
            let same = match *instruction {
                Instruction::Reduce(..) | Instruction::Scalar(_) | Instruction::Const(_) => true,
                Instruction::Random(_) | Instruction::Accumulator => false,
                Instruction::Load(load) => stands(load),
                Instruction::Iota(axis) => axis < split,
                Instruction::Gather { load, axis, index } => per_row[index] && axis < split && stands(load),
                _ => instruction.operands().iter().all(|&r| per_row[r]),
            };
            per_row.push(same);
        }
        per_row
    }
}

impl Kernel {
    /// The name of the family, for tables.
    pub fn family_name(&self) -> &'static str {
        match self.family {
            Family::Elementwise => "elementwise",
            Family::Reduce { .. } => "reduce",
            Family::Contract { .. } => "matmul",
            Family::Scatter { .. } => "scatter",
            Family::Scan { .. } => "scan",
            Family::Sort { .. } => "sort",
            Family::Attention { .. } => "attention",
            Family::Custom(_) => "custom",
        }
    }

    /// The loads that each index of the space reads, by its expression: not those of a product's operands.
    pub fn direct_loads(&self) -> impl Iterator<Item = usize> + '_ {
        self.expression.instructions.iter().filter_map(|(instruction, _)| instruction.load())
    }

    /// How many of the space's indices a row has; 1 outside of row programs.
    pub fn row_len(&self) -> usize {
        match self.family {
            Family::Reduce { axes } => self.space[self.space.len() - axes..].iter().product(),
            _ => 1,
        }
    }
}

impl Plan {
    /// What a buffer is called where the plan is printed: `in3` for input slot 3, `b7` for buffer 7.
    pub fn buffer_name(&self, id: BufferId) -> String {
        match self.buffers[id].input {
            Some(slot) => format!("in{slot}"),
            None => format!("b{id}"),
        }
    }

    /// The bytes of a buffer.
    pub fn bytes(&self, id: BufferId) -> usize {
        self.buffers[id].len * self.buffers[id].dtype.size()
    }
}
