//! The loads of a program: what each shows of an array, and how a register is filled with it.

use crate::address::{Shown, Strided};
use crate::block::Block;
use crate::loops;
use crate::slice::{Slice, SliceMut, with_slice};
use gradus_ir::{DType, Data, Number, View, f16};

/// A load of a program.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// How an index finds its element.
    pub(crate) view: View,
    /// Whether elements are counted from the beginning of the piece of work and not of the space.
    pub(crate) local: bool,
    /// The output that is updated in place, if this is one.
    pub(crate) output: Option<usize>,
}

/// A load made ready.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) source: Source,
    pub(crate) strided: Strided,
}

/// What a program reads.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// The kernel's loads; `None` for one that is updated in place.
    pub(crate) loads: &'a [Option<Slice<'a>>],
    /// The loads after these: what the kernel's family has computed.
    pub(crate) computed: &'a [Data],
    pub(crate) scalars: &'a [Number],
}

impl<'a> Operands<'a> {
    pub(crate) fn load(&self, load: usize) -> Option<Slice<'a>> {
        match self.loads.get(load) {
            Some(source) => *source,
            None => Some(Slice::of(&self.computed[load - self.loads.len()])),
        }
    }
}

impl Load {
    pub(crate) fn new(source: Source) -> Load {
        Load { strided: Strided::new(&source.view), source }
    }

    /// Where a block begins in what the load's view shows.
    fn first(&self, block: Block) -> usize {
        if self.source.local { block.start - block.base } else { block.start }
    }

    /// Whether an array holds elements as registers of a dtype do.
    pub(crate) fn is_held_as(&self, dtype: DType) -> bool {
        dtype != DType::F16 || self.source.local
    }

    /// Whether whole rows of so many elements, and nothing else, are read where they lie.
    pub(crate) fn is_rows(&self, row: Option<usize>, dtype: DType) -> bool {
        row.is_some() && self.strided.rows() == row && self.source.output.is_none() && self.is_held_as(dtype)
    }

    /// What a block of the load is.
    pub(crate) fn shown(&self, block: Block, dtype: DType) -> Shown {
        match self.strided.shown(self.first(block), block.len) {
            _ if self.source.output.is_some() => Shown::Many,
            Shown::Stretch(_) | Shown::Rows(_) if !self.is_held_as(dtype) => Shown::Many,
            shown => shown,
        }
    }

    /// Fills a register with the first elements of a block.
    pub(crate) fn fill(&self, source: Slice<'_>, block: Block, target: SliceMut<'_>) {
        from_memory(source, target, |target| {
            with_slice!(SliceMut, target, t => self.strided.fill(source.typed(), self.first(block), t));
        });
    }
}

/// Fills a register with elements of an array, which `fill` puts into a place of the array's dtype.
pub(crate) fn from_memory<R>(source: Slice<'_>, target: SliceMut<'_>, fill: impl FnOnce(SliceMut<'_>) -> R) -> R {
    match (source, target) {
        (Slice::F16(_), SliceMut::F32(wide)) => {
            let mut narrow = vec![f16::ZERO; wide.len()];
            let filled = fill(SliceMut::F16(&mut narrow));
            loops::copy(Slice::F16(&narrow), SliceMut::F32(wide));
            filled
        }
        (_, target) => fill(target),
    }
}
