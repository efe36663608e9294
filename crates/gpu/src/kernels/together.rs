//! Element-wise kernels of one structure in one launch: what an optimiser does to many small tensors.

use super::elementwise::{Mapped, invocations};
use crate::compiler::{Compiler, Shader, workgroups};
use crate::expression::{self, Emit, Place, stored_at, to_stored};
use crate::module::{Baked, Module, Slot, Width, alias};
use gradus_device::Access;
use gradus_ir::Result;
use gradus_ir::op::UnaryOp;
use gradus_ir::plan::{BufferId, Family, Instruction, Kernel, Register};
use std::collections::HashSet;
use std::fmt::Write;

/// Buffers that one launch binds at most, where adapters allow as many: the more, the longer it takes to encode and to compile.
const MOST_BUFFERS: usize = 64;

/// How many of the first of these kernels are one launch: one, or as many as overwrite inputs of the plan by the same
/// expression and do not wait for each other. (Were others launched together, more would be alive at once.)
pub(crate) fn together(compiler: &Compiler<'_>, kernels: &[Kernel]) -> usize {
    let limits = compiler.limits();
    let (mut read, mut written): (HashSet<BufferId>, HashSet<BufferId>) = Default::default();
    let (mut words, mut width) = (0, None);
    let fits = |kernel: &&Kernel| {
        if !updates(compiler, kernel) || !is_like(&kernels[0], kernel) {
            return false;
        }
        words += most_words(kernel);
        let own = Mapped::of(kernel).width;
        let waits = kernel.loads.iter().any(|load| written.contains(&load.buffer))
            || kernel.outputs.iter().any(|store| read.contains(&store.buffer) || written.contains(&store.buffer));
        read.extend(kernel.loads.iter().map(|load| load.buffer));
        written.extend(kernel.outputs.iter().map(|store| store.buffer));
        let buffers = read.union(&written).count();
        !waits
            && *width.get_or_insert(own) == own
            && words <= limits.parameter_words
            && buffers <= limits.storage_buffers.min(MOST_BUFFERS)
    };
    kernels.iter().take_while(fits).count().max(1)
}

/// Whether a kernel writes over inputs of the plan alone, and computes nothing that must know where it stands.
fn updates(compiler: &Compiler<'_>, kernel: &Kernel) -> bool {
    let stands_alone = |(instruction, _): &(Instruction, _)| match instruction {
        Instruction::Gather { .. } | Instruction::Index { .. } => false,
        Instruction::Unary(op, _) => !matches!(op, UnaryOp::Sin | UnaryOp::Cos | UnaryOp::Tan),
        _ => true,
    };
    kernel.family == Family::Elementwise
        && kernel.space.numel() > 0
        && kernel.outputs.iter().all(|store| compiler.buffers[store.buffer].input.is_some())
        && kernel.expression.instructions.iter().all(stands_alone)
}

/// Whether two kernels compute the same of arrays and numbers of their own.
fn is_like(a: &Kernel, b: &Kernel) -> bool {
    let same = |((a, of_a), (b, of_b)): (&(Instruction, _), &(Instruction, _))| {
        let both_own = match (a, b) {
            (Instruction::Scalar(_), Instruction::Scalar(_)) | (Instruction::Random(_), Instruction::Random(_)) => true,
            _ => a == b,
        };
        both_own && of_a == of_b
    };
    // Which of its arrays are one.
    let pattern = |kernel: &Kernel| -> Vec<Option<usize>> {
        let buffers =
            kernel.loads.iter().map(|load| load.buffer).chain(kernel.outputs.iter().map(|store| store.buffer));
        buffers.map(|buffer| kernel.loads.iter().position(|load| load.buffer == buffer)).collect()
    };
    a.expression.instructions.len() == b.expression.instructions.len()
        && a.outputs.len() == b.outputs.len()
        && a.expression.instructions.iter().zip(&b.expression.instructions).all(same)
        && a.outputs.iter().zip(&b.outputs).all(|(a, b)| a.register == b.register)
        && a.loads.len() == b.loads.len()
        && pattern(a) == pattern(b)
}

/// At most so many words are passed for a kernel: its numbers, where it begins and ends, and what its views look like.
fn most_words(kernel: &Kernel) -> usize {
    let numbers = kernel.expression.instructions.iter().map(|(instruction, _)| match instruction {
        Instruction::Scalar(_) => 1,
        Instruction::Random(_) => 2,
        _ => 0,
    });
    let rank = kernel.space.len();
    let views: usize = kernel.loads.iter().map(|load| 1 + 4 * load.view.axes.len()).sum();
    numbers.sum::<usize>() + 2 + rank + views
}

