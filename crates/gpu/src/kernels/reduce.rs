//! Row programs: reductions along the trailing axes, with maps before, between and after them.

use crate::affine::{Affine, Space};
use crate::compiler::{Compiler, Shader, linear, workgroups};
use crate::expression::{self, Emit, Place, to_stored};
use crate::module::{Baked, Module, Parameter, Slot, Width, alias, stored};
use gradus_device::Access;
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Register, Store};
use gradus_ir::{DType, Error, Result, Shape, View, ViewAxis};
use std::fmt::Write;

/// Elements of a row that are folded before the partial result joins the others.
const BLOCK: usize = 128;
/// Elements that one invocation folds at most: software adapters end loops after 65,535 steps.
const LONGEST: usize = 32768;
/// Elements that are worth an invocation of their own.
pub(super) const SHORTEST: usize = 256;
/// Elements that are worth a workgroup of their own.
const SHORTEST_ROW: usize = 4096;
/// Rows of neighbours from this length on are worth a workgroup.
const WORKGROUP_ROW: usize = 64;

/// A row program, or one of the two that a long one is made of.
#[derive(Clone, Copy)]
struct RowProgram<'k> {
    kernel: &'k Kernel,
    axes: usize,
    /// Each row in so many parts, parts first.
    parts: usize,
    /// How many elements a part has.
    segment: usize,
    /// Whether a workgroup walks along each part, or an invocation.
    by_workgroup: bool,
    /// Where the parts of an argmax have left their indices, and how many there are.
    candidates: Option<(BufferId, usize)>,
}

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel, axes: usize) -> Result<()> {
    let split = kernel.space.len() - axes;
    let rows: usize = kernel.space[..split].iter().product();
    let row_len = kernel.row_len();
    // Indices and the ends of segments are words.
    if row_len > 1 << 31 {
        return Err(Error::TooLarge { shape: kernel.space.clone() });
    }
    let by_workgroup = compiler.tuning.cooperates && row_len >= WORKGROUP_ROW && reads_rows(kernel, split);
    let reductions = reductions(kernel);
    let (parts, segment) = match by_workgroup {
        _ if !may_be_cut(kernel, &reductions) => (1, row_len.max(1)),
        true => parts(compiler.tuning.busy / compiler.tuning.workgroup as usize, rows, row_len, SHORTEST_ROW),
        false => parts(compiler.tuning.busy, rows, row_len, SHORTEST),
    };
    let whole = RowProgram { kernel, axes, parts, segment, by_workgroup, candidates: None };
    if parts == 1 {
        return whole.compile(compiler);
    }
    let mut partials = Vec::with_capacity(reductions.len());
    for &register in &reductions {
        partials.push(compiler.add_buffer(kernel.expression.dtype(register), parts * rows));
    }
    let mut first = kernel.clone();
    first.outputs = (reductions.iter().zip(&partials))
        .map(|(&register, &buffer)| Store { buffer, register, per_row: true })
        .collect();
    RowProgram { kernel: &first, ..whole }.compile(compiler)?;
    if let (Instruction::Reduce(op, _), [partial]) = (&kernel.expression.instructions[reductions[0]].0, &partials[..])
        && op.gives_index()
    {
        let candidates = Some((*partial, parts));
        return RowProgram { parts: 1, segment: parts, by_workgroup: false, candidates, ..whole }.compile(compiler);
    }
    compile(compiler, &combining(kernel, split, &reductions, &partials, parts), 1)
}

/// The reductions of a kernel.
fn reductions(kernel: &Kernel) -> Vec<Register> {
    let instructions = kernel.expression.instructions.iter().enumerate();
    instructions.filter(|(_, (i, _))| matches!(i, Instruction::Reduce(..))).map(|(register, _)| register).collect()
}

/// Whether the parts of a row can be reduced by different invocations: everything is known after one walk, and nothing
/// is stored on it. (What is best is found again among the parts' best.)
fn may_be_cut(kernel: &Kernel, reductions: &[Register]) -> bool {
    let passes = kernel.expression.passes().into_iter().max().unwrap_or(0);
    let gives_index = |&register: &Register| match kernel.expression.instructions[register].0 {
        Instruction::Reduce(op, _) => op.gives_index(),
        _ => false,
    };
    passes == 1
        && kernel.outputs.iter().all(|store| store.per_row)
        && (!reductions.iter().any(gives_index) || reductions.len() == 1)
}

