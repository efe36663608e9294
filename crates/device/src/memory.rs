//! The books of a device's memory: a budget, a count, and buffers that are used again.

use std::collections::BTreeMap;

/// What is in use and what is kept for reuse are together never more than was in use at most, or than this.
const LEAST_ROOM: u64 = 64 << 20;

/// Every buffer is a multiple of this long, in bytes.
const GRAIN: u64 = 256;

/// A device's memory, in bytes as rounded for the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In buffers that are alive.
    pub in_use: u64,
    /// In buffers that are kept for reuse.
    pub kept: u64,
    /// The most that was ever in use.
    pub peak: u64,
    /// The budget, where one is set.
    pub limit: Option<u64>,
}

/// The size class of a buffer of `bytes`: at most 1/16 more, or up to [`GRAIN`].
pub(crate) fn class_of(bytes: u64) -> u64 {
    let step = match bytes.checked_ilog2() {
        // Sixteen classes from one power of two to the next.
        Some(log) => (1 << log.saturating_sub(4)).max(GRAIN),
        None => GRAIN,
    };
    bytes.max(1).checked_next_multiple_of(step).unwrap_or(bytes)
}

/// Counts bytes, refuses what is over the budget, and keeps freed things of type `T` for reuse.
#[derive(Debug)]
pub(crate) struct Books<T> {
    memory: Memory,
    clock: u64,
    /// By class: the things in their order, and since when each is kept.
    kept: BTreeMap<u64, BTreeMap<T, u64>>,
}

/// What became of a reservation.
#[derive(Debug)]
pub(crate) enum Reserved<T> {
    /// A kept thing serves.
    Reused(T),
    /// The caller makes a new one, and then calls [`Books::made`] or [`Books::failed`]. The kept things that had to go
    /// to make room are to be freed first.
    Make(Vec<T>),
    /// The budget does not allow it.
    Refused,
}

impl<T: Ord + Clone> Books<T> {
    pub(crate) fn new(limit: Option<u64>) -> Books<T> {
        Books { memory: Memory { limit, ..Memory::default() }, clock: 0, kept: BTreeMap::new() }
    }

    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Reserves a thing of a class. Of the kept ones the least that `ready` accepts is taken, else the first to be freed.
    /// Whatever the order in which things were freed, a loop that needs as many at every turn gets the same ones.
    pub(crate) fn reserve(&mut self, class: u64, ready: impl Fn(&T) -> bool) -> Reserved<T> {
        if let Some(kept) = self.kept.get_mut(&class) {
            let longest = || kept.iter().min_by_key(|(_, since)| **since);
            let found = kept.iter().find(|(item, _)| ready(item)).or_else(longest);
            if let Some(item) = found.map(|(item, _)| item.clone()) {
                kept.remove(&item);
                self.memory.kept -= class;
                self.memory.in_use += class;
                self.memory.peak = self.memory.peak.max(self.memory.in_use);
                return Reserved::Reused(item);
            }
        }
        let needed = self.memory.in_use.saturating_add(class);
        if self.memory.limit.is_some_and(|limit| needed > limit) {
            return Reserved::Refused;
        }
        self.memory.in_use = needed;
        Reserved::Make(self.make_room())
    }

    /// A reserved thing was made.
    pub(crate) fn made(&mut self) {
        self.memory.peak = self.memory.peak.max(self.memory.in_use);
    }

    /// A reserved thing could not be made.
    pub(crate) fn failed(&mut self, class: u64) {
        self.memory.in_use -= class;
    }

    /// A thing is no longer in use. Returns what is not kept.
    pub(crate) fn release(&mut self, class: u64, item: T) -> Vec<T> {
        self.memory.in_use -= class;
        self.memory.kept += class;
        self.clock += 1;
        self.kept.entry(class).or_default().insert(item, self.clock);
        self.make_room()
    }

    /// All that is kept, to be freed.
    pub(crate) fn trim(&mut self) -> Vec<T> {
        self.memory.kept = 0;
        std::mem::take(&mut self.kept).into_values().flatten().map(|(item, _)| item).collect()
    }

