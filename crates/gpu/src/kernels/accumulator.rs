//! How the elements of a row combine, in WGSL.

use crate::module::{alias, stored};
use gradus_ir::DType;
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::Register;
use std::fmt::Write;

/// How elements combine, in WGSL.
pub(super) struct Accumulator {
    op: ReduceOp,
    is_float: bool,
    pub(super) ty: String,
    pub(super) identity: String,
    /// What it needs at the top level of the module.
    pub(super) declarations: String,
}

impl Accumulator {
    pub(super) fn new(op: ReduceOp, dtype: DType) -> Accumulator {
        let element = stored(dtype.computed());
        // WGSL has no literal for infinity.
        let (lowest, highest) = match dtype {
            DType::I32 => ("i32(-2147483648)", "2147483647i"),
            DType::U32 | DType::Bool => ("0u", "0xffffffffu"),
            DType::F16 | DType::F32 | DType::F64 => ("bitcast<f32>(0xff800000u)", "bitcast<f32>(0x7f800000u)"),
        };
        let real = alias(dtype);
        let (ty, identity) = match op {
            ReduceOp::Sum => (real, format!("{real}()")),
            ReduceOp::Prod => (real, format!("{real}({element}(1))")),
            ReduceOp::Max => (real, format!("{real}({lowest})")),
            ReduceOp::Min => (real, format!("{real}({highest})")),
            ReduceOp::ArgMax | ReduceOp::ArgMin => ("Best", "Best(Element(), NOWHERE)".into()),
        };
        let mut declarations = String::new();
        if op.gives_index() {
            let sign = if op == ReduceOp::ArgMax { ">" } else { "<" };
            let nan = if dtype.is_float() { " || (is_nan(x) && !is_nan(y))" } else { "" };
            let _ = write!(
                declarations,
                "\nalias Element = {element};\n\
                 fn beats(x: Element, y: Element) -> bool {{\n    return x {sign} y{nan};\n}}"
            );
        }
        Accumulator { op, is_float: dtype.is_float(), ty: ty.into(), identity, declarations }
    }

    /// Two of them combined; the first has the earlier elements.
    pub(super) fn combined(&self, a: &str, b: &str) -> String {
        match self.op {
            ReduceOp::Sum => format!("{a} + {b}"),
            ReduceOp::Prod => format!("{a} * {b}"),
            ReduceOp::Max if self.is_float => format!("max_nan({a}, {b})"),
            ReduceOp::Min if self.is_float => format!("min_nan({a}, {b})"),
            ReduceOp::Max => format!("max({a}, {b})"),
            ReduceOp::Min => format!("min({a}, {b})"),
            ReduceOp::ArgMax | ReduceOp::ArgMin => format!("better({a}, {b})"),
        }
    }

    /// One with an element added, which is in a register.
    pub(super) fn folded(&self, partial: &str, register: Register) -> String {
        let one = if self.op.gives_index() { format!("Best(r{register}, element)") } else { format!("r{register}") };
        self.combined(partial, &one)
    }

    /// One of another invocation of the subgroup, whose number differs by a bit.
    pub(super) fn exchanged(&self, partial: &str, bit: &str) -> String {
        let exchanged = |value: &str| format!("subgroupShuffleXor({value}, {bit})");
        if self.op.gives_index() {
            let [value, index] = ["value", "index"].map(|field| exchanged(&format!("{partial}.{field}")));
            return format!("Best({value}, {index})");
        }
        exchanged(partial)
    }

    /// What four neighbours of a row have in common, four times.
    pub(super) fn of_four(&self, partial: &str) -> String {
        let [x, y, z, w] = ["x", "y", "z", "w"].map(|lane| format!("{}({partial}.{lane})", self.ty));
        let [low, high] = [self.combined(&x, &y), self.combined(&z, &w)];
        self.combined(&format!("({low})"), &format!("({high})"))
    }

    /// The result in the type of a register.
    pub(super) fn settled(&self, total: &str) -> String {
        if self.op.gives_index() { format!("i32({total}.index)") } else { format!("{}({total})", self.ty) }
    }
}
