//! The workloads, by family. Those that `benches/peers` has too have the names and definitions that they have there.

mod attention;
mod convolutions;
mod gpt;
mod indices;
mod maps;
mod order;
mod products;
mod training;
mod transfers;

use super::workload::Workload;

/// All of them.
pub(super) fn all() -> Vec<Workload> {
    let families = [
        products::workloads(),
        maps::workloads(),
        convolutions::workloads(),
        attention::workloads(),
        indices::workloads(),
        order::workloads(),
        transfers::workloads(),
        training::workloads(),
        gpt::workloads(),
    ];
    families.into_iter().flatten().collect()
}
