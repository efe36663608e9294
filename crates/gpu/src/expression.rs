//! A kernel's expression as WGSL statements.

use crate::affine::{Affine, Step};
use crate::module::{Module, Parameter, Slot, Width, alias, stored};
use gradus_device::Access;
use gradus_ir::op::UnaryOp;
use gradus_ir::plan::{BufferId, Instruction, Kernel, Register};
use gradus_ir::{DType, Element, Guard, Number, Shape, f16};
use std::fmt::Write;

/// Where a function stands in the kernel's space: expressions of its coordinates.
pub(crate) struct Place<'a> {
    /// The coordinate along each axis of the simplified space. In a vector, the last one is the first element's.
    pub(crate) coordinates: &'a [String],
    /// The row-major position, where it is at hand.
    pub(crate) flat: Option<&'a str>,
    /// The extents of the simplified space.
    pub(crate) extents: &'a [usize],
}

/// The index maps of a kernel's instructions, in their order: of those that look at the index.
pub(crate) fn maps(kernel: &Kernel, space: &Shape) -> Vec<Affine> {
    kernel.expression.instructions.iter().filter_map(|(instruction, _)| map(kernel, instruction, space)).collect()
}

/// Whether an instruction looks at the index.
fn has_map(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Load(_) | Instruction::Iota(_) | Instruction::Random(_) | Instruction::Gather { .. }
    )
}

fn map(kernel: &Kernel, instruction: &Instruction, space: &Shape) -> Option<Affine> {
    match *instruction {
        Instruction::Load(load) => Some(Affine::of(&kernel.loads[load].view)),
        Instruction::Iota(axis) => Some(Affine::coordinate(space.len(), axis)),
        Instruction::Random(_) => Some(Affine::position(space)),
        Instruction::Gather { load, axis, .. } => {
            // Along the axis the register decides, not the index.
            let mut map = Affine::of(&kernel.loads[load].view);
            map.axes[axis] = Step { stride: 0, guard: None };
            Some(map)
        }
        _ => None,
    }
}

/// What to do about a register.
pub(crate) enum Emit {
    /// It is not needed.
    Skip,
    /// It is computed here.
    Compute,
    /// It was computed before, and is this.
    Given(String),
}

/// Emits what some registers need.
pub(crate) fn needed(kernel: &Kernel, registers: impl IntoIterator<Item = Register>) -> impl Fn(Register) -> Emit {
    let needed = kernel.expression.needed(registers);
    move |register| if needed[register] { Emit::Compute } else { Emit::Skip }
}

