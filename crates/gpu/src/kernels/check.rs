//! Checks of indices: what a gather or scatter is about to use, compared with the axis that it indexes.

use crate::affine::Space;
use crate::compiler::{Compiler, Shader, linear};
use crate::expression::{self, Place};
use crate::module::{Baked, Slot, Width};
use gradus_device::Access;
use gradus_ir::Result;
use gradus_ir::plan::{Kernel, Register};
use std::fmt::Write;

/// Adds a launch that leaves in word `word` of the status the largest index, as bits, that is `extent` or more. (A
/// negative one is larger than any extent.)
pub(crate) fn check(
    compiler: &mut Compiler<'_>,
    kernel: &Kernel,
    index: Register,
    extent: usize,
    word: usize,
) -> Result<()> {
    let mut maps = expression::maps(kernel, &kernel.space);
    let space = Space::simplified(&[&kernel.space], &mut maps);
    let elements = kernel.space.numel();
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut module = shader.module(Width::Scalar, baked);
        let status = module.bind(Slot::Status, "", Access::ReadWrite);
        let size = module.count(elements);
        module.function("size() -> u32", &size);
        let mut body = String::from("fn element(i: u32) {\n");
        let coordinates = expression::coordinates(&mut module, &mut body, "i", "axis", &space.extents);
        let place = Place { coordinates: &coordinates, flat: Some("i"), extents: &space.extents };
        let needed = expression::needed(kernel, [index]);
        expression::evaluate(&mut module, &mut body, kernel, needed, &maps, &place);
        let (extent, word) = (module.size(extent as i64), module.size(word as i64));
        let _ = writeln!(body, "    let found = u32(r{index});");
        let _ = writeln!(body, "    if found >= {extent} {{\n        atomicMax(&{status}[{word}], found);\n    }}\n}}");
        module.add(&body);
        shader.finish(module, gradus_shaders::ELEMENTWISE)
    };
    compiler.launch("check", linear(elements, compiler.tuning.workgroup), generate)
}
