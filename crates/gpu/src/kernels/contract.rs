//! The general matrix product.

use super::{only_output, reduce};
use crate::affine::{Affine, Space};
use crate::compiler::{Compiler, Shader, linear, workgroups};
use crate::expression::{self, Emitter, Place, coordinates, to_stored};
use crate::module::{Baked, Module, Slot, Width, stored};
use gradus_device::Access;
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::{Family, Instruction, Kernel, Load};
use gradus_ir::{DType, Error, Result, View};
use std::fmt::Write;

/// An operand: its axes in three groups, each with a flat index.
struct Operand {
    load: Load,
    map: Affine,
    space: Space,
}

impl Operand {
    fn new(load: &Load, batch: usize, contracted: usize) -> Operand {
        let shape = load.view.shape();
        let free = shape.len() - contracted;
        let mut maps = [Affine::of(&load.view)];
        let space = Space::simplified(&[&shape[..batch], &shape[batch..free], &shape[free..]], &mut maps);
        let [map] = maps;
        Operand { load: load.clone(), map, space }
    }

    /// How many indices a group has.
    fn size(&self, group: usize) -> usize {
        self.space.extents[self.space.axes(group)].iter().product()
    }

    /// Whether neighbours along the summed axes are neighbours in memory, and those along the free axes are not.
    fn is_along_k(&self) -> bool {
        let stride = |group: usize| self.space.axes(group).last().map_or(0, |axis| self.map.axes[axis].stride);
        stride(2) == 1 || stride(1).abs() != 1
    }

    /// Adds the hook that loads an element.
    fn add_hook(&self, module: &mut Module<'_>, name: &str, line: &str, dtype: DType) {
        let element = stored(dtype);
        let mut body = format!("fn {name}(batch: u32, {line}: u32, k: u32) -> {element} {{\n");
        let mut place = Vec::new();
        for (group, flat) in ["batch", line, "k"].into_iter().enumerate() {
            let extents = &self.space.extents[self.space.axes(group)];
            place.extend(coordinates(module, &mut body, flat, flat, extents));
        }
        let place = Place { coordinates: &place, flat: None, extents: &[] };
        let value = Emitter::new(module, &mut body, 0).stored_element(self.load.buffer, dtype, &self.map, &place);
        let _ = write!(body, "    return {value};\n}}");
        module.add(&body);
    }
}

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel, batch: usize, contracted: usize) -> Result<()> {
    let store = only_output(kernel)?;
    let a = Operand::new(&kernel.loads[0], batch, contracted);
    let b = Operand::new(&kernel.loads[1], batch, contracted);
    let (batches, rows, columns, inner) = (a.size(0), a.size(1), b.size(1), a.size(2));
    let results = batches * rows * columns;
    // Indices and the ends of segments are words.
    if inner > 1 << 31 {
        return Err(Error::TooLarge { shape: kernel.loads[0].view.shape() });
    }
    let dtype = compiler.buffers[kernel.loads[0].buffer].dtype;
    let tiled = compiler.tuning.cooperates;
    let (height, width) = if tiled { (64, 64) } else { (4, 4) };
    let tiles = batches * rows.div_ceil(height) * columns.div_ceil(width);
    // A workgroup of the tiled kernel is 256 invocations.
    let busy = if tiled { compiler.tuning.busy / 256 } else { compiler.tuning.busy };
    let (parts, segment) = reduce::parts(busy, tiles, inner, reduce::SHORTEST);
    // Parts are stored as they are; the expression is applied to their sum.
    let target = if parts > 1 { compiler.add_buffer(dtype, parts * results) } else { store.buffer };

    let mut maps = expression::maps(kernel, &kernel.space);
    let space = Space::simplified(&[&kernel.space], &mut maps);
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut module = Module::new(Width::Scalar, baked);
        let element = stored(dtype);
        module.add(&format!("alias Element = {element};\nalias Vector = vec4<{element}>;"));
        let sizes = [("batches", batches), ("rows", rows), ("columns", columns), ("inner_size", inner)];
        for (name, size) in sizes.into_iter().chain([("parts", parts), ("segment", segment)]) {
            let size = module.size(size as i64);
            module.function(&format!("{name}() -> u32"), &size);
        }
        if tiled {
            let (a, b) = (a.is_along_k(), b.is_along_k());
            module.add(&format!("const A_ALONG_K = {a};\nconst B_ALONG_K = {b};"));
        }
        let stored_dtype = compiler_dtype(kernel, parts, dtype, store.register);
        let array = module.bind(Slot::Plan(target), stored(stored_dtype), Access::ReadWrite);
        a.add_hook(&mut module, "load_a", "row", dtype);
        b.add_hook(&mut module, "load_b", "column", dtype);
        let mut body = String::from("fn store(part: u32, batch: u32, row: u32, column: u32, accumulator: Element) {\n");
        let position = "(batch * rows() + row) * columns() + column";
        if parts > 1 {
            let _ = writeln!(body, "    let i = ((part * batches() + batch) * rows() + row) * columns() + column;");
            let _ = writeln!(body, "    {array}[i] = accumulator;\n}}");
        } else {
            let _ = writeln!(body, "    let i = {position};");
            let place = coordinates(&mut module, &mut body, "i", "axis", &space.extents);
            let place = Place { coordinates: &place, flat: Some("i"), extents: &space.extents };
            expression::evaluate(&mut module, &mut body, kernel, store.register, &maps, &place);
            let _ = writeln!(body, "    {array}[i] = {};\n}}", to_stored(store.register, stored_dtype));
        }
        module.add(&body);
        let skeleton = if tiled { gradus_shaders::MATMUL_TILED } else { gradus_shaders::MATMUL_DIRECT };
        shader.finish(module, skeleton)
    };
    let grid = if tiled { workgroups(tiles * parts) } else { linear(tiles * parts, compiler.tuning.workgroup) };
    compiler.launch("matmul", grid, generate)?;
    if parts == 1 {
        return Ok(());
    }
    if let [(Instruction::Accumulator, _)] = kernel.expression.instructions[..] {
        let sum = reduce::sum_of_parts(ReduceOp::Sum, target, parts, results, dtype, store.buffer);
        return super::compile(compiler, &sum);
    }
    let whole = compiler.add_buffer(dtype, results);
    let sum = reduce::sum_of_parts(ReduceOp::Sum, target, parts, results, dtype, whole);
    super::compile(compiler, &sum)?;
    super::compile(compiler, &epilogue(kernel, whole))
}

fn compiler_dtype(kernel: &Kernel, parts: usize, dtype: DType, register: usize) -> DType {
    if parts > 1 { dtype } else { kernel.expression.instructions[register].1 }
}

/// The kernel that applies a product's expression to its sums.
fn epilogue(kernel: &Kernel, sums: usize) -> Kernel {
    let mut kernel = kernel.clone();
    kernel.family = Family::Elementwise;
    kernel.loads.push(Load { buffer: sums, view: View::contiguous(&kernel.space) });
    let load = kernel.loads.len() - 1;
    for (instruction, _) in &mut kernel.expression.instructions {
        if *instruction == Instruction::Accumulator {
            *instruction = Instruction::Load(load);
        }
    }
    kernel
}
