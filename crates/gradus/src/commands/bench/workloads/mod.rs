//! The workloads, by family. Those that `benches/peers` has too have the names and definitions that they have there.

mod attention;
mod convolutions;
mod maps;
mod products;
mod training;

use super::workload::Workload;

/// All of them.
pub(super) fn all() -> Vec<Workload> {
    let families = [
        products::workloads(),
        maps::workloads(),
        convolutions::workloads(),
        attention::workloads(),
        training::workloads(),
    ];
    families.into_iter().flatten().collect()
}
