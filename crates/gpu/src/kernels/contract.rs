//! The general matrix product.

use super::operand::{Operand, Vectors};
use super::reduce;
use crate::affine::{Affine, Space};
use crate::compiler::{Compiler, Shader, linear, workgroups};
use crate::expression::{self, Place, coordinates, loads_at_once, stored_at, to_stored};
use crate::module::{Baked, Module, Slot, Width, stored};
use crate::tuning::Tuning;
use gradus_device::{Access, Trust};
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Register, Store};
use gradus_ir::{DType, Error, Result, View};
use std::fmt::Write;

/// Places of the summed axis that a step of a product by cooperative matrices takes.
const COOPERATIVE_DEPTH: usize = 32;

/// Elements of an operand that a step of a tiled product takes.
const TILE_OF_OPERAND: usize = 2048;

/// Workgroup memory of a product by cooperative matrices.
const COOPERATIVE_BYTES: u32 = 2 * 1280 * 8 + 256 * 16;

/// How a product is cut into the work of workgroups.
#[derive(Clone, Copy)]
enum Tiling {
    /// Four by four results per invocation.
    Direct,
    /// A tile per workgroup of 256, through workgroup memory: `side` by `side` invocations of a team, of which each has
    /// `quads` times four results along either side.
    Tiled { side: usize, quads: usize },
    /// 128 by 128 of f16 per workgroup of four subgroups, as cooperative matrices.
    Cooperative,
    /// So many times eight rows by so many times 32 columns per subgroup of eight, which is a workgroup.
    Subgroup { row_groups: usize, column_groups: usize },
}

impl Tiling {
    /// What suits a device, and so many products of rows and columns, of f16 or not, with so many multiplications
    /// altogether.
    fn of(compiler: &Compiler<'_>, extents: [usize; 3], are_halves: bool, multiplications: usize) -> Tiling {
        let [_, rows, columns] = extents;
        match () {
            () if compiler.tuning.cooperates => {
                let limits = compiler.limits();
                let has_matrices = limits.cooperative_f16
                    && limits.subgroup_size == Some((32, 32))
                    && limits.workgroup_bytes >= COOPERATIVE_BYTES;
                let enough = compiler.tuning.tiles;
                if are_halves && has_matrices && Tiling::suits(128, enough / 4, extents) {
                    return Tiling::Cooperative;
                }
                Tiling::tiled(enough, extents)
            }
            () if compiler.has_teams() => {
                // A tile of twice as many rows is faster by a fifth, and takes half as long again to compile; with twice as many
                // columns it is faster by another fifth, and takes twice as long.
                let most = if multiplications < compiler.tuning.large_product { 4 } else { 8 };
                let row_groups = rows.div_ceil(8).next_power_of_two().min(most);
                let fits = 9 * columns.next_multiple_of(64) <= 10 * columns.next_multiple_of(32);
                let is_wide = fits && row_groups == 8 && multiplications >= compiler.tuning.very_large_product;
                Tiling::Subgroup { row_groups, column_groups: if is_wide { 2 } else { 1 } }
            }
            () => Tiling::Direct,
        }
    }

    /// The largest tile of which there are enough.
    fn tiled(enough: usize, extents: [usize; 3]) -> Tiling {
        let suits = |&(side, quads): &(usize, usize)| Tiling::suits(4 * side * quads, enough, extents);
        let (side, quads) = [(16, 2), (8, 2)].into_iter().find(suits).unwrap_or((8, 1));
        Tiling::Tiled { side, quads }
    }

    /// Whether there are enough tiles, and these have not much more results than there are.
    fn suits(tile: usize, enough: usize, [batches, rows, columns]: [usize; 3]) -> bool {
        let padded = |tile: usize| rows.next_multiple_of(tile) * columns.next_multiple_of(tile);
        batches * padded(tile) / (tile * tile) >= enough && 4 * padded(tile) <= 5 * padded(32)
    }

    /// Rows and columns of a tile.
    fn extents(self) -> (usize, usize) {
        match self {
            Tiling::Direct => (4, 4),
            Tiling::Tiled { side, quads } => (4 * side * quads, 4 * side * quads),
            Tiling::Cooperative => (128, 128),
            Tiling::Subgroup { row_groups, column_groups } => (8 * row_groups, 32 * column_groups),
        }
    }

    /// How many invocations that keep the adapter busy a tile is worth. Eight subgroups are enough for a CPU of a few cores:
    /// sums in parts take memory and another kernel.
    fn invocations(self) -> usize {
        match self {
            Tiling::Direct => 1,
            Tiling::Tiled { .. } | Tiling::Cooperative => 256,
            Tiling::Subgroup { .. } => 16,
        }
    }

