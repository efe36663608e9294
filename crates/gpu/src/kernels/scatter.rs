//! Scatter.

use super::only_output;
use crate::affine::{Affine, Space, Step};
use crate::compiler::{Compiler, Shader, linear};
use crate::expression::{Emitter, Place, coordinates};
use crate::module::{Baked, Parameter, Slot, Width, stored};
use gradus_device::Access;
use gradus_ir::op::ScatterMode;
use gradus_ir::plan::{Expression, Family, Instruction, Kernel, Load, Store};
use gradus_ir::{Error, Result};

/// Updates of a line that one launch looks at: software adapters end loops after 65,535 steps.
const LINE: usize = 32768;

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
            for ((name, load), map) in [("index", index), ("update", updates)].into_iter().zip(&maps) {
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
            shader.finish(module, gradus_shaders::SCATTER)
        };
        compiler.launch("scatter", linear(shape.numel(), compiler.tuning.workgroup), generate)?;
    }
    Ok(())
}

/// The kernel that copies a load to a buffer.
fn copy(load: &Load, output: usize, dtype: gradus_ir::DType) -> Kernel {
    Kernel {
        family: Family::Elementwise,
        space: load.view.shape(),
        loads: vec![load.clone()],
        expression: Expression::of_load(0, dtype),
        outputs: vec![Store { buffer: output, register: 0, per_row: false }],
        nodes: Vec::new(),
    }
}
