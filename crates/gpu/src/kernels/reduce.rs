//! Reductions along the trailing axes.

use super::only_output;
use crate::affine::{Affine, Space};
use crate::compiler::{Compiler, Shader, linear, workgroups};
use crate::expression::{self, Place};
use crate::module::{Baked, Module, Slot, Width, stored};
use gradus_device::Access;
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Store};
use gradus_ir::{DType, Error, Result, Shape, View, ViewAxis};
use std::fmt::Write;

/// Elements of a result that are folded before the partial result joins the others.
const BLOCK: usize = 128;
/// Elements that one invocation folds at most: software adapters end loops after 65,535 steps.
const LONGEST: usize = 32768;
/// Elements that are worth an invocation of their own.
pub(super) const SHORTEST: usize = 256;
/// Elements that are worth a workgroup of their own.
const SHORTEST_ROW: usize = 4096;
/// Rows of neighbours from this length on are worth a workgroup.
const WORKGROUP_ROW: usize = 64;

/// A reduction, or one of the two that a long one is made of.
#[derive(Clone, Copy)]
struct Reduction<'k> {
    kernel: &'k Kernel,
    op: ReduceOp,
    axes: usize,
    output: BufferId,
    /// Each result in so many parts, parts first.
    parts: usize,
    /// How many elements a part has.
    segment: usize,
    /// Whether a workgroup computes each part, or an invocation.
    by_workgroup: bool,
    /// Where the parts of an argmax have left their indices: `(buffer, parts, results)`.
    candidates: Option<(BufferId, usize, usize)>,
}

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel, op: ReduceOp, axes: usize) -> Result<()> {
    let output = only_output(kernel)?.buffer;
    let split = kernel.space.len() - axes;
    let outer: usize = kernel.space[..split].iter().product();
    let inner: usize = kernel.space[split..].iter().product();
    // Indices and the ends of segments are words.
    if inner > 1 << 31 {
        return Err(Error::TooLarge { shape: kernel.space.clone() });
    }
    let by_workgroup = compiler.tuning.cooperates && inner >= WORKGROUP_ROW && reads_rows(kernel, split);
    let (parts, segment) = match by_workgroup {
        true => parts(compiler.tuning.busy / compiler.tuning.workgroup as usize, outer, inner, SHORTEST_ROW),
        false => parts(compiler.tuning.busy, outer, inner, SHORTEST),
    };
    let whole = Reduction { kernel, op, axes, output, parts, segment, by_workgroup, candidates: None };
    if parts == 1 {
        return whole.compile(compiler);
    }
    let dtype = compiler.buffers[output].dtype;
    let partial = compiler.add_buffer(dtype, parts * outer);
    Reduction { output: partial, ..whole }.compile(compiler)?;
    if op.gives_index() {
        let candidates = Some((partial, parts, outer));
        let second = Reduction { parts: 1, segment: parts, by_workgroup: false, candidates, ..whole };
        return second.compile(compiler);
    }
    compile(compiler, &sum_of_parts(op, partial, parts, outer, dtype, output), op, 1)
}

/// The kernel that combines the parts `[parts, results]` of a buffer.
pub(super) fn sum_of_parts(
    op: ReduceOp,
    partial: BufferId,
    parts: usize,
    results: usize,
    dtype: DType,
    output: BufferId,
) -> Kernel {
    let axis = |extent: usize, stride: usize| ViewAxis { extent, stride: stride as isize, guard: None };
    let view = View { axes: [axis(results, 1), axis(parts, results)].as_slice().into(), offset: 0 };
    Kernel {
        family: Family::Reduce { op, axes: 1 },
        space: Shape::new(&[results, parts]),
        loads: vec![Load { buffer: partial, view }],
        expression: Expression { instructions: vec![(Instruction::Load(0), dtype)] },
        outputs: vec![Store { buffer: output, register: 0 }],
    }
}

/// Into how many parts to cut each result, and their length.
pub(super) fn parts(busy: usize, results: usize, inner: usize, shortest: usize) -> (usize, usize) {
    let wanted = busy.div_ceil(results.max(1));
    let segment = inner.div_ceil(wanted.max(1)).clamp(shortest, LONGEST).next_multiple_of(BLOCK);
    (inner.div_ceil(segment).max(1), segment)
}

