//! From kernels to launches: modules are generated, sizes baked or not, pipelines made or found again.

use crate::error::of_device;
use crate::module::{Baked, Finished, Module, Parameter, Slot, Width};
use crate::tuning::Tuning;
use crate::{Gpu, Observer};
use gradus_device::{Access, Device, Generations, Limits, Pipeline, Trust};
use gradus_ir::plan::{Buffer, BufferId};
use gradus_ir::{DType, Result};
use smallvec::SmallVec;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard};

/// A launch that is ready but for its buffers and numbers.
pub(crate) struct Launch {
    pub(crate) pipeline: Pipeline,
    pub(crate) bindings: Vec<(Slot, Access)>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) workgroups: [u32; 3],
}

/// Makes launches for the kernels of one plan.
pub(crate) struct Compiler<'a> {
    device: &'a Device,
    history: &'a History,
    observer: Option<&'a Observer>,
    pub(crate) tuning: &'a Tuning,
    /// The plan's buffers, and those added between the launches of a kernel.
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) launches: Vec<Launch>,
}

/// What a generator needs to finish a module.
pub(crate) struct Shader<'a> {
    device: &'a Device,
    workgroup: u32,
    loads_pairs: bool,
}

impl Shader<'_> {
    /// A module to be filled.
    pub(crate) fn module<'m>(&self, width: Width, baked: Baked<'m>) -> Module<'m> {
        Module::new(width, baked, self.loads_pairs)
    }

    pub(crate) fn finish(&self, module: Module<'_>, skeleton: &str) -> Finished {
        self.finish_in(module, skeleton, self.workgroup)
    }

    /// The same for workgroups of another size.
    pub(crate) fn finish_in(&self, mut module: Module<'_>, skeleton: &str, workgroup: u32) -> Finished {
        module.add(&format!("const WORKGROUP = {workgroup}u;"));
        let declared = self.device.parameters(module.parameter_words());
        module.finish(skeleton, declared)
    }

    /// The same for text that is not the library's.
    pub(crate) fn finish_as_written(&self, module: Module<'_>, text: &str) -> Finished {
        let declared = self.device.parameters(module.parameter_words());
        module.finish_as_written(text, declared)
    }
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(gpu: &'a Gpu, buffers: Vec<Buffer>) -> Self {
        let Gpu { device, history, tuning, observer, .. } = gpu;
        Compiler { device, history, tuning, observer: observer.as_ref(), buffers, launches: Vec::new() }
    }

    /// Adds a buffer that the plan does not know.
    pub(crate) fn add_buffer(&mut self, dtype: DType, len: usize) -> BufferId {
        self.buffers.push(Buffer { dtype, len, input: None });
        self.buffers.len() - 1
    }

    /// What kernels may do at most.
    pub(crate) fn limits(&self) -> &'a Limits {
        self.device.limits()
    }

    /// Whether kernels are made for subgroups of eight whose invocations share what they load: where loads are dear.
    pub(crate) fn has_teams(&self) -> bool {
        self.tuning.has_teams(self.limits())
    }

    /// Adds a launch. `generate` is called twice where some sizes become part of the text.
    pub(crate) fn launch(
        &mut self,
        label: &str,
        workgroups: [u32; 3],
        generate: impl Fn(&Shader<'_>, Baked<'_>) -> Finished,
    ) -> Result<()> {
        self.launch_of(Trust::Trusted, label, workgroups, generate)
    }

    /// Adds a launch of text that is to be trusted, or not.
    pub(crate) fn launch_of(
        &mut self,
        trust: Trust,
        label: &str,
        workgroups: [u32; 3],
        generate: impl Fn(&Shader<'_>, Baked<'_>) -> Finished,
    ) -> Result<()> {
        let loads_pairs = self.tuning.loads_pairs && self.limits().u64;
        let shader = Shader { device: self.device, workgroup: self.tuning.workgroup, loads_pairs };
        let mut finished = generate(&shader, &[]);
        let baked = self.history.baked(&finished, self.tuning.baked_values);
        if baked.contains(&true) {
            finished = generate(&shader, &baked);
        }
        let Finished { text, bindings, parameters, .. } = finished;
        if let Some(observer) = self.observer
            && self.history.is_new(&text)
        {
            observer(label, &text);
        }
        let accesses: SmallVec<[Access; 8]> = bindings.iter().map(|(_, access)| *access).collect();
        let pipeline = self.device.pipeline(label, &text, &accesses, parameters.len(), trust).map_err(of_device)?;
        self.launches.push(Launch { pipeline, bindings, parameters, workgroups });
        Ok(())
    }
}

/// The grid for so many workgroups: `workgroup_index(id)` in grid.wgsl is its inverse.
pub(crate) fn workgroups(count: usize) -> [u32; 3] {
    const WIDTH: usize = 32768;
    [count.min(WIDTH) as u32, count.div_ceil(WIDTH) as u32, 1]
}

/// The grid for so many invocations.
pub(crate) fn linear(invocations: usize, workgroup: u32) -> [u32; 3] {
    workgroups(invocations.div_ceil(workgroup as usize))
}

/// The sizes that kernels were made for, by their text with no size in it.
#[derive(Debug)]
pub(crate) struct History {
    hasher: RandomState,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// By the hash of a text without sizes: the values of each size.
    sizes: Generations<u64, Vec<SmallVec<[u32; 2]>>>,
    /// Hashes of the texts that an observer was told of.
    observed: Generations<u64, ()>,
}

/// How many texts are remembered: more than there are pipelines at a time.
const REMEMBERED: usize = 4096;

impl History {
    pub(crate) fn new() -> History {
        let seen = Seen { sizes: Generations::new(REMEMBERED), observed: Generations::new(REMEMBERED) };
        History { hasher: RandomState::new(), seen: Mutex::new(seen) }
    }

    /// Which sizes to write into the text: those of which few values were seen.
    fn baked(&self, generic: &Finished, most: usize) -> Vec<bool> {
        if most == 0 {
            return Vec::new();
        }
        let mut seen = self.lock();
        let made = Ok::<_, Infallible>(Vec::new());
        let Ok(values) = seen.sizes.get_or_try_insert(self.hasher.hash_one(&generic.text), |_| true, || made);
        values.resize(generic.sizes.len(), SmallVec::new());
        let bake = |(values, &size): (&mut SmallVec<[u32; 2]>, &u32)| {
            if values.len() <= most && !values.contains(&size) {
                values.push(size);
            }
            values.len() <= most
        };
        values.iter_mut().zip(&generic.sizes).map(bake).collect()
    }

    /// Whether a text is met for the first time.
    fn is_new(&self, text: &str) -> bool {
        let (key, mut seen) = (self.hasher.hash_one(text), self.lock());
        let is_new = seen.observed.get(&key).is_none();
        seen.observed.insert(key, ());
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Values are added, and old ones go: right after every statement.
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_long_ago_is_forgotten() {
        let history = History::new();
        assert!(history.is_new("a kernel") && !history.is_new("a kernel"));
        for i in 0..2 * REMEMBERED + 1 {
            assert!(history.is_new(&i.to_string()));
        }
        assert!(history.is_new("a kernel"));
    }
}