/// Appends the statements that compute registers to `body`; register `n` is called `r{n}`. `maps` are those of [`maps`],
/// simplified; the register that the family hands over is called `accumulator`.
pub(crate) fn evaluate(
    module: &mut Module<'_>,
    body: &mut String,
    kernel: &Kernel,
    emit: impl Fn(Register) -> Emit,
    maps: &[Affine],
    place: &Place<'_>,
) {
    let mut maps = maps.iter();
    for (register, (instruction, dtype)) in kernel.expression.instructions.iter().enumerate() {
        let map = if has_map(instruction) { maps.next() } else { None };
        match emit(register) {
            Emit::Skip => continue,
            Emit::Given(value) => {
                let _ = writeln!(body, "    let r{register} = {value};");
                continue;
            }
            Emit::Compute => {}
        }
        let mut emitter = Emitter::new(module, body, register);
        let value = match *instruction {
            Instruction::Load(load) => {
                let source = Source { slot: Slot::Plan(kernel.loads[load].buffer), dtype: *dtype, gathered: None };
                emitter.read(&source, map, place)
            }
            Instruction::Gather { load, axis, index } => {
                let view = &kernel.loads[load].view.axes[axis];
                let step = Step { stride: view.stride as i64, guard: view.guard };
                let gathered = Some(Gathered { index, step, extent: view.extent });
                let source = Source { slot: Slot::Plan(kernel.loads[load].buffer), dtype: *dtype, gathered };
                emitter.read(&source, map, place)
            }
            Instruction::Scalar(slot) => emitter.scalar(slot, *dtype),
            Instruction::Const(number) => emitter.constant(number, *dtype),
            Instruction::Iota(_) => emitter.iota(map, place, *dtype),
            Instruction::Random(slot) => emitter.random(slot, map, place, *dtype),
            Instruction::Accumulator | Instruction::Reduce(..) => "accumulator".into(),
            Instruction::Index { index, .. } => format!("r{index}"),
            // A compiler takes the square of a root to be its operand, which loses NaN.
            Instruction::Unary(UnaryOp::Square, x) if dtype.is_float() && has_root(kernel, x) => {
                format!("{} * r{x}", emitter.hidden(x))
            }
            Instruction::Unary(op @ (UnaryOp::Sin | UnaryOp::Cos | UnaryOp::Tan), x) if is_uniform(kernel, x) => {
                let operand = emitter.diverged(x, place);
                row(op.wgsl(), *dtype, &[("{x}", operand)])
            }
            Instruction::Unary(op, x) => {
                let wgsl = if dtype.is_int() { op.wgsl_int() } else { op.wgsl() };
                row(wgsl, *dtype, &[("{x}", format!("r{x}"))])
            }
            Instruction::Binary(op, a, b) => {
                let wgsl = if dtype.is_int() { op.wgsl_int() } else { op.wgsl() };
                let hides = dtype.is_float() && share_terms(kernel, a, b);
                let left = if hides { emitter.hidden(a) } else { format!("r{a}") };
                row(wgsl, *dtype, &[("{a}", left), ("{b}", format!("r{b}"))])
            }
            Instruction::Compare(op, a, b) => {
                let operands = kernel.expression.instructions[a].1;
                let wgsl = if operands.is_float() { op.wgsl() } else { op.wgsl_int() };
                row(wgsl, operands, &[("{a}", format!("r{a}")), ("{b}", format!("r{b}"))])
            }
            Instruction::Select(condition, then, otherwise) => format!("select(r{otherwise}, r{then}, r{condition})"),
            Instruction::Cast(x) => match (kernel.expression.instructions[x].1.computed(), dtype.computed()) {
                (from, to) if from == to => format!("r{x}"),
                // A compiler that finds out that an integer or a choice is zero takes its product with NaN to be 0.
                (from, to) if dtype.is_float() => emitter.behind_zero(&format!("{from}_to_{to}(r{x})")),
                (from, to) => format!("{from}_to_{to}(r{x})"),
            },
        };
        let value =
            if *dtype == DType::F16 && rounds(instruction) { format!("rounded_to_f16({value})") } else { value };
        let _ = writeln!(body, "    let r{register} = {value};");
    }
}

/// Whether what an instruction computes in f32 may be no number that f16 has.
fn rounds(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::Unary(op, _) => op.ulps() > 0.0,
        Instruction::Binary(op, ..) => op.ulps() > 0.0,
        Instruction::Cast(_) | Instruction::Iota(_) => true,
        _ => false,
    }
}

/// Whether two operands are made from a common one by arithmetic. Compilers may then cancel it (`x - x` to 0, `x / x` to 1,
/// `√x √x` to |x|), which loses NaN and infinities.
fn share_terms(kernel: &Kernel, a: Register, b: Register) -> bool {
    const DEPTH: usize = 3;
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    add_terms(kernel, a, DEPTH, &mut of_a);
    add_terms(kernel, b, DEPTH, &mut of_b);
    of_a.iter().any(|term| of_b.contains(term))
}

/// Whether a register is made of a square root by arithmetic.
fn has_root(kernel: &Kernel, register: Register) -> bool {
    let mut terms = Vec::new();
    add_terms(kernel, register, 3, &mut terms);
    let is_root = |&r: &Register| {
        matches!(kernel.expression.instructions[r].0, Instruction::Unary(UnaryOp::Sqrt | UnaryOp::Rsqrt, _))
    };
    terms.iter().any(is_root)
}

