//! Scatter.

use super::lines::Lines;
use super::{only_output, sort};
use crate::affine::{Affine, Space, Step};
use crate::compiler::{Compiler, Shader, linear};
use crate::expression::{Emitter, Place, coordinates};
use crate::module::{Baked, Parameter, Slot, Width, stored};
use gradus_device::Access;
use gradus_ir::op::ScatterMode;
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Store};
use gradus_ir::{DType, Error, Result, View};

/// Updates of a line that one launch looks at: software adapters end loops after 65,535 steps.
const LINE: usize = 32768;

/// The updates of each line in the order of their indices.
struct Order {
    /// For each line and place, the update that stands there.
    updates: BufferId,
    /// For each line and index, and the one after the last, the place of its first update.
    begin: BufferId,
}

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel, mode: ScatterMode, axis: usize) -> Result<()> {
    let [(Instruction::Accumulator, dtype)] = kernel.expression.instructions[..] else {
        return Err(Error::Backend("a scatter with an epilogue".into()));
    };
    let output = only_output(kernel)?.buffer;
    let [base, index, updates] = &kernel.loads[..] else {
        return Err(Error::Backend("a scatter needs base, index and updates".into()));
    };
    if base.buffer != output {
        super::elementwise::compile(compiler, &copy(base, output, dtype))?;
    }
    let shape = base.view.shape();
    let line = kernel.space[axis];
    let looks = shape.numel().saturating_mul(line);
    let order = order(compiler, index, axis, shape[axis], looks)?;
    let groups = [&kernel.space[..axis], &[line], &kernel.space[axis + 1..]];
    let mut maps = [Affine::of(&index.view), Affine::of(&updates.view)];
    // The walk along the line must stay an axis of its own, also if it is one step.
    let walks: Vec<Step> = maps.iter_mut().map(|map| map.axes.remove(axis)).collect();
    let space = Space::simplified(&[groups[0], groups[2]], &mut maps);
    for (map, walk) in maps.iter_mut().zip(walks) {
        map.axes.insert(space.groups[0], walk);
    }
    let index_dtype = compiler.buffers[index.buffer].dtype;
    let inner: usize = groups[2].iter().product();
    let outer_extents = &space.extents[space.axes(0)];
    let inner_extents = &space.extents[space.axes(1)];

    for first in (0..line).step_by(LINE) {
        let last = line.min(first + LINE);
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            let element = stored(dtype);
            let array = module.bind(Slot::Plan(output), element, Access::ReadWrite);
            let size = module.count(shape.numel());
            module.function("size() -> u32", &size);
            for (name, value) in [("first", first), ("last", last)] {
                let word = module.parameter(Parameter::Word(value as u32));
                module.function(&format!("{name}() -> u32"), &word);
            }
            let (inner, extent) = (module.size(inner as i64), module.size(shape[axis] as i64));
            module.function("position(i: u32) -> u32", &format!("(i / {inner}) % {extent}"));
            module.function(&format!("current(i: u32) -> {element}"), &format!("{array}[i]"));
            module.add(&format!("fn store(i: u32, element: {element}) {{\n    {array}[i] = element;\n}}"));
            let sum = if mode == ScatterMode::Add { "element + change" } else { "change" };
            module.function(&format!("combine(element: {element}, change: {element}) -> {element}"), sum);
            let mut operands = vec![("update", updates, &maps[1])];
            match &order {
                None => operands.push(("index", index, &maps[0])),
                Some(order) => {
                    let begin = module.bind(Slot::Plan(order.begin), "u32", Access::Read);
                    let at = format!("{begin}[i / {inner} / {extent} * ({extent} + 1u) + position(i)");
                    module.function("begin(i: u32) -> u32", &format!("{at}]"));
                    module.function("end(i: u32) -> u32", &format!("{at} + 1u]"));
                    let ordered = module.bind(Slot::Plan(order.updates), stored(DType::I32), Access::Read);
                    let length = module.size(line as i64);
                    let update = format!("u32({ordered}[i / {inner} / {extent} * {length} + place])");
                    module.function("ordered(i: u32, place: u32) -> u32", &update);
                }
            }
            for (name, load, map) in operands {
                let (ty, dtype) = if name == "index" { ("u32", index_dtype) } else { (element, dtype) };
                let mut body = format!("fn {name}(i: u32, k: u32) -> {ty} {{\n");
                body.push_str(&format!("    let inner = i % {inner};\n    let outer = i / {inner} / {extent};\n"));
                let mut place = coordinates(&mut module, &mut body, "outer", "outer", outer_extents);
                place.push("k".into());
                place.extend(coordinates(&mut module, &mut body, "inner", "inner", inner_extents));
                let place = Place { coordinates: &place, flat: None, extents: &[] };
                let value = Emitter::new(&mut module, &mut body, 0).stored_element(load.buffer, dtype, map, &place);
                let value = if name == "index" { format!("u32({value})") } else { value };
                body.push_str(&format!("    return {value};\n}}"));
                module.add(&body);
            }
            let skeleton = if order.is_some() { gradus_shaders::SCATTER_ORDERED } else { gradus_shaders::SCATTER };
            shader.finish(module, skeleton)
        };
        compiler.launch("scatter", linear(shape.numel(), compiler.tuning.workgroup), generate)?;
    }
    Ok(())
}

