//! The text of a row program: what its passes fold, keep for the row, hold from pass to pass, and store.

use super::{BLOCK, Lanes, RowProgram, Walkers};
use crate::affine::{Affine, Space};
use crate::compiler::{Compiler, Shader, linear, workgroups};
use crate::expression::{self, Emit, Place, stored_at, to_stored};
use crate::kernels::accumulator::Accumulator;
use crate::module::{Baked, Module, Parameter, Slot, Width, alias, stored};
use gradus_device::Access;
use gradus_ir::Result;
use gradus_ir::plan::{Instruction, Register, Store};
use std::fmt::Write;

/// What is known of a kernel's registers.
struct Registers {
    per_row: Vec<bool>,
    passes: Vec<usize>,
    needed: Vec<bool>,
    /// In which pass a register is computed first that the invocation holds for later ones: it need not be loaded or computed
    /// again.
    held: Vec<Option<usize>>,
}

/// What is reduced in a pass.
struct Reduction {
    register: Register,
    operand: Register,
    accumulator: Accumulator,
}

impl RowProgram<'_> {
    pub(super) fn compile(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let RowProgram { kernel, axes, parts, walkers, lanes, .. } = *self;
        let split = kernel.space.len() - axes;
        let rows = kernel.space[..split].iter().product::<usize>() / lanes.rows();
        let (space, maps) = lanes.space(kernel, split);
        let registers = Registers::of(self, split);
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let module = shader.module(lanes.width(), baked);
            let mut generator = Generator { program: self, module, registers: &registers, maps: &maps, space: &space };
            let passes = generator.hooks();
            let skeleton = match walkers {
                Walkers::One => gradus_shaders::REDUCE_SERIAL,
                Walkers::Several { .. } => gradus_shaders::REDUCE_WORKGROUP,
            };
            let text = format!("{skeleton}{passes}");
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

    /// In how many steps an invocation walks along its part of a row, where these are few. A power of two, so that rows of many
    /// lengths share a kernel.
    fn steps(&self) -> Option<usize> {
        let Walkers::Several { workgroup, across, .. } = self.walkers else { return None };
        let elements = self.kernel.row_len().div_ceil(workgroup / across);
        let steps = elements.div_ceil(self.lanes.step()).next_power_of_two();
        (self.parts == 1 && self.candidates.is_none() && steps * self.lanes.step() <= self.most_held).then_some(steps)
    }

    fn reduced(&self, registers: &Registers, pass: usize) -> Vec<Reduction> {
        let expression = &self.kernel.expression;
        let instructions = expression.instructions.iter().enumerate();
        let of_pass = instructions.filter(|&(r, _)| registers.needed[r] && registers.passes[r] == pass + 1);
        of_pass
            .filter_map(|(register, (instruction, _))| match *instruction {
                Instruction::Reduce(op, operand) => {
                    let accumulator = Accumulator::new(op, expression.dtype(operand));
                    Some(Reduction { register, operand, accumulator })
                }
                _ => None,
            })
            .collect()
    }

    /// What is stored element by element in a pass.
    fn stored(&self, registers: &Registers, pass: usize) -> impl Iterator<Item = (usize, &Store)> {
        let outputs = self.kernel.outputs.iter().enumerate();
        outputs.filter(move |(_, store)| !store.per_row && registers.passes[store.register] == pass)
    }
}

impl Registers {
    fn holds(&self) -> bool {
        self.held.iter().any(Option::is_some)
    }

    fn of(program: &RowProgram<'_>, split: usize) -> Registers {
        let kernel = program.kernel;
        let mut registers = Registers {
            per_row: kernel.expression.per_row(|load| &kernel.loads[load].view, split),
            passes: kernel.expression.passes(),
            needed: kernel.expression.needed(kernel.outputs.iter().map(|store| store.register)),
            held: vec![None; kernel.expression.instructions.len()],
        };
        let held = registers.worth_holding(program);
        let numbers = program.steps().unwrap_or(0) * program.lanes.step() * held.iter().flatten().count();
        if (1..=program.most_held).contains(&numbers) {
            registers.held = held;
        }
        registers
    }

