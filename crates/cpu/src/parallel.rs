//! When work is worth several threads, and how it is given to them: in fixed pieces, so that bits do not depend on who does
//! them.

use gradus_ir::Result;
use rayon::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

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
    if elements <= ELEMENTS {
        tasks.into_iter().map(task).collect()
    } else if tasks.len() < 2 * rayon::current_num_threads() {
        tasks.into_par_iter().map(task).collect()
    } else {
        map_shares(tasks, task)
    }
}

/// Maps many tasks. Each thread begins with a share of them, the same one every time, since what it has written lies in the caches
/// next to it, and then helps the others. Which of them does a task, nobody can tell from what is returned.
fn map_shares<T: Send, R: Send>(tasks: Vec<T>, task: impl Fn(T) -> Result<R> + Sync + Send) -> Result<Vec<R>> {
    let (count, threads) = (tasks.len(), rayon::current_num_threads());
    let begin = |share: usize| share * count / threads;
    let next: Vec<AtomicUsize> = (0..threads).map(|share| AtomicUsize::new(begin(share))).collect();
    let tasks: Vec<Mutex<Option<T>>> = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect();
    let has_failed = AtomicBool::new(false);
    let work = |_| {
        let own = rayon::current_thread_index().unwrap_or(0);
        let mut done = Vec::with_capacity(count.div_ceil(threads));
        for share in (0..threads).map(|turn| (own + turn) % threads) {
            loop {
                let number = next[share].fetch_add(1, Relaxed);
                if number >= begin(share + 1) || has_failed.load(Relaxed) {
                    break;
                }
                let taken = tasks[number].lock().ok().and_then(|mut task| task.take());
                let result = task(taken.expect("each task is taken once"));
                done.push((number, result.inspect_err(|_| has_failed.store(true, Relaxed))?));
            }
        }
        Ok(done)
    };
    // A thread that is busy with something else is not waited for: what would be its part, others do.
    let done = (0..threads).into_par_iter().with_max_len(1).map(work).collect::<Result<Vec<_>>>()?;
    let mut done: Vec<(usize, R)> = done.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_ir::Error;
    use std::collections::HashSet;

    #[test]
    fn every_task_is_done_once_and_results_keep_their_order() {
        for count in [0, 1, 2, 7, 64, 1000] {
            let times: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            let squares = map((0..count).collect(), ELEMENTS + 1, |task| {
                times[task].fetch_add(1, Relaxed);
                Ok(task * task)
            });
            assert_eq!(squares.unwrap(), (0..count).map(|task| task * task).collect::<Vec<_>>());
            assert!(times.iter().all(|times| times.load(Relaxed) == 1), "of {count}");
        }
    }

    #[test]
    fn an_error_is_returned_and_ends_the_work() {
        let done = AtomicUsize::new(0);
        let result: Result<Vec<()>> = map((0..100_000).collect(), ELEMENTS + 1, |task| match task {
            3 => Err(Error::Backend("the third".into())),
            _ => {
                done.fetch_add(1, Relaxed);
                Ok(())
            }
        });
        assert!(matches!(result, Err(Error::Backend(text)) if text == "the third"));
        assert!(done.load(Relaxed) < 100_000 - 1);
    }

    /// All threads but one of a pool wait for something that the work of this one must bring about.
    #[test]
    fn threads_that_are_busy_are_not_waited_for() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let (start, wait) = (std::sync::Barrier::new(3), std::sync::Barrier::new(3));
        pool.scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|_| {
                    start.wait();
                    wait.wait();
                });
            }
            start.wait();
            let done = map((0..100).collect(), ELEMENTS + 1, |_| Ok(rayon::current_thread_index()));
            let threads: HashSet<_> = done.unwrap().into_iter().collect();
            assert_eq!(threads.len(), 1);
            wait.wait();
        });
    }
}
