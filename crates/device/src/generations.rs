//! A bounded map: what was not asked for in a long time goes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// A map in two generations. What is used moves to the young one; when that is full, the old one is dropped and the
/// young one becomes old. So it holds up to twice its capacity, and always the last `capacity` that were used.
#[derive(Debug)]
pub struct Generations<K, V, S = std::hash::RandomState> {
    capacity: usize,
    young: HashMap<K, V, S>,
    old: HashMap<K, V, S>,
}

impl<K: Eq + Hash, V, S: BuildHasher + Default> Generations<K, V, S> {
    /// An empty map.
    pub fn new(capacity: usize) -> Self {
        Generations { capacity, young: HashMap::default(), old: HashMap::default() }
    }

    /// What is stored under a key.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// Stores a value in place of what was under this key.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        } else {
            self.old.remove(&key);
        }
        self.young.insert(key, value);
    }

    /// What is stored under a key if it is `valid`, else what `make` makes, which is stored in its place.
    pub fn get_or_try_insert<E>(
        &mut self,
        key: K,
        valid: impl Fn(&V) -> bool,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<&mut V, E> {
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            let wanted = self.old.remove_entry(&key);
            self.old = std::mem::take(&mut self.young);
            self.young.extend(wanted);
        }
        match self.young.entry(key) {
            Entry::Occupied(entry) if valid(entry.get()) => Ok(entry.into_mut()),
            Entry::Occupied(mut entry) => {
                entry.insert(make()?);
                Ok(entry.into_mut())
            }
            Entry::Vacant(entry) => {
                let value = match self.old.remove(entry.key()) {
                    Some(value) if valid(&value) => value,
                    _ => make()?,
                };
                Ok(entry.insert(value))
            }
        }
    }

    /// Drops what `keep` does not want.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.young.retain(|_, v| keep(v));
        self.old.retain(|_, v| keep(v));
    }
}

/// The hash of a key that is a hash already.
#[derive(Debug, Default)]
pub(crate) struct Identity(u64);

/// Makes [`Identity`] hashers.
pub(crate) type BuildIdentity = BuildHasherDefault<Identity>;

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0, u64::from(*byte));
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// One step of a fast hash, good enough for keys of our own making.
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_valid_is_made_again() {
        let mut map: Generations<u64, u64, BuildIdentity> = Generations::new(3);
        for round in 0..3 {
            for key in 0..6 {
                let made = map.get_or_try_insert(key, |v| *v >= 10 * round, || Ok::<u64, ()>(10 * round + key));
                assert_eq!(made.copied(), Ok(10 * round + key));
                assert!(map.young.len() <= 3 && map.old.len() <= 3);
            }
        }
        // Found in either generation, or not at all.
        assert_eq!(map.get_or_try_insert(5, |_| true, || Err("not made")).copied(), Ok(25));
        assert_eq!(map.get_or_try_insert(2, |_| true, || Err("not made")).copied(), Ok(22));
        assert_eq!(map.get_or_try_insert(7, |_| true, || Err("not made")).copied(), Err("not made"));
    }

    #[test]
    fn the_last_used_stay() {
        let mut map: Generations<u64, u64, BuildIdentity> = Generations::new(10);
        for key in 0..1000 {
            map.insert(mix(0, key), key);
            assert!(map.young.len() <= 10 && map.old.len() <= 10);
            // Zero is asked for all the time.
            assert_eq!(map.get(&mix(0, 0)), Some(&0));
            for recent in key.saturating_sub(8)..=key {
                assert_eq!(map.get(&mix(0, recent)), Some(&recent), "{key}");
            }
        }
        assert_eq!(map.get(&mix(0, 5)), None);
        map.retain(|v| *v == 0);
        assert_eq!((map.get(&mix(0, 0)).copied(), map.get(&mix(0, 999))), (Some(0), None));
    }
}
