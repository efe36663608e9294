//! An operand of a matrix product, as the hooks that load it.

use crate::affine::{Affine, Space};
use crate::expression::{self, Address, Emit, Emitter, Place, coordinates, from_stored, stored_at, to_stored};
use crate::module::{Module, Slot, Width, stored};
use gradus_device::Access;
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Register};
use gradus_ir::{DType, Error, Result};
use smallvec::SmallVec;
use std::fmt::Write;

/// An operand: an expression of one load, whose axes stand in three groups, each with a flat index: batch, free (rows or
/// columns of the product), and contracted.
pub(super) struct Operand {
    /// The kernel that would compute it.
    kernel: Kernel,
    maps: [Affine; 1],
    space: Space,
}

/// Which neighbours are one aligned vector of an operand's buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Vectors {
    /// Those along the contracted axes.
    Contracted,
    /// Those along the free axes.
    Free,
    /// None.
    No,
}

impl Operand {
    pub(super) fn new(kernel: &Kernel, expression: &Expression, batch: usize, contracted: usize) -> Result<Operand> {
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
    pub(super) fn size(&self, group: usize) -> usize {
        self.space.extents[self.space.axes(group)].iter().product()
    }

    /// Whether neighbours along the summed axes are neighbours in memory, rather than those along the free axes: where both
    /// are (windows), it is the longer axis that counts.
    pub(super) fn is_along_k(&self) -> bool {
        let neighbours = |group: usize| {
            let last = self.space.axes(group).last()?;
            (self.maps[0].axes[last].stride == 1).then_some(self.space.extents[last])
        };
        neighbours(2) >= neighbours(1)
    }

    /// The dtype of what is computed.
    pub(super) fn dtype(&self) -> DType {
        self.kernel.expression.instructions.last().map_or(DType::F32, |(_, dtype)| *dtype)
    }

    /// Whether what is computed are numbers of f16, widened to f32.
    pub(super) fn is_half(&self) -> bool {
        self.half().is_some()
    }

    /// The register of f16 of which the result is widened, if it is.
    fn half(&self) -> Option<Register> {
        let instructions = &self.kernel.expression.instructions;
        match instructions.last() {
            Some(&(Instruction::Cast(from), DType::F32)) => {
                Some(from).filter(|from| instructions[*from].1 == DType::F16)
            }
            _ => None,
        }
    }

    /// How vectors of four can be loaded, contracted axes first.
    pub(super) fn vectors(&self) -> Vectors {
        let is_along = |group: usize| {
            let axes = self.space.axes(group);
            let Some(last) = axes.clone().last() else { return false };
            let [map] = &self.maps;
            let mut others = map.axes.iter().enumerate().filter(|(axis, _)| *axis != last);
            !map.is_padding
                && map.axes.iter().all(|step| step.guard.is_none())
                && map.axes[last].stride == 1
                && map.offset % 4 == 0
                && others.all(|(_, step)| step.stride % 4 == 0)
                // A vector may reach past the end of a group, but not from one line of it into the next.
                && (axes.len() == 1 || self.space.extents[last].is_multiple_of(4))
        };
        match () {
            _ if is_along(2) => Vectors::Contracted,
            _ if is_along(1) => Vectors::Free,
            _ => Vectors::No,
        }
    }

    /// Adds the hook that loads an element.
    pub(super) fn add_element(&self, module: &mut Module<'_>, name: &str, line: &str) {
        let dtype = self.dtype();
        let element = stored(dtype);
        let mut body = format!("fn load_{name}(batch: u32, {line}: u32, k: u32) -> {element} {{\n");
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

    /// Adds the hooks that load sixteen elements, as these vectors: of four lines at four places of the contracted axes.
    /// Only the first `lines` of the four are needed.
    pub(super) fn add_quad(&self, module: &mut Module<'_>, name: &str, vectors: Vectors, lines: usize) {
        self.add_quad_of(module, name, vectors, lines, &Sixteen { register: self.last(), dtype: self.dtype() });
    }

    /// The same, as the numbers of f16 that are widened ([`Operand::is_half`]).
    pub(super) fn add_halves(&self, module: &mut Module<'_>, name: &str) {
        let register = self.half().expect("products by cooperative matrices are of operands that are halves");
        self.add_quad_of(module, name, self.vectors(), 4, &Sixteen { register, dtype: DType::F16 });
    }

    fn add_quad_of(&self, module: &mut Module<'_>, name: &str, vectors: Vectors, lines: usize, result: &Sixteen) {
        self.add_part(module, &format!("{name}_line"), &[(0, "batch"), (1, "line")], self.maps[0].offset);
        self.add_part(module, &format!("{name}_place"), &[(2, "k")], 0);
        let (register, buffer, dtype) = self.load();
        self.add_of(module, name, register, dtype, result);
        let of = |four: String| format!("of_{name}({four})");
        let vector = format!("vec4<{}>", stored(dtype));
        let value = match vectors {
            Vectors::No => {
                self.add_at(module, name, buffer, dtype);
                let at = |line: usize, place: usize| format!("{name}_at(lines[{line}], places[{place}])");
                let line =
                    |line: usize| of(format!("{vector}({})", [0, 1, 2, 3].map(|place| at(line, place)).join(", ")));
                result.quad(lines, line)
            }
            along => {
                let element = module.vectors(Slot::Plan(buffer), dtype);
                let read =
                    |line: usize, place: usize| of(element(&format!("(lines[{line}].x + places[{place}].x) / 4u")));
                match along {
                    Vectors::Free => format!("{}({})", result.transposed(), result.quad(4, |place| read(0, place))),
                    _ => result.quad(lines, |line| read(line, 0)),
                }
            }
        };
        module.function(&format!("quad_{name}(lines: Parts, places: Parts) -> {}", result.name()), &value);
    }

    /// The register of the only load, the buffer that it reads, and their dtype.
    fn load(&self) -> (Register, BufferId, DType) {
        let mut instructions = self.kernel.expression.instructions.iter().enumerate();
        let load = instructions.find_map(|(register, (i, dtype))| Some((register, i.load()?, *dtype)));
        let (register, load, dtype) = load.expect("an operand has a map, which only a load has here");
        (register, self.kernel.loads[load].buffer, dtype)
    }

    /// Adds a part of an address: that of some groups of axes, by their flat indices.
    fn add_part(&self, module: &mut Module<'_>, name: &str, groups: &[(usize, &str)], offset: i64) {
        let arguments: Vec<String> = groups.iter().map(|(_, flat)| format!("{flat}: u32")).collect();
        let mut body = format!("fn {name}({}) -> Part {{\n", arguments.join(", "));
        let mut part = Affine { axes: SmallVec::new(), offset, is_padding: false };
        let mut place = Vec::new();
        for &(group, flat) in groups {
            let axes = self.space.axes(group);
            place.extend(coordinates(module, &mut body, flat, flat, &self.space.extents[axes.clone()]));
            part.axes.extend_from_slice(&self.maps[0].axes[axes]);
        }
        let Address { element, exists } = Emitter::new(module, &mut body, 0).address_at(&part, &place);
        let exists = exists.map_or("1u".into(), |exists| format!("u32({exists})"));
        let _ = write!(body, "    return Part({element}, {exists});\n}}");
        module.add(&body);
    }

    /// Adds the element at two parts of an address.
    fn add_at(&self, module: &mut Module<'_>, name: &str, buffer: BufferId, dtype: DType) {
        let [map] = &self.maps;
        let element = stored(dtype);
        let signature = format!("{name}_at(line: Part, place: Part) -> {element}");
        if map.is_padding {
            return module.function(&signature, &format!("{element}()"));
        }
        let array = module.bind(Slot::Plan(buffer), element, Access::Read);
        if map.axes.iter().all(|step| step.guard.is_none()) {
            return module.function(&signature, &format!("{array}[line.x + place.x]"));
        }
        module.add(&format!(
            "fn {signature} {{\n    let exists = (line.y & place.y) != 0u;\n    \
             return select({element}(), {array}[select(0u, line.x + place.x, exists)], exists);\n}}"
        ));
    }

    /// Adds what is computed of four elements.
    fn add_of(&self, module: &mut Module<'_>, name: &str, load: Register, dtype: DType, result: &Sixteen) {
        let raw = stored_at(dtype, Width::Vector);
        let signature = format!("of_{name}(raw: {raw}) -> {}", result.vector());
        if result.register == load && result.dtype == dtype && dtype == DType::F16 {
            return module.function(&signature, "raw");
        }
        let evaluate = |module: &mut Module<'_>, body: &mut String| {
            let emit = |r: Register| match r {
                _ if r == load => Emit::Given(from_stored("raw", dtype)),
                _ if r > result.register => Emit::Skip,
                _ => Emit::Compute,
            };
            let place = Place { coordinates: &[], flat: None, extents: &[] };
            expression::evaluate(module, body, &self.kernel, emit, &self.maps, &place);
            let _ = write!(body, "    return {};\n}}", to_stored(&format!("r{}", result.register), result.dtype));
        };
        match module.width() {
            Width::Vector => {
                let mut body = format!("fn {signature} {{\n");
                evaluate(module, &mut body);
                module.add(&body);
            }
            Width::Scalar => {
                let element = stored(result.dtype);
                let mut body = format!("fn of_one_{name}(raw: {}) -> {element} {{\n", stored(dtype));
                evaluate(module, &mut body);
                module.add(&body);
                let four = ["x", "y", "z", "w"].map(|lane| format!("of_one_{name}(raw.{lane})")).join(", ");
                module.function(&signature, &format!("{}({four})", result.vector()));
            }
        }
    }

    /// The register of the result.
    fn last(&self) -> Register {
        self.kernel.expression.instructions.len() - 1
    }
}

/// Sixteen elements as four vectors: of a register, as this dtype.
struct Sixteen {
    register: Register,
    dtype: DType,
}

impl Sixteen {
    fn is_half(&self) -> bool {
        self.dtype == DType::F16
    }

    fn name(&self) -> &'static str {
        if self.is_half() { "Halves" } else { "Quad" }
    }

    fn transposed(&self) -> &'static str {
        if self.is_half() { "transposed_halves" } else { "transposed" }
    }

    fn vector(&self) -> &'static str {
        if self.is_half() { "vec4<f16>" } else { "Vector" }
    }

    /// All four, of which those after the first `count` are not needed.
    fn quad(&self, count: usize, vector: impl Fn(usize) -> String) -> String {
        let one = |i: usize| if i < count { vector(i) } else { format!("{}()", self.vector()) };
        format!("{}({})", self.name(), [0, 1, 2, 3].map(one).join(", "))
    }
}