/// Whether a register is made of parameters and constants alone.
fn is_uniform(kernel: &Kernel, register: Register) -> bool {
    let instructions = &kernel.expression.instructions;
    let mut uniform: Vec<bool> = Vec::with_capacity(register + 1);
    for (instruction, _) in &instructions[..=register] {
        let is_one = match *instruction {
            Instruction::Scalar(_) | Instruction::Const(_) => true,
            // Along an axis of one element it is 0.
            Instruction::Iota(axis) => kernel.space[axis] == 1,
            Instruction::Unary(_, x) | Instruction::Cast(x) => uniform[x],
            Instruction::Binary(_, a, b) | Instruction::Compare(_, a, b) => uniform[a] && uniform[b],
            Instruction::Select(a, b, c) => uniform[a] && uniform[b] && uniform[c],
            _ => false,
        };
        uniform.push(is_one);
    }
    uniform[register]
}

/// Adds a register, and those that it is made from. Reads of one buffer are one term: they may meet.
fn add_terms(kernel: &Kernel, register: Register, depth: usize, terms: &mut Vec<Register>) {
    let instructions = &kernel.expression.instructions;
    let read = |r: Register| match instructions[r].0 {
        Instruction::Load(load) | Instruction::Gather { load, .. } => Some(kernel.loads[load].buffer),
        _ => None,
    };
    let same = |&other: &Register| match (read(other), read(register)) {
        (None, None) => instructions[other] == instructions[register],
        (one, two) => one == two,
    };
    terms.push((0..=register).find(same).unwrap_or(register));
    if depth == 0 {
        return;
    }
    match instructions[register].0 {
        Instruction::Unary(_, x) => add_terms(kernel, x, depth - 1, terms),
        Instruction::Binary(_, a, b) => {
            add_terms(kernel, a, depth - 1, terms);
            add_terms(kernel, b, depth - 1, terms);
        }
        _ => {}
    }
}

/// A row's expression with its operands and types filled in.
fn row(wgsl: &str, dtype: DType, operands: &[(&str, String)]) -> String {
    let text = wgsl.replace("{T}", alias(dtype)).replace("{t}", dtype.computed().name());
    operands.iter().fold(text, |text, (place, name)| text.replace(place, name))
}

/// What a value looks like in memory.
pub(crate) fn to_stored(value: &str, dtype: DType) -> String {
    match dtype {
        DType::Bool => format!("bool_to_u32({value})"),
        DType::F16 => format!("Half({value})"),
        _ => value.into(),
    }
}

/// What is computed with, of a value as it is in memory.
pub(crate) fn from_stored(value: &str, dtype: DType) -> String {
    match dtype {
        DType::Bool => format!("({value} != Word())"),
        DType::F16 => format!("Real({value})"),
        _ => value.into(),
    }
}

/// The WGSL type of a dtype's elements in a buffer that is read or written at this width.
pub(crate) fn stored_at(dtype: DType, width: Width) -> String {
    match width {
        Width::Scalar => stored(dtype).into(),
        Width::Vector => format!("vec4<{}>", stored(dtype)),
    }
}

/// Appends the coordinates of a flat index along axes of these extents, the last one first; gives their names.
pub(crate) fn coordinates(
    module: &mut Module<'_>,
    body: &mut String,
    flat: &str,
    prefix: &str,
    extents: &[usize],
) -> Vec<String> {
    let mut rest = flat.to_string();
    let mut names: Vec<String> = Vec::with_capacity(extents.len());
    for (axis, &extent) in extents.iter().enumerate().rev() {
        if axis == 0 {
            names.push(rest);
            break;
        }
        let extent = module.size(extent.max(1) as i64);
        let _ = writeln!(body, "    let {prefix}{axis} = {rest} % {extent};");
        let _ = writeln!(body, "    let {prefix}{axis}_outer = {rest} / {extent};");
        names.push(format!("{prefix}{axis}"));
        rest = format!("{prefix}{axis}_outer");
    }
    names.reverse();
    names
}

/// Where a register's element comes from.
struct Source {
    slot: Slot,
    dtype: DType,
    gathered: Option<Gathered>,
}

