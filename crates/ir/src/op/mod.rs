//! The op table: every primitive that gradus can compute.

pub mod attention;
pub mod binary;
pub mod custom;
pub mod formula;
mod infer;
pub mod row;
pub mod unary;

use crate::{DType, Number, Shape};
use attention::AttentionPart;
use custom::Custom;
use row::{Binary, Compare, Unary, rows};
use smallvec::SmallVec;

rows! {
    /// An element-wise op with one operand: a row of [`unary`].
    UnaryOp, Unary, UnaryVisitor, unary:
    Neg, Abs, Sign, Square, Recip, Sqrt, Rsqrt, Exp, Expm1, Log, Log1p, Sin, Cos, Tan, Atan, Tanh, Sigmoid, Softplus,
    Erf, Relu, Floor, Ceil, Round, Trunc, Not,
}

rows! {
    /// An element-wise op with two operands of one dtype: a row of [`binary`].
    BinaryOp, Binary, BinaryVisitor, binary:
    Add, Sub, Mul, Div, Rem, Pow, Max, Min, And, Or, Xor,
}

rows! {
    /// A comparison of two operands of one dtype: a row of [`binary`].
    CompareOp, Compare, CompareVisitor, binary:
    Eq, Ne, Lt, Le, Gt, Ge,
}

/// Reads the constants and exact functions of a row that is known only at run time.
macro_rules! row_values {
    ($op:ident, $visitor:ident, $trait:ident { $($(#[$doc:meta])* $name:ident($($arg:ident: $t:ty),*) -> $out:ty = $value:expr;)* }) => {
        impl $op {
            $($(#[$doc])*
            pub fn $name(self, $($arg: $t),*) -> $out {
                struct Read { $($arg: $t),* }
                impl row::$visitor for Read {
                    type Output = $out;
                    fn visit<R: $trait>(self) -> $out {
                        let Read { $($arg),* } = self;
                        $value
                    }
                }
                self.dispatch(Read { $($arg),* })
            })*
        }
    };
}

row_values!(UnaryOp, UnaryVisitor, Unary {
    /// The value in f64, by the row's exact function.
    exact(x: f64) -> f64 = R::exact(x);
    /// The value on integers before wrapping, by the row's exact function.
    exact_int(x: i64) -> i64 = R::exact_int(x);
    /// The value on booleans.
    on_bool(x: bool) -> bool = R::on_bool(x);
    /// The derivative.
    derivative() -> formula::UnaryDerivative = R::DERIVATIVE;
    /// Error of the fast function in units of the last place.
    ulps() -> f64 = R::ULPS;
    /// Operands for tests.
    samples() -> &'static [f64] = R::SAMPLES;
});

row_values!(BinaryOp, BinaryVisitor, Binary {
    /// The value in f64, by the row's exact function.
    exact(a: f64, b: f64) -> f64 = R::exact(a, b);
    /// The value on integers before wrapping, by the row's exact function.
    exact_int(a: i64, b: i64) -> i64 = R::exact_int(a, b);
    /// The value on booleans.
    on_bool(a: bool, b: bool) -> bool = R::on_bool(a, b);
    /// The derivatives with respect to both operands.
    derivatives() -> [formula::BinaryDerivative; 2] = R::DERIVATIVES;
    /// Error of the fast function in units of the last place.
    ulps() -> f64 = R::ULPS;
    /// Operand pairs for tests.
    samples() -> &'static [(f64, f64)] = R::SAMPLES;
    /// The operator that the row prints as, if it has one.
    symbol() -> Option<&'static str> = R::SYMBOL;
});

row_values!(CompareOp, CompareVisitor, Compare {
    /// The comparison in f64.
    exact(a: f64, b: f64) -> bool = R::exact(a, b);
    /// Operand pairs for tests.
    samples() -> &'static [(f64, f64)] = R::SAMPLES;
    /// The operator that the row prints as.
    symbol() -> &'static str = R::SYMBOL;
});

/// How a reduction combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// The sum; 0 of nothing. Integers wrap.
    Sum,
    /// The product; 1 of nothing. Integers wrap.
    Prod,
    /// The largest; NaN wins. An error of nothing.
    Max,
    /// The smallest; NaN wins. An error of nothing.
    Min,
    /// The index (i32) of the first largest, along one axis; the first NaN wins.
    ArgMax,
    /// The index (i32) of the first smallest, along one axis; the first NaN wins.
    ArgMin,
}

impl ReduceOp {
    /// Every reduction.
    pub const ALL: [ReduceOp; 6] =
        [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax, ReduceOp::ArgMin];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::ArgMax => "argmax",
            ReduceOp::ArgMin => "argmin",
        }
    }

    /// Whether the result is an index.
    pub fn gives_index(self) -> bool {
        matches!(self, ReduceOp::ArgMax | ReduceOp::ArgMin)
    }
}

/// One axis of a `Slice`: elements `start`, `start + step`, … (`len` of them). A negative step walks backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SliceAxis {
    /// The first index.
    pub start: usize,
    /// The distance to the next one; not 0.
    pub step: isize,
    /// How many.
    pub len: usize,
}

