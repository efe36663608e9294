//! Where a plan's buffers lie: arrays whose lifetimes do not meet share a slot.

use crate::array::bytes;
use crate::compiler::Launch;
use crate::module::Slot;
use gradus_ir::plan::{Buffer, BufferId};
use std::collections::HashMap;

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
    /// Walks over the launches; a buffer takes a free slot of its size at its first use, and leaves it after its last.
    pub(crate) fn new(buffers: &[Buffer], launches: &[Launch], outputs: &[BufferId]) -> Slots {
        let used =
            |launch: &Launch| launch.bindings.iter().filter_map(|(slot, _)| plan_buffer(*slot)).collect::<Vec<_>>();
        let mut last_use = vec![0; buffers.len()];
        for (i, launch) in launches.iter().enumerate() {
            used(launch).into_iter().for_each(|id| last_use[id] = i);
        }
        outputs.iter().for_each(|&id| last_use[id] = usize::MAX);

        let mut places: Vec<Option<Place>> = buffers.iter().map(|b| b.input.map(Place::Input)).collect();
        let mut slots = Slots { places: Vec::new(), bytes: Vec::new() };
        let mut free: HashMap<u64, Vec<usize>> = HashMap::new();
        for (i, launch) in launches.iter().enumerate() {
            let used = used(launch);
            for &id in &used {
                places[id].get_or_insert_with(|| Place::Slot(slots.take(&mut free, buffers[id].len)));
            }
            for &id in &used {
                if let (true, Some(Place::Slot(slot))) = (last_use[id] == i, places[id]) {
                    free.entry(slots.bytes[slot]).or_default().push(slot);
                    // Bound twice by this launch, it is freed once.
                    last_use[id] = usize::MAX;
                }
            }
        }
        // An output without elements is in no launch.
        for &id in outputs {
            places[id].get_or_insert_with(|| Place::Slot(slots.take(&mut free, buffers[id].len)));
        }
        slots.places = places.into_iter().map(|place| place.unwrap_or(Place::Nowhere)).collect();
        slots
    }

    fn take(&mut self, free: &mut HashMap<u64, Vec<usize>>, len: usize) -> usize {
        let bytes = bytes(len).next_multiple_of(256);
        free.get_mut(&bytes).and_then(Vec::pop).unwrap_or_else(|| {
            self.bytes.push(bytes);
            self.bytes.len() - 1
        })
    }
}

fn plan_buffer(slot: Slot) -> Option<BufferId> {
    match slot {
        Slot::Plan(id) => Some(id),
        Slot::Status => None,
    }
}