/// The kernel that combines the parts of each row and does what there is to do after it.
fn combining(kernel: &Kernel, split: usize, reductions: &[Register], partials: &[BufferId], parts: usize) -> Kernel {
    let rows = Shape::new(&kernel.space[..split]);
    let count = rows.numel();
    let mut loads: Vec<Load> = Vec::new();
    for load in &kernel.loads {
        let mut view = View { axes: load.view.axes[..split].into(), offset: load.view.offset };
        view.axes.push(ViewAxis::still(parts));
        loads.push(Load { view, ..*load });
    }
    let mut expression = Expression::default();
    let per_row = kernel.expression.per_row(&kernel.loads, split);
    let mut places = vec![Register::MAX; per_row.len()];
    for (register, (instruction, dtype)) in kernel.expression.instructions.iter().enumerate() {
        if !per_row[register] {
            continue;
        }
        let instruction = match *instruction {
            Instruction::Reduce(op, _) => {
                let at = reductions.iter().position(|&r| r == register).unwrap_or_default();
                let mut view = View::contiguous(&rows);
                view.axes.push(ViewAxis { extent: parts, stride: count as isize, guard: None });
                loads.push(Load { buffer: partials[at], view });
                Instruction::Reduce(op, expression.push(Instruction::Load(loads.len() - 1), *dtype))
            }
            _ => instruction.renumbered(|load| load, |r| places[r]),
        };
        places[register] = expression.push(instruction, *dtype);
    }
    let outputs = kernel.outputs.iter().map(|store| Store { register: places[store.register], ..store.clone() });
    Kernel {
        family: Family::Reduce { axes: 1 },
        space: rows.iter().copied().chain([parts]).collect(),
        loads,
        expression,
        outputs: outputs.collect(),
        nodes: Vec::new(),
    }
}

/// The kernel that adds up the parts `[parts, results]` of a buffer.
pub(super) fn sum_of_parts(partial: BufferId, parts: usize, results: usize, dtype: DType, output: BufferId) -> Kernel {
    let axis = |extent: usize, stride: usize| ViewAxis { extent, stride: stride as isize, guard: None };
    let view = View { axes: [axis(results, 1), axis(parts, results)].as_slice().into(), offset: 0 };
    let mut expression = Expression::of_load(0, dtype);
    let register = expression.push(Instruction::Reduce(ReduceOp::Sum, 0), dtype);
    Kernel {
        family: Family::Reduce { axes: 1 },
        space: Shape::new(&[results, parts]),
        loads: vec![Load { buffer: partial, view }],
        expression,
        outputs: vec![Store { buffer: output, register, per_row: true }],
        nodes: Vec::new(),
    }
}

/// Into how many parts to cut each result, and their length.
pub(super) fn parts(busy: usize, results: usize, inner: usize, shortest: usize) -> (usize, usize) {
    let wanted = busy.div_ceil(results.max(1));
    let segment = inner.div_ceil(wanted.max(1)).clamp(shortest, LONGEST).next_multiple_of(BLOCK);
    (inner.div_ceil(segment).max(1), segment)
}

/// What is known of a kernel's registers.
struct Registers {
    per_row: Vec<bool>,
    passes: Vec<usize>,
    needed: Vec<bool>,
}

impl RowProgram<'_> {
    fn compile(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let RowProgram { kernel, axes, parts, by_workgroup, .. } = *self;
        let split = kernel.space.len() - axes;
        let rows: usize = kernel.space[..split].iter().product();
        let mut maps = expression::maps(kernel, &kernel.space);
        let (outer_axes, inner_axes) = kernel.space.split_at(split);
        let space = Space::simplified(&[outer_axes, inner_axes], &mut maps);
        let registers = Registers {
            per_row: kernel.expression.per_row(&kernel.loads, split),
            passes: kernel.expression.passes(),
            needed: kernel.expression.needed(kernel.outputs.iter().map(|store| store.register)),
        };
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let skeleton = if by_workgroup { gradus_shaders::REDUCE_WORKGROUP } else { gradus_shaders::REDUCE_SERIAL };
            let (main, pass) = skeleton.split_once("// Once for each pass").unwrap_or((skeleton, ""));
            // The first line of the second part goes on with the comment.
            let pass = pass.split_once('\n').map_or("", |(_, rest)| rest);
            let mut generator = Generator {
                program: self,
                module: Module::new(Width::Scalar, baked),
                registers: &registers,
                maps: &maps,
                space: &space,
            };
            let passes = generator.hooks();
            let mut text = main.to_string();
            for number in 0..passes {
                text.push_str(&pass.replace("_N", &format!("_{number}")));
            }
            shader.finish(generator.module, &text)
        };
        let grid = match by_workgroup {
            true => workgroups(rows * parts),
            false => linear(rows * parts, compiler.tuning.workgroup),
        };
        compiler.launch("reduce", grid, generate)
    }
}

