//! Attention as products of tiles in workgroup memory: what suits GPUs.

use super::{Attention, Matrix, stored};
use crate::compiler::Compiler;
use crate::module::{Module, Slot};
use gradus_device::Access;
use gradus_ir::op::attention::AttentionPart;
use std::fmt::Write;

/// Rows of a tile.
pub(super) const TILE: usize = 32;

/// A tile of a matrix in workgroup memory.
#[derive(Clone, Copy)]
struct Tile<'a> {
    name: &'static str,
    matrix: &'a Matrix,
    /// How many rows it has, of how many.
    rows: usize,
    of: &'static str,
    /// How many invocations share a row of the result.
    columns: usize,
}

impl Tile<'_> {
    /// Vectors of a row: so many that there are as many for each column.
    fn stride(&self) -> usize {
        self.matrix.chunks().next_multiple_of(self.columns)
    }

    /// Adds `put_NAME(first)`, which copies rows of the matrix from this one on, as far as there are so many.
    fn add_put(&self, module: &mut Module<'_>) {
        let Tile { name: tile, matrix, of: rows, columns, .. } = *self;
        let (Matrix { name, .. }, chunks, stride) = (matrix, matrix.chunks(), self.stride());
        module.add(&format!(
            "fn put_{name}(first: u32) {{
    for (var i = my_lane; i < {}u; i += {}u) {{
        let row = i / {chunks}u;
        let chunk = i % {chunks}u;
        {tile}[slot(row, {stride}u, chunk)] = {name}(min(first + row, {rows} - 1u), chunk);
    }}
}}",
            self.rows * chunks,
            8 * columns
        ));
    }

    /// Adds `dots_NAME()`, the products of the invocation's four rows of another tile with four of this one.
    fn add_dots(&self, module: &mut Module<'_>, tile: &str) {
        let (Matrix { name, .. }, chunks, stride) = (self.matrix, self.matrix.chunks(), self.stride());
        let vector = |tile: &str, of: &str, i: usize| format!("{tile}[slot(4u * {of} + {i}u, {stride}u, chunk)]");
        let others = [0, 1, 2, 3].map(|i| vector("across_tile", "my_column", i)).join(",\n            ");
        let mut body = format!("fn dots_{name}() -> Four {{\n    var dots = Four();\n");
        let _ = writeln!(body, "    for (var chunk = 0u; chunk < {chunks}u; chunk++) {{");
        let _ = writeln!(body, "        let others = Four(\n            {others});");
        for i in 0..4 {
            let _ = writeln!(body, "        dots[{i}] = plus_dots(dots[{i}], {}, others);", vector(tile, "my_row", i));
        }
        body.push_str("    }\n    return dots;\n}");
        module.add(&body);
    }
}

/// What a kernel has in its tiles.
struct Roles<'a> {
    /// The rows whose products with others are the logits, and these.
    held: Tile<'a>,
    logits: Tile<'a>,
    /// The same for the slopes, where there are any.
    beside: Option<(Tile<'a>, Tile<'a>)>,
    /// What is summed up, where anything is.
    summed: Option<Tile<'a>>,
}

