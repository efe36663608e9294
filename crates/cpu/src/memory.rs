//! The backend's memory: a budget, a count, and arrays that are used again.

use gradus_ir::{DType, Data, Error, MemoryStats, Result, Stats, with_data, with_dtype};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// What is in use and what is kept for reuse are together never more than was in use at most, or than this.
const LEAST_ROOM: usize = 64 << 20;

/// Counts bytes, refuses what is over the budget, and keeps freed arrays for reuse. Counts what the device does, too.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    in_use: usize,
    peak: usize,
    limit: Option<usize>,
    kept_bytes: usize,
    kept: HashMap<(DType, usize), Vec<Data>>,
    work: Stats,
}

impl Books {
    /// Whether the budget allows `bytes` more.
    fn check(&self, bytes: usize) -> Result<()> {
        let (in_use, limit) = (self.in_use, self.limit);
        if limit.is_some_and(|limit| in_use + bytes > limit) {
            return Err(Error::OutOfMemory { bytes, in_use, limit });
        }
        Ok(())
    }

    /// Notes that `bytes` more are in use, if the budget allows it.
    fn take(&mut self, bytes: usize) -> Result<()> {
        self.check(bytes)?;
        self.in_use += bytes;
        self.peak = self.peak.max(self.in_use);
        Ok(())
    }

    fn room(&self) -> usize {
        self.peak.max(LEAST_ROOM)
    }

    /// Frees kept arrays, in no particular order, until all that is left has room.
    fn make_room(&mut self) {
        while self.in_use + self.kept_bytes > self.room() {
            let Some(&(dtype, len)) = self.kept.keys().next() else {
                return;
            };
            if self.kept.get_mut(&(dtype, len)).and_then(Vec::pop).is_some() {
                self.kept_bytes -= len * dtype.size();
            } else {
                self.kept.remove(&(dtype, len));
            }
        }
    }
}