/// One axis of a `Pad`: zeros (or false) before, after and between elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PadAxis {
    /// Zeros before the first element.
    pub low: usize,
    /// Zeros after the last element.
    pub high: usize,
    /// Zeros between two neighbours.
    pub interior: usize,
}

impl PadAxis {
    /// The padded extent of an axis.
    pub fn extent(&self, len: usize) -> usize {
        let between = len.saturating_sub(1).saturating_mul(self.interior);
        self.low.saturating_add(self.high).saturating_add(len).saturating_add(between)
    }
}

/// One axis of a `Window`: windows of `size` elements, `dilation` apart, that begin at 0, `stride`, 2 `stride`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowAxis {
    /// The axis that the windows lie along.
    pub axis: usize,
    /// Elements per window; not 0.
    pub size: usize,
    /// The distance between the beginnings of two windows; not 0.
    pub stride: usize,
    /// The distance between two elements of a window; not 0.
    pub dilation: usize,
}

impl WindowAxis {
    /// How many windows an axis has room for.
    pub fn count(&self, len: usize) -> usize {
        let reach = self.size.saturating_sub(1).saturating_mul(self.dilation);
        len.checked_sub(reach).filter(|&starts| starts > 0).map_or(0, |starts| (starts - 1) / self.stride + 1)
    }
}

/// How a scatter combines updates with the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterMode {
    /// Adds; several updates of one place are summed in row-major order of the updates.
    Add,
    /// Sets; the last update of a place in row-major order wins.
    Set,
}

/// What a scan carries along its axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScanOp {
    /// The sum of the elements so far. Integers wrap.
    Sum,
    /// Their product. Integers wrap.
    Prod,
    /// Of operands a and b, floats: `y[i] = a[i] · y[i - 1] + b[i]`, where `y[-1]` is 0.
    Recurrence,
}

impl ScanOp {
    /// Every scan.
    pub const ALL: [ScanOp; 3] = [ScanOp::Sum, ScanOp::Prod, ScanOp::Recurrence];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            ScanOp::Sum => "cumsum",
            ScanOp::Prod => "cumprod",
            ScanOp::Recurrence => "linear_recurrence",
        }
    }

    /// How many operands it has.
    pub fn operands(self) -> usize {
        if self == ScanOp::Recurrence { 2 } else { 1 }
    }
}

/// A list of axes.
pub type Axes = SmallVec<[usize; 4]>;