    /// How many places of the summed axis are worth a workgroup of their own, and another kernel that sums these up.
    fn shortest(self, tuning: &Tuning, tiles: usize) -> usize {
        match self {
            Tiling::Tiled { .. } | Tiling::Cooperative if tiles > 16 => 4 * tuning.product_segment,
            Tiling::Tiled { .. } | Tiling::Cooperative => tuning.product_segment,
            Tiling::Direct | Tiling::Subgroup { .. } => tuning.segment,
        }
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
        return Err(Error::TooLarge { shape: kernel.space.clone() });
    }
    let dtype = a.dtype();
    let are_halves = a.is_half() && b.is_half();
    let tiling = Tiling::of(compiler, [batches, rows, columns], are_halves, results.saturating_mul(inner));
    let (high, wide) = tiling.extents();
    let tiles = batches * rows.div_ceil(high) * columns.div_ceil(wide);
    let shortest = tiling.shortest(compiler.tuning, tiles);
    let (parts, segment) = reduce::parts(compiler.tuning.busy / tiling.invocations(), tiles, inner, shortest);
    let segment = if parts == 1 { inner } else { segment };
    // Parts are stored as they are; the expression is applied to their sum.
    let partial = (parts > 1).then(|| compiler.add_buffer(dtype, parts * results));

    let mut maps = expression::maps(kernel, &kernel.space);
    let space = Space::simplified(&[&kernel.space], &mut maps);
    let width = match tiling {
        Tiling::Direct => Width::Scalar,
        _ if stores_vectors(&space, &maps, columns) => Width::Vector,
        _ => Width::Scalar,
    };
    let a_vectors = match tiling {
        // Four neighbours for each of eight invocations are 32 rows.
        Tiling::Subgroup { row_groups, .. } if row_groups < 4 && a.vectors() == Vectors::Free => Vectors::No,
        _ => a.vectors(),
    };
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut module = shader.module(width, baked);
        let element = stored(dtype);
        module.add(&format!("alias Element = {element};\nalias Vector = vec4<{element}>;"));
        let sizes = [("batches", batches), ("rows", rows), ("columns", columns), ("inner_size", inner)];
        for (name, size) in sizes.into_iter().chain([("parts", parts)]) {
            let size = module.size(size as i64);
            module.function(&format!("{name}() -> u32"), &size);
        }
        let segment_size = module.size(segment as i64);
        module.function("segment() -> u32", &segment_size);
        if matches!(tiling, Tiling::Tiled { .. } | Tiling::Subgroup { .. }) {
            let product = if dtype.is_float() { "fma(Vector(a), b, c)" } else { "a * b + c" };
            module.function("mad(a: Element, b: Vector, c: Vector) -> Vector", product);
        }
        match tiling {
            Tiling::Direct => {
                a.add_element(&mut module, "a", "row");
                b.add_element(&mut module, "b", "column");
            }
            Tiling::Tiled { side, quads } => {
                module.add(&format!("const SIDE = {side}u;\nconst QUADS = {quads}u;"));
                // Where the number of steps is none that the driver knows, masks cost nothing: it was faster with them.
                let is_known = segment_size.trim_end_matches('u').parse::<u32>().is_ok();
                add_steps(&mut module, [inner, segment], TILE_OF_OPERAND / (4 * side * quads), is_known);
                for (name, operand) in [("a", &a), ("b", &b)] {
                    add_along_k(&mut module, name, operand);
                    operand.add_quad(&mut module, name, operand.vectors(), 4);
                }
            }
            Tiling::Cooperative => {
                // No buffer need have f16: operands may be rounded to it here.
                module.enable("f16");
                module.enable("wgpu_cooperative_matrix");
                add_steps(&mut module, [inner, segment], COOPERATIVE_DEPTH, true);
                for (name, operand) in [("a", &a), ("b", &b)] {
                    add_along_k(&mut module, name, operand);
                    operand.add_halves(&mut module, name);
                }
            }
            Tiling::Subgroup { row_groups, column_groups } => {
                let neighbours = a_vectors == Vectors::Free;
                module.add(&format!("const ROW_GROUPS = {row_groups}u;\nconst COLUMN_GROUPS = {column_groups}u;"));
                module.add(&format!("const A_NEIGHBOURS = {neighbours};"));
                a.add_quad(&mut module, "a", a_vectors, row_groups.min(4));
                b.add_quad(&mut module, "b", b.vectors(), 4);
            }
        }
        let partial = partial.map(|partial| (partial, dtype));
        match (tiling, width) {
            (_, Width::Scalar) if !matches!(tiling, Tiling::Direct) => {
                add_store(&mut module, "store_one", kernel, partial, &space, &maps);
                module.add(STORE_FOUR);
            }
            _ => add_store(&mut module, "store", kernel, partial, &space, &maps),
        }
        let skeleton = match tiling {
            Tiling::Direct => gradus_shaders::MATMUL_DIRECT,
            Tiling::Tiled { .. } => gradus_shaders::MATMUL_TILED,
            Tiling::Cooperative => gradus_shaders::MATMUL_COOPERATIVE,
            Tiling::Subgroup { .. } => gradus_shaders::MATMUL_SUBGROUP,
        };
        shader.finish(module, skeleton)
    };
    let grid = match tiling {
        Tiling::Direct => linear(tiles * parts, compiler.tuning.workgroup),
        _ => workgroups(tiles * parts),
    };
    // Lines and places are cut off at the last one, and tiles are as large as what reads them.
    let trust =
        if matches!(tiling, Tiling::Tiled { .. } | Tiling::Cooperative) { Trust::InBounds } else { Trust::Trusted };
    compiler.launch_of(trust, "matmul", grid, generate)?;
    let Some(partial) = partial else { return Ok(()) };
    if let ([(Instruction::Accumulator, _)], [store]) = (&kernel.expression.instructions[..], &kernel.outputs[..]) {
        let sum = reduce::sum_of_parts(partial, parts, results, dtype, store.buffer);
        return super::compile(compiler, &sum);
    }
    let whole = compiler.add_buffer(dtype, results);
    super::compile(compiler, &reduce::sum_of_parts(partial, parts, results, dtype, whole))?;
    super::compile(compiler, &epilogue(kernel, whole))
}

