//! Plans: lists of kernels over buffers, ready for a backend.

use crate::op::{BinaryOp, CompareOp, ReduceOp, ScatterMode, UnaryOp};
use crate::{DType, Number, Shape, View};
use std::fmt;

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

/// One launch: for every index of `space`, loads, an expression, and what the family does with its value.
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
}

/// The algorithm of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Each index of the space writes one element of each output.
    Elementwise,
    /// The expression's last register is combined over the `axes` trailing axes of the space.
    Reduce {
        /// How values combine.
        op: ReduceOp,
        /// How many trailing axes are reduced.
        axes: usize,
    },
    /// Load 0 `[batch…, free_a…, contracted…]` times load 1 `[batch…, free_b…, contracted…]`. The space is
    /// `[batch…, free_a…, free_b…]`; the expression is applied to each sum.
    Contract {
        /// How many leading axes are batch axes.
        batch: usize,
        /// How many trailing axes of both loads are summed over.
        contracted: usize,
    },
    /// Load 0 copied, with load 2 (updates) added or set where load 1 (index) says. The space is the updates'.
    Scatter {
        /// Adds or sets.
        mode: ScatterMode,
        /// The axis that is indexed.
        axis: usize,
    },
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
}

impl Expression {
    /// Adds an instruction and gives its register.
    pub fn push(&mut self, instruction: Instruction, dtype: DType) -> Register {
        self.instructions.push((instruction, dtype));
        self.instructions.len() - 1
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
}

impl fmt::Display for Plan {
    /// A table: one line per kernel with family, space, what it reads, computes and writes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id: BufferId| self.buffer_name(id);
        for (i, kernel) in self.kernels.iter().enumerate() {
            let loads: Vec<String> =
                kernel.loads.iter().map(|l| format!("{}{}", name(l.buffer), l.view.shape())).collect();
            let stores: Vec<String> = kernel.outputs.iter().map(|s| name(s.buffer)).collect();
            let work: Vec<String> = kernel.expression.instructions.iter().map(|(i, _)| format!("{i:?}")).collect();
            writeln!(
                f,
                "{i:4}  {:<11} {:<20} {} <- {}  [{}]",
                kernel.family_name(),
                kernel.space.to_string(),
                stores.join(" "),
                loads.join(" "),
                work.join("; ")
            )?;
        }
        let outputs: Vec<String> = self.outputs.iter().map(|&b| name(b)).collect();
        write!(f, "      outputs {}", outputs.join(" "))
    }
}
