//! Scans. Long lines are cut into parts: what each of them carries on is found first, then what all before it do, by a
//! scan of these.

use super::lines::Lines;
use super::only_output;
use crate::compiler::{Compiler, Shader, linear};
use crate::module::{Baked, Module, Parameter, Slot, Width, stored};
use gradus_device::Access;
use gradus_ir::op::ScanOp;
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Store};
use gradus_ir::{DType, Error, Result, Shape, View};

/// Elements that are carried along before the result joins what came earlier.
const BLOCK: usize = 128;
/// From which length on a line is long.
const LONG_LINE: usize = 4096;
/// Elements of a part at most, so that not many blocks are added to each other.
const LONGEST: usize = 8192;

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel, op: ScanOp, axis: usize) -> Result<()> {
    scan(compiler, kernel, op, axis, false)
}

/// A scan of elements, or of the totals of parts.
fn scan(compiler: &mut Compiler<'_>, kernel: &Kernel, op: ScanOp, axis: usize, of_totals: bool) -> Result<()> {
    let line = kernel.space[axis];
    // Places are words.
    if kernel.space.numel() > 1 << 31 {
        return Err(Error::TooLarge { shape: kernel.space.clone() });
    }
    let output = only_output(kernel)?.buffer;
    let dtype = compiler.buffers[output].dtype;
    let lines = kernel.space.numel() / line.max(1);
    let wanted = compiler.tuning.busy.div_ceil(lines.max(1));
    // Parts of short lines are few, and every scan of totals takes its time.
    let shortest = compiler.tuning.scan_segment * if line < LONG_LINE { 4 } else { 1 };
    let segment = line.div_ceil(wanted).clamp(shortest, LONGEST);
    let parts = line.div_ceil(segment).max(1);
    let operands = Lines::new(&kernel.loads, &kernel.space, axis);
    let hooks = Hooks { op, dtype, operands: &operands, line, lines, parts, segment, of_totals };
    let carried = if parts == 1 { None } else { Some(hooks.carried(compiler)?) };
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut module = shader.module(Width::Scalar, baked);
        let element = stored(dtype);
        let array = module.bind(Slot::Plan(output), element, Access::ReadWrite);
        hooks.add(&mut module);
        let first = hooks.first(&mut module);
        let before = match carried {
            None => first,
            Some(carried) => {
                let carried = module.bind(Slot::Plan(carried), element, Access::Read);
                let lines = module.size(lines as i64);
                format!("select({carried}[select(0u, (part - 1u) * {lines} + line, part > 0u)], {first}, part == 0u)")
            }
        };
        module.function(&format!("carried_by(part: u32, line: u32) -> {element}"), &before);
        let position = operands.position(&mut module, line);
        let store = format!("fn store(line: u32, k: u32, value: {element}) {{\n    {array}[{position}] = value;\n}}");
        module.add(&store);
        shader.finish(module, gradus_shaders::SCAN)
    };
    compiler.launch("scan", linear(lines * parts, compiler.tuning.workgroup), generate)
}

/// What both launches of a scan need.
struct Hooks<'h> {
    op: ScanOp,
    dtype: DType,
    operands: &'h Lines,
    /// How many elements a line has.
    line: usize,
    lines: usize,
    parts: usize,
    segment: usize,
    of_totals: bool,
}

