//! The plans of a device, found again by their graphs.

use crate::debug::DEBUG;
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::failed;
use crate::extract::Extraction;
use crate::profile::Recorder;
use crate::scope::paths;
use crate::timed::Timed;
use gradus_ir::op::Op;
use gradus_ir::plan::Kernel;
use gradus_ir::{Executable, Graph};
use lru::LruCache;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Compiled plans kept per device.
const CACHED: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// So many new plans in a row for one line of the program are worth a warning.
const WARN_AFTER: u32 = 16;

/// The plans used last, by the hash of their graph; of two graphs that share a hash, the later one stays.
pub(crate) struct Plans {
    cached: Cache,
    /// The hash of the one used last, which is looked at first: mostly it is the one that is asked for.
    last: u64,
    /// While a profile is made: where it is noted, and the plans of before.
    profiled: Option<(Arc<Recorder>, Cache)>,
    made: u64,
    sites: HashMap<&'static Location<'static>, Site>,
}

type Cache = LruCache<u64, Cached, foldhash::fast::FixedState>;

fn empty() -> Cache {
    LruCache::with_hasher(CACHED, foldhash::fast::FixedState::default())
}

/// The paths of the modules that recorded the nodes of a graph.
type Modules = Vec<Option<Arc<str>>>;

struct Cached {
    graph: Graph,
    /// Of a profile: the modules of its nodes. Equal graphs of other modules are other plans then.
    modules: Option<Modules>,
    executable: Arc<dyn Executable>,
    /// The new plans in a row of the line that it was made for: none, once it is used again.
    in_a_row: Arc<AtomicU32>,
}

/// A line of the program that plans were made for.
#[derive(Default)]
struct Site {
    in_a_row: Arc<AtomicU32>,
    /// The hash of the last graph.
    last: u64,
}

impl Plans {
    pub(crate) fn new() -> Plans {
        Plans { cached: empty(), last: 0, profiled: None, made: 0, sites: HashMap::new() }
    }

    /// From now on every kernel's time is noted; not if it is already.
    pub(crate) fn begin_profile(&mut self, recorder: Arc<Recorder>) -> bool {
        if self.profiled.is_some() {
            return false;
        }
        // Those of before are not measured, those of the profile not used later.
        self.profiled = Some((recorder, std::mem::replace(&mut self.cached, empty())));
        true
    }

    /// Takes up again the plans of before.
    pub(crate) fn end_profile(&mut self) {
        if let Some((_, before)) = self.profiled.take() {
            self.cached = before;
        }
    }

    /// Whether a profile is made.
    pub(crate) fn is_profiled(&self) -> bool {
        self.profiled.is_some()
    }

    /// How many were made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// The executable of a compiled function's graph, which outlives a profile and so is not measured.
    pub(crate) fn executable_to_keep(
        &mut self,
        device: &Device,
        extraction: &Extraction,
    ) -> Result<Arc<dyn Executable>> {
        let profile = self.profiled.take();
        let during = profile.map(|(recorder, before)| (recorder, std::mem::replace(&mut self.cached, before)));
        let executable = self.executable(device, extraction);
        self.profiled = during.map(|(recorder, during)| (recorder, std::mem::replace(&mut self.cached, during)));
        executable
    }

