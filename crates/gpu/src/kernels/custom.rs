//! Ops of the user: their text as it is, behind declarations of what it may use.

use super::only_output;
use crate::compiler::{Compiler, Shader, linear};
use crate::module::{Baked, Module, Slot, Width, stored};
use gradus_device::wgpu::naga;
use gradus_device::{Access, Limits, Parameters, Trust};
use gradus_ir::op::custom::Custom;
use gradus_ir::plan::Kernel;
use gradus_ir::{DType, Error, Result, Shape, SourcePlace};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::panic::catch_unwind;

/// Workgroups along x where the user does not decide on them, as in `compiler::workgroups`.
const GRID_WIDTH: u32 = 32768;

/// An array that the user's text sees.
struct Seen<'a> {
    name: &'a str,
    slot: Slot,
    dtype: DType,
    access: Access,
    shape: &'a Shape,
}

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel, op: &Custom) -> Result<()> {
    let Some(wgsl) = &op.wgsl else {
        return Err(Error::Backend(format!("{} has no WGSL", op.name)));
    };
    let shapes: Vec<Shape> = kernel.loads.iter().map(|load| load.view.shape()).collect();
    let inputs = op.inputs.iter().zip(&kernel.loads).zip(&shapes);
    let inputs = inputs.map(|(((name, dtype), load), shape)| {
        let slot = Slot::Plan(load.buffer);
        Seen { name, slot, dtype: *dtype, access: Access::Read, shape }
    });
    let slot = Slot::Plan(only_output(kernel)?.buffer);
    let output = Seen { name: "output", slot, dtype: op.dtype, access: Access::ReadWrite, shape: &kernel.space };
    let seen: Vec<Seen<'_>> = inputs.chain([output]).collect();

    let size = invocations(wgsl.workgroup, compiler.limits())?;
    let grid = op.grid(&shapes.iter().collect::<Vec<_>>(), &kernel.space)?;
    let grid = grid.unwrap_or_else(|| linear(kernel.space.numel(), size));
    let most = compiler.limits().workgroups_per_dimension;
    if !grid.iter().all(|count| (1..=most).contains(count)) {
        let reason = format!("it gives {grid:?}, expected 1 to {most} in each direction");
        return Err(Error::Custom { op: op.name, function: "workgroups function", reason });
    }
    let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
        let mut module = shader.module(Width::Scalar, baked);
        declare(&mut module, &seen, wgsl.workgroup);
        shader.finish_as_written(module, &wgsl.text)
    };
    compiler.launch_of(Trust::Checked, op.name, grid, generate)
}

/// How many invocations a workgroup has, if it is one that the device runs.
fn invocations(workgroup: [u32; 3], limits: &Limits) -> Result<u32> {
    let size = workgroup.iter().try_fold(1, |size: u32, &extent| size.checked_mul(extent));
    let fits = workgroup.iter().zip(limits.workgroup_size).all(|(&extent, most)| (1..=most).contains(&extent));
    if let Some(size) = size.filter(|&size| fits && size <= limits.workgroup_invocations) {
        return Ok(size);
    }
    let ([x, y, z], [most_x, most_y, most_z]) = (workgroup, limits.workgroup_size);
    let message = format!(
        "@workgroup_size({x}, {y}, {z}) is more than the device runs: at most {most_x}, {most_y} and {most_z}, and {} invocations in all",
        limits.workgroup_invocations
    );
    Err(Error::Wgsl { message, at: None })
}

/// Adds the arrays, their shapes, and the index of an invocation.
fn declare(module: &mut Module<'_>, seen: &[Seen<'_>], workgroup: [u32; 3]) {
    for Seen { name, slot, dtype, access, shape } in seen {
        module.bind_as(name, *slot, stored(*dtype), *access);
        let length = module.count(shape.numel());
        module.function(&format!("{name}_len() -> u32"), &length);
        module.function(&format!("{name}_rank() -> u32"), &format!("{}u", shape.len()));
        let extents = shape.iter().enumerate().map(|(axis, &extent)| {
            let extent = module.size(extent as i64);
            format!("        case {axis}u: {{ return {extent}; }}\n")
        });
        let cases: String = extents.collect();
        let default = "        default: { return 1u; }";
        module.add(&format!("fn {name}_shape(axis: u32) -> u32 {{\n    switch axis {{\n{cases}{default}\n    }}\n}}"));
    }
    let [x, y, z] = workgroup;
    module.add(&format!(
        "fn flat_index(id: vec3<u32>) -> u32 {{
    let size = vec3<u32>({x}u, {y}u, {z}u);
    let group = id / size;
    let lane = id % size;
    return ((group.y * {GRID_WIDTH}u + group.x) * size.z + lane.z) * size.y * size.x + lane.y * size.x + lane.x;
}}"
    ));
}