impl Hooks<'_> {
    /// What every part carries on together with those before it: an array `[parts, lines]`.
    fn carried(&self, compiler: &mut Compiler<'_>) -> Result<BufferId> {
        let Hooks { op, dtype, lines, parts, .. } = *self;
        let totals: Vec<BufferId> = (0..op.operands()).map(|_| compiler.add_buffer(dtype, parts * lines)).collect();
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            let arrays = totals.iter().map(|&total| module.bind(Slot::Plan(total), stored(dtype), Access::ReadWrite));
            let arrays: Vec<String> = arrays.collect();
            self.add(&mut module);
            let first = self.first(&mut module);
            let (identity, combined, stores) = match op {
                ScanOp::Sum => (first, "a + b", format!("{}[i] = total;", arrays[0])),
                ScanOp::Prod => (first, "a * b", format!("{}[i] = total;", arrays[0])),
                ScanOp::Recurrence => {
                    // After a zero comes what would come at the start, also where the product of coefficients is infinite.
                    let combined = "State(times(b.a, a.a), select(b.a * a.y + b.y, b.y, a.y == 0.0))";
                    let stores = format!("{}[i] = total.a;\n    {}[i] = total.y;", arrays[0], arrays[1]);
                    (format!("State(1.0, {first})"), combined, stores)
                }
            };
            module.function("identity() -> State", &identity);
            module.function("combine(a: State, b: State) -> State", combined);
            module.add(&format!("fn store_total(i: u32, total: State) {{\n    {stores}\n}}"));
            shader.finish(module, gradus_shaders::SCAN_TOTALS)
        };
        compiler.launch("scan totals", linear(lines * parts, compiler.tuning.workgroup), generate)?;
        let carried = compiler.add_buffer(dtype, parts * lines);
        let space = Shape::new(&[parts, lines]);
        let load = |&buffer: &BufferId| Load { buffer, view: View::contiguous(&space) };
        let of_totals = Kernel {
            family: Family::Scan { op, axis: 0 },
            loads: totals.iter().map(load).collect(),
            space: space.clone(),
            expression: Expression { instructions: vec![(Instruction::Accumulator, dtype)] },
            outputs: vec![Store { buffer: carried, register: 0, per_row: false }],
            nodes: Vec::new(),
        };
        scan(compiler, &of_totals, op, 0, true)?;
        Ok(carried)
    }

    /// What the first part begins with. A compiler that knows a zero takes its product with infinity to be 0.
    fn first(&self, module: &mut Module<'_>) -> String {
        match self.op {
            ScanOp::Sum => format!("{}()", stored(self.dtype)),
            ScanOp::Prod => format!("{}(1)", stored(self.dtype)),
            ScanOp::Recurrence => format!("bitcast<f32>({})", module.parameter(Parameter::Word(0))),
        }
    }

    /// The hooks of both skeletons.
    fn add(&self, module: &mut Module<'_>) {
        let element = stored(self.dtype);
        module.add(&format!("const BLOCK = {BLOCK}u;"));
        let sizes = [("line_size", self.line), ("parts", self.parts), ("segment", self.segment)];
        for (name, value) in sizes {
            let value = module.size(value as i64);
            module.function(&format!("{name}() -> u32"), &value);
        }
        let lines = module.count(self.lines);
        module.function("lines() -> u32", &lines);
        for (load, name) in ["first_element", "second_element"].into_iter().take(self.op.operands()).enumerate() {
            self.operands.add_hook(module, (name, element), (load, self.dtype), |element| element.into());
        }
        let x = "first_element(line, k)";
        let (begin, advanced, result) = match self.op {
            ScanOp::Sum => (format!("{element}()"), format!("state + {x}"), "carried + state"),
            ScanOp::Prod => (format!("{element}(1)"), format!("state * {x}"), "carried * state"),
            ScanOp::Recurrence => {
                module.add("struct State {\n    a: f32,\n    y: f32,\n}");
                let y = if self.of_totals { "select(a * y + b, b, y == 0.0)" } else { "a * y + b" };
                module.function("next(a: f32, y: f32, b: f32) -> f32", y);
                module.function("times(a: f32, b: f32) -> f32", "select(a * b, 0.0, a == 0.0)");
                let next = format!("next({x}, state.y, second_element(line, k))");
                ("State(1.0, carried)".into(), format!("State(times({x}, state.a), {next})"), "state.y")
            }
        };
        if self.op != ScanOp::Recurrence {
            module.add(&format!("alias State = {element};"));
        }
        module.function(&format!("begin(carried: {element}) -> State"), &begin);
        module.function("advance(state: State, line: u32, k: u32) -> State", &advanced);
        module.function(&format!("result(carried: {element}, state: State) -> {element}"), result);
    }
}
