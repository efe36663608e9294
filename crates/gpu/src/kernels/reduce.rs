//! Row programs: reductions along the trailing axes, with maps before, between and after them.

use super::accumulator::Accumulator;
use crate::affine::{Affine, Space};
use crate::compiler::{Compiler, Shader, linear, workgroups};
use crate::expression::{self, Emit, Place, loads_at_once, loads_vectors, stored_at, to_stored};
use crate::module::{Baked, Module, Parameter, Slot, Width, alias};
use crate::tuning::Tuning;
use gradus_device::Access;
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Register, Store};
use gradus_ir::{DType, Error, Result, Shape, View, ViewAxis};
use std::fmt::Write;

/// Elements of a row that are folded before the partial result joins the others.
const BLOCK: usize = 128;
/// Elements that one invocation folds at most: software adapters end loops after 65,535 steps.
const LONGEST: usize = 32768;

/// What an invocation computes at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lanes {
    /// One element.
    One,
    /// Four neighbours along the row.
    Along,
    /// An element of each of four rows.
    Across,
}

impl Lanes {
    fn width(self) -> Width {
        if self == Lanes::One { Width::Scalar } else { Width::Vector }
    }

    /// How many rows an invocation walks along.
    fn rows(self) -> usize {
        if self == Lanes::Across { 4 } else { 1 }
    }

    /// Whether every access is a vector or stands still, and there is a vector.
    fn fit(self, kernel: &Kernel, split: usize) -> bool {
        let (space, maps) = self.space(kernel, split);
        let group = space.axes(1);
        !group.is_empty()
            && space.extents[group.end - 1].is_multiple_of(4)
            && maps.iter().all(loads_at_once)
            && maps.iter().any(loads_vectors)
            && (self == Lanes::Along || kernel.outputs.iter().all(|store| store.per_row))
    }

    /// A kernel's space and its maps, the neighbours last: rows and then the elements of each, or the other way round.
    fn space(self, kernel: &Kernel, split: usize) -> (Space, Vec<Affine>) {
        let mut maps = expression::maps(kernel, &kernel.space);
        let (outer, inner) = kernel.space.split_at(split);
        if self == Lanes::Across {
            maps.iter_mut().for_each(|map| map.axes.rotate_left(split));
            return (Space::simplified(&[inner, outer], &mut maps), maps);
        }
        (Space::simplified(&[outer, inner], &mut maps), maps)
    }
}

/// Who walks along a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walkers {
    /// An invocation.
    One,
    /// A share of a workgroup, which has `across` rows. Where it is `down`, neighbouring invocations stand at neighbouring
    /// rows.
    Several { workgroup: usize, across: usize, down: bool },
}

impl Walkers {
    /// What suits a kernel with so many rows of this length.
    fn of(compiler: &Compiler<'_>, kernel: &Kernel, split: usize, [rows, row_len]: [usize; 2], most: usize) -> Walkers {
        let Tuning { cooperates, busy, row_workgroup, long_row, row_share, abreast, .. } = *compiler.tuning;
        if !cooperates || row_len < long_row {
            return Walkers::One;
        }
        let workgroup = (row_workgroup as usize).min(most);
        if reads_rows(kernel, split) {
            let slices = (row_len / row_share).next_power_of_two().min(workgroup);
            return Walkers::Several { workgroup, across: workgroup / slices, down: false };
        }
        // Many rows are enough to do anyway; and what is stored along columns would be scattered.
        let is_wide = rows >= busy / abreast;
        if is_wide || !kernel.outputs.iter().all(|store| store.per_row) {
            return Walkers::One;
        }
        Walkers::Several { workgroup, across: abreast.min(workgroup), down: true }
    }
}