    /// The executable of a graph, from the cache if it is there.
    pub(crate) fn executable(&mut self, device: &Device, extraction: &Extraction) -> Result<Arc<dyn Executable>> {
        let modules = self.is_profiled().then(|| paths(extraction.entries.iter().map(|entry| entry.node.id)));
        if let Some(executable) = self.find(self.last, extraction, &modules) {
            return Ok(executable);
        }
        let mut hash = extraction.hash();
        if let Some(modules) = &modules {
            hash ^= foldhash::fast::FixedState::default().hash_one(modules);
        }
        self.last = hash;
        if let Some(executable) = self.find(hash, extraction, &modules) {
            return Ok(executable);
        }
        let graph = extraction.graph();
        let target = device.backend().target();
        let plan = if DEBUG.fuse { gradus_ir::plan(&graph, target) } else { gradus_ir::plan_unfused(&graph, target) };
        if DEBUG.plan {
            eprintln!("plan for {device}:\n{}", plan.table(|node| extraction.named(node)));
            for (node, buffer) in extraction.outputs().zip(&plan.outputs) {
                let (op, shape, at) = (node.op.name(), &node.ty.shape, node.location);
                eprintln!("      keeps {} {op}{shape} of {}:{}", plan.buffer_name(*buffer), at.file(), at.line());
            }
        }
        let recorder = self.profiled.as_ref().map(|(recorder, _)| recorder.clone());
        let executable: Arc<dyn Executable> = match DEBUG.time || recorder.is_some() {
            true => {
                let modules =
                    |kernel: &Kernel| modules.as_ref().map_or(vec![], |modules| modules_of(kernel, &graph, modules));
                Arc::new(Timed::new(device, &plan, |node| extraction.named(node), modules, recorder)?)
            }
            false => Arc::from(device.backend().compile(plan).map_err(|kind| failed(extraction, kind))?),
        };
        self.made += 1;
        let in_a_row = self.note_new(extraction, hash);
        self.cached.put(hash, Cached { graph, modules, executable: executable.clone(), in_a_row });
        Ok(executable)
    }

    /// The executable that is kept under a hash, if it is that of a graph.
    fn find(&mut self, hash: u64, extraction: &Extraction, modules: &Option<Modules>) -> Option<Arc<dyn Executable>> {
        let is_it = |cached: &&Cached| extraction.difference(&cached.graph).is_none() && cached.modules == *modules;
        let cached = self.cached.get(&hash).filter(is_it)?;
        cached.in_a_row.store(0, Relaxed);
        Some(cached.executable.clone())
    }

    /// Notes a new plan, and warns if the line that asks for it got nothing but new ones for a while.
    fn note_new(&mut self, extraction: &Extraction, hash: u64) -> Arc<AtomicU32> {
        let Some(root) = extraction.nodes().next_back() else {
            return Arc::default();
        };
        let site = self.sites.entry(root.location).or_default();
        let last = std::mem::replace(&mut site.last, hash);
        let (in_a_row, at) = (site.in_a_row.fetch_add(1, Relaxed) + 1, root.location);
        if in_a_row == WARN_AFTER
            && let Some(earlier) = self.cached.peek(&last)
            && let Some(difference) = extraction.difference(&earlier.graph)
        {
            tracing::warn!(
                "the last {in_a_row} evaluations for {}:{} each made a new plan, which takes long; from the one before \
                 the last differs in this: {}",
                at.file(),
                at.line(),
                extraction.describe(&difference)
            );
        }
        site.in_a_row.clone()
    }
}

/// The modules whose nodes a kernel computes; first the one that has most of what the kernel is about: products, reductions and the
/// like, or else maps.
fn modules_of(kernel: &Kernel, graph: &Graph, modules: &Modules) -> Vec<String> {
    let is_main = |op: &Op| match op {
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast | Op::Barrier => false,
        Op::Input(_) | Op::Scalar(_) | Op::Const(_) | Op::Iota(_) | Op::Random(_) => false,
        op => !op.is_view(),
    };
    let mut counts: Vec<(&Arc<str>, [usize; 2])> = Vec::new();
    for &node in &kernel.nodes {
        let Some(Some(module)) = modules.get(node) else { continue };
        let place = counts.iter().position(|(of, _)| *of == module).unwrap_or(counts.len());
        if place == counts.len() {
            counts.push((module, [0; 2]));
        }
        counts[place].1[usize::from(!is_main(&graph.nodes()[node].op))] += 1;
    }
    // Those of equal counts stay in order.
    counts.sort_by_key(|(_, counts)| std::cmp::Reverse(*counts));
    counts.into_iter().map(|(module, _)| module.to_string()).collect()
}