/// Generates the hooks of a row program.
struct Generator<'g, 'm> {
    program: &'g RowProgram<'g>,
    module: Module<'m>,
    registers: &'g Registers,
    maps: &'g [Affine],
    space: &'g Space,
}

impl Generator<'_, '_> {
    /// Adds all hooks; gives the number of passes.
    fn hooks(&mut self) -> usize {
        let RowProgram { kernel, axes, parts, segment, candidates, .. } = *self.program;
        let split = kernel.space.len() - axes;
        let rows: usize = kernel.space[..split].iter().product();
        let row_len = candidates.map_or(kernel.row_len(), |(_, parts)| parts);
        self.module.add(&format!("const BLOCK = {BLOCK}u;"));
        for (name, value) in [("rows", rows), ("row_size", row_len), ("parts", parts), ("segment", segment)] {
            // Of a row that it knows to be empty, a compiler would know the sum, and take 0 times infinity to be 0.
            let value = match value {
                0 => self.module.parameter(Parameter::Word(0)),
                value => self.module.size(value as i64),
            };
            self.module.function(&format!("{name}() -> u32"), &value);
        }
        let outputs: Vec<(String, &Store)> = kernel
            .outputs
            .iter()
            .map(|store| {
                let dtype = stored(kernel.expression.dtype(store.register));
                (self.module.bind(Slot::Plan(store.buffer), dtype, Access::ReadWrite), store)
            })
            .collect();
        self.add_row();
        let last_pass = kernel.outputs.iter().map(|store| self.registers.passes[store.register]).max().unwrap_or(0);
        let lane = if self.program.by_workgroup { ", lane" } else { "" };
        let lane_type = if self.program.by_workgroup { ", lane: u32" } else { "" };
        let mut program = format!("fn program(i: u32, row: u32, first: u32, last: u32{lane_type}) {{\n");
        let mut passes = 0;
        for pass in 0..=last_pass {
            if self.add_before(pass) {
                let _ = writeln!(program, "    before_{pass}(row);");
            }
            if self.add_pass(passes, pass, &outputs) {
                let _ = writeln!(program, "    settle_{passes}(pass_{passes}(row, first, last{lane}));");
                passes += 1;
            }
        }
        if self.program.by_workgroup {
            program.push_str("    if lane != 0u {\n        return;\n    }\n");
        }
        for (array, store) in outputs.iter().filter(|(_, store)| store.per_row) {
            let dtype = kernel.expression.dtype(store.register);
            let value = self.per_row_value(store.register, &mut program);
            let _ = writeln!(program, "    {array}[i] = {};", to_stored(&value, dtype));
        }
        program.push('}');
        self.module.add(&program);
        passes
    }

    fn instruction(&self, register: Register) -> &Instruction {
        &self.program.kernel.expression.instructions[register].0
    }

    /// Whether a register is one of the values that are kept for the row. Numbers are at hand anyway.
    fn is_kept(&self, register: Register) -> bool {
        let is_number = matches!(self.instruction(register), Instruction::Scalar(_) | Instruction::Const(_));
        self.registers.per_row[register] && self.registers.needed[register] && !is_number
    }

    /// What there is one of for each row.
    fn add_row(&mut self) {
        let instructions = &self.program.kernel.expression.instructions;
        let kept: Vec<Register> = (0..instructions.len()).filter(|&register| self.is_kept(register)).collect();
        let mut text = String::from("struct Row {\n");
        for &register in &kept {
            let _ = writeln!(text, "    value{register}: {},", alias(instructions[register].1));
        }
        if kept.is_empty() {
            text.push_str("    nothing: u32,\n");
        }
        text.push_str("}\nvar<private> of_row: Row;");
        self.module.add(&text);
    }

    /// The value of a register for the row; a number's statement is appended.
    fn per_row_value(&mut self, register: Register, body: &mut String) -> String {
        if self.is_kept(register) {
            return format!("of_row.value{register}");
        }
        let place = Place { coordinates: &[], flat: None, extents: &[] };
        let only = |r: Register| if r == register { Emit::Compute } else { Emit::Skip };
        expression::evaluate(&mut self.module, body, self.program.kernel, only, self.maps, &place);
        format!("r{register}")
    }