/// Checks the WGSL of a custom op with these inputs, and gives the workgroup size of its entry point.
///
/// # Errors
/// [`Error::Wgsl`] says what is wrong with the text, and where.
pub fn check_wgsl(inputs: &[(String, DType)], output: DType, text: &str) -> Result<[u32; 3]> {
    // naga has been seen to panic on shaders that it should refuse.
    catch_unwind(|| check(inputs, output, text)).unwrap_or_else(|_| {
        let message = "naga panicked: it does not say where".into();
        Err(Error::Wgsl { message, at: None })
    })
}

fn check(inputs: &[(String, DType)], output: DType, text: &str) -> Result<[u32; 3]> {
    // Sizes of any rank have the same functions.
    let shape = Shape::new(&[2]);
    let output = ("output".to_string(), output);
    let seen: Vec<Seen<'_>> = (inputs.iter().chain([&output]).enumerate())
        .map(|(i, (name, dtype))| {
            let access = if i < inputs.len() { Access::Read } else { Access::ReadWrite };
            Seen { name, slot: Slot::Plan(i), dtype: *dtype, access, shape: &shape }
        })
        .collect();
    let with = |text: &str| {
        let mut module = Module::new(Width::Scalar, &[], false);
        declare(&mut module, &seen, [1; 3]);
        module.finish_as_written(text, Parameters::Uniform).text
    };
    let own = with("");
    if let Err(error) = naga::front::wgsl::parse_str(&own) {
        let found = format!("{:?} ({})", inputs.iter().map(|(name, _)| name).collect::<Vec<_>>(), error.message());
        return Err(Error::Argument { argument: "inputs", expected: "names that WGSL takes", found });
    }
    let source = with(text);
    let start = source.len() - text.len() - 1;
    let fail = |message: String, spans: &mut dyn Iterator<Item = naga::Span>| {
        let at = spans.filter_map(naga::Span::to_range).find(|range| range.start >= start);
        Err(Error::Wgsl { message, at: at.map(|range| place(text, range.start - start)) })
    };
    let module = match naga::front::wgsl::parse_str(&source) {
        Ok(module) => module,
        Err(error) => {
            let notes = error.notes().map(|note| format!(" ({note})")).collect::<String>();
            let message = format!("{}{notes}", error.message());
            return fail(message, &mut error.labels().map(|(span, _)| span));
        }
    };
    let [entry] = &module.entry_points[..] else {
        let names: Vec<&str> = module.entry_points.iter().map(|entry| &*entry.name).collect();
        return fail(format!("expected one entry point, found {names:?}"), &mut std::iter::empty());
    };
    if entry.stage != naga::ShaderStage::Compute {
        return fail(format!("the entry point {} is not marked @compute", entry.name), &mut std::iter::empty());
    }
    if let Some((handle, _)) = module.overrides.iter().next() {
        let message = "nothing sets an override: write const".to_string();
        return fail(message, &mut [module.overrides.get_span(handle)].into_iter());
    }
    for (handle, variable) in module.global_variables.iter() {
        let span = module.global_variables.get_span(handle);
        let is_own = span.to_range().is_some_and(|range| range.start < start);
        let is_local = matches!(variable.space, naga::AddressSpace::Private | naga::AddressSpace::WorkGroup);
        if !is_own && !is_local {
            let name = variable.name.as_deref().unwrap_or_default();
            let message = format!("{name} is bound to nothing: an op sees its inputs, its output and workgroup memory");
            return fail(message, &mut [span].into_iter());
        }
    }
    // What a device lacks is found where it compiles.
    match Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module) {
        Ok(_) => {
            let [x, y, z] = entry.workgroup_size;
            // How many a device runs is found where it compiles: this many have no number.
            match x.checked_mul(y).and_then(|size| size.checked_mul(z)) {
                Some(_) => Ok(entry.workgroup_size),
                None => fail(
                    format!("@workgroup_size({x}, {y}, {z}) is more than any device runs"),
                    &mut std::iter::empty(),
                ),
            }
        }
        Err(error) => {
            let mut message = error.as_inner().to_string();
            let mut source = std::error::Error::source(error.as_inner());
            while let Some(cause) = source {
                message = format!("{message}: {cause}");
                source = cause.source();
            }
            fail(message, &mut error.spans().map(|(span, _)| *span))
        }
    }
}

/// The place of a byte in a text.
fn place(text: &str, at: usize) -> SourcePlace {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    SourcePlace {
        line: before.matches('\n').count() + 1,
        column: before[start..].chars().count() + 1,
        text: line.to_string(),
    }
}
