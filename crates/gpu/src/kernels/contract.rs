//! The general matrix product.

use super::reduce;
use crate::affine::{Affine, Space};
use crate::compiler::{Compiler, Shader, linear, workgroups};
use crate::expression::{self, Emit, Place, coordinates, to_stored};
use crate::module::{Baked, Module, Slot, Width, stored};
use gradus_device::Access;
use gradus_ir::plan::{Expression, Family, Instruction, Kernel, Load};
use gradus_ir::{DType, Error, Result, View};
use std::fmt::Write;

/// How a product is cut into the work of workgroups.
#[derive(Clone, Copy)]
enum Tiling {
    /// Four by four results per invocation.
    Direct,
    /// 64 by 64 per workgroup of 256, through workgroup memory.
    Shared,
    /// So many times eight rows by 32 columns per subgroup of eight, which is a workgroup.
    Subgroup { row_groups: usize },
}

impl Tiling {
    /// What suits a device, and a product of so many rows.
    fn of(compiler: &Compiler<'_>, rows: usize) -> Tiling {
        match compiler.limits().subgroup_size {
            _ if compiler.tuning.cooperates => Tiling::Shared,
            Some((8, 8)) => Tiling::Subgroup { row_groups: rows.div_ceil(8).next_power_of_two().min(8) },
            _ => Tiling::Direct,
        }
    }

    /// Rows and columns of a tile.
    fn extents(self) -> (usize, usize) {
        match self {
            Tiling::Direct => (4, 4),
            Tiling::Shared => (64, 64),
            Tiling::Subgroup { row_groups } => (8 * row_groups, 32),
        }
    }

    /// How many invocations that keep the adapter busy a tile is worth. Eight subgroups are enough for a CPU of a few cores:
    /// sums in parts take memory and another kernel.
    fn invocations(self) -> usize {
        match self {
            Tiling::Direct => 1,
            Tiling::Shared => 256,
            Tiling::Subgroup { .. } => 16,
        }
    }
}

/// An operand: an expression of one load, whose axes stand in three groups, each with a flat index.
struct Operand {
    /// The kernel that would compute it.
    kernel: Kernel,
    maps: [Affine; 1],
    space: Space,
}

impl Operand {
    fn new(kernel: &Kernel, expression: &Expression, batch: usize, contracted: usize) -> Result<Operand> {
        let load = expression.instructions.iter().find_map(|(instruction, _)| instruction.load()).unwrap_or_default();
        let shape = kernel.loads[load].view.shape();
        let free = shape.len() - contracted;
        let kernel = Kernel {
            family: Family::Elementwise,
            space: shape.clone(),
            expression: expression.clone(),
            ..kernel.clone()
        };
        let maps = expression::maps(&kernel, &shape);
        let mut maps = <[Affine; 1]>::try_from(maps)
            .map_err(|maps| Error::Backend(format!("an operand of a matrix product with {} loads", maps.len())))?;
        let space = Space::simplified(&[&shape[..batch], &shape[batch..free], &shape[free..]], &mut maps);
        Ok(Operand { kernel, maps, space })
    }

    /// How many indices a group has.
    fn size(&self, group: usize) -> usize {
        self.space.extents[self.space.axes(group)].iter().product()
    }

    /// Whether neighbours along the summed axes are neighbours in memory, and those along the free axes are not.
    fn is_along_k(&self) -> bool {
        let stride = |group: usize| self.space.axes(group).last().map_or(0, |axis| self.maps[0].axes[axis].stride);
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
        let last = self.kernel.expression.instructions.len() - 1;
        expression::evaluate(module, &mut body, &self.kernel, |_| Emit::Compute, &self.maps, &place);
        let _ = write!(body, "    return {};\n}}", to_stored(&format!("r{last}"), dtype));
        module.add(&body);
    }
}

pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    kernel: &Kernel,
    batch: usize,
    contracted: usize,
    operands: &[Expression; 2],
) -> Result<()> {
    let a = Operand::new(kernel, &operands[0], batch, contracted)?;
    let b = Operand::new(kernel, &operands[1], batch, contracted)?;
    let (batches, rows, columns, inner) = (a.size(0), a.size(1), b.size(1), a.size(2));
    let results = batches * rows * columns;
    // Indices and the ends of segments are words.
    if inner > 1 << 31 {
        return Err(Error::TooLarge { shape: a.kernel.space });
    }
    let dtype = operands[0].instructions.last().map_or(DType::F32, |(_, dtype)| *dtype);
    let tiling = Tiling::of(compiler, rows);
    let (height, width) = tiling.extents();
    let tiles = batches * rows.div_ceil(height) * columns.div_ceil(width);
    let (parts, segment) = reduce::parts(compiler.tuning.busy / tiling.invocations(), tiles, inner, reduce::SHORTEST);
    // Parts are stored as they are; the expression is applied to their sum.
    let partial = (parts > 1).then(|| compiler.add_buffer(dtype, parts * results));

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
        match tiling {
            Tiling::Direct => {}
            Tiling::Shared => {
                let (a, b) = (a.is_along_k(), b.is_along_k());
                module.add(&format!("const A_ALONG_K = {a};\nconst B_ALONG_K = {b};"));
            }
            Tiling::Subgroup { row_groups } => module.add(&format!("const ROW_GROUPS = {row_groups}u;")),
        }
        let outputs: Vec<(String, usize, DType)> = match partial {
            Some(partial) => vec![(module.bind(Slot::Plan(partial), element, Access::ReadWrite), 0, dtype)],
            None => (kernel.outputs.iter())
                .map(|store| {
                    let dtype = kernel.expression.dtype(store.register);
                    let array = module.bind(Slot::Plan(store.buffer), stored(dtype), Access::ReadWrite);
                    (array, store.register, dtype)
                })
                .collect(),
        };
        a.add_hook(&mut module, "load_a", "row", dtype);
        b.add_hook(&mut module, "load_b", "column", dtype);
        let mut body = String::from("fn store(part: u32, batch: u32, row: u32, column: u32, accumulator: Element) {\n");
        let position = "(batch * rows() + row) * columns() + column";
        if partial.is_some() {
            let _ = writeln!(body, "    let i = ((part * batches() + batch) * rows() + row) * columns() + column;");
            let _ = writeln!(body, "    {}[i] = accumulator;\n}}", outputs[0].0);
        } else {
            let _ = writeln!(body, "    let i = {position};");
            let place = coordinates(&mut module, &mut body, "i", "axis", &space.extents);
            let place = Place { coordinates: &place, flat: Some("i"), extents: &space.extents };
            let needed = expression::needed(kernel, outputs.iter().map(|(_, register, _)| *register));
            expression::evaluate(&mut module, &mut body, kernel, needed, &maps, &place);
            for (array, register, dtype) in &outputs {
                let _ = writeln!(body, "    {array}[i] = {};", to_stored(&format!("r{register}"), *dtype));
            }
            body.push('}');
        }
        module.add(&body);
        let skeleton = match tiling {
            Tiling::Direct => gradus_shaders::MATMUL_DIRECT,
            Tiling::Shared => gradus_shaders::MATMUL_TILED,
            Tiling::Subgroup { .. } => gradus_shaders::MATMUL_SUBGROUP,
        };
        shader.finish(module, skeleton)
    };
    let grid = match tiling {
        Tiling::Direct => linear(tiles * parts, compiler.tuning.workgroup),
        Tiling::Shared | Tiling::Subgroup { .. } => workgroups(tiles * parts),
    };
    compiler.launch("matmul", grid, generate)?;
    let Some(partial) = partial else { return Ok(()) };
    if let ([(Instruction::Accumulator, _)], [store]) = (&kernel.expression.instructions[..], &kernel.outputs[..]) {
        let sum = reduce::sum_of_parts(partial, parts, results, dtype, store.buffer);
        return super::compile(compiler, &sum);
    }
    let whole = compiler.add_buffer(dtype, results);
    super::compile(compiler, &reduce::sum_of_parts(partial, parts, results, dtype, whole))?;
    super::compile(compiler, &epilogue(kernel, whole))
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
