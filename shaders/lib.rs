//! The hand-written WGSL of gradus: skeletons of kernels, and the functions that they call.
//!
//! A skeleton calls hooks that it does not define; who makes a kernel adds them, and those items of [`LIBRARIES`] that
//! the text mentions. The functions of most libraries are written for the types `Real`, `Int`, `Word` and `Mask`, which
//! stand for scalars or for vectors of four.

macro_rules! files {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = include_str!($file);)*
    };
}

files! {
    /// One element, or four, of each output per invocation.
    ELEMENTWISE = "elementwise.wgsl";
    /// The same for several kernels of one structure.
    ELEMENTWISE_TOGETHER = "elementwise_together.wgsl";
    /// Row programs, an invocation per row.
    REDUCE_SERIAL = "reduce_serial.wgsl";
    /// One of its passes.
    REDUCE_SERIAL_PASS = "reduce_serial_pass.wgsl";
    /// Row programs, a workgroup per row.
    REDUCE_WORKGROUP = "reduce_workgroup.wgsl";
    /// What an invocation does in one of its passes.
    REDUCE_WALK = "reduce_walk.wgsl";
    /// The same in blocks.
    REDUCE_BLOCKS = "reduce_blocks.wgsl";
    /// How the results of a pass meet, in a tree.
    REDUCE_TREE = "reduce_tree.wgsl";
    /// The same, by subgroups.
    REDUCE_SUBGROUP = "reduce_subgroup.wgsl";
    /// Matrix products in registers.
    MATMUL_DIRECT = "matmul_direct.wgsl";
    /// Matrix products through workgroup memory.
    MATMUL_TILED = "matmul_tiled.wgsl";
    /// Products of f16 by cooperative matrices.
    MATMUL_COOPERATIVE = "matmul_cooperative.wgsl";
    /// Matrix products in the registers of a subgroup.
    MATMUL_SUBGROUP = "matmul_subgroup.wgsl";
    /// Scatter, output-stationary.
    SCATTER = "scatter.wgsl";
    /// Scatter of updates in the order of their indices.
    SCATTER_ORDERED = "scatter_ordered.wgsl";
    /// Where the updates of each index begin.
    SCATTER_BEGIN = "scatter_begin.wgsl";
    /// Scans, an invocation for each part of a line.
    SCAN = "scan.wgsl";
    /// What each part of a line carries on.
    SCAN_TOTALS = "scan_totals.wgsl";
    /// The order of short rows, by counting.
    SORT_SHORT = "sort_short.wgsl";
    /// How often each digit occurs in each part of a row.
    SORT_COUNT = "sort_count.wgsl";
    /// A row put into the order of a digit.
    SORT_MOVE = "sort_move.wgsl";
    /// A tile put into the order of a few bits, by a workgroup.
    SORT_TILE = "sort_tile.wgsl";
    /// The order of rows that are a tile each.
    SORT_ROW = "sort_row.wgsl";
    /// How often each digit occurs in each tile of a row.
    SORT_TILE_COUNT = "sort_tile_count.wgsl";
    /// How often it occurs in the tiles before, in a group of these.
    SORT_TILE_GROUP = "sort_tile_group.wgsl";
    /// Tiles put into the order of a digit.
    SORT_TILE_MOVE = "sort_tile_move.wgsl";
    /// Attention, an invocation per query.
    ATTENTION = "attention.wgsl";
    /// Cotangents of attention, an invocation per query, key or value.
    ATTENTION_GRADIENT = "attention_gradient.wgsl";
    /// Both, through workgroup memory.
    ATTENTION_TILED = "attention_tiled.wgsl";
    /// Words of 64 bits taken apart.
    PAIRS = "pairs.wgsl";
    /// Bytes widened to elements.
    UNPACK = "unpack.wgsl";
}

/// Files of functions, of which a kernel takes what it needs.
pub const LIBRARIES: &[&str] = &[
    include_str!("grid.wgsl"),
    include_str!("best.wgsl"),
    include_str!("bits.wgsl"),
    include_str!("compare.wgsl"),
    include_str!("convert.wgsl"),
    include_str!("half.wgsl"),
    include_str!("integer.wgsl"),
    include_str!("math.wgsl"),
    include_str!("order.wgsl"),
    include_str!("power.wgsl"),
    include_str!("quads.wgsl"),
    include_str!("remainder.wgsl"),
    include_str!("trigonometry.wgsl"),
    include_str!("activation.wgsl"),
    include_str!("random.wgsl"),
];
