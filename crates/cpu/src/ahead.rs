//! Asking for memory ahead of reading it: while a loop computes, what the next block reads is on its way.

use crate::slice::{Slice, with_slice};
use smallvec::SmallVec;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Stretches of memory that are read soon.
#[derive(Default)]
pub(crate) struct Ahead<'a> {
    stretches: SmallVec<[&'a [u8]; 4]>,
    /// How many lines they are.
    lines: usize,
}

impl<'a> Ahead<'a> {
    pub(crate) fn push(&mut self, slice: Slice<'a>) {
        let bytes: &[u8] = with_slice!(Slice, slice, slice => bytemuck::cast_slice(slice));
        self.lines += bytes.len().div_ceil(LINE);
        self.stretches.push(bytes);
    }

    /// The same in so many parts: asking for all at once takes as long as reading them.
    #[inline(always)]
    pub(crate) fn parts(&self, parts: usize) -> Parts<'_> {
        Parts { left: &[], next: &self.stretches, lines: self.lines.div_ceil(parts.max(1)) }
    }
}

/// Stretches of memory that are asked for part by part.
pub(crate) struct Parts<'a> {
    /// What is left of one stretch, and the next ones.
    left: &'a [u8],
    next: &'a [&'a [u8]],
    /// The lines of a part.
    lines: usize,
}

impl Parts<'_> {
    /// Asks for the next part.
    #[inline(always)]
    pub(crate) fn ask(&mut self) {
        for _ in 0..self.lines {
            if self.left.is_empty() {
                let Some((left, next)) = self.next.split_first() else { return };
                (self.left, self.next) = (left, next);
            }
            self.left.first().into_iter().for_each(ask);
            self.left = self.left.get(LINE..).unwrap_or(&[]);
        }
    }
}

/// Asks for the line that a byte lies in, if the processor can be asked: into the second cache. What a block reads is more than the
/// first one holds beside the registers of the block before.
#[inline(always)]
fn ask(byte: &u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: this is a hint, which changes nothing that a program sees and fails for no address.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(byte).cast());
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
            assert!(asked.left.is_empty() && asked.next.iter().all(|stretch| stretch.is_empty()), "{lens:?} {parts}");
        }
    }
}