/// A primitive. Operands come in the order that each variant states.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The realised buffer in input slot `n`.
    Input(usize),
    /// A number that came from the user, in scalar slot `n`, repeated over the node's shape.
    Scalar(usize),
    /// A number that the library itself puts in, repeated over the node's shape.
    Const(Number),
    /// The index along `axis`, over the node's shape.
    Iota(usize),
    /// Counter-based random numbers; the 64-bit key is in scalar slot `n`. u32: raw bits; floats: uniform in [0, 1).
    Random(usize),
    /// One operand.
    Unary(UnaryOp),
    /// Two operands of one shape and dtype.
    Binary(BinaryOp),
    /// Two operands of one shape and dtype; gives bool.
    Compare(CompareOp),
    /// `(condition, then, otherwise)`, one shape; condition is bool.
    Select,
    /// One operand, converted to the node's dtype.
    Cast,
    /// One operand, same elements in row-major order, the node's shape.
    Reshape,
    /// One operand; axis `i` of the result is axis `axes[i]` of the operand.
    Permute(Axes),
    /// One operand; axes of extent 1 repeat to the node's shape. Ranks are equal.
    Expand,
    /// One operand; a strided part of it.
    Slice(Box<[SliceAxis]>),
    /// One operand, surrounded and interspersed by zeros.
    Pad(Box<[PadAxis]>),
    /// One operand; along each of these axes the windows take the place of the elements, and what lies in them follows as
    /// new last axes, one for each. Windows overlap: neighbouring indices may show the same element.
    Window(Box<[WindowAxis]>),
    /// One operand; the reduced axes stay with extent 1.
    Reduce(ReduceOp, Axes),
    /// `a [batch…, free_a…, contracted…]` and `b [batch…, free_b…, contracted…]` to `[batch…, free_a…, free_b…]`:
    /// the general matrix product.
    Contract {
        /// How many leading axes are batch axes.
        batch: usize,
        /// How many trailing axes are summed over.
        contracted: usize,
    },
    /// `(x, index)`: `y[…, i, …] = x[…, index[…, i, …], …]` along `axis`. Other axes have equal extents. An index
    /// out of range is an error of the run.
    Gather(usize),
    /// `(base, index, updates)`: a copy of base with updates added or set at the places that `Gather` would read.
    Scatter(ScatterMode, usize),
    /// One operand, an index of an axis of this extent, as it is; a value out of range is an error of the run.
    Index {
        /// The axis, for messages.
        axis: usize,
        /// Its extent.
        extent: usize,
    },
    /// One operand, or two of one shape and dtype: at each place what the scan has carried so far along the axis.
    Scan(ScanOp, usize),
    /// One operand; the indices (i32) that put its elements along `axis` into order, or the first few of these. Equal ones, as are −0
    /// and 0, keep theirs; NaN counts as the largest.
    Argsort {
        /// The axis.
        axis: usize,
        /// Whether the largest comes first.
        descending: bool,
        /// How many of the indices are wanted, from the first on.
        kept: usize,
    },
    /// A part of scaled dot-product attention, from `query [batch…, group, queries, width]`, `key [batch…, keys, width]` and
    /// `value [batch…, keys, values]`; for a cotangent also from that of the output, the logarithms of the sums of exponentials,
    /// and the scalar products of outputs and their cotangents, `[batch…, group, queries]` each. With a last operand more, a
    /// mask (bool) `[batch…, group, queries, keys]`, a query looks at a key only where it is true.
    Attention {
        /// What is computed.
        part: AttentionPart,
        /// Whether each query looks at one key less than the one after it; the last one looks at all.
        causal: bool,
    },
    /// A user's op, on the operands that it declares; a kernel of its own.
    Custom(Custom),
    /// `(x, after…)`: x, opaque to simplification, common subexpressions and fusion; not computed before `after`.
    Barrier,
}

impl Op {
    /// The name in messages, plans and docs.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::Scalar(_) => "scalar",
            Op::Const(_) => "const",
            Op::Iota(_) => "iota",
            Op::Random(_) => "random",
            Op::Unary(op) => op.name(),
            Op::Binary(op) => op.name(),
            Op::Compare(op) => op.name(),
            Op::Select => "where",
            Op::Cast => "to_dtype",
            Op::Reshape => "reshape",
            Op::Permute(_) => "permute",
            Op::Expand => "expand",
            Op::Slice(_) => "slice",
            Op::Pad(_) => "pad",
            Op::Window(_) => "window",
            Op::Reduce(op, _) => op.name(),
            Op::Contract { .. } => "matmul",
            Op::Gather(_) => "gather",
            Op::Scatter(ScatterMode::Add, _) => "scatter_add",
            Op::Scatter(ScatterMode::Set, _) => "scatter_set",
            Op::Index { .. } => "index",
            Op::Scan(op, _) => op.name(),
            Op::Argsort { .. } => "argsort",
            Op::Attention { part, .. } => part.name(),
            Op::Custom(custom) => custom.name,
            Op::Barrier => "barrier",
        }
    }

    /// Whether the op only rearranges its operand's elements.
    pub fn is_view(&self) -> bool {
        matches!(self, Op::Reshape | Op::Permute(_) | Op::Expand | Op::Slice(_) | Op::Pad(_) | Op::Window(_))
    }
}

/// A shape and a dtype: what a node promises.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// The shape.
    pub shape: Shape,
    /// The dtype.
    pub dtype: DType,
}