/// The axis of a gather.
struct Gathered {
    index: Register,
    step: Step,
    extent: usize,
}

/// The address of an element, and the condition under which there is one.
pub(crate) struct Address {
    pub(crate) element: String,
    pub(crate) exists: Option<String>,
}

/// Appends the statements of one register.
pub(crate) struct Emitter<'e, 'm> {
    module: &'e mut Module<'m>,
    body: &'e mut String,
    register: Register,
}

impl<'e, 'm> Emitter<'e, 'm> {
    pub(crate) fn new(module: &'e mut Module<'m>, body: &'e mut String, register: Register) -> Emitter<'e, 'm> {
        Emitter { module, body, register }
    }

    /// The element of a buffer at a place, in its stored type.
    pub(crate) fn stored_element(&mut self, buffer: BufferId, dtype: DType, map: &Affine, place: &Place<'_>) -> String {
        if map.is_padding {
            return format!("{}()", stored(dtype));
        }
        self.element(&Source { slot: Slot::Plan(buffer), dtype, gathered: None }, map, place, 0)
    }

    /// The address that a map gives for a place.
    pub(crate) fn address_at(&mut self, map: &Affine, coordinates: &[String]) -> Address {
        self.address(map, &Place { coordinates, flat: None, extents: &[] }, None, 0)
    }

    fn scalar(&mut self, slot: usize, dtype: DType) -> String {
        let word = self.module.parameter(Parameter::Scalar(slot, dtype));
        of_word(&word, dtype)
    }

    fn constant(&mut self, number: Number, dtype: DType) -> String {
        // WGSL has no words for NaN and infinity, and compilers that see a zero take 0 · NaN to be 0, and x / 0 to be
        // anything.
        let (word, is_literal) = match dtype {
            DType::F16 | DType::F32 | DType::F64 => {
                let value = if dtype == DType::F16 { f16::from_number(number).into() } else { number.to_f64() as f32 };
                (value.to_bits(), value.is_normal())
            }
            DType::Bool => ((number.to_f64() != 0.0) as u32, number.to_f64() != 0.0),
            DType::I32 | DType::U32 => (number.to_i64() as u32, number.to_i64() as u32 != 0),
        };
        match dtype {
            _ if !is_literal => of_word(&self.module.parameter(Parameter::Word(word)), dtype),
            DType::Bool => "Mask(true)".into(),
            DType::I32 => format!("Int({})", word as i32),
            DType::U32 => format!("Word({word}u)"),
            DType::F16 | DType::F32 | DType::F64 => format!("Real({:?}f)", f32::from_bits(word)),
        }
    }

    fn iota(&mut self, map: Option<&Affine>, place: &Place<'_>, dtype: DType) -> String {
        let Some(map) = map else { return "Word()".into() };
        let address = self.address(map, place, None, 0).element;
        let first = self.named("index", &address);
        let words = match (self.module.width(), map.last().stride) {
            (Width::Scalar, _) | (_, 0) => format!("Word({first})"),
            (Width::Vector, stride) => {
                let stride = self.module.size(stride);
                format!("(Word({first}) + Word(0u, 1u, 2u, 3u) * {stride})")
            }
        };
        match dtype {
            DType::U32 => words,
            // The only index of an axis is 0, whose product or quotient with NaN a compiler takes to be 0.
            _ if dtype.is_float() => self.behind_zero(&format!("u32_to_{}({words})", dtype.computed())),
            _ => format!("u32_to_{}({words})", dtype.computed()),
        }
    }

    fn random(&mut self, slot: usize, map: Option<&Affine>, place: &Place<'_>, dtype: DType) -> String {
        let low = self.module.parameter(Parameter::KeyLow(slot));
        let high = self.module.parameter(Parameter::KeyHigh(slot));
        let position = map.map_or("0u".into(), |map| self.address(map, place, None, 0).element);
        let words = match self.module.width() {
            Width::Scalar => format!("philox_word(vec2({low}, {high}), {position})"),
            Width::Vector => format!("philox_block(vec2({low}, {high}), ({position}) / 4u)"),
        };
        if dtype == DType::U32 {
            return words;
        }
        // Mesa 22.3 makes wrong numbers of what it knows to be a fraction that it has drawn itself.
        let number = self.named("drawn", &format!("uniform_f32({words})"));
        self.behind_zero(&number)
    }