impl Attention<'_> {
    fn roles(&self, by_keys: bool, columns: usize) -> Roles<'_> {
        let (rows, others) = if by_keys { ("keys()", "queries()") } else { ("queries()", "keys()") };
        let held = |name, matrix| Tile { name, matrix: self.operand(matrix), rows: TILE, of: rows, columns };
        let across =
            |matrix| Tile { name: "across_tile", matrix: self.operand(matrix), rows: 4 * columns, of: others, columns };
        let (own, other) = if by_keys { ("key", "query") } else { ("query", "key") };
        let beside = |own, other| Some((held("beside_tile", own), across(other)));
        let (beside, summed) = match self.parts[0] {
            AttentionPart::Output | AttentionPart::LogSumExp => (None, self.has_output().then(|| across("value"))),
            AttentionPart::GradQuery => (beside("cotangent", "value"), Some(across("key"))),
            AttentionPart::GradKey => (beside("value", "cotangent"), Some(across("query"))),
            AttentionPart::GradValue => (None, Some(across("cotangent"))),
        };
        Roles { held: held("held_tile", own), logits: across(other), beside, summed }
    }

    /// How many invocations share a row where tiles fit into a workgroup's memory: the more, the fewer turns there are.
    pub(super) fn columns(&self, compiler: &Compiler<'_>, by_keys: bool) -> Option<usize> {
        let others = if by_keys { self.shape.queries } else { self.shape.keys };
        let fits = |&columns: &usize| {
            let tiles = self.tiles(&self.roles(by_keys, columns));
            let vectors = TILE * columns + tiles.iter().map(|(_, vectors)| vectors).sum::<usize>();
            16 * vectors <= compiler.limits().workgroup_bytes as usize
        };
        let most = if others > TILE { compiler.tuning.attention_columns } else { 8 };
        [32, 16, 8].into_iter().find(|columns| compiler.tuning.cooperates && *columns <= most && fits(columns))
    }

    /// The names and lengths of arrays in workgroup memory, but for the weights.
    fn tiles(&self, roles: &Roles<'_>) -> Vec<(&'static str, usize)> {
        let across = [Some(roles.logits), roles.beside.map(|(_, across)| across), roles.summed];
        let vectors = |tile: &Tile<'_>| tile.rows * tile.stride();
        let mut tiles = vec![("held_tile", vectors(&roles.held))];
        tiles.extend(roles.beside.map(|(held, _)| (held.name, vectors(&held))));
        tiles.extend(across.iter().flatten().map(vectors).max().map(|most| ("across_tile", most)));
        if !self.parts[0].is_gradient() {
            tiles.push(("of_lanes", 8 * roles.held.columns));
        }
        tiles
    }

    pub(super) fn add_tiled(&self, module: &mut Module<'_>, by_keys: bool, columns: usize) {
        let roles = self.roles(by_keys, columns);
        module.add(&format!("const COLUMNS = {columns}u;"));
        for (name, vectors) in self.tiles(&roles) {
            module.add(&format!("var<workgroup> {name}: array<Real, {vectors}>;"));
        }
        module.function("rows() -> u32", roles.held.of);
        module.function("walks() -> u32", if by_keys { "group()" } else { "1u" });
        self.add_range(module, by_keys);
        module.function("first_of_tile(row: u32) -> u32", "first_across(row)");
        module.function("last_of_tile(row: u32) -> u32", "last_across(min(row + 31u, rows() - 1u))");
        let (fetch, turn) = self.choices(by_keys);
        module.add(&format!("fn fetch(slice: u32) {{\n{fetch}}}\nfn turn(slice: u32, walk: u32) {{\n{turn}}}"));

        roles.held.add_put(module);
        roles.logits.add_put(module);
        roles.logits.add_dots(module, roles.held.name);
        let mut hold = format!("    put_{}(row);\n", roles.held.matrix.name);
        if let Some((held, others)) = roles.beside {
            held.add_put(module);
            others.add_put(module);
            others.add_dots(module, held.name);
            let _ = writeln!(hold, "    put_{}(row);", held.matrix.name);
        }
        module.add(&format!("fn hold(row: u32) {{\n{hold}}}"));
        if let Some(summed) = roles.summed
            && summed.matrix.name != roles.logits.matrix.name
        {
            summed.add_put(module);
        }
        if self.parts[0].is_gradient() {
            self.add_tiled_gradient(module, &roles, by_keys);
        } else {
            self.add_tiled_forward(module, &roles);
        }
        self.add_tiled_sums(module, &roles);
        self.add_tiled_store(module, roles.summed);
    }

    /// Adds the sums by weights.
    fn add_tiled_sums(&self, module: &mut Module<'_>, roles: &Roles<'_>) {
        let Some(summed) = roles.summed else { return module.add("fn add_sums(across: u32) {\n}") };
        let (Matrix { name, .. }, columns) = (summed.matrix, summed.columns);
        let turns = summed.stride() / columns;
        module.add(&format!("var<private> sums: array<Real, {}>;", 4 * turns));
        let mut body = String::from("fn add_sums(across: u32) {\n");
        // The last thing that was brought in was what the logits are made of.
        if *name != roles.logits.matrix.name {
            let _ = writeln!(body, "    workgroupBarrier();\n    put_{name}(across);");
        }
        body.push_str("    workgroupBarrier();\n    for (var four = 0u; four < COLUMNS; four++) {\n");
        for i in 0..4 {
            let _ = writeln!(body, "        let by{i} = weights[slot(4u * my_row + {i}u, COLUMNS, four)];");
        }
        for turn in 0..turns {
            let row = |i: usize| {
                format!("across_tile[slot(4u * four + {i}u, {}u, my_column + {}u)]", summed.stride(), columns * turn)
            };
            let rows = [0, 1, 2, 3].map(row).join(",\n            ");
            let _ = writeln!(body, "        let rows{turn} = Four(\n            {rows});");
            for i in 0..4 {
                let sum = format!("sums[{}]", 4 * turn + i);
                let _ = writeln!(body, "        {sum} = plus_weighted({sum}, by{i}, rows{turn});");
            }
        }
        body.push_str("    }\n}");
        module.add(&body);
    }

    fn add_tiled_gradient(&self, module: &mut Module<'_>, roles: &Roles<'_>, by_keys: bool) {
        let mut body = String::from("fn weigh(row: u32, across: u32) {\n    let slopes = Four();\n");
        if let Some((_, others)) = roles.beside {
            let name = others.matrix.name;
            body = format!(
                "fn weigh(row: u32, across: u32) {{\n    workgroupBarrier();\n    put_{name}(across);\n    \
                 workgroupBarrier();\n    let slopes = dots_{name}();\n"
            );
        }
        let logits = roles.logits.matrix.name;
        let _ = writeln!(body, "    workgroupBarrier();\n    put_{logits}(across);\n    workgroupBarrier();");
        let _ = writeln!(body, "    let logits = dots_{logits}();");
        for i in 0..4 {
            let _ = writeln!(
                body,
                "    weights[slot(4u * my_row + {i}u, COLUMNS, my_column)] =\n        weights_of(min(row + 4u * my_row + {i}u, \
                 rows() - 1u), across + 4u * my_column, logits[{i}], slopes[{i}]);"
            );
        }
        body.push('}');
        module.add(&body);
        let of_queries = |name: &str| match by_keys {
            true => format!("Real({})", ["x", "y", "z", "w"].map(|lane| format!("{name}(others.{lane})")).join(", ")),
            false => format!("{name}(row)"),
        };
        let weights = format!("exponential(logits - {})", of_queries("sum"));
        let value = match roles.beside {
            Some(_) => format!("{weights} * (slopes - {})", of_queries("product")),
            None => weights,
        };
        module.add(&format!(
            "fn weights_of(row: u32, first: u32, logits: Real, slopes: Real) -> Real {{
    let others = rows_from(first);
    return select(Real(), {value}, {});
}}",
            self.seen("last_across(row)", by_keys)
        ));
    }

    fn add_tiled_forward(&self, module: &mut Module<'_>, roles: &Roles<'_>) {
        let seen = self.seen("last_across(row)", false);
        module.add(&format!(
            "const LOWEST = -3.4028234e38;
var<private> largest: Real = Real(LOWEST);
var<private> totals: Real;
fn visible(row: u32, first: u32) -> Mask {{
    let others = rows_from(first);
    return {seen};
}}
fn greatest(four: Real) -> f32 {{
    return max(max(four.x, four.y), max(four.z, four.w));
}}
fn total(four: Real) -> f32 {{
    return (four.x + four.y) + (four.z + four.w);
}}"
        ));
        let key = roles.logits.matrix.name;
        let mut body = format!(
            "fn weigh(row: u32, across: u32) {{
    workgroupBarrier();
    put_{key}(across);
    workgroupBarrier();
    let dots = dots_{key}();
"
        );
        for i in 0..4 {
            let _ = writeln!(
                body,
                "    let seen{i} = visible(min(row + 4u * my_row + {i}u, rows() - 1u), across + 4u * my_column);
    let logits{i} = select(Real(LOWEST), dots[{i}], seen{i});"
            );
        }
        body.push_str(
            "    of_lanes[my_lane] =
        Real(greatest(logits0), greatest(logits1), greatest(logits2), greatest(logits3));
    workgroupBarrier();
    var larger = largest;
    for (var column = 0u; column < COLUMNS; column++) {
        larger = max(larger, of_lanes[COLUMNS * my_row + column]);
    }
    let factor = exponential(largest - larger);
    largest = larger;
",
        );
        for (i, lane) in ["x", "y", "z", "w"].iter().enumerate() {
            let _ = writeln!(
                body,
                "    let weights{i} = select(Real(), exponential(logits{i} - larger.{lane}), seen{i});
    weights[slot(4u * my_row + {i}u, COLUMNS, my_column)] = weights{i};"
            );
        }
        body.push_str("    totals = totals * factor + Real(");
        body.push_str(&[0, 1, 2, 3].map(|i| format!("total(weights{i})")).join(", "));
        body.push_str(");\n");
        for at in 0..roles.summed.map_or(0, |summed| 4 * summed.stride() / summed.columns) {
            let _ = writeln!(body, "    sums[{at}] *= factor.{};", ["x", "y", "z", "w"][at % 4]);
        }
        body.push('}');
        module.add(&body);
    }

    /// Adds what stores the results of a tile's rows.
    fn add_tiled_store(&self, module: &mut Module<'_>, summed: Option<Tile<'_>>) {
        let mut body = String::from("fn store(slice: u32, row: u32) {\n");
        if !self.parts[0].is_gradient() {
            body.push_str(
                "    workgroupBarrier();
    of_lanes[my_lane] = totals;
    workgroupBarrier();
    var total = Real();
    for (var column = 0u; column < COLUMNS; column++) {
        total += of_lanes[COLUMNS * my_row + column];
    }
    let sums_of_exponentials = largest + logarithm(total);
    // A query that looks at nothing.
    let divisor = select(total, Real(1.0), total == Real());
",
            );
        }
        for store in &self.kernel.outputs {
            let part = self.parts[store.register];
            let columns = summed.map_or(1, |summed| summed.matrix.columns);
            let is_sum = part == AttentionPart::LogSumExp;
            let is_vector = !is_sum && columns.is_multiple_of(4);
            let element = if is_vector { format!("vec4<{}>", stored(self.dtype)) } else { stored(self.dtype).into() };
            let array = module.bind(Slot::Plan(store.buffer), &element, Access::ReadWrite);
            for (i, lane) in ["x", "y", "z", "w"].iter().enumerate() {
                let condition = if is_sum { " && my_column == 0u" } else { "" };
                let _ = writeln!(body, "    if row + 4u * my_row + {i}u < rows(){condition} {{");
                let _ = writeln!(body, "        let at = slice * rows() + row + 4u * my_row + {i}u;");
                if is_sum {
                    let _ = writeln!(body, "        {array}[at] = sums_of_exponentials.{lane};");
                }
                let summed = summed.filter(|_| !is_sum);
                for turn in 0..summed.map_or(0, |summed| summed.stride() / summed.columns) {
                    let chunk = format!("(my_column + {turn}u * COLUMNS)");
                    let by = if part == AttentionPart::Output { format!(" / divisor.{lane}") } else { String::new() };
                    let value = format!("sums[{}]{by}", 4 * turn + i);
                    if is_vector {
                        let chunks = columns / 4;
                        let _ = writeln!(body, "        if {chunk} < {chunks}u {{");
                        let _ = writeln!(body, "            {array}[at * {chunks}u + {chunk}] = {value};\n        }}");
                    } else {
                        let _ = writeln!(body, "        let value{turn} = {value};");
                        let _ = writeln!(body, "        for (var lane = 0u; lane < 4u; lane++) {{");
                        let _ = writeln!(body, "            let column = 4u * {chunk} + lane;");
                        let _ = writeln!(body, "            if column < {columns}u {{");
                        let _ =
                            writeln!(body, "                {array}[at * {columns}u + column] = value{turn}[lane];");
                        body.push_str("            }\n        }\n");
                    }
                }
                body.push_str("    }\n");
            }
        }
        body.push('}');
        module.add(&body);
    }
}