    /// Takes out kept things, the longest kept first, until all that is left has room.
    fn make_room(&mut self) -> Vec<T> {
        let mut room = self.memory.peak.max(self.memory.in_use).max(LEAST_ROOM);
        if let Some(limit) = self.memory.limit {
            room = room.min(limit);
        }
        let mut gone = Vec::new();
        while self.memory.in_use + self.memory.kept > room {
            let all = self.kept.iter().flat_map(|(class, kept)| kept.iter().map(move |kept| (*class, kept)));
            let longest = all.min_by_key(|(_, (_, since))| **since);
            let Some((class, item)) = longest.map(|(class, (item, _))| (class, item.clone())) else { break };
            if let Some(kept) = self.kept.get_mut(&class) {
                kept.remove(&item);
            }
            self.memory.kept -= class;
            gone.push(item);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn make(books: &mut Books<u32>, class: u64) -> usize {
        match books.reserve(class, |_| true) {
            Reserved::Make(gone) => {
                books.made();
                gone.len()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn classes_waste_little() {
        assert_eq!([0, 1, 256, 257, 4096, 4097].map(class_of), [256, 256, 256, 512, 4096, 4352]);
        assert_eq!(class_of(1 << 27), 1 << 27);
        for bytes in (4096..1 << 22).step_by(997) {
            let class = class_of(bytes);
            assert!(class >= bytes && class - bytes <= bytes / 16, "{bytes} {class}");
            assert_eq!((class % GRAIN, class_of(class)), (0, class));
        }
        assert_eq!(class_of(u64::MAX), u64::MAX);
    }

    #[test]
    fn kept_things_are_reused_within_the_high_water_mark() {
        let mut books = Books::new(None);
        make(&mut books, 40 * MIB);
        make(&mut books, 40 * MIB);
        assert!(books.release(40 * MIB, 1).is_empty());
        assert!(books.release(40 * MIB, 2).is_empty());
        assert_eq!(books.memory(), Memory { in_use: 0, kept: 80 * MIB, peak: 80 * MIB, limit: None });
        // The least that is ready, else the one that is kept longest.
        assert!(matches!(books.reserve(40 * MIB, |_| true), Reserved::Reused(1)));
        assert!(books.release(40 * MIB, 1).is_empty());
        assert!(matches!(books.reserve(40 * MIB, |_| false), Reserved::Reused(2)));
        // Another class makes the kept one go: 40 + 40 + 10 is more than ever was in use.
        assert_eq!(make(&mut books, 10 * MIB), 1);
        assert_eq!(books.memory(), Memory { in_use: 50 * MIB, kept: 0, peak: 80 * MIB, limit: None });
    }

    #[test]
    fn the_budget_holds_in_use_and_kept() {
        let mut books = Books::new(Some(10 * MIB));
        make(&mut books, 6 * MIB);
        assert!(matches!(books.reserve(5 * MIB, |_| true), Reserved::Refused));
        assert!(books.release(6 * MIB, 1).is_empty());
        assert_eq!(make(&mut books, 5 * MIB), 1);
        assert_eq!(books.memory(), Memory { in_use: 5 * MIB, kept: 0, peak: 6 * MIB, limit: Some(10 * MIB) });
        assert!(matches!(books.reserve(5 * MIB, |_| true), Reserved::Make(_)));
        books.failed(5 * MIB);
        assert_eq!(books.memory().in_use, 5 * MIB);
        assert!(matches!(books.reserve(u64::MAX, |_| true), Reserved::Refused));
    }

    #[test]
    fn trimming_frees_all_that_is_kept() {
        let mut books = Books::new(None);
        make(&mut books, MIB);
        make(&mut books, 2 * MIB);
        books.release(MIB, 1);
        books.release(2 * MIB, 2);
        assert_eq!(books.trim().len(), 2);
        assert_eq!((books.memory().kept, books.memory().in_use), (0, 0));
        assert!(books.trim().is_empty());
    }
}