    fn read(&mut self, source: &Source, map: Option<&Affine>, place: &Place<'_>) -> String {
        let Some(map) = map.filter(|map| !map.is_padding) else {
            return self.constant(Number::Int(0), source.dtype);
        };
        let raw = match (self.module.width(), map.last()) {
            (Width::Scalar, _) => self.element(source, map, place, 0),
            (Width::Vector, Step { stride: 0, guard: None }) if source.gathered.is_none() => {
                let element = self.element(source, map, place, 0);
                format!("vec4({element})")
            }
            (Width::Vector, _) if source.gathered.is_none() && loads_vectors(map) => {
                let vector = self.module.vectors(source.slot, source.dtype);
                let Address { element, exists } = self.address(map, place, None, 0);
                let zero = format!("vec4<{}>()", stored(source.dtype));
                guarded(vector, &format!("({element}) / 4u"), exists, &zero)
            }
            (Width::Vector, _) => {
                let elements: Vec<String> = (0..4).map(|lane| self.element(source, map, place, lane)).collect();
                format!("vec4({})", elements.join(", "))
            }
        };
        from_stored(&raw, source.dtype)
    }

    /// The element of one lane, in its stored type.
    fn element(&mut self, source: &Source, map: &Affine, place: &Place<'_>, lane: usize) -> String {
        let array = self.module.bind(source.slot, stored(source.dtype), Access::Read);
        let Address { element, exists } = self.address(map, place, source.gathered.as_ref(), lane);
        guarded(|at| format!("{array}[{at}]"), &element, exists, &format!("{}()", stored(source.dtype)))
    }

    /// The address of an element, and the condition under which there is one.
    fn address(&mut self, map: &Affine, place: &Place<'_>, gathered: Option<&Gathered>, lane: usize) -> Address {
        if let (Some(flat), None, true) = (place.flat, gathered, is_position(map, place.extents)) {
            return Address { element: flat.into(), exists: None };
        }
        let mut terms = Vec::new();
        let mut conditions = Vec::new();
        let last = map.axes.len().wrapping_sub(1);
        for (axis, (step, coordinate)) in map.axes.iter().zip(place.coordinates).enumerate() {
            let coordinate = match lane {
                0 => coordinate.clone(),
                lane if axis == last => format!("({coordinate} + {lane}u)"),
                _ => coordinate.clone(),
            };
            self.term(&mut terms, &mut conditions, *step, &coordinate, axis, lane);
        }
        if let Some(Gathered { index, step, extent }) = gathered {
            let component = match self.module.width() {
                Width::Scalar => format!("u32(r{index})"),
                Width::Vector => format!("u32(r{index}[{lane}])"),
            };
            // A wrong index is found by a check of its own; here it must only stay inside of the buffer.
            let highest = self.module.size(*extent as i64 - 1);
            let clamped = format!("min({component}, {highest})");
            self.term(&mut terms, &mut conditions, *step, &clamped, map.axes.len(), lane);
        }
        if map.offset != 0 || terms.is_empty() {
            let offset = self.module.size(map.offset);
            terms.push(offset);
        }
        let exists = (!conditions.is_empty()).then(|| conditions.join(" && "));
        Address { element: terms.join(" + "), exists }
    }