/// Says whether all segments are equally long, and whether each of them ends with a step, or nothing of the kind.
fn add_steps(module: &mut Module<'_>, [inner, segment]: [usize; 2], depth: usize, says: bool) {
    let are_even = says && inner.is_multiple_of(segment.max(1));
    let are_whole = says && inner.is_multiple_of(depth) && segment.is_multiple_of(depth);
    module.add(&format!("const EVEN_SEGMENTS = {are_even};\nconst WHOLE_STEPS = {are_whole};"));
}

/// Says whether neighbours along the summed axis are neighbours in memory.
fn add_along_k(module: &mut Module<'_>, name: &str, operand: &Operand) {
    module.add(&format!("const {}_ALONG_K = {};", name.to_uppercase(), operand.is_along_k()));
}

/// Stores what there is of four columns, one by one.
const STORE_FOUR: &str = "fn store(part: u32, batch: u32, row: u32, column: u32, sums: Vector) {
    for (var j = 0u; j < 4u && column + j < columns(); j++) {
        store_one(part, batch, row, column + j, sums[j]);
    }
}";

/// Whether four neighbouring columns are stored, and what is done with them is computed, as one vector.
fn stores_vectors(space: &Space, maps: &[Affine], columns: usize) -> bool {
    let last = space.extents.last().copied().unwrap_or(1);
    columns.is_multiple_of(4) && last.is_multiple_of(4) && maps.iter().all(loads_at_once)
}

/// Adds the hook that stores a sum, or a vector of them, and what is computed from it; of a part, the sum itself.
fn add_store(
    module: &mut Module<'_>,
    name: &str,
    kernel: &Kernel,
    partial: Option<(BufferId, DType)>,
    space: &Space,
    maps: &[Affine],
) {
    let width = module.width();
    let outputs: Vec<(BufferId, DType, Register)> = match partial {
        Some((buffer, dtype)) => vec![(buffer, dtype, 0)],
        None => {
            let output = |store: &Store| (store.buffer, kernel.expression.dtype(store.register), store.register);
            kernel.outputs.iter().map(output).collect()
        }
    };
    let mut arrays = Vec::with_capacity(outputs.len());
    for (buffer, dtype, _) in &outputs {
        arrays.push(module.bind(Slot::Plan(*buffer), &stored_at(*dtype, width), Access::ReadWrite));
    }
    let accumulator = if width == Width::Vector { "Vector" } else { "Element" };
    let mut body = format!("fn {name}(part: u32, batch: u32, row: u32, column: u32, accumulator: {accumulator}) {{\n");
    let at = if width == Width::Vector { "i / 4u" } else { "i" };
    if partial.is_some() {
        let _ = writeln!(body, "    let i = ((part * batches() + batch) * rows() + row) * columns() + column;");
        let _ = writeln!(body, "    {}[{at}] = accumulator;\n}}", arrays[0]);
    } else {
        let _ = writeln!(body, "    let i = (batch * rows() + row) * columns() + column;");
        let place = coordinates(module, &mut body, "i", "axis", &space.extents);
        let place = Place { coordinates: &place, flat: Some("i"), extents: &space.extents };
        let needed = expression::needed(kernel, outputs.iter().map(|(.., register)| *register));
        expression::evaluate(module, &mut body, kernel, needed, maps, &place);
        for (array, (_, dtype, register)) in arrays.iter().zip(&outputs) {
            let _ = writeln!(body, "    {array}[{at}] = {};", to_stored(&format!("r{register}"), *dtype));
        }
        body.push('}');
    }
    module.add(&body);
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