impl Reduction<'_> {
    fn compile(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let Reduction { kernel, op, parts, segment, by_workgroup, .. } = *self;
        let split = kernel.space.len() - self.axes;
        let (outer_axes, inner_axes) = kernel.space.split_at(split);
        let mut maps = expression::maps(kernel, &kernel.space);
        let space = Space::simplified(&[outer_axes, inner_axes], &mut maps);
        let outer: usize = outer_axes.iter().product();
        let inner = match self.candidates {
            Some((_, parts, _)) => parts,
            None => inner_axes.iter().product(),
        };
        let last = kernel.expression.instructions.len() - 1;
        let dtype = kernel.expression.instructions[last].1;
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = Module::new(Width::Scalar, baked);
            module.add(&accumulator(op, dtype));
            let array = module.bind(
                Slot::Plan(self.output),
                if op.gives_index() { "i32" } else { stored(dtype) },
                Access::ReadWrite,
            );
            let result = if op.gives_index() { "i32(a.index)" } else { "a" };
            module.add(&format!("fn store(i: u32, a: Accumulator) {{\n    {array}[i] = {result};\n}}"));
            module.add(&format!("const BLOCK = {BLOCK}u;"));
            for (name, value) in [("outer_size", outer), ("inner_size", inner), ("parts", parts), ("segment", segment)]
            {
                let value = module.size(value as i64);
                module.function(&format!("{name}() -> u32"), &value);
            }
            let candidate = self.candidates.map(|(buffer, _, results)| {
                let array = module.bind(Slot::Plan(buffer), "i32", Access::Read);
                let results = module.size(results as i64);
                format!("u32({array}[part * {results} + outer])")
            });
            let mut body = match candidate {
                None => "fn fold(a: Accumulator, outer: u32, inner: u32) -> Accumulator {\n".to_string(),
                Some(index) => format!(
                    "fn fold(a: Accumulator, outer: u32, part: u32) -> Accumulator {{\n    let inner = {index};\n"
                ),
            };
            let extents = [&space.extents[space.axes(0)], &space.extents[space.axes(1)]];
            let mut coordinates = expression::coordinates(&mut module, &mut body, "outer", "outer", extents[0]);
            coordinates.extend(expression::coordinates(&mut module, &mut body, "inner", "inner", extents[1]));
            let place = Place { coordinates: &coordinates, flat: None, extents: &[] };
            expression::evaluate(&mut module, &mut body, kernel, last, &maps, &place);
            let _ = match op.gives_index() {
                true => writeln!(body, "    return better(a, Best(r{last}, inner));\n}}"),
                false => writeln!(body, "    return combine(a, r{last});\n}}"),
            };
            module.add(&body);
            let skeleton = if by_workgroup { gradus_shaders::REDUCE_WORKGROUP } else { gradus_shaders::REDUCE_SERIAL };
            shader.finish(module, skeleton)
        };
        let grid = match by_workgroup {
            true => workgroups(outer * parts),
            false => linear(outer * parts, compiler.tuning.workgroup),
        };
        compiler.launch(op.name(), grid, generate)
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

/// The accumulator's type, its identity, and how two of them combine.
fn accumulator(op: ReduceOp, dtype: DType) -> String {
    let element = stored(dtype);
    // WGSL has no literal for infinity.
    let (lowest, highest) = match dtype {
        DType::I32 => ("i32(-2147483648)", "2147483647i"),
        DType::U32 | DType::Bool => ("0u", "0xffffffffu"),
        DType::F32 | DType::F64 => ("bitcast<f32>(0xff800000u)", "bitcast<f32>(0x7f800000u)"),
    };
    let (identity, combined) = match op {
        ReduceOp::Sum => (format!("{element}()"), "a + b".to_string()),
        ReduceOp::Prod => (format!("{element}(1)"), "a * b".to_string()),
        ReduceOp::Max if dtype.is_float() => (lowest.into(), "max_nan(a, b)".into()),
        ReduceOp::Min if dtype.is_float() => (highest.into(), "min_nan(a, b)".into()),
        ReduceOp::Max => (lowest.into(), "max(a, b)".into()),
        ReduceOp::Min => (highest.into(), "min(a, b)".into()),
        ReduceOp::ArgMax | ReduceOp::ArgMin => {
            let sign = if op == ReduceOp::ArgMax { ">" } else { "<" };
            let nan = if dtype.is_float() { " || (is_nan(x) && !is_nan(y))" } else { "" };
            return format!(
                "alias Element = {element};\nalias Accumulator = Best;\n\
                 fn beats(x: Element, y: Element) -> bool {{\n    return x {sign} y{nan};\n}}\n\
                 fn identity() -> Accumulator {{\n    return Best(Element(), NOWHERE);\n}}\n\
                 fn combine(a: Accumulator, b: Accumulator) -> Accumulator {{\n    return better(a, b);\n}}"
            );
        }
    };
    format!(
        "alias Accumulator = {element};\nfn identity() -> Accumulator {{\n    return {identity};\n}}\n\
         fn combine(a: Accumulator, b: Accumulator) -> Accumulator {{\n    return {combined};\n}}"
    )
}