/// Adds one launch for kernels that may be [`together`].
pub(crate) fn compile(compiler: &mut Compiler<'_>, kernels: &[Kernel]) -> Result<()> {
    let mapped: Vec<Mapped> = kernels.iter().map(Mapped::of).collect();
    let width = mapped[0].width;
    let workgroup = compiler.tuning.workgroup as usize;
    let counts: Vec<usize> = kernels.iter().map(|kernel| invocations(kernel, width)).collect();
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut generator = Generator { kernels, mapped: &mapped, module: shader.module(width, baked) };
        let arrays = generator.outputs();
        generator.add_members(&counts, workgroup);
        generator.add_element(&arrays);
        shader.finish(generator.module, gradus_shaders::ELEMENTWISE_TOGETHER)
    };
    let total = counts.iter().map(|count| count.div_ceil(workgroup)).sum();
    compiler.launch(kernels[0].family_name(), workgroups(total), generate)
}

struct Generator<'g, 'm> {
    kernels: &'g [Kernel],
    mapped: &'g [Mapped],
    module: Module<'m>,
}

impl Generator<'_, '_> {
    /// Binds what is written; gives the arrays of each kernel.
    fn outputs(&mut self) -> Vec<Vec<String>> {
        let mut arrays = Vec::with_capacity(self.kernels.len());
        for kernel in self.kernels {
            let mut own = Vec::with_capacity(kernel.outputs.len());
            for store in &kernel.outputs {
                let element = stored_at(kernel.expression.dtype(store.register), self.module.width());
                own.push(self.module.bind(Slot::Plan(store.buffer), &element, Access::ReadWrite));
            }
            arrays.push(own);
        }
        arrays
    }

    /// Adds which workgroups work for which kernel.
    fn add_members(&mut self, counts: &[usize], workgroup: usize) {
        let mut text = String::from("fn member_of(group: u32) -> Member {\n");
        let mut begin = 0;
        for (number, &count) in counts.iter().enumerate() {
            let first = self.module.size(begin as i64);
            let size = self.module.count(count);
            let _ = match number {
                0 => writeln!(text, "    var member = Member(0u, {first}, {size});"),
                _ => writeln!(
                    text,
                    "    if group >= {first} {{\n        member = Member({number}u, {first}, {size});\n    }}"
                ),
            };
            begin += count.div_ceil(workgroup);
        }
        text.push_str("    return member;\n}");
        self.module.add(&text);
    }

    /// Adds what is done with an element: each kernel's own operands, the same for all, and each kernel's own results.
    fn add_element(&mut self, arrays: &[Vec<String>]) {
        let first = &self.kernels[0];
        let instructions = &first.expression.instructions;
        let needed = first.expression.needed(first.outputs.iter().map(|store| store.register));
        let is_own = |register: Register| {
            use Instruction::{Iota, Load, Random, Scalar};
            needed[register] && matches!(instructions[register].0, Load(_) | Scalar(_) | Iota(_) | Random(_))
        };
        let own: Vec<Register> = (0..instructions.len()).filter(|&register| is_own(register)).collect();
        let mut body = String::from("fn element(member: u32, i: u32) {\n");
        let flat = if self.module.width() == Width::Vector { "first" } else { "i" };
        if self.module.width() == Width::Vector {
            body.push_str("    let first = 4u * i;\n");
        }
        for &register in &own {
            let _ = writeln!(body, "    var own{register}: {};", alias(instructions[register].1));
        }
        body.push_str("    switch member {\n");
        for (number, (kernel, mapped)) in self.kernels.iter().zip(self.mapped).enumerate() {
            let _ = writeln!(body, "    {} {{", self.case(number));
            let extents = &mapped.space.extents;
            let coordinates = expression::coordinates(&mut self.module, &mut body, flat, "axis", extents);
            let place = Place { coordinates: &coordinates, flat: Some(flat), extents };
            let emit = |register: Register| if is_own(register) { Emit::Compute } else { Emit::Skip };
            expression::evaluate(&mut self.module, &mut body, kernel, emit, &mapped.maps, &place);
            for register in &own {
                let _ = writeln!(body, "    own{register} = r{register};");
            }
            body.push_str("    }\n");
        }
        body.push_str("    }\n");
        let emit = |register: Register| match needed[register] {
            false => Emit::Skip,
            true if is_own(register) => Emit::Given(format!("own{register}")),
            true => Emit::Compute,
        };
        let place = Place { coordinates: &[], flat: Some(flat), extents: &[] };
        expression::evaluate(&mut self.module, &mut body, first, emit, &self.mapped[0].maps, &place);
        body.push_str("    switch member {\n");
        for (number, arrays) in arrays.iter().enumerate() {
            let _ = writeln!(body, "    {} {{", self.case(number));
            for (array, store) in arrays.iter().zip(&first.outputs) {
                let value = to_stored(&format!("r{}", store.register), instructions[store.register].1);
                let _ = writeln!(body, "    {array}[i] = {value};");
            }
            body.push_str("    }\n");
        }
        body.push_str("    }\n}");
        self.module.add(&body);
    }

    fn case(&self, number: usize) -> String {
        if number + 1 == self.kernels.len() { "default:".into() } else { format!("case {number}u:") }
    }
}
