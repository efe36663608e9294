//! The first few of many keys, without putting all of them into order.

use crate::loops::vectorised;
use std::ops::Not;

/// What elements are put into order by: an integer. With an index below it, no two are equal, and equal ones keep their order.
pub(crate) trait Key: Ord + Copy + Not<Output = Self> + Send + Sync {
    /// A key with an index.
    type Numbered: Ord + Copy + Send + Sync;
    /// The key, and below it an index.
    fn numbered(self, index: usize) -> Self::Numbered;
    /// The index.
    fn index(numbered: Self::Numbered) -> i32;
}

macro_rules! keys {
    ($($key:ty, $wide:ty;)*) => {
        $(impl Key for $key {
            type Numbered = $wide;
            #[inline(always)]
            fn numbered(self, index: usize) -> $wide {
                ((self as $wide) << u32::BITS) | index as u32 as $wide
            }
            #[inline(always)]
            fn index(numbered: $wide) -> i32 {
                numbered as u32 as i32
            }
        })*
    };
}

keys! {
    u32, u64;
    u64, u128;
}

/// The least number of groups that give a bound.
const GROUPS: usize = 64;

/// Keys that are compared with a bound at once: a bit of a word for each.
const COMPARED: usize = u32::BITS as usize;

/// Replaces what `first` holds by the first `count` of the keys, in any order, each with its index.
pub(crate) fn select<K: Key>(keys: &[K], count: usize, first: &mut Vec<K::Numbered>) {
    first.clear();
    match bound(keys, count) {
        Some(bound) => collect(keys, bound, first),
        None => first.extend(keys.iter().enumerate().map(|(index, key)| key.numbered(index))),
    }
    if count < first.len() {
        first.select_nth_unstable(count);
        first.truncate(count);
    }
}

/// A key that at least `count` of some keys, and hardly more, do not exceed, if it is cheap to know.
fn bound<K: Key>(keys: &[K], count: usize) -> Option<K> {
    // The least keys of as many groups are as many keys. With twice as many groups of which to take the best, few of the first keys share
    // one: about 1.4 times as many as are wanted do not exceed the bound.
    let groups = (2 * count).next_multiple_of(GROUPS);
    if count == 0 || keys.len() < 4 * groups {
        return None;
    }
    let (first, rest) = keys.split_at(groups);
    let mut least = first.to_vec();
    vectorised(
        #[inline(always)]
        || {
            for keys in rest.chunks(groups) {
                least.iter_mut().zip(keys).for_each(|(least, key)| *least = (*least).min(*key));
            }
        },
    );
    Some(*least.select_nth_unstable(count - 1).1)
}

/// Appends the keys that do not exceed a bound: few of them.
fn collect<K: Key>(keys: &[K], bound: K, found: &mut Vec<K::Numbered>) {
    vectorised(
        #[inline(always)]
        || {
            for (number, keys) in keys.chunks(COMPARED).enumerate() {
                let bits = keys.iter().enumerate().map(|(place, &key)| u32::from(key <= bound) << place);
                let mut mask = bits.fold(0, |mask, bit| mask | bit);
                while mask != 0 {
                    let place = mask.trailing_zeros() as usize;
                    found.push(keys[place].numbered(number * COMPARED + place));
                    mask &= mask - 1;
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keys_are_those_of_a_sort() {
        let scattered = |i: u32| i.wrapping_mul(0x9e37_79b9).rotate_left(7);
        let orders: [fn(u32) -> u32; 5] =
            [|i| i, |i| u32::MAX - i, |_| u32::MAX, |i| i / 7 % 5, |i| if i % 64 == 3 { i } else { u32::MAX }];
        for len in [0, 1, 31, 257, 1000] {
            for order in orders.iter().copied().chain([scattered as fn(u32) -> u32]) {
                let keys: Vec<u32> = (0..len).map(order).collect();
                let mut sorted: Vec<u64> = keys.iter().enumerate().map(|(index, key)| key.numbered(index)).collect();
                sorted.sort_unstable();
                for count in [0, 1, 2, 10, 32, 33, 100, 999, 1000].into_iter().filter(|&count| count <= keys.len()) {
                    let mut first = vec![17];
                    select(&keys, count, &mut first);
                    first.sort_unstable();
                    assert_eq!(first, sorted[..count], "{count} of {len}");
                }
            }
        }
    }
}
