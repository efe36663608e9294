//! The table of rows in `crates/ir/op-table.md` is made from the rows: this test fails where it is out of date, and writes
//! it anew when run with `GRADUS_UPDATE=1`.

use gradus::ir::op::formula::{Derivative, Formula};
use gradus::ir::op::{BinaryOp, CompareOp, UnaryOp};
use std::fmt::Write as _;

fn text<F>(derivative: Derivative<F>, rule: impl Fn(F) -> Formula) -> String {
    match derivative {
        Derivative::Rule(f) => format!("`{}`", rule(f)),
        Derivative::Zero => "0".into(),
        Derivative::NotDifferentiable => "none".into(),
    }
}

fn table() -> String {
    let mut table = String::from(
        "# The op table\n\n\
         Made from the rows in `src/op` by `GRADUS_UPDATE=1 cargo test --test op_table`. `x`, `a`, `b` are operands, `y` the \
         result,\n`g` its cotangent. Error is that of the fast functions, in units of the last place.\n",
    );
    let argument = Formula::argument;
    table += "\n## One operand\n\n| op | takes | cotangent of x | error | WGSL |\n| --- | --- | --- | --- | --- |\n";
    for op in UnaryOp::ALL {
        let d = text(op.derivative(), |f| f(argument(0, "x"), argument(1, "y"), argument(2, "g")));
        let _ = writeln!(table, "| {} | {} | {d} | {} | `{}` |", op.name(), op.accepts().words(), op.ulps(), op.wgsl());
    }
    table += "\n## Two operands\n\n| op | takes | cotangent of a | cotangent of b | error | WGSL |\n\
              | --- | --- | --- | --- | --- | --- |\n";
    for op in BinaryOp::ALL {
        let [a, b] = op.derivatives().map(|derivative| {
            text(derivative, |f| f(argument(0, "a"), argument(1, "b"), argument(2, "y"), argument(3, "g")))
        });
        let (takes, ulps, wgsl) = (op.accepts().words(), op.ulps(), op.wgsl().replace('|', "\\|"));
        let _ = writeln!(table, "| {} | {takes} | {a} | {b} | {ulps} | `{wgsl}` |", op.name());
    }
    table += "\n## Comparisons\n\n| op | takes | WGSL |\n| --- | --- | --- |\n";
    for op in CompareOp::ALL {
        let _ = writeln!(table, "| {} | {} | `{}` |", op.name(), op.accepts().words(), op.wgsl());
    }
    table
}

#[test]
fn the_documented_op_table_is_the_one_in_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ir/op-table.md");
    let table = table();
    if std::env::var("GRADUS_UPDATE").is_ok_and(|v| v == "1") {
        std::fs::write(path, &table).expect("the table can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == table, "{path} is out of date: run GRADUS_UPDATE=1 cargo test --release --test op_table");
}