    /// Adds what is computed once for each row before a pass, if anything is.
    fn add_before(&mut self, pass: usize) -> bool {
        let count = self.program.kernel.expression.instructions.len();
        let is_new = |register: Register| {
            let reduces = matches!(self.instruction(register), Instruction::Reduce(..));
            self.is_kept(register) && !reduces && self.registers.passes[register] == pass
        };
        let new: Vec<Register> = (0..count).filter(|&register| is_new(register)).collect();
        if new.is_empty() {
            return false;
        }
        let mut body = format!("fn before_{pass}(row: u32) {{\n");
        let outer = &self.space.extents[self.space.axes(0)];
        let mut coordinates = expression::coordinates(&mut self.module, &mut body, "row", "outer", outer);
        // Along a row nothing of this moves.
        coordinates.resize(self.space.extents.len(), "0u".into());
        self.evaluate(&mut body, &new, &new, &coordinates);
        for register in new {
            let _ = writeln!(body, "    of_row.value{register} = r{register};");
        }
        body.push('}');
        self.module.add(&body);
        true
    }

    /// Appends the statements of some registers; of what is kept for the row, all but `new` was computed before.
    fn evaluate(&mut self, body: &mut String, wanted: &[Register], new: &[Register], coordinates: &[String]) {
        let kernel = self.program.kernel;
        let is_known: Vec<bool> =
            (0..kernel.expression.instructions.len()).map(|r| self.is_kept(r) && !new.contains(&r)).collect();
        let mut needed = vec![false; is_known.len()];
        wanted.iter().for_each(|&register| needed[register] = true);
        for register in (0..needed.len()).rev() {
            if needed[register] && !is_known[register] {
                self.instruction(register).operands().iter().for_each(|&operand| needed[operand] = true);
            }
        }
        let emit = |register: Register| match (needed[register], is_known[register]) {
            (false, _) => Emit::Skip,
            (true, true) => Emit::Given(format!("of_row.value{register}")),
            (true, false) => Emit::Compute,
        };
        let place = Place { coordinates, flat: None, extents: &[] };
        expression::evaluate(&mut self.module, body, kernel, emit, self.maps, &place);
    }

