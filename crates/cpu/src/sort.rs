//! The order of rows. An element becomes an integer that compares as it does, with its index below: equal ones keep their
//! order, and no two are equal.

use crate::address::Strided;
use crate::parallel;
use crate::slice::{Slice, SliceMut, Typed, with_slice};
use gradus_ir::plan::Kernel;
use gradus_ir::{Data, Result, f16, math};
use rayon::slice::ParallelSliceMut;

/// Elements per task, where rows are short.
const TASK: usize = 1 << 14;

/// A sort made ready.
#[derive(Debug)]
pub(crate) struct Sort {
    descending: bool,
    operand: Strided,
    /// How many elements a row has.
    row: usize,
}

/// An element that can be put into order.
trait Ordered: Typed {
    /// An element with an index.
    type Numbered: Ord + Copy + Send;
    /// The element, as an integer that compares as it does, and below it an index.
    fn numbered(self, index: u32, descending: bool) -> Self::Numbered;
    /// The index.
    fn index(numbered: Self::Numbered) -> i32;
}

macro_rules! ordered {
    ($($t:ident as $bits:ident in $wide:ident: |$x:ident| $key:expr;)*) => {
        $(impl Ordered for $t {
            type Numbered = $wide;
            #[inline(always)]
            fn numbered(self, index: u32, descending: bool) -> $wide {
                let $x = self;
                let key: $bits = $key;
                (((if descending { !key } else { key }) as $wide) << 32) | index as $wide
            }
            #[inline(always)]
            fn index(numbered: $wide) -> i32 {
                numbered as u32 as i32
            }
        })*
    };
}

ordered! {
    bool as u32 in u64: |x| x as u32;
    u32 as u32 in u64: |x| x;
    i32 as u32 in u64: |x| (x as u32) ^ (1 << 31);
    f16 as u32 in u64: |x| key_of_f32(math::from_f16(x));
    f32 as u32 in u64: |x| key_of_f32(x);
    f64 as u64 in u128: |x| match (x + 0.0).to_bits() {
        _ if x.is_nan() => u64::MAX,
        bits if bits >> 63 == 0 => bits | (1 << 63),
        bits => !bits,
    };
}

#[inline(always)]
fn key_of_f32(x: f32) -> u32 {
    match (x + 0.0).to_bits() {
        _ if x.is_nan() => u32::MAX,
        bits if bits >> 31 == 0 => bits | (1 << 31),
        bits => !bits,
    }
}

impl Sort {
    /// Prepares a kernel.
    pub(crate) fn new(kernel: &Kernel, descending: bool) -> Sort {
        let row = kernel.space.last().copied().unwrap_or(1);
        Sort { descending, operand: Strided::new(&kernel.loads[0].view), row }
    }

    /// Runs it.
    pub(crate) fn run(&self, load: Slice<'_>, out: &mut Data) -> Result<()> {
        let out: &mut [i32] = SliceMut::of(out).typed();
        with_slice!(Slice, load, source => self.rows(source, out))
    }

    fn rows<T: Ordered>(&self, source: &[T], out: &mut [i32]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let (task, elements) = (self.row * (TASK / self.row).max(1), out.len());
        parallel::each_chunk(out, task, elements, |(number, out)| {
            let mut loaded = vec![T::default(); self.row];
            let mut numbered: Vec<T::Numbered> = Vec::with_capacity(self.row);
            for (at, out) in out.chunks_mut(self.row).enumerate() {
                self.operand.fill(source, number * task + at * self.row, &mut loaded);
                numbered.clear();
                numbered.extend(loaded.iter().zip(0..).map(|(&x, index)| x.numbered(index, self.descending)));
                // No two are equal, so that every way of sorting gives the same.
                if self.row > parallel::ELEMENTS {
                    numbered.par_sort_unstable();
                } else {
                    numbered.sort_unstable();
                }
                out.iter_mut().zip(&numbered).for_each(|(out, &numbered)| *out = T::index(numbered));
            }
            Ok(())
        })
    }
}
