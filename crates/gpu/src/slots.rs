//! Where a plan's buffers lie: arrays whose lifetimes do not meet share a slot, others may lie side by side in one.

use crate::array::bytes;
use crate::compiler::Launch;
use crate::module::Slot;
use gradus_device::Access;
use gradus_ir::plan::{Buffer, BufferId};
use gradus_ir::{alive_at_once, lifetimes, share_places};

/// The place of a buffer of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An input slot of the plan.
    Input(usize),
    /// A slot of the run, and where the array begins in it.
    Slot(usize, u64),
    /// Nothing reads or writes it: a kernel writes over one of its inputs instead.
    Nowhere,
}

/// The slots of a plan.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The place of each buffer.
    pub(crate) places: Vec<Place>,
    /// The bytes of each buffer.
    pub(crate) lengths: Vec<u64>,
    /// The bytes of each slot.
    pub(crate) bytes: Vec<u64>,
    /// The most bytes that are alive at once.
    pub(crate) peak: usize,
}

impl Slots {
    /// A buffer is needed from the first launch that binds it to the last one, an output to the end.
    pub(crate) fn new(buffers: &[Buffer], launches: &[Launch], outputs: &[BufferId]) -> Slots {
        let is_made = |id: &BufferId| buffers[*id].input.is_none();
        let bound = |launch: &Launch, writes: bool| -> Vec<BufferId> {
            let bound = launch.bindings.iter().filter(|(_, access)| (*access == Access::ReadWrite) == writes);
            bound.filter_map(|(slot, _)| plan_buffer(*slot)).filter(is_made).collect()
        };
        let steps = launches.iter().map(|launch| (bound(launch, false), bound(launch, true)));
        let outputs: Vec<BufferId> = outputs.iter().copied().filter(is_made).collect();
        let (made, lifetimes) =
            lifetimes(buffers.len(), |id| bytes(buffers[id].dtype, buffers[id].len) as usize, steps, &outputs);
        let shared = share_places(&lifetimes);
        let mut places: Vec<Place> = buffers.iter().map(|b| b.input.map_or(Place::Nowhere, Place::Input)).collect();
        for (id, (slot, offset)) in made.into_iter().zip(shared.of) {
            places[id] = Place::Slot(slot, offset as u64);
        }
        let lengths = buffers.iter().map(|buffer| bytes(buffer.dtype, buffer.len)).collect();
        let bytes = shared.bytes.into_iter().map(|bytes| bytes as u64).collect();
        Slots { places, lengths, bytes, peak: alive_at_once(&lifetimes) }
    }
}

fn plan_buffer(slot: Slot) -> Option<BufferId> {
    match slot {
        Slot::Plan(id) => Some(id),
        Slot::Status => None,
    }
}
