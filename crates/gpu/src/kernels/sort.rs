//! Sorts: short rows by counting, long ones by one digit after the other (radix sort, from the lowest digit on): by tiles in
//! workgroup memory, or by parts of which an invocation has one.

mod tiles;

use super::lines::Lines;
use super::{only_output, scan};
use crate::compiler::{Compiler, Shader, linear};
use crate::module::{Baked, Module, Parameter, Slot, Width, stored};
use gradus_device::Access;
use gradus_ir::op::ScanOp;
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Store};
use gradus_ir::{DType, Error, Result, Shape, View};

/// Elements of a part of a row that one invocation looks at, at most.
const LONGEST: usize = 32768;
/// Bits of a digit, and how many values it has.
const DIGIT: usize = 4;
const DIGITS: usize = 1 << DIGIT;

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel, descending: bool, kept: usize) -> Result<()> {
    let Some((&row, outer)) = kernel.space.split_last() else {
        return Err(Error::Backend("a sort of a single number".into()));
    };
    // Places are words.
    if kernel.space.numel() > 1 << 31 {
        return Err(Error::TooLarge { shape: kernel.space.clone() });
    }
    let dtype = compiler.buffers[kernel.loads[0].buffer].dtype;
    let operand = Lines::new(&kernel.loads, &kernel.space, outer.len());
    let rows = outer.iter().product();
    let bits = if dtype == DType::Bool { 1 } else { u32::BITS };
    Sort { operand, dtype, descending, rows, row, output: only_output(kernel)?.buffer, kept, bits }.compile(compiler)
}

/// Adds the launches that put rows of indices, all of them below `extent`, into ascending order; gives the buffer
/// `[rows, row]` of where in its row each one was.
pub(super) fn of_indices(compiler: &mut Compiler<'_>, indices: &Load, extent: usize) -> Result<BufferId> {
    let shape = indices.view.shape();
    let (row, outer) = shape.split_last().map_or((1, &[][..]), |(&row, outer)| (row, outer));
    if shape.numel() > 1 << 31 {
        return Err(Error::TooLarge { shape });
    }
    let dtype = compiler.buffers[indices.buffer].dtype;
    let operand = Lines::new(std::slice::from_ref(indices), &shape, outer.len());
    let output = compiler.add_buffer(DType::I32, shape.numel());
    let bits = usize::BITS - extent.leading_zeros();
    let rows = outer.iter().product();
    Sort { operand, dtype, descending: false, rows, row, output, kept: row, bits }.compile(compiler)?;
    Ok(output)
}

/// A sort of rows.
struct Sort {
    operand: Lines,
    dtype: DType,
    descending: bool,
    rows: usize,
    /// How many elements a row has.
    row: usize,
    output: BufferId,
    /// How many indices of each row are stored, from the first on.
    kept: usize,
    /// How many of the lowest bits tell keys apart.
    bits: u32,
}

/// Keys, and the index in its row that each of them had at first.
#[derive(Clone, Copy)]
struct Sorted {
    keys: BufferId,
    indices: BufferId,
}

impl Sort {
    fn compile(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        match () {
            () if self.row <= compiler.tuning.counted_row => self.short(compiler),
            () if !tiles::fit(compiler) => self.by_digits(compiler),
            () if self.row <= tiles::TILE => self.in_a_tile(compiler),
            () => self.by_tiles(compiler),
        }
    }

    /// Adds `key(row, k)`, a word that compares as an element of the operand does.
    fn add_key(&self, module: &mut Module<'_>) {
        let not = if self.descending { "~" } else { "" };
        let key = |element: &str| match self.dtype {
            // Booleans are words.
            DType::Bool => format!("{not}ordered_u32({element})"),
            DType::F16 => format!("{not}ordered_f32(f32({element}))"),
            dtype => format!("{not}ordered_{dtype}({element})"),
        };
        self.operand.add_hook(module, ("key", "u32"), (0, self.dtype), key);
    }

    /// The same for a pass over what another one has left, if there was one; there is a hook `row_size()`.
    fn add_keys(&self, module: &mut Module<'_>, from: Option<Sorted>) {
        let Some(from) = from else { return self.add_key(module) };
        let keys = module.bind(Slot::Plan(from.keys), "u32", Access::Read);
        module.function("key(row: u32, k: u32) -> u32", &format!("{keys}[row * row_size() + k]"));
    }

