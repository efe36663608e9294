//! When work is worth several threads, and how it is given to them: in fixed pieces, so that bits do not depend on who does
//! them.

use gradus_ir::Result;
use rayon::prelude::*;

/// Elements above which a kernel is given to several threads: waking a thread takes as long as some ten thousand elements.
pub(crate) const ELEMENTS: usize = 1 << 17;

/// Multiply-adds above which a matrix product is given to several threads.
pub(crate) const PRODUCTS: usize = 1 << 22;

/// So many tasks are enough to keep all threads at work to the end.
pub(crate) fn tasks() -> usize {
    4 * rayon::current_num_threads()
}

/// Maps tasks, in parallel if `elements` altogether are enough.
pub(crate) fn map<T: Send, R: Send>(
    tasks: Vec<T>,
    elements: usize,
    task: impl Fn(T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    if elements > ELEMENTS { tasks.into_par_iter().map(task).collect() } else { tasks.into_iter().map(task).collect() }
}

/// Runs a task on each piece of `out`, in parallel if `elements` altogether are enough.
pub(crate) fn each_chunk<T: Send>(
    out: &mut [T],
    size: usize,
    elements: usize,
    task: impl Fn((usize, &mut [T])) -> Result<()> + Sync + Send,
) -> Result<()> {
    map(out.chunks_mut(size).enumerate().collect(), elements, task).map(|_| ())
}