    /// What a pass computes for each element, and a later one needs again.
    fn worth_holding(&self, program: &RowProgram<'_>) -> Vec<Option<usize>> {
        let instructions = &program.kernel.expression.instructions;
        let mut held = vec![None; instructions.len()];
        let mut computed: Vec<Option<usize>> = vec![None; instructions.len()];
        for pass in 0..=self.passes.iter().copied().max().unwrap_or(0) {
            let mut needed = vec![false; instructions.len()];
            program.reduced(self, pass).iter().for_each(|reduction| needed[reduction.operand] = true);
            program.stored(self, pass).for_each(|(_, store)| needed[store.register] = true);
            for register in (0..instructions.len()).rev().filter(|&r| !self.per_row[r]) {
                match computed[register] {
                    _ if !needed[register] => {}
                    Some(earlier) if earlier < pass => held[register] = Some(earlier),
                    _ => {
                        computed[register] = Some(pass);
                        instructions[register].0.operands().iter().for_each(|&operand| needed[operand] = true);
                    }
                }
            }
        }
        held
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
    /// Adds all hooks; gives what the skeleton does in each pass.
    fn hooks(&mut self) -> String {
        let RowProgram { kernel, walkers, lanes, .. } = *self.program;
        self.add_sizes();
        let mut arrays = Vec::with_capacity(kernel.outputs.len());
        for store in &kernel.outputs {
            let width = if store.per_row && lanes == Lanes::Along { Width::Scalar } else { lanes.width() };
            let element = stored_at(kernel.expression.dtype(store.register), width);
            arrays.push(self.module.bind(Slot::Plan(store.buffer), &element, Access::ReadWrite));
        }
        self.add_row();
        self.add_held();
        let mut program = String::from(match (walkers, lanes) {
            (Walkers::Several { .. }, _) => {
                "fn program(i: u32, row: u32, start: u32, last: u32, lane: u32, leads: bool) {\n"
            }
            (Walkers::One, Lanes::Across) => {
                "fn program(i: u32, four: u32, first: u32, last: u32) {\n    let row = 4u * four;\n"
            }
            (Walkers::One, _) => "fn program(i: u32, row: u32, first: u32, last: u32) {\n",
        });
        let mut skeleton = String::new();
        let last_pass = kernel.outputs.iter().map(|store| self.registers.passes[store.register]).max();
        for pass in 0..=last_pass.unwrap_or(0) {
            if self.add_before(pass) {
                let _ = writeln!(program, "    before_{pass}(row);");
            }
            let reduced = self.program.reduced(self.registers, pass);
            if reduced.is_empty() && self.program.stored(self.registers, pass).next().is_none() {
                continue;
            }
            self.add_partial(pass, &reduced);
            self.add_fold(pass, &reduced, &arrays);
            let call = match walkers {
                Walkers::One => {
                    self.add_combine(pass, &reduced);
                    skeleton.push_str(&of_pass(gradus_shaders::REDUCE_SERIAL_PASS, pass));
                    format!("pass_{pass}(row, first, last)")
                }
                Walkers::Several { .. } if self.registers.holds() => {
                    self.add_steps(pass);
                    format!("walk_{pass}(row, start, last)")
                }
                Walkers::Several { .. } if self.program.in_blocks => {
                    self.add_combine(pass, &reduced);
                    skeleton.push_str(&of_pass(gradus_shaders::REDUCE_WALK, pass));
                    skeleton.push_str(&of_pass(gradus_shaders::REDUCE_BLOCKS, pass));
                    format!("blocks_{pass}(row, start, last)")
                }
                Walkers::Several { .. } => {
                    skeleton.push_str(&of_pass(gradus_shaders::REDUCE_WALK, pass));
                    format!("walk_{pass}(row, start, last)")
                }
            };
            // What only stores has nothing to settle.
            let call = match walkers {
                _ if reduced.is_empty() => call,
                Walkers::One => {
                    self.add_settle(pass, "Partial", &reduced);
                    format!("settle_{pass}({call})")
                }
                Walkers::Several { .. } => {
                    let meeting = self.add_total(pass, &reduced);
                    skeleton.push_str(&of_pass(meeting, pass));
                    self.add_settle(pass, "Total", &reduced);
                    format!("settle_{pass}(meet_{pass}(total_{pass}({call}), lane))")
                }
            };
            let _ = writeln!(program, "    {call};");
        }
        if walkers != Walkers::One {
            program.push_str("    if !leads {\n        return;\n    }\n");
        }
        for (array, store) in arrays.iter().zip(&kernel.outputs).filter(|(_, store)| store.per_row) {
            let dtype = kernel.expression.dtype(store.register);
            let value = to_stored(&self.per_row_value(store.register, &mut program), dtype);
            // Along a row all four are the same.
            let value = if lanes == Lanes::Along { format!("({value}).x") } else { value };
            let _ = writeln!(program, "    {array}[i] = {value};");
        }
        program.push('}');
        self.module.add(&program);
        skeleton
    }

    /// Adds how many rows there are, their length, and who walks along them.
    fn add_sizes(&mut self) {
        let RowProgram { kernel, axes, parts, segment, walkers, subgroup, lanes, candidates, .. } = *self.program;
        let split = kernel.space.len() - axes;
        let rows = kernel.space[..split].iter().product::<usize>() / lanes.rows();
        let row_len = candidates.map_or(kernel.row_len(), |(_, parts)| parts);
        self.module.add(&format!("const BLOCK = {BLOCK}u;\nconst STEP = {}u;", lanes.step()));
        for (name, value) in [("rows", rows), ("row_size", row_len), ("parts", parts), ("segment", segment)] {
            // Of a row that it knows to be empty, a compiler would know the sum, and take 0 times infinity to be 0.
            let value = match value {
                0 => self.module.parameter(Parameter::Word(0)),
                value => self.module.size(value as i64),
            };
            self.module.function(&format!("{name}() -> u32"), &value);
        }
        if let Walkers::Several { across, down, .. } = walkers {
            self.module.add(&format!("const ACROSS = {across}u;\nconst IS_DOWN = {down};"));
        }
        if let Some(subgroup) = subgroup {
            self.module.add(&format!("const SUBGROUP = {subgroup}u;"));
        }
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

    /// What the invocation holds of its part of the row, step by step.
    fn add_held(&mut self) {
        let steps = self.program.steps().unwrap_or(0);
        for register in (0..self.registers.held.len()).filter(|&r| self.registers.held[r].is_some()) {
            let element = alias(self.program.kernel.expression.dtype(register));
            self.module.add(&format!("var<private> held{register}: array<{element}, {steps}>;"));
        }
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
        let given = |r: Register| (self.is_kept(r) && !new.contains(&r)).then(|| format!("of_row.value{r}"));
        let given: Vec<Option<String>> = (0..count).map(given).collect();
        self.evaluate(&mut body, &new, &given, &coordinates);
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

    /// Appends the statements of some registers, of which some are `given`.
    fn evaluate(&mut self, body: &mut String, wanted: &[Register], given: &[Option<String>], coordinates: &[String]) {
        let mut needed = vec![false; given.len()];
        wanted.iter().for_each(|&register| needed[register] = true);
        for register in (0..needed.len()).rev() {
            if needed[register] && given[register].is_none() {
                self.instruction(register).operands().iter().for_each(|&operand| needed[operand] = true);
            }
        }
        let emit = |register: Register| match &given[register] {
            _ if !needed[register] => Emit::Skip,
            Some(value) => Emit::Given(value.clone()),
            None => Emit::Compute,
        };
        let place = Place { coordinates, flat: None, extents: &[] };
        expression::evaluate(&mut self.module, body, self.program.kernel, emit, self.maps, &place);
    }

    /// Adds the type of what a pass has reduced so far, and how it begins.
    fn add_partial(&mut self, pass: usize, reduced: &[Reduction]) {
        let mut text = format!("struct Partial_{pass} {{\n");
        for Reduction { register, accumulator, .. } in reduced {
            let _ = writeln!(text, "    of{register}: {},", accumulator.ty);
        }
        text.push_str(if reduced.is_empty() { "    nothing: u32,\n}" } else { "}" });
        reduced.iter().for_each(|reduction| text.push_str(&reduction.accumulator.declarations));
        self.module.add(&text);
        let identity = list(reduced, |reduction| reduction.accumulator.identity.clone());
        let signature = format!("identity_{pass}() -> Partial_{pass}");
        self.module.function(&signature, &format!("Partial_{pass}({identity})"));
    }

    /// Adds what a pass does with an element: what it reduces, holds and stores.
    fn add_fold(&mut self, pass: usize, reduced: &[Reduction], arrays: &[String]) {
        let kernel = self.program.kernel;
        let step = if self.registers.holds() { ", step: u32" } else { "" };
        let partial = format!("Partial_{pass}");
        let mut body = format!("fn fold_{pass}(partial: {partial}, row: u32, position: u32{step}) -> {partial} {{\n");
        let element = match self.program.candidates {
            None => "position".to_string(),
            Some((buffer, _)) => {
                let array = self.module.bind(Slot::Plan(buffer), "i32", Access::Read);
                format!("u32({array}[position * rows() + row])")
            }
        };
        let _ = writeln!(body, "    let element = {element};");
        let coordinates = self.coordinates(&mut body, Some("element"));
        let stored: Vec<(usize, &Store)> = self.program.stored(self.registers, pass).collect();
        let mut wanted: Vec<Register> = reduced.iter().map(|reduction| reduction.operand).collect();
        wanted.extend(stored.iter().map(|(_, store)| store.register));
        let given = |register: Register| match self.registers.held[register] {
            _ if self.is_kept(register) => Some(format!("of_row.value{register}")),
            Some(earlier) if earlier < pass => Some(format!("held{register}[step]")),
            _ => None,
        };
        let given: Vec<Option<String>> = (0..kernel.expression.instructions.len()).map(given).collect();
        self.evaluate(&mut body, &wanted, &given, &coordinates);
        for register in (0..given.len()).filter(|&r| self.registers.held[r] == Some(pass)) {
            let _ = writeln!(body, "    held{register}[step] = r{register};");
        }
        if !stored.is_empty() {
            let row_len = self.module.size(kernel.row_len() as i64);
            let _ = writeln!(body, "    let i = row * {row_len} + element;");
        }
        let at = if self.program.lanes == Lanes::One { "i" } else { "i / 4u" };
        for (output, store) in stored {
            let value = to_stored(&format!("r{}", store.register), kernel.expression.dtype(store.register));
            let _ = writeln!(body, "    {}[{at}] = {value};", arrays[output]);
        }
        let folded = list(reduced, |Reduction { register, operand, accumulator }| {
            accumulator.folded(&format!("partial.of{register}"), *operand)
        });
        let _ = write!(body, "    return {partial}({folded});\n}}");
        self.module.add(&body);
    }

    /// Adds a walk whose steps are written out, so that what is held lies in registers.
    fn add_steps(&mut self, pass: usize) {
        let RowProgram { kernel, walkers, lanes, .. } = *self.program;
        let Walkers::Several { workgroup, across, .. } = walkers else { return };
        let steps = self.program.steps().unwrap_or(0);
        // Of whole rows, every invocation takes all steps or, where there is no row, none.
        let are_whole = kernel.row_len() == steps * lanes.step() * (workgroup / across);
        let mut text = format!("fn walk_{pass}(row: u32, start: u32, last: u32) -> Partial_{pass} {{\n");
        let _ = writeln!(text, "    var partial = identity_{pass}();");
        for step in 0..steps {
            let element = format!("start + {step}u * STRIDE");
            if step == 0 || !are_whole {
                let _ = writeln!(text, "    if {element} < last {{");
            }
            let _ = writeln!(text, "        partial = fold_{pass}(partial, row, {element}, {step}u);");
            if step + 1 == steps || !are_whole {
                text.push_str("    }\n");
            }
        }
        text.push_str("    return partial;\n}");
        self.module.add(&text);
    }

    /// Adds how an invocation that has a row for itself combines the blocks of a pass.
    fn add_combine(&mut self, pass: usize, reduced: &[Reduction]) {
        let partial = format!("Partial_{pass}");
        let combined = list(reduced, |Reduction { register, accumulator, .. }| {
            accumulator.combined(&format!("a.of{register}"), &format!("b.of{register}"))
        });
        let signature = format!("combine_{pass}(a: {partial}, b: {partial}) -> {partial}");
        self.module.function(&signature, &format!("{partial}({combined})"));
    }

    /// Adds what several invocations combine, a value where each of them has four, and how; gives the skeleton in which they meet.
    fn add_total(&mut self, pass: usize, reduced: &[Reduction]) -> &'static str {
        let are_four = self.program.lanes == Lanes::Along;
        // Functions are written for fours.
        let four = |ty: &str, value: &str| if are_four { format!("{ty}({value})") } else { value.into() };
        let one = |value: String| if are_four { format!("({value}).x") } else { value };
        let total = format!("Total_{pass}");
        let mut text = format!("struct {total} {{\n");
        for Reduction { register, operand, accumulator } in reduced {
            let scalar = stored(self.program.kernel.expression.dtype(*operand).computed());
            let ty = if are_four { scalar } else { &accumulator.ty };
            let _ = writeln!(text, "    of{register}: {ty},");
        }
        text.push('}');
        self.module.add(&text);
        let of_four = list(reduced, |Reduction { register, accumulator, .. }| {
            let value = format!("partial.of{register}");
            if are_four { one(accumulator.of_four(&value)) } else { value }
        });
        let signature = format!("total_{pass}(partial: Partial_{pass}) -> {total}");
        self.module.function(&signature, &format!("{total}({of_four})"));
        let combined = list(reduced, |Reduction { register, accumulator, .. }| {
            let [a, b] = ["a", "b"].map(|name| four(&accumulator.ty, &format!("{name}.of{register}")));
            one(accumulator.combined(&a, &b))
        });
        let signature = format!("combine_totals_{pass}(a: {total}, b: {total}) -> {total}");
        self.module.function(&signature, &format!("{total}({combined})"));
        if self.program.subgroup.is_none() {
            return gradus_shaders::REDUCE_TREE;
        }
        let exchanged = list(reduced, |Reduction { register, accumulator, .. }| {
            accumulator.exchanged(&format!("total.of{register}"), "apart")
        });
        let signature = format!("exchanged_{pass}(total: {total}, apart: u32) -> {total}");
        self.module.function(&signature, &format!("{total}({exchanged})"));
        gradus_shaders::REDUCE_SUBGROUP
    }

    /// Adds how what a pass has reduced becomes known for the row.
    fn add_settle(&mut self, pass: usize, ty: &str, reduced: &[Reduction]) {
        let is_partial_of_four = self.program.lanes == Lanes::Along && self.program.walkers == Walkers::One;
        let mut settle = format!("fn settle_{pass}(total: {ty}_{pass}) {{\n");
        for Reduction { register, accumulator, .. } in reduced {
            let total = format!("total.of{register}");
            let total = if is_partial_of_four { accumulator.of_four(&total) } else { total };
            let _ = writeln!(settle, "    of_row.value{register} = {};", accumulator.settled(&total));
        }
        settle.push('}');
        self.module.add(&settle);
    }
}

/// What is written for each reduction of a pass, or a 0 where there is none.
fn list(reduced: &[Reduction], part: impl Fn(&Reduction) -> String) -> String {
    if reduced.is_empty() { "0u".into() } else { reduced.iter().map(part).collect::<Vec<_>>().join(", ") }
}

/// A skeleton's text for a pass.
fn of_pass(text: &str, pass: usize) -> String {
    text.replace("_N", &format!("_{pass}"))
}