/// A row program, or one of the two that a long one is made of.
#[derive(Clone, Copy)]
struct RowProgram<'k> {
    kernel: &'k Kernel,
    axes: usize,
    /// Each row in so many parts, parts first.
    parts: usize,
    /// How many elements a part has.
    segment: usize,
    walkers: Walkers,
    lanes: Lanes,
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
    let reductions = reductions(kernel);
    let lanes = lanes(kernel, split, &reductions);
    let most = largest_workgroup(compiler, kernel, &reductions, lanes);
    let walkers = Walkers::of(compiler, kernel, split, [rows, row_len], most);
    let lanes = match (walkers, lanes) {
        (Walkers::One, lanes) if !compiler.tuning.cooperates => lanes,
        (Walkers::Several { down: false, .. }, Lanes::Along) => Lanes::Along,
        // The invocations of a GPU that stand at neighbouring rows read neighbours anyway.
        _ => Lanes::One,
    };
    let (parts, segment) = match walkers {
        _ if !may_be_cut(kernel, &reductions) => (1, row_len.max(1)),
        Walkers::Several { workgroup, across, .. } => {
            let workgroups = compiler.tuning.busy / workgroup;
            parts(workgroups, rows.div_ceil(across), row_len, compiler.tuning.row_segment)
        }
        Walkers::One => parts(compiler.tuning.busy, rows / lanes.rows(), row_len, compiler.tuning.segment),
    };
    let whole = RowProgram { kernel, axes, parts, segment, walkers, lanes, candidates: None };
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
        let (walkers, lanes) = (Walkers::One, Lanes::One);
        let last = RowProgram { parts: 1, segment: parts, walkers, lanes, candidates, ..whole };
        return last.compile(compiler);
    }
    compile(compiler, &combining(kernel, split, &reductions, &partials, parts), 1)
}

/// The reductions of a kernel.
fn reductions(kernel: &Kernel) -> Vec<Register> {
    let instructions = kernel.expression.instructions.iter().enumerate();
    instructions.filter(|(_, (i, _))| matches!(i, Instruction::Reduce(..))).map(|(register, _)| register).collect()
}

/// The most invocations, a power of two, whose partial results fit into a workgroup's memory.
fn largest_workgroup(compiler: &Compiler<'_>, kernel: &Kernel, reductions: &[Register], lanes: Lanes) -> usize {
    let bytes = |&register: &Register| match kernel.expression.instructions[register].0 {
        Instruction::Reduce(op, _) if op.gives_index() => 8,
        _ if lanes == Lanes::Along => 16,
        _ => 4,
    };
    // A pass that only stores has a word for each invocation too.
    let stores = usize::from(kernel.outputs.iter().any(|store| !store.per_row));
    let bytes = reductions.iter().map(bytes).sum::<usize>() + 4 * stores;
    let most = compiler.limits().workgroup_bytes as usize / bytes.max(1);
    if most == 0 { 1 } else { 1 << most.ilog2() }
}

