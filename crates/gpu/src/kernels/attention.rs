//! Attention and its cotangents, without the logits ever being stored.

mod tiled;

use crate::affine::{Affine, Space, Step};
use crate::compiler::{Compiler, Shader, linear, workgroups};
use crate::expression::{coordinates, loads_vectors};
use crate::module::{Baked, Module, Slot, Width, stored};
use crate::tuning::TEAM;
use gradus_device::{Access, Trust};
use gradus_ir::op::attention::{AttentionPart, AttentionShape};
use gradus_ir::plan::{BufferId, Kernel, Load};
use gradus_ir::{DType, Error, Result};
use std::fmt::Write;

/// Turns of a loop that every adapter takes: some end loops after 65,535.
const TURNS: usize = 65_000;

/// The entry point where each invocation loads for itself.
const ALONE: &str = "@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    attend(invocation(id, lane));
}";

/// The entry point where a workgroup is one subgroup.
const TOGETHER: &str = "var<private> team_lane: u32;
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    team_lane = lane;
    attend(8u * workgroup_index(id) + lane);
}";

/// Where each operand is among the loads.
const NAMES: [&str; 6] = ["query", "key", "value", "cotangent", "sum", "product"];

/// An operand of which each slice (a head, or what heads share) is a matrix.
struct Matrix {
    name: &'static str,
    buffer: BufferId,
    /// The axes of slices, then rows and columns.
    map: Affine,
    /// The extents of the first ones.
    slices: Space,
    columns: usize,
    /// Whether elements are read four at a time.
    is_vector: bool,
}

impl Matrix {
    fn new(name: &'static str, load: &Load, dtype: DType) -> Matrix {
        let shape = load.view.shape();
        let split = shape.len() - if matches!(name, "sum" | "product") { 1 } else { 2 };
        let mut map = Affine::of(&load.view);
        let inner: Vec<_> = map.axes.drain(split..).collect();
        let mut maps = [map];
        let slices = Space::simplified(&[&shape[..split]], &mut maps);
        let [mut map] = maps;
        map.axes.extend(inner);
        let columns = shape.get(split + 1).copied().unwrap_or(1);
        let is_vector = dtype.is_float() && columns.is_multiple_of(4) && loads_vectors(&map);
        Matrix { name, buffer: load.buffer, map, slices, columns, is_vector }
    }

    fn chunks(&self) -> usize {
        self.columns.div_ceil(4)
    }

    /// The numbers of a binding's element.
    fn unit(&self) -> i64 {
        if self.is_vector { 4 } else { 1 }
    }

    /// Adds where a slice begins, `NAME_slice(slice)`, and the variable that remembers it, `at_NAME`; gives the strides of
    /// what lies in a slice.
    fn add_slice(&self, module: &mut Module<'_>) -> Vec<String> {
        let Matrix { name, .. } = self;
        let unit = self.unit();
        let (slices, inner) = self.map.axes.split_at(self.slices.extents.len());
        let mut body = format!("var<private> at_{name}: u32;\nfn {name}_slice(slice: u32) -> u32 {{\n");
        let places = coordinates(module, &mut body, "slice", "slice", &self.slices.extents);
        let mut terms = vec![module.size(self.map.offset / unit)];
        for (place, step) in places.iter().zip(slices) {
            terms.push(format!("{place} * {}", module.size(step.stride / unit)));
        }
        let _ = writeln!(body, "    return {};\n}}", terms.join(" + "));
        module.add(&body);
        // Vectors lie along columns.
        let stride = |(i, step): (usize, &Step)| if i == 0 { step.stride / unit } else { step.stride };
        inner.iter().enumerate().map(stride).map(|stride| module.size(stride)).collect()
    }

    /// Adds the hooks of [`Self::add_slice`], and `NAME(row, chunk)`, four numbers of a row, or `NAME(row)`, the only one.
    fn add_hooks(&self, module: &mut Module<'_>, dtype: DType) {
        let Matrix { name, .. } = self;
        let strides = self.add_slice(module);
        let at = format!("at_{name} + row * {}", strides[0]);
        if self.is_vector {
            let vector = module.vectors(Slot::Plan(self.buffer), dtype)(&format!("{at} + chunk"));
            return module.function(&format!("{name}(row: u32, chunk: u32) -> Real"), &vector);
        }
        let array = module.bind(Slot::Plan(self.buffer), stored(dtype), Access::Read);
        match strides.get(1) {
            None => module.function(&format!("{name}(row: u32) -> f32"), &format!("{array}[{at}]")),
            Some(step) => {
                let last = module.size(self.columns as i64 - 1);
                // Columns that are not there are zeros.
                let read = |lane: usize| {
                    let place = format!("(4u * chunk + {lane}u)");
                    let element = format!("{array}[{at} + min({place}, {last}) * {step}]");
                    if self.columns.is_multiple_of(4) {
                        element
                    } else {
                        format!("select(0.0, {element}, {place} <= {last})")
                    }
                };
                let four = [0, 1, 2, 3].map(read).join(", ");
                module.function(&format!("{name}(row: u32, chunk: u32) -> Real"), &format!("Real({four})"));
            }
        }
    }

