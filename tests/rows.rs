//! Conformance of every primitive: each backend against the reference interpreter, over dtypes, layouts and sizes; the
//! number semantics, as tables of values that need no reference; sizes beyond what one dispatch or one loop of a GPU
//! can do; donation; and bits that are the same in every run, on any number of threads.

#[path = "rows/attention.rs"]
mod attention;
#[path = "support/devices.rs"]
mod devices;
#[path = "rows/donation.rs"]
mod donation;
#[path = "rows/elementwise.rs"]
mod elementwise;
#[path = "rows/indexing.rs"]
mod indexing;
#[path = "rows/large.rs"]
mod large;
#[path = "support/layout.rs"]
mod layout;
#[path = "rows/ordered.rs"]
mod ordered;
#[path = "rows/products.rs"]
mod products;
#[path = "rows/reductions.rs"]
mod reductions;
#[path = "rows/semantics.rs"]
mod semantics;
#[path = "rows/sources.rs"]
mod sources;
mod support;
#[path = "rows/views.rs"]
mod views;

use devices::{Tested, backends, tunings, with_subgroups};
use gradus_ir::{Backend, DType, Data, NodeId, Number, plan};
use layout::Layout;
use std::fmt::Debug;
use support::{Case, Mismatch, Rng, tiled};

const FLOATS: [DType; 3] = [DType::F16, DType::F32, DType::F64];
const INTS: [DType; 2] = [DType::I32, DType::U32];
const NUMBERS: [DType; 5] = [DType::I32, DType::U32, DType::F16, DType::F32, DType::F64];

/// Asks for the nodes' values and holds a backend to the reference.
fn check(on: &Tested, mut case: Case, outputs: &[NodeId], what: impl Debug) {
    case.graph.outputs = outputs.to_vec();
    let what = || format!("{} on {}", format_args!("{what:?}"), on.name);
    let expected = case.reference(on.tolerance).unwrap_or_else(|error| panic!("{}: reference: {error}", what()));
    let got = case
        .run(on.backend, plan(&case.graph, on.backend.target()))
        .unwrap_or_else(|error| panic!("{}: {error}", what()));
    if let Some(mismatch) = Mismatch::find(&expected, &got) {
        panic!("{}: {mismatch}\n{}", what(), plan(&case.graph, on.backend.target()));
    }
}

/// One output of a small graph.
fn value(backend: &dyn Backend, case: &mut Case, output: NodeId) -> Data {
    case.graph.outputs = vec![output];
    case.run(backend, plan(&case.graph, backend.target())).unwrap().remove(0)
}

/// Numbers where an op may go wrong.
fn special(dtype: DType) -> Vec<Number> {
    let floats = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let (i32s, u32s) = ([0, 1, -1, 2, -7, 13, 46341, i32::MIN, i32::MAX], [0, 1, 2, 7, 13, 65536, 1 << 31, u32::MAX]);
    match dtype {
        DType::Bool => [false, true].map(Number::from).into(),
        DType::I32 => i32s.map(Number::from).into(),
        DType::U32 => u32s.map(Number::from).into(),
        DType::F16 | DType::F32 | DType::F64 => floats.map(Number::from).into(),
    }
}

/// Small whole numbers and fractions.
fn factors(dtype: DType, len: usize, seed: u64) -> Data {
    let mut rng = Rng(seed);
    let numbers: Vec<Number> = (0..len)
        .map(|_| match rng.unit() * 4.0 - 2.0 {
            x if dtype.is_float() => Number::Float(x),
            x => Number::Int((x * 1e9) as i64),
        })
        .collect();
    tiled(&numbers, dtype, len)
}

/// An index below `extent`, with repetitions.
fn index_data(dtype: DType, len: usize, extent: usize) -> Data {
    let mut rng = Rng(len as u64 + 5);
    let numbers: Vec<Number> = (0..len).map(|_| Number::from(rng.below(extent))).collect();
    tiled(&numbers, dtype, len)
}

/// The layout whose turn it is, where not all are tried.
fn layout_of_turn(turn: usize) -> Layout {
    Layout::ALL[turn % Layout::ALL.len()]
}
