//! Memory of registers: each thread keeps what it has used, so that a small kernel allocates nothing.

use crate::block::BLOCK_OF_ROWS;
use crate::slice::{Slice, SliceMut, with_slice};
use gradus_ir::{DType, Data, Element, with_dtype};
use std::cell::RefCell;

/// How many free registers of a dtype a thread keeps.
const KEPT: usize = 64;

/// Bytes of a line of the cache: vectors that lie across two lines take twice as long to load and to store.
const LINE: usize = 64;

/// Memory for a block of a register. It begins with a line.
pub(crate) struct Piece {
    data: Data,
    first: usize,
}

impl Default for Piece {
    /// No memory: what stands in for a piece that is elsewhere for a while.
    fn default() -> Piece {
        Piece { data: Data::F32(Vec::new()), first: 0 }
    }
}

impl Piece {
    fn new(dtype: DType) -> Piece {
        let mut data = with_dtype!(held_as(dtype), T => <T as Element>::wrap(vec![T::default(); BLOCK_OF_ROWS + LINE]));
        let first = with_slice!(SliceMut, SliceMut::of(&mut data), data => data.as_ptr().align_offset(LINE));
        // Where a line begins is for speed alone.
        Piece { data, first: if first < LINE { first } else { 0 } }
    }

    #[inline(always)]
    pub(crate) fn slice(&self) -> Slice<'_> {
        Slice::of(&self.data).range(self.first, BLOCK_OF_ROWS)
    }

    #[inline(always)]
    pub(crate) fn slice_mut(&mut self) -> SliceMut<'_> {
        SliceMut::of(&mut self.data).into_range(self.first, BLOCK_OF_ROWS)
    }
}

/// Free registers, by the dtype that they hold.
type Free = [Vec<Piece>; DTYPES];
const DTYPES: usize = 5;

thread_local! {
    static FREE: RefCell<Free> = const { RefCell::new([const { Vec::new() }; DTYPES]) };
}

/// The dtype of a register's memory: f16 is held as f32.
pub(crate) fn held_as(dtype: DType) -> DType {
    if dtype == DType::F16 { DType::F32 } else { dtype }
}

fn shelf(dtype: DType) -> usize {
    match held_as(dtype) {
        DType::Bool => 0,
        DType::I32 => 1,
        DType::U32 => 2,
        DType::F16 | DType::F32 => 3,
        DType::F64 => 4,
    }
}

/// Memory for a block of a register; its elements have no meaning.
pub(crate) fn take(dtype: DType) -> Piece {
    FREE.with_borrow_mut(|free| free[shelf(dtype)].pop()).unwrap_or_else(|| Piece::new(dtype))
}

/// Gives such memory back.
pub(crate) fn give_back(piece: Piece) {
    FREE.with_borrow_mut(|free| {
        let shelf = &mut free[shelf(piece.data.dtype())];
        if shelf.len() < KEPT {
            shelf.push(piece);
        }
    });
}