    /// Adds the part of one axis to an address.
    fn term(
        &mut self,
        terms: &mut Vec<String>,
        conditions: &mut Vec<String>,
        Step { stride, guard }: Step,
        coordinate: &str,
        axis: usize,
        lane: usize,
    ) {
        let element = match guard {
            None => coordinate.to_string(),
            Some(Guard { low, count, step }) => {
                let low = self.module.size(low as i64);
                let from_low = self.named(&format!("axis{axis}_{lane}"), &format!("{coordinate} - {low}"));
                let count = self.module.size(count as i64);
                if step == 1 {
                    conditions.push(format!("{from_low} < {count}"));
                    from_low
                } else {
                    let step = self.module.size(step as i64);
                    conditions.push(format!("{from_low} % {step} == 0u && {from_low} / {step} < {count}"));
                    format!("{from_low} / {step}")
                }
            }
        };
        match stride {
            0 => {}
            1 => terms.push(element),
            stride => {
                let stride = self.module.size(stride);
                terms.push(format!("({element}) * {stride}"));
            }
        }
    }

    /// The name of a copy of a register of which a compiler does not know that it is one.
    fn hidden(&mut self, operand: Register) -> String {
        let copy = self.behind_zero(&format!("r{operand}"));
        self.named("hidden", &copy)
    }

    /// The name of a copy of a register that a compiler takes to differ between invocations. Mesa's software drivers
    /// follow a branch on parameters back to each of them along every path, of which shared terms make exponentially many;
    /// the functions of angles branch.
    fn diverged(&mut self, operand: Register, place: &Place<'_>) -> String {
        let mut coordinates = place.coordinates.iter().zip(place.extents);
        let varying = || coordinates.find(|&(_, &extent)| extent > 1).map(|(coordinate, _)| coordinate.as_str());
        match place.flat.or_else(varying) {
            Some(index) => {
                let zero = format!("Word(select(0u, 1u, ({index}) == 0xffffffffu))");
                self.named("diverged", &format!("bitcast<Real>({zero} ^ bitcast<Word>(r{operand}))"))
            }
            None => format!("r{operand}"),
        }
    }

    /// A float of whose bits a compiler knows nothing.
    fn behind_zero(&mut self, value: &str) -> String {
        let zero = self.module.parameter(Parameter::Word(0));
        format!("bitcast<Real>(bitcast<Word>({value}) ^ Word({zero}))")
    }

    /// Gives a value a name of this register's own.
    fn named(&mut self, what: &str, value: &str) -> String {
        let name = format!("r{}_{what}", self.register);
        let _ = writeln!(self.body, "    let {name} = {value};");
        name
    }
}

/// A number from a parameter's bits.
fn of_word(word: &str, dtype: DType) -> String {
    match dtype {
        DType::Bool => format!("Mask({word} != 0u)"),
        DType::I32 => format!("Int(bitcast<i32>({word}))"),
        DType::U32 => format!("Word({word})"),
        DType::F16 | DType::F32 | DType::F64 => format!("Real(bitcast<f32>({word}))"),
    }
}

/// An element, or zero in the padding. The address in the padding must not be used.
fn guarded(load: impl Fn(&str) -> String, element: &str, exists: Option<String>, zero: &str) -> String {
    match exists {
        None => load(element),
        Some(exists) => {
            let loaded = load(&format!("select(0u, {element}, {exists})"));
            format!("select({zero}, {loaded}, {exists})")
        }
    }
}

/// Whether four elements along the last axis are one aligned vector of the buffer.
pub(crate) fn loads_vectors(map: &Affine) -> bool {
    let Some((last, outer)) = map.axes.split_last() else { return false };
    let aligned = |n: i64| n % 4 == 0;
    last.stride == 1 && last.guard.is_none() && aligned(map.offset) && outer.iter().all(|step| aligned(step.stride))
}

/// Whether four elements along the last axis are one aligned vector of the buffer, or one element.
pub(crate) fn loads_at_once(map: &Affine) -> bool {
    loads_vectors(map) || (map.last().stride == 0 && map.last().guard.is_none())
}

/// Whether a map gives the row-major position in a space of these extents.
fn is_position(map: &Affine, extents: &[usize]) -> bool {
    let mut expected = 1;
    map.offset == 0
        && map.axes.len() == extents.len()
        && map.axes.iter().zip(extents).rev().all(|(step, &extent)| {
            let fits = step.guard.is_none() && step.stride == expected;
            expected *= extent as i64;
            fits
        })
}
