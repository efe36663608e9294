//! Asking for memory ahead of its use: while a loop computes, what is read or written next is on its way.

use crate::slice::{Slice, with_slice};
use smallvec::SmallVec;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Stretches of memory that are used soon.
#[derive(Default)]
pub(crate) struct Ahead {
    stretches: SmallVec<[Stretch; 4]>,
}

/// Neighbouring lines of the cache. They are asked for and not read, so nobody need keep them.
#[derive(Clone, Copy)]
struct Stretch {
    next: *const u8,
    lines: usize,
    /// The lines of a part.
    part: usize,
}

impl Ahead {
    pub(crate) fn push(&mut self, slice: Slice<'_>) {
        let bytes: &[u8] = with_slice!(Slice, slice, slice => bytemuck::cast_slice(slice));
        self.stretches.push(Stretch { next: bytes.as_ptr(), lines: bytes.len().div_ceil(LINE), part: 0 });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// The same in so many parts, each of which has some of all stretches: asking for all at once takes as long as reading them, and
    /// memory brings what lies side by side in several arrays sooner than one array after the other.
    #[inline(always)]
    pub(crate) fn parts(&self, parts: usize) -> Parts {
        let part = |&stretch: &Stretch| Stretch { part: stretch.lines.div_ceil(parts.max(1)), ..stretch };
        Parts { left: self.stretches.iter().map(part).collect() }
    }
}

/// Stretches of memory that are asked for part by part.
pub(crate) struct Parts {
    left: SmallVec<[Stretch; 4]>,
}

impl Parts {
    /// Asks for the next part.
    #[inline(always)]
    pub(crate) fn ask(&mut self) {
        for stretch in &mut self.left {
            let lines = stretch.part.min(stretch.lines);
            for line in 0..lines {
                ask(stretch.next.wrapping_add(line * LINE));
            }
            *stretch =
                Stretch { next: stretch.next.wrapping_add(lines * LINE), lines: stretch.lines - lines, ..*stretch };
        }
    }
}

/// Asks for the line that a byte lies in, if the processor can be asked: into the second cache. What a block reads and writes is more
/// than the first one holds beside the registers of the block before.
#[inline(always)]
fn ask(byte: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: this is a hint, which changes nothing that a program sees and fails for no address.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(byte.cast());
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = byte;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_asked_for_in_so_many_parts() {
        let memory = vec![0f32; 1000];
        for (lens, parts) in [([0, 0, 0], 1), ([1000, 0, 10], 3), ([16, 17, 1], 100), ([1000; 3], 62)] {
            let mut ahead = Ahead::default();
            lens.iter().for_each(|&len| ahead.push(Slice::F32(&memory[..len])));
            let mut asked = ahead.parts(parts);
            (0..parts).for_each(|_| asked.ask());
            assert!(asked.left.iter().all(|left| left.lines == 0), "{lens:?} {parts}");
        }
    }
}