impl Memory {
    /// Memory with a budget in bytes.
    pub(crate) fn with_limit(limit: Option<usize>) -> Memory {
        Memory(Mutex::new(Books { limit, ..Books::default() }))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // The books are numbers that are right after every statement, so a poisoned lock is still good.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Bytes in use now and at most.
    pub(crate) fn stats(&self) -> MemoryStats {
        let books = self.books();
        MemoryStats { in_use: books.in_use, peak: books.peak, limit: books.limit }
    }

    /// What the device did so far.
    pub(crate) fn work(&self) -> Stats {
        self.books().work
    }

    /// Notes that so many kernels were run.
    pub(crate) fn note_launches(&self, count: usize) {
        self.books().work.launches += count as u64;
    }

    /// Fails now if the budget does not allow `bytes` more.
    pub(crate) fn ensure(&self, bytes: usize) -> Result<()> {
        self.books().check(bytes)
    }

    /// An array with unspecified elements.
    pub(crate) fn allocate(self: &Arc<Memory>, dtype: DType, len: usize) -> Result<Array> {
        let bytes = len * dtype.size();
        let reused = {
            let mut books = self.books();
            books.take(bytes)?;
            let reused = books.kept.get_mut(&(kept_as(dtype), len)).and_then(Vec::pop);
            if reused.is_some() {
                books.kept_bytes -= bytes;
            } else {
                books.work.buffers += 1;
                books.work.buffer_bytes += bytes as u64;
            }
            books.make_room();
            reused
        };
        // From here on the array's drop settles the count, also if the allocation fails.
        let mut array = Array { data: Data::Bool(Vec::new()), bytes, adopted: false, memory: self.clone() };
        array.data = match reused {
            Some(data) => as_dtype(data, dtype),
            None => with_dtype!(dtype, T => {
                let mut values: Vec<T> = Vec::new();
                values.try_reserve_exact(len).map_err(|_| {
                    let stats = self.stats();
                    Error::OutOfMemory { bytes, in_use: stats.in_use - bytes, limit: stats.limit }
                })?;
                values.resize(len, T::default());
                <T as gradus_ir::Element>::wrap(values)
            }),
        };
        Ok(array)
    }

    /// Takes over an array that was made elsewhere.
    pub(crate) fn adopt(self: &Arc<Memory>, data: Data) -> Result<Array> {
        let bytes = data.len() * data.dtype().size();
        self.books().take(bytes)?;
        Ok(Array { data, bytes, adopted: true, memory: self.clone() })
    }
}

/// The dtype as which arrays of a dtype are kept: those of equal width serve each other.
fn kept_as(dtype: DType) -> DType {
    match dtype {
        DType::I32 | DType::U32 | DType::F32 => DType::U32,
        DType::Bool | DType::F16 | DType::F64 => dtype,
    }
}

/// The same memory as an array of another dtype of equal width; its elements have no meaning.
fn as_dtype(data: Data, dtype: DType) -> Data {
    use bytemuck::cast_vec;
    match (data, dtype) {
        (Data::U32(v), DType::I32) => Data::I32(cast_vec(v)),
        (Data::U32(v), DType::F32) => Data::F32(cast_vec(v)),
        (Data::I32(v), DType::U32) => Data::U32(cast_vec(v)),
        (Data::F32(v), DType::U32) => Data::U32(cast_vec(v)),
        (data, _) => data,
    }
}

/// An array whose bytes are counted.
#[derive(Debug)]
pub(crate) struct Array {
    /// The elements.
    pub(crate) data: Data,
    bytes: usize,
    /// Whether it was made elsewhere. It is not kept: a loop that uploads would keep ever more.
    adopted: bool,
    memory: Arc<Memory>,
}

impl Array {
    /// Its elements, to be put back.
    pub(crate) fn take(&mut self) -> Data {
        std::mem::replace(&mut self.data, Data::Bool(Vec::new()))
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        let data = std::mem::replace(&mut self.data, Data::Bool(Vec::new()));
        let (dtype, len) = (data.dtype(), data.len());
        let whole = with_data!(&data, v => v.capacity() == v.len()) && len * dtype.size() == self.bytes;
        let mut books = self.memory.books();
        books.in_use -= self.bytes;
        if whole && !self.adopted && self.bytes > 0 && books.in_use + books.kept_bytes + self.bytes <= books.room() {
            books.kept_bytes += self.bytes;
            books.kept.entry((kept_as(dtype), len)).or_default().push(as_dtype(data, kept_as(dtype)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_reuses_and_refuses() {
        let memory = Arc::new(Memory::with_limit(Some(1000)));
        let a = memory.allocate(DType::F32, 200).unwrap();
        assert_eq!(memory.stats().in_use, 800);
        let refused = memory.allocate(DType::F64, 26).unwrap_err();
        assert_eq!(refused, Error::OutOfMemory { bytes: 208, in_use: 800, limit: Some(1000) });
        drop(a);
        assert_eq!(memory.stats(), MemoryStats { in_use: 0, peak: 800, limit: Some(1000) });
        let _again = memory.allocate(DType::F32, 200).unwrap();
        assert_eq!(memory.books().kept_bytes, 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes an hour there")]
    fn arrays_are_kept_up_to_the_most_that_was_in_use() {
        let memory = Arc::new(Memory::default());
        let large = LEAST_ROOM / 4;
        let a = memory.allocate(DType::F32, large).unwrap();
        let b = memory.allocate(DType::F32, large).unwrap();
        drop((a, b));
        assert_eq!(memory.books().kept_bytes, 8 * large);
        // Both are used again, also as another dtype of equal width.
        let c = memory.allocate(DType::I32, large).unwrap();
        let d = memory.allocate(DType::F32, large).unwrap();
        assert_eq!(memory.books().kept_bytes, 0);
        drop((c, d));
        // Another size makes kept arrays go.
        let _e = memory.allocate(DType::F32, large + 1).unwrap();
        let books = memory.books();
        assert!(books.in_use + books.kept_bytes <= books.room());
    }

    #[test]
    fn what_was_made_elsewhere_is_not_kept() {
        let memory = Arc::new(Memory::default());
        drop(memory.adopt(Data::F32(vec![1.0; 100])).unwrap());
        assert_eq!((memory.stats().in_use, memory.books().kept_bytes), (0, 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri ends where an allocation fails")]
    fn more_than_the_machine_has_is_an_error() {
        let memory = Arc::new(Memory::default());
        assert!(matches!(memory.allocate(DType::F64, isize::MAX as usize / 8), Err(Error::OutOfMemory { .. })));
        assert_eq!(memory.stats().in_use, 0);
    }
}
