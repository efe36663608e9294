//! Element-wise kernels.

use crate::affine::{Affine, Space};
use crate::compiler::{Compiler, Shader, linear};
use crate::expression::{self, Place, loads_at_once, loads_vectors, stored_at, to_stored};
use crate::module::{Baked, Slot, Width};
use gradus_device::Access;
use gradus_ir::plan::{Instruction, Kernel};
use gradus_ir::{DType, Result};
use std::fmt::Write;

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel) -> Result<()> {
    let Mapped { space, maps, width } = Mapped::of(kernel);
    let invocations = invocations(kernel, width);
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut module = shader.module(width, baked);
        let outputs: Vec<(String, DType, usize)> = kernel
            .outputs
            .iter()
            .map(|store| {
                let dtype = kernel.expression.instructions[store.register].1;
                let array = module.bind(Slot::Plan(store.buffer), &stored_at(dtype, width), Access::ReadWrite);
                (array, dtype, store.register)
            })
            .collect();
        let size = module.count(invocations);
        module.function("size() -> u32", &size);
        let mut body = String::from("fn element(i: u32) {\n");
        let flat = if width == Width::Vector { "first" } else { "i" };
        if width == Width::Vector {
            body.push_str("    let first = 4u * i;\n");
        }
        let coordinates = expression::coordinates(&mut module, &mut body, flat, "axis", &space.extents);
        let place = Place { coordinates: &coordinates, flat: Some(flat), extents: &space.extents };
        let needed = expression::needed(kernel, outputs.iter().map(|(.., register)| *register));
        expression::evaluate(&mut module, &mut body, kernel, needed, &maps, &place);
        for (array, dtype, register) in &outputs {
            let _ = writeln!(body, "    {array}[i] = {};", to_stored(&format!("r{register}"), *dtype));
        }
        body.push('}');
        module.add(&body);
        shader.finish(module, gradus_shaders::ELEMENTWISE)
    };
    compiler.launch(kernel.family_name(), linear(invocations, compiler.tuning.workgroup), generate)
}

/// A kernel's space, how it finds what it reads, and how much at once.
pub(super) struct Mapped {
    pub(super) space: Space,
    pub(super) maps: Vec<Affine>,
    pub(super) width: Width,
}

impl Mapped {
    pub(super) fn of(kernel: &Kernel) -> Mapped {
        let mut maps = expression::maps(kernel, &kernel.space);
        let space = Space::simplified(&[&kernel.space], &mut maps);
        let width = width(kernel, &space, &maps);
        Mapped { space, maps, width }
    }
}

/// How many invocations have work.
pub(super) fn invocations(kernel: &Kernel, width: Width) -> usize {
    let elements = kernel.space.numel();
    if width == Width::Vector { elements.div_ceil(4) } else { elements }
}

/// Vectors where every access along the last axis is one, or stands still, or is worth four accesses because others are.
fn width(kernel: &Kernel, space: &Space, maps: &[Affine]) -> Width {
    let gathers = kernel.expression.instructions.iter().any(|(i, _)| matches!(i, Instruction::Gather { .. }));
    let fits = match space.extents[..] {
        [] => false,
        // The last vector may reach past the end: buffers are padded to whole vectors.
        [_] => maps.iter().all(loads_at_once),
        [.., last] => last % 4 == 0,
    };
    if fits && !gathers && maps.iter().any(loads_vectors) | maps.is_empty() { Width::Vector } else { Width::Scalar }
}
