//! Sorts by tiles: a workgroup puts one into order in its memory, and writes neighbours where neighbours belong. What suits
//! GPUs.

use super::{Sort, Sorted};
use crate::compiler::{Compiler, Shader, workgroups};
use crate::module::{Baked, Module, Parameter, Slot, Width};
use gradus_device::Access;
use gradus_ir::DType;
use gradus_ir::Result;
use gradus_ir::plan::BufferId;

/// Keys of a tile.
pub(super) const TILE: usize = 2048;
/// The workgroup memory that its sort takes.
const BYTES: u32 = 4 * (3 * 2112 + 512);
const WORKGROUP: u32 = 256;
/// Bits of a digit, and how many values it has.
const DIGIT: usize = 8;
const DIGITS: usize = 1 << DIGIT;

/// Whether a workgroup can sort a tile, and does it well.
pub(super) fn fit(compiler: &Compiler<'_>) -> bool {
    compiler.tuning.cooperates && compiler.limits().workgroup_bytes >= BYTES
}

impl Sort {
    /// Rows that fit into a tile each.
    pub(super) fn in_a_tile(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            let rows = module.count(self.rows);
            module.function("rows() -> u32", &rows);
            module.function("bits() -> u32", &format!("{}u", self.bits));
            self.add_row(&mut module);
            module.add(gradus_shaders::SORT_TILE);
            shader.finish_in(module, gradus_shaders::SORT_ROW, WORKGROUP)
        };
        compiler.launch("sort", workgroups(self.rows), generate)
    }

    /// Longer rows, a digit at a time.
    pub(super) fn by_tiles(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let tiles = self.row.div_ceil(TILE);
        // A tile looks at the totals of all groups, and a group at its tiles.
        let group = tiles.isqrt();
        let groups = tiles.div_ceil(group);
        let [counts, totals] = [tiles, groups].map(|count| compiler.add_buffer(DType::U32, self.rows * count * DIGITS));
        let passes = (self.bits as usize).div_ceil(DIGIT);
        let mut from = None;
        for pass in 0..passes {
            let pass = Pass { sort: self, tiles, group, groups, counts, totals, shift: pass * DIGIT, from };
            let to = (pass.shift + DIGIT < self.bits as usize).then(|| {
                let [keys, indices] =
                    [DType::U32, DType::I32].map(|dtype| compiler.add_buffer(dtype, self.rows * self.row));
                Sorted { keys, indices }
            });
            pass.count(compiler)?;
            pass.sum(compiler)?;
            pass.put(compiler, to)?;
            from = to;
        }
        Ok(())
    }
}

/// A pass over all rows that puts them into the order of one digit.
struct Pass<'p> {
    sort: &'p Sort,
    /// Tiles of a row, of a group of these, and groups of a row.
    tiles: usize,
    group: usize,
    groups: usize,
    /// How often each value of the digit occurs: arrays `[rows, tiles, DIGITS]` and `[rows, groups, DIGITS]`. The first one holds,
    /// in the end, how often it occurs in the tiles before, of the same group.
    counts: BufferId,
    totals: BufferId,
    /// The bits below the digit.
    shift: usize,
    /// What the pass before has left; the first one reads the operand.
    from: Option<Sorted>,
}

impl Pass<'_> {
    fn count(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            self.add_sizes(&mut module);
            self.sort.add_keys(&mut module, self.from);
            module.function("digit(row: u32, k: u32) -> u32", &format!("(key(row, k) >> shift()) & {}u", DIGITS - 1));
            let counts = module.bind(Slot::Plan(self.counts), "u32", Access::ReadWrite);
            add_store_count(&mut module, &counts);
            shader.finish_in(module, gradus_shaders::SORT_TILE_COUNT, WORKGROUP)
        };
        compiler.launch("sort count", workgroups(self.sort.rows * self.tiles), generate)
    }

    fn sum(&self, compiler: &mut Compiler<'_>) -> Result<()> {
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            self.add_sizes(&mut module);
            let counts = module.bind(Slot::Plan(self.counts), "u32", Access::ReadWrite);
            let totals = module.bind(Slot::Plan(self.totals), "u32", Access::ReadWrite);
            add_count(&mut module, &counts);
            add_store_count(&mut module, &counts);
            let store = format!("{totals}[(row * groups() + group) * {DIGITS}u + digit] = count;");
            module.add(&format!("fn store_total(row: u32, group: u32, digit: u32, count: u32) {{\n    {store}\n}}"));
            shader.finish_in(module, gradus_shaders::SORT_TILE_GROUP, WORKGROUP)
        };
        compiler.launch("sort group", workgroups(self.sort.rows * self.groups), generate)
    }

    /// Puts every key into its place; after the last pass only indices are of use.
    fn put(&self, compiler: &mut Compiler<'_>, to: Option<Sorted>) -> Result<()> {
        let generate = |shader: &Shader<'_>, baked: Baked<'_>| {
            let mut module = shader.module(Width::Scalar, baked);
            self.add_sizes(&mut module);
            let counts = module.bind(Slot::Plan(self.counts), "u32", Access::Read);
            let totals = module.bind(Slot::Plan(self.totals), "u32", Access::Read);
            add_count(&mut module, &counts);
            let total = format!("{totals}[(row * groups() + group) * {DIGITS}u + digit]");
            module.function("total(row: u32, group: u32, digit: u32) -> u32", &total);
            self.sort.add_keys(&mut module, self.from);
            let index = self.from.map_or("k".into(), |from| {
                let indices = module.bind(Slot::Plan(from.indices), "i32", Access::Read);
                format!("u32({indices}[row * row_size() + k])")
            });
            module.function("index(row: u32, k: u32) -> u32", &index);
            let parameters = "row: u32, place: u32, key: u32, index: u32";
            self.sort.add_put(&mut module, to, parameters, ["key", "i32(index)"]);
            module.add(gradus_shaders::SORT_TILE);
            shader.finish_in(module, gradus_shaders::SORT_TILE_MOVE, WORKGROUP)
        };
        compiler.launch("sort move", workgroups(self.sort.rows * self.tiles), generate)
    }

    fn add_sizes(&self, module: &mut Module<'_>) {
        let sizes =
            [("row_size", self.sort.row), ("parts", self.tiles), ("groups", self.groups), ("group_size", self.group)];
        for (name, value) in sizes {
            let value = module.size(value as i64);
            module.function(&format!("{name}() -> u32"), &value);
        }
        let rows = module.count(self.sort.rows);
        module.function("rows() -> u32", &rows);
        let shift = module.parameter(Parameter::Word(self.shift as u32));
        module.function("shift() -> u32", &shift);
    }
}

fn add_count(module: &mut Module<'_>, counts: &str) {
    let count = format!("{counts}[(row * parts() + tile) * {DIGITS}u + digit]");
    module.function("count(row: u32, tile: u32, digit: u32) -> u32", &count);
}

fn add_store_count(module: &mut Module<'_>, counts: &str) {
    let store = format!("{counts}[(row * parts() + tile) * {DIGITS}u + digit] = count;");
    module.add(&format!("fn store_count(row: u32, tile: u32, digit: u32, count: u32) {{\n    {store}\n}}"));
}
