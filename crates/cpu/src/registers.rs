//! Memory of registers: each thread keeps what it has used, so that a small kernel allocates nothing.

use crate::block::BLOCK;
use gradus_ir::{DType, Data, Element, with_dtype};
use std::cell::RefCell;

/// How many free registers of a dtype a thread keeps.
const KEPT: usize = 64;

/// Free registers, by the dtype that they hold.
type Free = [Vec<Data>; DTYPES];
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
pub(crate) fn take(dtype: DType) -> Data {
    FREE.with_borrow_mut(|free| free[shelf(dtype)].pop())
        .unwrap_or_else(|| with_dtype!(held_as(dtype), T => <T as Element>::wrap(vec![T::default(); BLOCK])))
}

/// Gives such memory back; anything else is freed.
pub(crate) fn give_back(register: Data) {
    if register.len() == BLOCK {
        FREE.with_borrow_mut(|free| {
            let shelf = &mut free[shelf(register.dtype())];
            if shelf.len() < KEPT {
                shelf.push(register);
            }
        });
    }
}