    fn short(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let elements = self.rows * self.row;
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            let size = module.count(elements);
            module.function("size() -> u32", &size);
            self.add_row(&mut module);
            shader.finish(module, gradus_shaders::SORT_SHORT)
        };
        compiler.launch("sort", linear(elements, compiler.tuning.workgroup), generate)
    }

    /// Adds the hooks of a launch that sorts whole rows.
    fn add_row(&self, module: &mut Module<'_>) {
        let array = module.bind(Slot::Plan(self.output), stored(DType::I32), Access::ReadWrite);
        let row = module.size(self.row as i64);
        module.function("row_size() -> u32", &row);
        self.add_key(module);
        let store = self.store(module, &array, "i32(k)");
        module.add(&format!("fn store(row: u32, place: u32, k: u32) {{\n    {store}\n}}"));
    }

    /// What stores an index as that at `place` of `row`; there is a hook `row_size()`.
    fn store(&self, module: &mut Module<'_>, array: &str, index: &str) -> String {
        if self.kept == self.row {
            return format!("{array}[row * row_size() + place] = {index};");
        }
        let kept = module.size(self.kept as i64);
        format!("if place < {kept} {{ {array}[row * {kept} + place] = {index}; }}")
    }

    /// Adds a hook that puts a key, if another pass is to follow, and its index to their place; there is a hook `row_size()`.
    fn add_put(&self, module: &mut Module<'_>, to: Option<Sorted>, parameters: &str, [key, index]: [&str; 2]) {
        let array = module.bind(Slot::Plan(to.map_or(self.output, |to| to.indices)), "i32", Access::ReadWrite);
        let put = match to {
            None => self.store(module, &array, index),
            Some(to) => {
                let keys = module.bind(Slot::Plan(to.keys), "u32", Access::ReadWrite);
                let to = "row * row_size() + place";
                format!("{keys}[{to}] = {key};\n    {array}[{to}] = {index};")
            }
        };
        module.add(&format!("fn put({parameters}) {{\n    {put}\n}}"));
    }

    fn by_digits(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let wanted = compiler.tuning.busy.div_ceil(self.rows.max(1));
        let segment = self.row.div_ceil(wanted).clamp(compiler.tuning.sort_segment, LONGEST);
        let parts = self.row.div_ceil(segment);
        let passes = (self.bits as usize).div_ceil(DIGIT);
        let mut from = None;
        for pass in 0..passes {
            let cut = Pass { sort: self, parts, segment, shift: pass * DIGIT, from };
            let places = cut.places(compiler)?;
            let elements = self.rows * self.row;
            let to = (pass + 1 < passes).then(|| Sorted {
                keys: compiler.add_buffer(DType::U32, elements),
                indices: compiler.add_buffer(DType::I32, elements),
            });
            cut.put(compiler, places, to)?;
            from = to;
        }
        Ok(())
    }
}

/// A pass over all rows, in parts, that puts them into the order of one digit.
struct Pass<'p> {
    sort: &'p Sort,
    parts: usize,
    segment: usize,
    /// The bits below the digit.
    shift: usize,
    /// What the pass before has left; the first one reads the operand.
    from: Option<Sorted>,
}

impl Pass<'_> {
    /// Where the elements with each digit of each part end: an array `[rows, DIGITS, parts]`.
    fn places(&self, compiler: &mut Compiler<'_>) -> Result<BufferId> {
        let space = Shape::new(&[self.sort.rows, DIGITS * self.parts]);
        let [counts, places] = [(); 2].map(|_| compiler.add_buffer(DType::U32, space.numel()));
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            let array = module.bind(Slot::Plan(counts), "u32", Access::ReadWrite);
            self.add_hooks(&mut module);
            let store = format!("{array}[(row * DIGITS + value) * parts() + part] = count;");
            module.add(&format!("fn store_count(row: u32, value: u32, part: u32, count: u32) {{\n    {store}\n}}"));
            shader.finish(module, gradus_shaders::SORT_COUNT)
        };
        compiler.launch("sort count", self.grid(compiler), generate)?;
        let sum = Kernel {
            family: Family::Scan { op: ScanOp::Sum, axis: 1 },
            loads: vec![Load { buffer: counts, view: View::contiguous(&space) }],
            space,
            expression: Expression { instructions: vec![(Instruction::Accumulator, DType::U32)] },
            outputs: vec![Store { buffer: places, register: 0, per_row: false }],
            nodes: Vec::new(),
        };
        scan::compile(compiler, &sum, ScanOp::Sum, 1)?;
        Ok(places)
    }

    /// Puts every element into its place; after the last pass only indices are of use.
    fn put(&self, compiler: &mut Compiler<'_>, places: BufferId, to: Option<Sorted>) -> Result<()> {
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            let places = module.bind(Slot::Plan(places), "u32", Access::Read);
            self.add_hooks(&mut module);
            module.add(&format!(
                "fn place_of(row: u32, value: u32, part: u32) -> u32 {{
    let at = (row * DIGITS + value) * parts() + part;
    let is_first = value == 0u && part == 0u;
    return select({places}[select(at - 1u, 0u, is_first)], 0u, is_first);
}}"
            ));
            let index = match self.from {
                None => "i32(k)".into(),
                Some(from) => {
                    let indices = module.bind(Slot::Plan(from.indices), "i32", Access::Read);
                    format!("{indices}[row * row_size() + k]")
                }
            };
            self.sort.add_put(&mut module, to, "row: u32, k: u32, place: u32", ["key(row, k)", &index]);
            shader.finish(module, gradus_shaders::SORT_MOVE)
        };
        compiler.launch("sort move", self.grid(compiler), generate)
    }

    fn grid(&self, compiler: &Compiler<'_>) -> [u32; 3] {
        linear(self.sort.rows * self.parts, compiler.tuning.workgroup)
    }

    /// The hooks of both halves of a pass.
    fn add_hooks(&self, module: &mut Module<'_>) {
        module.add(&format!("const DIGITS = {DIGITS}u;"));
        let sizes = [("row_size", self.sort.row), ("parts", self.parts), ("segment", self.segment)];
        for (name, value) in sizes {
            let value = module.size(value as i64);
            module.function(&format!("{name}() -> u32"), &value);
        }
        let rows = module.count(self.sort.rows);
        module.function("rows() -> u32", &rows);
        self.sort.add_keys(module, self.from);
        let shift = module.parameter(Parameter::Word(self.shift as u32));
        module.function("digit(row: u32, k: u32) -> u32", &format!("(key(row, k) >> {shift}) & (DIGITS - 1u)"));
    }
}
