//! A profile as tables.

use super::{KernelRun, Profile};
use gradus_ir::KernelSummary;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

/// What belongs to no module.
const NO_MODULE: &str = "(no module)";

/// What several runs took together.
#[derive(Clone, Copy, Default)]
struct Sum {
    count: u32,
    time: Duration,
    /// The least seconds that ceilings leave.
    floor: Option<f64>,
}

impl Sum {
    fn add(&mut self, profile: &Profile, run: &KernelRun) {
        self.count += 1;
        self.time += run.time;
        if let Some(floor) = profile.floor(run) {
            *self.floor.get_or_insert(0.0) += floor;
        }
    }

    fn seconds(&self) -> f64 {
        self.time.as_secs_f64().max(1e-12)
    }

    /// The percentage of the ceiling as a column, if there are ceilings.
    fn ceiling(&self) -> String {
        self.floor.map_or(String::new(), |floor| format!(" {:7.0}", 100.0 * floor / self.seconds()))
    }
}

/// Sums by what runs have in common, in the order in which that came.
fn sums<K: Hash + Eq + Clone>(profile: &Profile, keys: impl Fn(&KernelRun) -> Vec<K>) -> Vec<(K, Sum)> {
    let (mut places, mut sums) = (HashMap::new(), Vec::new());
    for run in &profile.runs {
        for key in keys(run) {
            let place = *places.entry(key.clone()).or_insert(sums.len());
            if place == sums.len() {
                sums.push((key, Sum::default()));
            }
            sums[place].1.add(profile, run);
        }
    }
    sums
}

impl fmt::Display for Profile {
    /// A line for each kernel that does the same on the same line of the program, the dearest first: how often it ran, its
    /// time, its share of all, and how fast it moved bytes and computed. Then a line for each module, with what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total().as_secs_f64();
        let share = |sum: &Sum| 100.0 * sum.seconds() / total.max(1e-12);
        let ceiling = if self.ceilings.is_some() { " ceiling" } else { "" };
        writeln!(f, "{} kernels on {}: {:.1} µs", self.runs.len(), self.device, total * 1e6)?;
        writeln!(f, "      µs    %{ceiling}  runs    GB/s  GFLOP/s  kernel")?;
        let mut kernels = sums(self, |run| vec![run.kernel.clone()]);
        kernels.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.time));
        for (kernel, sum) in kernels {
            let rate = |of_one: usize| of_one as f64 * f64::from(sum.count) / sum.seconds() / 1e9;
            let (bytes, operations) = (rate(kernel.bytes), rate(kernel.operations));
            let KernelSummary { family, space, ops, line, .. } = &*kernel;
            writeln!(
                f,
                "{:8.1} {:4.0}{} {:5} {bytes:7.1} {operations:8.1}  {family} {space}: {ops} ({line})",
                sum.seconds() * 1e6,
                share(&sum),
                sum.ceiling(),
                sum.count
            )?;
        }
        if self.runs.iter().all(|run| run.modules.is_empty()) {
            return Ok(());
        }
        writeln!(f, "by module:\n      µs    %{ceiling}  module")?;
        for (path, sum) in in_tree_order(sums(self, with_outer)) {
            let depth = path.matches('.').count();
            let (micros, share, ceiling) = (sum.seconds() * 1e6, share(&sum), sum.ceiling());
            writeln!(f, "{micros:8.1} {share:4.0}{ceiling}  {:1$}{path}", "", 2 * depth)?;
        }
        Ok(())
    }
}

/// The module that a run's time is counted for, and all that it is in.
fn with_outer(run: &KernelRun) -> Vec<String> {
    let path = run.modules.first().map_or(NO_MODULE, |path| path);
    if path.starts_with('(') {
        return vec![path.into()];
    }
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    ends.map(|end| path[..end].to_string()).collect()
}

/// Modules after the one that they are in; else those first that ran first.
fn in_tree_order(sums: Vec<(String, Sum)>) -> Vec<(String, Sum)> {
    let places: HashMap<String, usize> =
        sums.iter().enumerate().map(|(place, (path, _))| (path.clone(), place)).collect();
    let mut sums = sums;
    // What all outer modules came as, one after the other. An inner one follows its outer one, since this is longer.
    sums.sort_by_cached_key(|(path, _)| {
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        ends.map(|end| places.get(&path[..end]).copied().unwrap_or(usize::MAX)).collect::<Vec<usize>>()
    });
    sums
}
