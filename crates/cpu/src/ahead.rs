//! Asking for memory ahead of its use: while a loop computes, what is read or written next is on its way.

use crate::slice::{Slice, with_slice};
use smallvec::SmallVec;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Stretches of memory that are used soon: first those that are written, then those that are read.
#[derive(Default)]
pub(crate) struct Ahead {
    written: SmallVec<[Stretch; 2]>,
    read: SmallVec<[Stretch; 4]>,
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
    pub(crate) fn push_written(&mut self, slice: Slice<'_>) {
        self.written.push(Stretch::of(slice));
    }

    pub(crate) fn push_read(&mut self, slice: Slice<'_>) {
        self.read.push(Stretch::of(slice));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.written.is_empty() && self.read.is_empty()
    }

    /// The same in so many parts: asking for all at once takes as long as reading them. Each has some lines of all that is written, or
    /// of all that is read: memory brings what lies side by side in several arrays sooner than one array after the other.
    #[inline(always)]
    pub(crate) fn parts(&self, parts: usize) -> Parts {
        let lines = |stretches: &[Stretch]| stretches.iter().map(|stretch| stretch.lines).sum::<usize>();
        let (written, read) = (lines(&self.written), lines(&self.read));
        let writing = (parts * written).div_ceil((written + read).max(1));
        let part =
            |parts: usize| move |&stretch: &Stretch| Stretch { part: stretch.lines.div_ceil(parts.max(1)), ..stretch };
        Parts {
            writing,
            written: self.written.iter().map(part(writing)).collect(),
            read: self.read.iter().map(part(parts - writing)).collect(),
        }
    }
}

/// Stretches of memory that are asked for part by part.
pub(crate) struct Parts {
    /// The parts that are left of what is written.
    writing: usize,
    written: SmallVec<[Stretch; 2]>,
    read: SmallVec<[Stretch; 4]>,
}

impl Parts {
    /// Asks for the next part.
    #[inline(always)]
    pub(crate) fn ask(&mut self) {
        if self.writing > 0 {
            self.writing -= 1;
            self.written.iter_mut().for_each(Stretch::ask);
            if self.writing > 0 {
                return;
            }
        }
        self.read.iter_mut().for_each(Stretch::ask);
    }
}

impl Stretch {
    fn of(slice: Slice<'_>) -> Stretch {
        let bytes: &[u8] = with_slice!(Slice, slice, slice => bytemuck::cast_slice(slice));
        Stretch { next: bytes.as_ptr(), lines: bytes.len().div_ceil(LINE), part: 0 }
    }

    /// Asks for a part, or for what is left.
    #[inline(always)]
    fn ask(&mut self) {
        let Stretch { next, lines, part } = *self;
        let asked = part.min(lines);
        for line in 0..asked {
            ask(next.wrapping_add(line * LINE));
        }
        *self = Stretch { next: next.wrapping_add(asked * LINE), lines: lines - asked, part };
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
        for (lens, parts) in [([0, 0, 0], 1), ([1000, 0, 10], 3), ([16, 17, 1], 100), ([1000; 3], 62), ([10; 3], 1)] {
            let mut ahead = Ahead::default();
            ahead.push_written(Slice::F32(&memory[..lens[0]]));
            lens[1..].iter().for_each(|&len| ahead.push_read(Slice::F32(&memory[..len])));
            let mut asked = ahead.parts(parts);
            (0..parts).for_each(|_| asked.ask());
            let mut left = asked.written.iter().chain(&asked.read);
            assert!(left.all(|left| left.lines == 0), "{lens:?} {parts}");
        }
    }
}