/// Puts the updates of each line into order, where whole rows are updated and it takes that many looks to find them otherwise.
fn order(compiler: &mut Compiler<'_>, index: &Load, axis: usize, extent: usize, looks: usize) -> Result<Option<Order>> {
    let axes = &index.view.axes;
    let stands_still = axes[axis + 1..].iter().all(|a| a.extent == 1 || (a.stride == 0 && a.guard.is_none()));
    if !stands_still || looks < compiler.tuning.scatter_looks {
        return Ok(None);
    }
    let index = Load { view: View { axes: axes[..=axis].into(), offset: index.view.offset }, ..*index };
    let updates = sort::of_indices(compiler, &index, extent)?;
    let shape = index.view.shape();
    let lines = shape[..axis].iter().product::<usize>();
    let begin = compiler.add_buffer(DType::U32, lines * (extent + 1));
    let dtype = compiler.buffers[index.buffer].dtype;
    let operand = Lines::new(std::slice::from_ref(&index), &shape, axis);
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut module = shader.module(Width::Scalar, baked);
        let array = module.bind(Slot::Plan(begin), "u32", Access::ReadWrite);
        let count = module.count(lines);
        module.function("lines() -> u32", &count);
        for (name, size) in [("line_size", shape[axis]), ("extent", extent)] {
            let size = module.size(size as i64);
            module.function(&format!("{name}() -> u32"), &size);
        }
        operand.add_hook(&mut module, ("index", "u32"), (0, dtype), |element| format!("u32({element})"));
        let updates = module.bind(Slot::Plan(updates), stored(DType::I32), Access::Read);
        module.function(
            "ordered_index(line: u32, place: u32) -> u32",
            &format!("index(line, u32({updates}[line * line_size() + place]))"),
        );
        module.add(&format!("fn store_begin(i: u32, place: u32) {{\n    {array}[i] = place;\n}}"));
        shader.finish(module, gradus_shaders::SCATTER_BEGIN)
    };
    compiler.launch("scatter begin", linear(lines * (extent + 1), compiler.tuning.workgroup), generate)?;
    Ok(Some(Order { updates, begin }))
}

/// The kernel that copies a load to a buffer.
fn copy(load: &Load, output: usize, dtype: DType) -> Kernel {
    Kernel {
        family: Family::Elementwise,
        space: load.view.shape(),
        loads: vec![load.clone()],
        expression: Expression::of_load(0, dtype),
        outputs: vec![Store { buffer: output, register: 0, per_row: false }],
        nodes: Vec::new(),
    }
}