    /// Appends the statements that name a chunk of four rows from `first` on, and gives these names. A team loads two chunks
    /// at once, of which each invocation has one of four rows, and takes them from one another.
    fn four_rows(&self, body: &mut String, chunk: usize, is_team: bool) -> [String; 4] {
        let Matrix { name, .. } = self;
        if !is_team {
            return ["x", "y", "z", "w"].map(|lane| format!("{name}(row.{lane}, {chunk}u)"));
        }
        if chunk.is_multiple_of(2) {
            let last = self.chunks() - 1;
            let mine = format!("min({chunk}u + team_lane / 4u, {last}u)");
            let _ = writeln!(body, "    let chunks{} = {name}(row[team_lane % 4u], {mine});", chunk / 2);
        }
        [0, 1, 2, 3].map(|row| format!("subgroupBroadcast(chunks{}, {}u)", chunk / 2, chunk % 2 * 4 + row))
    }

    /// Adds four scalar products of what is held with rows from `first` on.
    fn add_dots(&self, module: &mut Module<'_>, function: &str, held: &str, is_team: bool) {
        let mut body = format!("fn {function}(first: u32) -> Real {{\n    let row = rows_from(first);\n");
        body.push_str("    var four = Real();\n");
        for chunk in 0..self.chunks() {
            let dots = self.four_rows(&mut body, chunk, is_team).map(|row| format!("dot({held}[{chunk}], {row})"));
            let _ = writeln!(body, "    four += Real({});", dots.join(", "));
        }
        body.push_str("    return four;\n}");
        module.add(&body);
    }

    /// Adds the sums of rows from `first` on, by their weights.
    fn add_sums(&self, module: &mut Module<'_>, is_team: bool) {
        let mut body = String::from("fn add(weights: Real, first: u32) {\n    let row = rows_from(first);\n");
        for chunk in 0..self.chunks() {
            let rows = self.four_rows(&mut body, chunk, is_team);
            let terms: Vec<String> =
                ["x", "y", "z", "w"].iter().zip(rows).map(|(lane, row)| format!("weights.{lane} * {row}")).collect();
            let _ = writeln!(body, "    sums[{chunk}] += {};", terms.join(" + "));
        }
        body.push('}');
        module.add(&body);
    }

    /// The statements that hold a row.
    fn hold(&self, held: &str) -> String {
        (0..self.chunks()).map(|chunk| format!("    {held}[{chunk}] = {}(row, {chunk}u);\n", self.name)).collect()
    }
}

/// One kernel's launch.
struct Attention<'k> {
    kernel: &'k Kernel,
    parts: &'k [AttentionPart],
    causal: bool,
    shape: AttentionShape,
    dtype: DType,
    operands: Vec<Matrix>,
    mask: Option<Matrix>,
    sharing: Sharing,
}

/// Who shares what was loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Nobody: an invocation for each row.
    No,
    /// Eight neighbouring rows, whose invocations are a subgroup.
    Team,
    /// The rows of a tile, for which there is a workgroup, so many of whose invocations share each row.
    Tile { columns: usize },
}

pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    kernel: &Kernel,
    parts: &[AttentionPart],
    causal: bool,
) -> Result<()> {
    let extents = [0, 1, 2].map(|load| kernel.loads[load].view.shape());
    let shape = AttentionShape::of(&extents[0], &extents[1], &extents[2]);
    let dtype = kernel.expression.dtype(0);
    let numbers = parts[0].operands();
    let by_keys = matches!(parts[0], AttentionPart::GradKey | AttentionPart::GradValue);
    let turns = if by_keys { shape.group * shape.queries.div_ceil(4) } else { shape.keys.div_ceil(4) };
    let is_large = |load: &Load| compiler.buffers[load.buffer].len > 1 << 31;
    if kernel.loads.iter().any(is_large) || (!compiler.tuning.cooperates && turns > TURNS) {
        return Err(Error::TooLarge { shape: shape.logits() });
    }
    let operand = |load: usize| Matrix::new(NAMES[load], &kernel.loads[load], dtype);
    let mut attention = Attention {
        kernel,
        parts,
        causal,
        operands: (0..numbers).map(operand).collect(),
        mask: kernel.loads.get(numbers).map(|load| Matrix::new("mask", load, DType::Bool)),
        shape,
        dtype,
        sharing: if compiler.has_teams() { Sharing::Team } else { Sharing::No },
    };
    if let Some(columns) = attention.columns(compiler, by_keys) {
        attention.sharing = Sharing::Tile { columns };
    }
    let slices = attention.slices(by_keys);
    let rows = if by_keys { attention.shape.keys } else { attention.shape.queries };
    let (grid, trust) = match attention.sharing {
        Sharing::No => (linear(slices * rows, compiler.tuning.workgroup), Trust::Trusted),
        Sharing::Team => (workgroups(slices * rows.div_ceil(TEAM)), Trust::Trusted),
        // Rows are cut off at the last one, and tiles are as large as what reads them.
        Sharing::Tile { .. } => (workgroups(slices * rows.div_ceil(tiled::TILE)), Trust::InBounds),
    };
    compiler.launch_of(trust, parts[0].name(), grid, |shader, baked| attention.generate(shader, baked, by_keys))
}

