//! Bytes from the host, widened on the device.

use crate::compiler::{Compiler, Shader, linear};
use crate::module::{Baked, Slot, Width};
use gradus_device::Access;
use gradus_ir::plan::BufferId;
use gradus_ir::{DType, Result};

/// Adds a launch that reads `len` bytes from one buffer and writes as many elements to another.
pub(crate) fn unpack(
    compiler: &mut Compiler<'_>,
    bytes: BufferId,
    output: BufferId,
    dtype: DType,
    len: usize,
) -> Result<()> {
    let words = len.div_ceil(4);
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut module = shader.module(Width::Vector, baked);
        let words_array = module.bind(Slot::Plan(bytes), "u32", Access::Read);
        let stored = crate::expression::stored_at(dtype, Width::Vector);
        let array = module.bind(Slot::Plan(output), &stored, Access::ReadWrite);
        let size = module.count(words);
        module.function("size() -> u32", &size);
        module.function("word(i: u32) -> u32", &format!("{words_array}[i]"));
        // Bools are words of 0 and 1, whatever their bytes were.
        let values = if dtype == DType::Bool { "min(bytes, Word(1u))" } else { "bytes" };
        module.add(&format!("fn store(i: u32, bytes: Word) {{\n    {array}[i] = {stored}({values});\n}}"));
        shader.finish(module, gradus_shaders::UNPACK)
    };
    compiler.launch("unpack", linear(words, compiler.tuning.workgroup), generate)
}
