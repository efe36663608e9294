//! Bind groups, made once for each set of buffers that a kernel is launched with.

use crate::generations::{BuildIdentity, Generations, mix};
use smallvec::SmallVec;

/// How many bind groups are kept: the last this many that were used, at most twice as many.
const CAPACITY: usize = 2048;

/// A buffer's number, and from where on how many of its bytes are bound.
pub(crate) type Bound = (u64, u64, u64);

/// The bind groups of a device. They keep the driver's buffers alive: when buffers go, [`Bindings::forget`] them.
#[derive(Debug)]
pub(crate) struct Bindings {
    groups: Generations<u64, Group, BuildIdentity>,
    made: u64,
}

#[derive(Debug)]
struct Group {
    layout: u64,
    bound: SmallVec<[Bound; 6]>,
    /// Tells bind groups apart.
    number: u64,
    wgpu: wgpu::BindGroup,
}

impl Bindings {
    pub(crate) fn new() -> Bindings {
        Bindings { groups: Generations::new(CAPACITY), made: 0 }
    }

    /// The bind group of a layout with these buffers, made if it is not kept, and its number, from 1 on.
    pub(crate) fn get<E>(
        &mut self,
        layout: u64,
        bound: impl ExactSizeIterator<Item = Bound> + Clone,
        make: impl FnOnce() -> Result<wgpu::BindGroup, E>,
    ) -> Result<(&wgpu::BindGroup, u64), E> {
        let key = bound
            .clone()
            .fold(mix(0, layout), |hash, (buffer, offset, bytes)| mix(mix(mix(hash, buffer), offset), bytes));
        // Two sets of buffers may share a hash: the later one replaces the earlier.
        let equal = |group: &Group| {
            let same_shape = group.layout == layout && group.bound.len() == bound.len();
            same_shape && group.bound.iter().copied().eq(bound.clone())
        };
        let made = &mut self.made;
        let group = self.groups.get_or_try_insert(key, equal, || {
            let wgpu = make()?;
            *made += 1;
            Ok(Group { layout, bound: bound.clone().collect(), number: *made, wgpu })
        })?;
        Ok((&group.wgpu, group.number))
    }

    /// Drops the bind groups of buffers that are about to be freed.
    pub(crate) fn forget(&mut self, buffers: &[u64]) {
        self.groups.retain(|group| !group.bound.iter().any(|(buffer, ..)| buffers.contains(buffer)));
    }
}