impl Attention<'_> {
    /// How many slices of rows there are: heads, or what heads share.
    fn slices(&self, by_keys: bool) -> usize {
        self.shape.batch.numel() * if by_keys { 1 } else { self.shape.group }
    }

    fn generate(&self, shader: &Shader<'_>, baked: Baked<'_>, by_keys: bool) -> crate::module::Finished {
        let mut module = shader.module(Width::Vector, baked);
        let AttentionShape { group, queries, keys, .. } = self.shape;
        let slices = module.count(self.slices(by_keys));
        let is_tiled = matches!(self.sharing, Sharing::Tile { .. });
        let counted = if self.parts[0].is_gradient() || is_tiled { "slices" } else { "heads" };
        module.function(&format!("{counted}() -> u32"), &slices);
        for (name, size) in [("group", group), ("queries", queries), ("keys", keys)] {
            let size = module.size(size as i64);
            module.function(&format!("{name}() -> u32"), &size);
        }
        // A query looks at all keys, or at one less for each query that comes after it.
        let last = "u32(clamp(i32(query + 1u + keys()) - i32(queries()), 0, i32(keys())))";
        module.function("last_key(query: u32) -> u32", if self.causal { last } else { "keys()" });
        if !is_tiled {
            module.add(if self.is_team() { TOGETHER } else { ALONE });
            let rows = if by_keys { "keys()" } else { "queries()" };
            let padded = if self.is_team() { format!("({rows} + 7u) / 8u * 8u") } else { rows.into() };
            module.function("rows_with_padding() -> u32", &padded);
        }
        for operand in self.operands.iter().filter(|operand| self.reads(operand.name)) {
            operand.add_hooks(&mut module, self.dtype);
        }
        if let Some(mask) = &self.mask {
            let strides = mask.add_slice(&mut module);
            let array = module.bind(Slot::Plan(mask.buffer), stored(DType::Bool), Access::Read);
            let element = format!("{array}[at_mask + query * {} + key * {}] != 0u", strides[0], strides[1]);
            module.function("may_look(query: u32, key: u32) -> bool", &element);
        }
        let across = if by_keys { "queries()" } else { "keys()" };
        module.function(
            "rows_from(first: u32) -> Word",
            &format!("min(Word(first) + Word(0u, 1u, 2u, 3u), Word({across} - 1u))"),
        );
        if let Sharing::Tile { columns } = self.sharing {
            self.add_tiled(&mut module, by_keys, columns);
            return shader.finish(module, gradus_shaders::ATTENTION_TILED);
        }
        let skeleton = match self.parts[0] {
            AttentionPart::Output | AttentionPart::LogSumExp => {
                self.add_forward(&mut module);
                gradus_shaders::ATTENTION
            }
            part => {
                self.add_gradient(&mut module, part, by_keys);
                gradus_shaders::ATTENTION_GRADIENT
            }
        };
        shader.finish(module, skeleton)
    }

    fn is_team(&self) -> bool {
        self.sharing == Sharing::Team
    }

    fn has_output(&self) -> bool {
        self.kernel.outputs.iter().any(|store| self.parts[store.register] == AttentionPart::Output)
    }

    /// Whether an operand is looked at.
    fn reads(&self, name: &str) -> bool {
        match name {
            "value" => self.parts != [AttentionPart::LogSumExp] && self.parts[0] != AttentionPart::GradValue,
            "product" => self.parts[0] != AttentionPart::GradValue,
            _ => true,
        }
    }

    fn operand(&self, name: &str) -> &Matrix {
        self.operands.iter().find(|operand| operand.name == name).expect("operands come as the part has them")
    }

    /// The choice of a head: where its matrices begin.
    fn turned_to(&self, head: &str, shared: &str) -> String {
        let mut text = String::new();
        for operand in self.operands.iter().filter(|operand| self.reads(operand.name)) {
            let slice = if matches!(operand.name, "key" | "value") { shared } else { head };
            let _ = writeln!(text, "    at_{0} = {0}_slice({slice});", operand.name);
        }
        if self.mask.is_some() {
            let _ = writeln!(text, "    at_mask = mask_slice({head});");
        }
        text
    }

    /// Which of four others, from `first` on, meet a row: those before a last one, if the mask says so too.
    fn seen(&self, last: &str, by_keys: bool) -> String {
        let four = "Word(first) + Word(0u, 1u, 2u, 3u)";
        let mut condition = format!("{four} < Word({last})");
        if by_keys && self.causal && self.sharing != Sharing::No {
            // All begin with the first of their rows.
            condition = format!("({condition}) & ({four} >= Word(first_across(row)))");
        }
        if self.mask.is_none() {
            return condition;
        }
        let one = |lane: &str| match by_keys {
            true => format!("may_look(others.{lane}, row)"),
            false => format!("may_look(row, others.{lane})"),
        };
        format!("({condition}) & vec4({})", ["x", "y", "z", "w"].map(one).join(", "))
    }

    fn add_forward(&self, module: &mut Module<'_>) {
        let (query, key) = (self.operand("query"), self.operand("key"));
        let has_output = self.has_output();
        module.add(&format!("var<private> held: array<Real, {}>;", query.chunks()));
        module.add(&format!(
            "fn fetch(head: u32, row: u32) {{\n{}{}}}",
            self.turned_to("head", "head / group()"),
            query.hold("held")
        ));
        key.add_dots(module, "logits", "held", self.is_team());
        let last_row = if self.is_team() { "min(query / 8u * 8u + 7u, queries() - 1u)" } else { "query" };
        module.function("last_of_team(query: u32) -> u32", &format!("last_key({last_row})"));
        let seen = self.seen("last_key(row)", false);
        module.add(&format!(
            "fn visible(row: u32, first: u32) -> Mask {{\n    let others = rows_from(first);\n    return {seen};\n}}"
        ));
        let mut rescaled = String::from("fn rescale(factor: f32) {\n");
        if has_output {
            let value = self.operand("value");
            module.add(&format!("var<private> sums: array<Real, {}>;", value.chunks()));
            for chunk in 0..value.chunks() {
                let _ = writeln!(rescaled, "    sums[{chunk}] *= factor;");
            }
            value.add_sums(module, self.is_team());
        } else {
            module.add("fn add(weights: Real, first: u32) {\n}");
        }
        rescaled.push('}');
        module.add(&rescaled);
        let mut body = String::from("fn store(head: u32, row: u32, largest: f32, total: f32) {\n");
        for store in &self.kernel.outputs {
            match self.parts[store.register] {
                AttentionPart::LogSumExp => {
                    let array = module.bind(Slot::Plan(store.buffer), stored(self.dtype), Access::ReadWrite);
                    let sum = "largest + logarithm(Real(total)).x";
                    let _ = writeln!(body, "    {array}[head * queries() + row] = {sum};");
                }
                _ => {
                    // A query that looks at nothing.
                    body.push_str("    let divisor = select(total, 1.0, total == 0.0);\n");
                    body.push_str("    let slice = head;\n");
                    let stored = self.stored(module, store.buffer, self.shape.values, "queries()", "/ divisor");
                    body.push_str(&stored);
                }
            }
        }
        body.push('}');
        module.add(&body);
    }

    /// The statements that store the sums of a row.
    fn stored(&self, module: &mut Module<'_>, buffer: BufferId, columns: usize, rows: &str, then: &str) -> String {
        let mut text = String::new();
        let is_vector = columns.is_multiple_of(4);
        let element = if is_vector { format!("vec4<{}>", stored(self.dtype)) } else { stored(self.dtype).into() };
        let array = module.bind(Slot::Plan(buffer), &element, Access::ReadWrite);
        let length = module.size(if is_vector { columns / 4 } else { columns } as i64);
        let _ = writeln!(text, "    let at = (slice * {rows} + row) * {length};");
        if is_vector {
            for chunk in 0..columns / 4 {
                let _ = writeln!(text, "    {array}[at + {chunk}u] = sums[{chunk}] {then};");
            }
        } else {
            for column in 0..columns {
                let _ = writeln!(text, "    {array}[at + {column}u] = sums[{}][{}] {then};", column / 4, column % 4);
            }
        }
        text
    }

    /// Adds the range of what a row meets across, but for a mask.
    fn add_range(&self, module: &mut Module<'_>, by_keys: bool) {
        // The query that looks at no key after this one.
        let first = if by_keys && self.causal { "u32(max(i32(row + queries()) - i32(keys()), 0))" } else { "0u" };
        module.function("first_across(row: u32) -> u32", first);
        module.function("last_across(row: u32) -> u32", if by_keys { "queries()" } else { "last_key(row)" });
    }

    /// The choice of a slice's matrices, and of each head's that shares them.
    fn choices(&self, by_keys: bool) -> (String, String) {
        match by_keys {
            true => (self.turned_to("slice * group()", "slice"), self.turned_to("slice * group() + walk", "slice")),
            false => (self.turned_to("slice", "slice / group()"), String::new()),
        }
    }

    fn add_gradient(&self, module: &mut Module<'_>, part: AttentionPart, by_keys: bool) {
        let slopes = part != AttentionPart::GradValue;
        let [query, key, cotangent] = ["query", "key", "cotangent"].map(|name| self.operand(name));
        module.function("rows() -> u32", if by_keys { "keys()" } else { "queries()" });
        module.function("walks() -> u32", if by_keys { "group()" } else { "1u" });
        self.add_range(module, by_keys);
        let (first_row, last_row) =
            if self.is_team() { ("row / 8u * 8u", "min(row / 8u * 8u + 7u, rows() - 1u)") } else { ("row", "row") };
        module.function("first_of_team(row: u32) -> u32", &format!("first_across({first_row})"));
        module.function("last_of_team(row: u32) -> u32", &format!("last_across({last_row})"));
        let (held, rows) = if by_keys { (key, query) } else { (query, key) };
        module.add(&format!("var<private> held: array<Real, {}>;", held.chunks()));
        rows.add_dots(module, "logits", "held", self.is_team());
        let mut hold = held.hold("held");
        if slopes {
            let value = self.operand("value");
            let (held, rows) = if by_keys { (value, cotangent) } else { (cotangent, value) };
            module.add(&format!("var<private> held_beside: array<Real, {}>;", held.chunks()));
            rows.add_dots(module, "slopes", "held_beside", self.is_team());
            hold.push_str(&held.hold("held_beside"));
        }
        let summed = match part {
            AttentionPart::GradQuery => key,
            AttentionPart::GradKey => query,
            _ => cotangent,
        };
        module.add(&format!("var<private> sums: array<Real, {}>;", summed.chunks()));
        summed.add_sums(module, self.is_team());

        let (fetch, turn) = self.choices(by_keys);
        module.add(&format!("fn fetch(slice: u32, row: u32) {{\n{fetch}{hold}}}"));
        module.add(&format!("fn turn(slice: u32, walk: u32) {{\n{turn}}}"));

        let mut body = String::from("fn weights(row: u32, first: u32) -> Real {\n");
        body.push_str("    let others = rows_from(first);\n");
        let mut of_queries = |name: &str| {
            if !by_keys {
                return format!("{name}(row)");
            }
            if !self.is_team() {
                let four = ["x", "y", "z", "w"].map(|lane| format!("{name}(others.{lane})"));
                return format!("Real({})", four.join(", "));
            }
            let _ = writeln!(body, "    let one_{name} = {name}(others[team_lane % 4u]);");
            let four = [0, 1, 2, 3].map(|lane| format!("subgroupBroadcast(one_{name}, {lane}u)"));
            format!("Real({})", four.join(", "))
        };
        let sums = of_queries("sum");
        let products = if slopes { of_queries("product") } else { String::new() };
        let _ = writeln!(body, "    let seen = {};", self.seen("last_across(row)", by_keys));
        let _ = writeln!(body, "    let weights = exponential(logits(first) - {});", sums);
        let value = if slopes { format!("weights * (slopes(first) - {products})") } else { "weights".into() };
        let _ = writeln!(body, "    return select(Real(), {value}, seen);\n}}");
        module.add(&body);

        let mut body = String::from("fn store(slice: u32, row: u32) {\n");
        for store in &self.kernel.outputs {
            body.push_str(&self.stored(module, store.buffer, summed.columns, "rows()", ""));
        }
        body.push('}');
        module.add(&body);
    }
}
