//! Every hand-written file, with hooks that do as little as possible, valid and translated for all platforms. No GPU.

#[path = "../../../tests/support/portability.rs"]
mod portability;

use gradus_shaders as shaders;
use portability::translate;

const SCALAR: &str = "alias Real = f32; alias Int = i32; alias Word = u32; alias Mask = bool;\n";
const VECTOR: &str =
    "alias Real = vec4<f32>; alias Int = vec4<i32>; alias Word = vec4<u32>; alias Mask = vec4<bool>;\n";
const SIZES: &str = "const WORKGROUP = 64u;\n@group(0) @binding(0) var<storage, read_write> data: array<f32>;\n";

fn check(what: &str, parts: &[&str]) {
    let text = parts.concat();
    translate(&text).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// All libraries together, as every kernel may use them.
fn libraries() -> String {
    shaders::LIBRARIES.concat()
}

#[test]
fn libraries_at_both_widths() {
    // What argmax compares is one element at a time.
    let best = "alias Element = f32; alias Vector = vec4<f32>;\nfn beats(x: f32, y: f32) -> bool { return x > y; }\n";
    for width in [SCALAR, VECTOR] {
        check("libraries", &[width, SIZES, best, &libraries()]);
    }
}

#[test]
fn skeletons_with_identity_hooks() {
    let best = "alias Vector = vec4<f32>;\nfn beats(x: f32, y: f32) -> bool { return x > y; }\n";
    let size = "fn size() -> u32 { return 100u; }\n";
    let reduction = "alias Element = f32; const BLOCK = 128u; const STEP = 1u; struct Partial_N { sum: f32 }
        fn rows() -> u32 { return 10u; } fn row_size() -> u32 { return 20u; }
        fn parts() -> u32 { return 1u; } fn segment() -> u32 { return 20u; }
        fn identity_N() -> Partial_N { return Partial_N(0.0); }
        fn combine_N(a: Partial_N, b: Partial_N) -> Partial_N { return Partial_N(a.sum + b.sum); }
        alias Total_N = Partial_N;
        fn combine_totals_N(a: Total_N, b: Total_N) -> Total_N { return combine_N(a, b); }
        fn fold_N(partial: Partial_N, row: u32, element: u32) -> Partial_N {
            return Partial_N(partial.sum + data[row * 20u + element]);
        }\n";
    let serial = "fn program(i: u32, row: u32, first: u32, last: u32) { data[i] = pass_N(row, first, last).sum; }\n";
    let shared = "fn program(i: u32, row: u32, start: u32, last: u32, lane: u32, leads: bool) {
        let sum = meet_N(walk_N(row, start, last), lane).sum;
        if leads { data[i] = sum; }
    }
    const ACROSS = 4u; const IS_DOWN = false; const SUBGROUP = 8u;
    fn exchanged_N(total: Total_N, apart: u32) -> Total_N { return Total_N(subgroupShuffleXor(total.sum, apart)); }\n";
    let product = "alias Element = f32;
        fn batches() -> u32 { return 1u; } fn rows() -> u32 { return 2u; } fn columns() -> u32 { return 3u; }
        fn inner_size() -> u32 { return 4u; } fn parts() -> u32 { return 1u; } fn segment() -> u32 { return 16u; }
        fn load_a(batch: u32, row: u32, k: u32) -> f32 { return data[row + k]; }
        fn load_b(batch: u32, column: u32, k: u32) -> f32 { return data[column + k]; }
        fn store(part: u32, batch: u32, row: u32, column: u32, sum: f32) { data[row * 3u + column] = sum; }\n";
    let quads = "alias Element = f32; const ROW_GROUPS = 8u; const COLUMN_GROUPS = 2u; const A_NEIGHBOURS = true;
        const SIDE = 8u; const QUADS = 2u; const EVEN_SEGMENTS = false; const WHOLE_STEPS = false; const A_ALONG_K = true; const B_ALONG_K = false;
        fn batches() -> u32 { return 1u; } fn rows() -> u32 { return 2u; } fn columns() -> u32 { return 3u; }
        fn inner_size() -> u32 { return 4u; } fn parts() -> u32 { return 1u; } fn segment() -> u32 { return 16u; }
        fn a_line(batch: u32, row: u32) -> Part { return Part(row, 1u); } fn a_place(k: u32) -> Part { return Part(k, 1u); }
        fn b_line(batch: u32, row: u32) -> Part { return Part(row, 1u); } fn b_place(k: u32) -> Part { return Part(k, 1u); }
        fn quad_a(lines: Parts, places: Parts) -> Quad { return Quad(); }
        fn quad_b(lines: Parts, places: Parts) -> Quad { return transposed(Quad()); }
        fn mad(a: Element, b: Vector, c: Vector) -> Vector { return fma(Vector(a), b, c); }
        fn store(part: u32, batch: u32, row: u32, column: u32, sums: Vector) { data[row * 3u + column] = sums.x; }\n";
    let scatter = "alias Element = f32;
        fn first() -> u32 { return 0u; } fn last() -> u32 { return 5u; }
        fn current(i: u32) -> f32 { return data[i]; } fn position(i: u32) -> u32 { return i; }
        fn index(i: u32, k: u32) -> u32 { return k; } fn update(i: u32, k: u32) -> f32 { return data[k]; }
        fn begin(i: u32) -> u32 { return 0u; } fn end(i: u32) -> u32 { return 5u; }
        fn ordered(i: u32, place: u32) -> u32 { return place; }
        fn lines() -> u32 { return 2u; } fn line_size() -> u32 { return 5u; } fn extent() -> u32 { return 7u; }
        fn ordered_index(line: u32, place: u32) -> u32 { return place; }
        fn store_begin(i: u32, place: u32) { data[i] = f32(place); }
        fn combine(a: f32, update: f32) -> f32 { return a + update; } fn store(i: u32, a: f32) { data[i] = a; }\n";
    let unpack = "alias Element = f32; fn word(i: u32) -> u32 { return u32(data[i]); }
        fn store(i: u32, bytes: vec4<u32>) { data[i] = f32(bytes.x); }\n";
    let element = "alias Element = f32; fn element(i: u32) { data[i] = 1.0; }\n";
    let scan = "alias Element = f32; alias State = f32; const BLOCK = 128u;
        fn lines() -> u32 { return 10u; } fn line_size() -> u32 { return 20u; }
        fn parts() -> u32 { return 1u; } fn segment() -> u32 { return 20u; }
        fn begin(carried: f32) -> f32 { return 0.0; } fn result(carried: f32, state: f32) -> f32 { return state; }
        fn advance(state: f32, line: u32, k: u32) -> f32 { return state + data[line * 20u + k]; }
        fn carried_by(part: u32, line: u32) -> f32 { return 0.0; }
        fn store(line: u32, k: u32, value: f32) { data[line * 20u + k] = value; }
        fn identity() -> f32 { return 0.0; } fn combine(a: f32, b: f32) -> f32 { return a + b; }
        fn store_total(i: u32, total: f32) { data[i] = total; }\n";
    let sort = "alias Element = f32; const DIGITS = 16u;
        fn rows() -> u32 { return 10u; } fn row_size() -> u32 { return 20u; }
        fn parts() -> u32 { return 1u; } fn segment() -> u32 { return 20u; }
        fn key(row: u32, k: u32) -> u32 { return ordered_f32(data[row * 20u + k]); }
        fn digit(row: u32, k: u32) -> u32 { return key(row, k) & 15u; }
        fn store(row: u32, place: u32, k: u32) { data[row * 20u + place] = f32(k); }
        fn store_count(row: u32, value: u32, part: u32, count: u32) { data[value] = f32(count); }
        fn place_of(row: u32, value: u32, part: u32) -> u32 { return u32(data[value]); }
        fn put(row: u32, k: u32, place: u32) { data[row * 20u + place] = f32(k); }\n";
    let tiles = "alias Element = f32;
        fn rows() -> u32 { return 10u; } fn row_size() -> u32 { return 5000u; } fn parts() -> u32 { return 3u; }
        fn groups() -> u32 { return 2u; } fn group_size() -> u32 { return 2u; } fn bits() -> u32 { return 32u; }
        fn shift() -> u32 { return 8u; } fn index(row: u32, k: u32) -> u32 { return k; }
        fn key(row: u32, k: u32) -> u32 { return ordered_f32(data[row * 5000u + k]); }
        fn digit(row: u32, k: u32) -> u32 { return (key(row, k) >> shift()) & 255u; }
        fn count(row: u32, tile: u32, digit: u32) -> u32 { return u32(data[digit]); }
        fn total(row: u32, group: u32, digit: u32) -> u32 { return u32(data[digit]); }
        fn store(row: u32, place: u32, k: u32) { data[row * 5000u + place] = f32(k); }
        fn store_count(row: u32, tile: u32, digit: u32, count: u32) { data[digit] = f32(count); }
        fn store_total(row: u32, group: u32, digit: u32, count: u32) { data[digit] = f32(count); }
        fn put(row: u32, place: u32, key: u32, index: u32) { data[row * 5000u + place] = f32(index); }\n";
    for (name, skeleton, library) in [
        ("sort_row", shaders::SORT_ROW, shaders::SORT_TILE),
        ("sort_tile_count", shaders::SORT_TILE_COUNT, ""),
        ("sort_tile_group", shaders::SORT_TILE_GROUP, ""),
        ("sort_tile_move", shaders::SORT_TILE_MOVE, shaders::SORT_TILE),
    ] {
        check(name, &[SCALAR, SIZES, best, &libraries(), library, skeleton, tiles]);
    }
    let attention = "@compute @workgroup_size(WORKGROUP)
        fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
            attend(invocation(id, lane));
        }
        fn rows_with_padding() -> u32 { return 12u; } fn last_of_team(row: u32) -> u32 { return row; }
        fn first_of_team(row: u32) -> u32 { return 0u; } fn heads() -> u32 { return 4u; } fn queries() -> u32 { return 10u; }
        fn slices() -> u32 { return 4u; } fn rows() -> u32 { return 10u; } fn walks() -> u32 { return 2u; }
        fn fetch(head: u32, query: u32) {} fn turn(slice: u32, walk: u32) {}
        fn visible(query: u32, key: u32) -> Mask { return Word(key) < Word(query); }
        fn logits(key: u32) -> Real { return Real(data[key]); } fn rescale(factor: f32) {}
        fn weights(row: u32, across: u32) -> Real { return Real(data[across]); } fn add(weights: Real, first: u32) {}\n";
    let forward = "fn store(head: u32, query: u32, largest: f32, total: f32) { data[query] = largest + total; }\n";
    let backward = "fn store(slice: u32, row: u32) { data[row] = 1.0; }\n";
    for (name, skeleton, store) in
        [("attention", shaders::ATTENTION, forward), ("attention_gradient", shaders::ATTENTION_GRADIENT, backward)]
    {
        check(name, &[VECTOR, SIZES, "alias Element = f32;\n", best, &libraries(), skeleton, attention, store]);
    }
    let tiled = "const COLUMNS = 16u; fn slices() -> u32 { return 4u; } fn rows() -> u32 { return 10u; } fn walks() -> u32 { return 2u; }
        fn fetch(slice: u32) {} fn turn(slice: u32, walk: u32) {} fn hold(row: u32) {}
        fn first_of_tile(row: u32) -> u32 { return 0u; } fn last_of_tile(row: u32) -> u32 { return row + 32u; }
        fn weigh(row: u32, across: u32) { weights[slot(my_lane, 4u, 0u)] = Real(data[across]); }
        fn add_sums(across: u32) {} fn store(slice: u32, row: u32) { data[row] = weights[my_lane].x; }\n";
    check(
        "attention_tiled",
        &[VECTOR, SIZES, "alias Element = f32;\n", best, &libraries(), shaders::ATTENTION_TILED, tiled],
    );
    check("pairs", &[shaders::PAIRS]);
    let enable = "enable f16;\nenable wgpu_cooperative_matrix;\n";
    let halves = quads
        .replace("Quad { return Quad(); }", "Halves { return Halves(); }")
        .replace("Quad { return transposed(Quad()); }", "Halves { return transposed_halves(Halves()); }");
    check("matmul_cooperative", &[enable, SCALAR, SIZES, best, &libraries(), shaders::MATMUL_COOPERATIVE, &halves]);
    let together = "alias Element = f32; fn member_of(group: u32) -> Member { return Member(0u, 0u, 100u); }
        fn element(member: u32, i: u32) { data[i] = f32(member); }\n";
    let skeletons: [(&str, &str, &[&str]); 18] = [
        ("elementwise", shaders::ELEMENTWISE, &[size, element]),
        ("elementwise_together", shaders::ELEMENTWISE_TOGETHER, &[together]),
        ("reduce_serial", shaders::REDUCE_SERIAL, &[shaders::REDUCE_SERIAL_PASS, reduction, serial]),
        (
            "reduce_blocks",
            shaders::REDUCE_WORKGROUP,
            &[shaders::REDUCE_WALK, shaders::REDUCE_BLOCKS, shaders::REDUCE_TREE, reduction, shared],
        ),
        ("reduce_tree", shaders::REDUCE_WORKGROUP, &[shaders::REDUCE_WALK, shaders::REDUCE_TREE, reduction, shared]),
        (
            "reduce_subgroup",
            shaders::REDUCE_WORKGROUP,
            &[shaders::REDUCE_WALK, shaders::REDUCE_SUBGROUP, reduction, shared],
        ),
        ("matmul_direct", shaders::MATMUL_DIRECT, &[product]),
        ("matmul_tiled", shaders::MATMUL_TILED, &[quads]),
        ("matmul_subgroup", shaders::MATMUL_SUBGROUP, &[quads]),
        ("scatter", shaders::SCATTER, &[size, scatter]),
        ("scatter_ordered", shaders::SCATTER_ORDERED, &[size, scatter]),
        ("scatter_begin", shaders::SCATTER_BEGIN, &[scatter]),
        ("unpack", shaders::UNPACK, &[size, unpack]),
        ("scan", shaders::SCAN, &[scan]),
        ("scan_totals", shaders::SCAN_TOTALS, &[scan]),
        ("sort_short", shaders::SORT_SHORT, &[size, sort]),
        ("sort_count", shaders::SORT_COUNT, &[sort]),
        ("sort_move", shaders::SORT_MOVE, &[sort]),
    ];
    for (name, skeleton, hooks) in skeletons {
        check(name, &[&[SCALAR, SIZES, best, &libraries(), skeleton], hooks].concat());
    }
}

#[test]
fn what_is_wrong_is_found() {
    assert!(translate("fn f() -> f32 { return 1u; }").is_err());
    assert!(translate("fn f() { g(); }").is_err());
}