    /// Adds a walk along the row, if there is something to reduce or to store on it. It is called by `number`.
    fn add_pass(&mut self, number: usize, pass: usize, outputs: &[(String, &Store)]) -> bool {
        let kernel = self.program.kernel;
        let instructions = &kernel.expression.instructions;
        let reductions: Vec<(Register, ReduceOp, Register)> = (0..instructions.len())
            .filter(|&r| self.registers.needed[r] && self.registers.passes[r] == pass + 1)
            .filter_map(|r| match instructions[r].0 {
                Instruction::Reduce(op, x) => Some((r, op, x)),
                _ => None,
            })
            .collect();
        let stores: Vec<&(String, &Store)> = outputs
            .iter()
            .filter(|(_, store)| !store.per_row && self.registers.passes[store.register] == pass)
            .collect();
        if reductions.is_empty() && stores.is_empty() {
            return false;
        }
        let accumulators: Vec<Accumulator> =
            reductions.iter().map(|&(_, op, x)| Accumulator::new(op, instructions[x].1)).collect();
        let list = |part: &dyn Fn(usize) -> String| -> String {
            let parts: Vec<String> = (0..reductions.len()).map(part).collect();
            if parts.is_empty() { "0u".into() } else { parts.join(", ") }
        };
        let mut text = format!("struct Partial_{number} {{\n");
        for ((register, ..), accumulator) in reductions.iter().zip(&accumulators) {
            let _ = writeln!(text, "    of{register}: {},", accumulator.ty);
        }
        if reductions.is_empty() {
            text.push_str("    nothing: u32,\n");
        }
        text.push('}');
        for accumulator in &accumulators {
            text.push_str(&accumulator.declarations);
        }
        self.module.add(&text);
        let partial = format!("Partial_{number}");
        let identity = list(&|i| accumulators[i].identity.clone());
        self.module.function(&format!("identity_{number}() -> {partial}"), &format!("{partial}({identity})"));
        let field = |name: &str, i: usize| format!("{name}.of{}", reductions[i].0);
        let combined = list(&|i| accumulators[i].combined(&field("a", i), &field("b", i)));
        self.module.function(
            &format!("combine_{number}(a: {partial}, b: {partial}) -> {partial}"),
            &format!("{partial}({combined})"),
        );

        let mut body = format!("fn fold_{number}(partial: {partial}, row: u32, position: u32) -> {partial} {{\n");
        let element = match self.program.candidates {
            None => "position".to_string(),
            Some((buffer, _)) => {
                let array = self.module.bind(Slot::Plan(buffer), "i32", Access::Read);
                format!("u32({array}[position * rows() + row])")
            }
        };
        let _ = writeln!(body, "    let element = {element};");
        let extents = [&self.space.extents[self.space.axes(0)], &self.space.extents[self.space.axes(1)]];
        let mut coordinates = expression::coordinates(&mut self.module, &mut body, "row", "outer", extents[0]);
        coordinates.extend(expression::coordinates(&mut self.module, &mut body, "element", "inner", extents[1]));
        let mut wanted: Vec<Register> = reductions.iter().map(|&(.., x)| x).collect();
        wanted.extend(stores.iter().map(|(_, store)| store.register));
        self.evaluate(&mut body, &wanted, &[], &coordinates);
        if !stores.is_empty() {
            let row_len = self.module.size(kernel.row_len() as i64);
            let _ = writeln!(body, "    let i = row * {row_len} + element;");
        }
        for (array, store) in stores {
            let value = to_stored(&format!("r{}", store.register), kernel.expression.dtype(store.register));
            let _ = writeln!(body, "    {array}[i] = {value};");
        }
        let folded = list(&|i| accumulators[i].folded(&field("partial", i), reductions[i].2));
        let _ = write!(body, "    return {partial}({folded});\n}}");
        self.module.add(&body);

        let mut settle = format!("fn settle_{number}(total: {partial}) {{\n");
        for ((register, ..), accumulator) in reductions.iter().zip(&accumulators) {
            let value = accumulator.settled(&format!("total.of{register}"));
            let _ = writeln!(settle, "    of_row.value{register} = {value};");
        }
        settle.push('}');
        self.module.add(&settle);
        true
    }
}

/// Whether neighbours along the axes from `split` on, which are reduced, are neighbours in memory.
fn reads_rows(kernel: &Kernel, split: usize) -> bool {
    let (outer_axes, inner_axes) = kernel.space.split_at(split);
    let mut maps = expression::maps(kernel, &kernel.space);
    let space = Space::simplified(&[outer_axes, inner_axes], &mut maps);
    let (outer, inner) = (space.axes(0).last(), space.axes(1).last());
    let stride = |map: &Affine, axis: Option<usize>| axis.map_or(0, |axis| map.axes[axis].stride.unsigned_abs());
    let across = maps.iter().filter(|map| stride(map, outer) == 1 && stride(map, inner) != 1).count();
    let along = maps.iter().filter(|map| stride(map, inner) == 1).count();
    along >= across
}

/// How elements combine, in WGSL.
struct Accumulator {
    op: ReduceOp,
    is_float: bool,
    ty: String,
    identity: String,
    /// What it needs at the top level of the module.
    declarations: String,
}

impl Accumulator {
    fn new(op: ReduceOp, dtype: DType) -> Accumulator {
        let element = stored(dtype.computed());
        // WGSL has no literal for infinity.
        let (lowest, highest) = match dtype {
            DType::I32 => ("i32(-2147483648)", "2147483647i"),
            DType::U32 | DType::Bool => ("0u", "0xffffffffu"),
            DType::F16 | DType::F32 | DType::F64 => ("bitcast<f32>(0xff800000u)", "bitcast<f32>(0x7f800000u)"),
        };
        let (ty, identity) = match op {
            ReduceOp::Sum => (element, format!("{element}()")),
            ReduceOp::Prod => (element, format!("{element}(1)")),
            ReduceOp::Max => (element, lowest.into()),
            ReduceOp::Min => (element, highest.into()),
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
    fn combined(&self, a: &str, b: &str) -> String {
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
    fn folded(&self, partial: &str, register: Register) -> String {
        let one = if self.op.gives_index() { format!("Best(r{register}, element)") } else { format!("r{register}") };
        self.combined(partial, &one)
    }

    /// The result.
    fn settled(&self, total: &str) -> String {
        if self.op.gives_index() { format!("i32({total}.index)") } else { total.into() }
    }
}