/// What suits an adapter whose invocations are dear. What is best is found one by one, and so is what is gathered.
fn lanes(kernel: &Kernel, split: usize, reductions: &[Register]) -> Lanes {
    let instruction = |&register: &Register| &kernel.expression.instructions[register];
    let gives_index = |register| matches!(instruction(register).0, Instruction::Reduce(op, _) if op.gives_index());
    let gathers = kernel.expression.instructions.iter().any(|(i, _)| matches!(i, Instruction::Gather { .. }));
    let is_bool = |register| instruction(register).1 == DType::Bool;
    if gathers || reductions.iter().any(|r| gives_index(r) || is_bool(r)) {
        return Lanes::One;
    }
    let fitting = [Lanes::Along, Lanes::Across].into_iter().find(|lanes| lanes.fit(kernel, split));
    fitting.unwrap_or(Lanes::One)
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
        let RowProgram { kernel, axes, parts, walkers, lanes, .. } = *self;
        let split = kernel.space.len() - axes;
        let rows = kernel.space[..split].iter().product::<usize>() / lanes.rows();
        let (space, maps) = lanes.space(kernel, split);
        let registers = Registers {
            per_row: kernel.expression.per_row(&kernel.loads, split),
            passes: kernel.expression.passes(),
            needed: kernel.expression.needed(kernel.outputs.iter().map(|store| store.register)),
        };
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let skeleton = match walkers {
                Walkers::One => gradus_shaders::REDUCE_SERIAL,
                Walkers::Several { .. } => gradus_shaders::REDUCE_WORKGROUP,
            };
            let (main, pass) = skeleton.split_once("// Once for each pass").unwrap_or((skeleton, ""));
            // The first line of the second part goes on with the comment.
            let pass = pass.split_once('\n').map_or("", |(_, rest)| rest);
            let mut generator = Generator {
                program: self,
                module: shader.module(lanes.width(), baked),
                registers: &registers,
                maps: &maps,
                space: &space,
            };
            let passes = generator.hooks();
            let mut text = main.to_string();
            for number in 0..passes {
                text.push_str(&pass.replace("_N", &format!("_{number}")));
            }
            match walkers {
                Walkers::One => shader.finish(generator.module, &text),
                Walkers::Several { workgroup, .. } => shader.finish_in(generator.module, &text, workgroup as u32),
            }
        };
        let grid = match walkers {
            Walkers::One => linear(rows * parts, compiler.tuning.workgroup),
            Walkers::Several { across, .. } => workgroups(rows.div_ceil(across) * parts),
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
        let RowProgram { kernel, axes, parts, segment, lanes, candidates, .. } = *self.program;
        let split = kernel.space.len() - axes;
        let rows = kernel.space[..split].iter().product::<usize>() / lanes.rows();
        let row_len = candidates.map_or(kernel.row_len(), |(_, parts)| parts);
        let step = if lanes == Lanes::Along { 4 } else { 1 };
        self.module.add(&format!("const BLOCK = {BLOCK}u;\nconst STEP = {step}u;"));
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
                let width = if store.per_row && lanes == Lanes::Along { Width::Scalar } else { lanes.width() };
                let element = stored_at(kernel.expression.dtype(store.register), width);
                (self.module.bind(Slot::Plan(store.buffer), &element, Access::ReadWrite), store)
            })
            .collect();
        self.add_row();
        let last_pass = kernel.outputs.iter().map(|store| self.registers.passes[store.register]).max().unwrap_or(0);
        let (lane, lane_types) = match self.program.walkers {
            Walkers::One => ("", ""),
            Walkers::Several { across, down, .. } => {
                self.module.add(&format!("const ACROSS = {across}u;\nconst IS_DOWN = {down};"));
                (", lane", ", lane: u32, leads: bool")
            }
        };
        let mut program = match lanes {
            Lanes::Across => {
                String::from("fn program(i: u32, four: u32, first: u32, last: u32) {\n    let row = 4u * four;\n")
            }
            _ => format!("fn program(i: u32, row: u32, first: u32, last: u32{lane_types}) {{\n"),
        };
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
        if self.program.walkers != Walkers::One {
            program.push_str("    if !leads {\n        return;\n    }\n");
        }
        for (array, store) in outputs.iter().filter(|(_, store)| store.per_row) {
            let dtype = kernel.expression.dtype(store.register);
            let value = to_stored(&self.per_row_value(store.register, &mut program), dtype);
            // Along a row all four are the same.
            let value = if lanes == Lanes::Along { format!("({value}).x") } else { value };
            let _ = writeln!(program, "    {array}[i] = {value};");
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
        let coordinates = self.coordinates(&mut body, None);
        self.evaluate(&mut body, &new, &new, &coordinates);
        for register in new {
            let _ = writeln!(body, "    of_row.value{register} = r{register};");
        }
        body.push('}');
        self.module.add(&body);
        true
    }

    /// The coordinates of an element of a row, or of what does not move along it; their statements are appended.
    fn coordinates(&mut self, body: &mut String, element: Option<&str>) -> Vec<String> {
        let (outer, inner) = if self.program.lanes == Lanes::Across { (1, 0) } else { (0, 1) };
        let extents = |group: usize| &self.space.extents[self.space.axes(group)];
        let mut rows = expression::coordinates(&mut self.module, body, "row", "outer", extents(outer));
        let mut elements = match element {
            Some(element) => expression::coordinates(&mut self.module, body, element, "inner", extents(inner)),
            None => vec!["0u".into(); extents(inner).len()],
        };
        if self.program.lanes == Lanes::Across {
            elements.append(&mut rows);
            return elements;
        }
        rows.append(&mut elements);
        rows
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
        let coordinates = self.coordinates(&mut body, Some("element"));
        let mut wanted: Vec<Register> = reductions.iter().map(|&(.., x)| x).collect();
        wanted.extend(stores.iter().map(|(_, store)| store.register));
        self.evaluate(&mut body, &wanted, &[], &coordinates);
        if !stores.is_empty() {
            let row_len = self.module.size(kernel.row_len() as i64);
            let _ = writeln!(body, "    let i = row * {row_len} + element;");
        }
        let at = if self.program.lanes == Lanes::One { "i" } else { "i / 4u" };
        for (array, store) in stores {
            let value = to_stored(&format!("r{}", store.register), kernel.expression.dtype(store.register));
            let _ = writeln!(body, "    {array}[{at}] = {value};");
        }
        let folded = list(&|i| accumulators[i].folded(&field("partial", i), reductions[i].2));
        let _ = write!(body, "    return {partial}({folded});\n}}");
        self.module.add(&body);

        let mut settle = format!("fn settle_{number}(total: {partial}) {{\n");
        for ((register, ..), accumulator) in reductions.iter().zip(&accumulators) {
            let value = accumulator.settled(&format!("total.of{register}"), self.program.lanes == Lanes::Along);
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
