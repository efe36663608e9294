//! Operands of scans and sorts: lines along an axis, each element found by its line and its place.

use crate::affine::{Affine, Space, Step};
use crate::expression::{Emitter, Place, coordinates};
use crate::module::{Module, stored};
use gradus_ir::plan::{BufferId, Load};
use gradus_ir::{DType, Shape};

/// Loads of one shape, seen as lines. Lines are numbered row-major, the axis left out.
pub(super) struct Lines {
    buffers: Vec<BufferId>,
    maps: Vec<Affine>,
    /// The axes before and after the lines'.
    space: Space,
    /// How many lines are neighbours.
    inner: usize,
}

impl Lines {
    pub(super) fn new(loads: &[Load], shape: &Shape, axis: usize) -> Lines {
        let mut maps: Vec<Affine> = loads.iter().map(|load| Affine::of(&load.view)).collect();
        // The walk along a line must stay an axis of its own, also if it is one step.
        let walks: Vec<Step> = maps.iter_mut().map(|map| map.axes.remove(axis)).collect();
        let space = Space::simplified(&[&shape[..axis], &shape[axis + 1..]], &mut maps);
        for (map, walk) in maps.iter_mut().zip(walks) {
            map.axes.insert(space.groups[0], walk);
        }
        let buffers = loads.iter().map(|load| load.buffer).collect();
        Lines { buffers, maps, space, inner: shape[axis + 1..].iter().product() }
    }

    /// Adds `fn name(line, k)`, which gives what `value` makes of an element of a load.
    pub(super) fn add_hook(
        &self,
        module: &mut Module<'_>,
        (name, result): (&str, &str),
        (load, dtype): (usize, DType),
        value: impl Fn(&str) -> String,
    ) {
        let inner = module.size(self.inner as i64);
        let mut body = format!("fn {name}(line: u32, k: u32) -> {result} {{\n");
        body.push_str(&format!("    let inner = line % {inner};\n    let outer = line / {inner};\n"));
        let extents = |group: usize| &self.space.extents[self.space.axes(group)];
        let mut place = coordinates(module, &mut body, "outer", "outer", extents(0));
        place.push("k".into());
        place.extend(coordinates(module, &mut body, "inner", "inner", extents(1)));
        let place = Place { coordinates: &place, flat: None, extents: &[] };
        let mut emitter = Emitter::new(module, &mut body, 0);
        let element = emitter.stored_element(self.buffers[load], dtype, &self.maps[load], &place);
        body.push_str(&format!(
            "    let element: {} = {element};\n    return {};\n}}",
            stored(dtype),
            value("element")
        ));
        module.add(&body);
    }

    /// The position of element `k` of `line` in a row-major array whose lines have this length.
    pub(super) fn position(&self, module: &mut Module<'_>, line_size: usize) -> String {
        let (inner, line_size) = (module.size(self.inner as i64), module.size(line_size as i64));
        format!("(line / {inner} * {line_size} + k) * {inner} + line % {inner}")
    }
}
