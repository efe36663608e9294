//! Where a plan's buffers lie: arrays whose lifetimes do not meet share a slot.

use crate::array::bytes;
use crate::compiler::Launch;
use crate::module::Slot;
use gradus_ir::plan::{Buffer, BufferId};
use gradus_ir::{Lifetime, share_places};

/// The place of a buffer of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An input slot of the plan.
    Input(usize),
    /// A slot of the run.
    Slot(usize),
    /// Nothing reads or writes it: a kernel writes over one of its inputs instead.
    Nowhere,
}

/// The slots of a plan.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The place of each buffer.
    pub(crate) places: Vec<Place>,
    /// The bytes of each slot.
    pub(crate) bytes: Vec<u64>,
}

impl Slots {
    /// A buffer is needed from the first launch that binds it to the last one, an output to the end.
    pub(crate) fn new(buffers: &[Buffer], launches: &[Launch], outputs: &[BufferId]) -> Slots {
        let mut lifetimes: Vec<Option<Lifetime>> = vec![None; buffers.len()];
        let mut use_at = |id: BufferId, step: usize| {
            let bytes = bytes(buffers[id].len).next_multiple_of(256) as usize;
            let lifetime = lifetimes[id].get_or_insert(Lifetime { first: step, last: step, bytes });
            lifetime.last = lifetime.last.max(step);
        };
        for (step, launch) in launches.iter().enumerate() {
            launch.bindings.iter().filter_map(|(slot, _)| plan_buffer(*slot)).for_each(|id| use_at(id, step));
        }
        // Also one without elements, which is in no launch.
        outputs.iter().for_each(|&id| use_at(id, usize::MAX));
        let is_made = |id: &BufferId| buffers[*id].input.is_none() && lifetimes[*id].is_some();
        let made: Vec<BufferId> = (0..buffers.len()).filter(is_made).collect();
        let (shared, sizes) = share_places(&made.iter().filter_map(|&id| lifetimes[id]).collect::<Vec<_>>());
        let mut places: Vec<Place> = buffers.iter().map(|b| b.input.map_or(Place::Nowhere, Place::Input)).collect();
        for (id, slot) in made.into_iter().zip(shared) {
            places[id] = Place::Slot(slot);
        }
        Slots { places, bytes: sizes.into_iter().map(|bytes| bytes as u64).collect() }
    }
}

fn plan_buffer(slot: Slot) -> Option<BufferId> {
    match slot {
        Slot::Plan(id) => Some(id),
        Slot::Status => None,
    }
}
