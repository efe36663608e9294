//! When work is worth several threads, and how it is given to them: in fixed pieces, so that bits do not depend on who does
//! them.

use crate::team;
use gradus_ir::Result;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Elements above which a kernel is given to several threads, if they are awake.
pub(crate) const ELEMENTS: usize = 1 << 14;

/// Elements above which sleeping threads are woken, of one kernel or of several together: that takes as long as some ten thousand
/// elements.
const WAKING: usize = 1 << 17;

thread_local! {
    /// Elements of the kernels for which this thread has not woken others since it did.
    static SINCE_WAKING: Cell<usize> = const { Cell::new(0) };
}

/// So many multiply-adds of a matrix product are as much work as an element.
pub(crate) const PER_ELEMENT: usize = 32;

/// Multiply-adds above which a matrix product is given to several threads.
pub(crate) const PRODUCTS: usize = PER_ELEMENT * ELEMENTS;

/// So many elements of operands are as much work as one: of a few rows, a product does not take longer than to read them.
const READ_PER_ELEMENT: usize = 4;

/// Elements whose work is as much as a product of `m` rows with `n`, of so many terms each.
pub(crate) fn product(m: usize, n: usize, terms: usize) -> usize {
    usize::max(m * n * terms / PER_ELEMENT, (m + n) * terms / READ_PER_ELEMENT)
}

/// So many tasks are enough to keep all threads at work to the end.
pub(crate) fn tasks() -> usize {
    4 * team::size()
}

/// Maps tasks, in parallel if `elements` altogether are enough.
pub(crate) fn map<T: Send, R: Send>(
    tasks: Vec<T>,
    elements: usize,
    task: impl Fn(T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    let threads = team::size().min(tasks.len());
    if elements <= ELEMENTS || threads < 2 {
        tasks.into_iter().map(task).collect()
    } else {
        map_shares(tasks, threads, wakes(elements), task)
    }
}

/// Whether others are woken for so many elements more. What it takes to wake them is little beside what came before, also if
/// nothing comes after, and many small kernels in a row do not leave them asleep.
fn wakes(elements: usize) -> bool {
    let all = SINCE_WAKING.get().saturating_add(elements);
    SINCE_WAKING.set(if all > WAKING { 0 } else { all });
    all > WAKING
}

/// Maps tasks. Each thread begins with a share of them, the same one every time, since what it has written lies in the caches
/// next to it, and then helps the others. Which of them does a task, nobody can tell from what is returned.
fn map_shares<T: Send, R: Send>(
    tasks: Vec<T>,
    threads: usize,
    wakes: bool,
    task: impl Fn(T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    let count = tasks.len();
    let begin = |share: usize| share * count / threads;
    let next: Vec<AtomicUsize> = (0..threads).map(|share| AtomicUsize::new(begin(share))).collect();
    let tasks: Vec<Mutex<Option<T>>> = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect();
    let has_failed = AtomicBool::new(false);
    let all = Mutex::new(Vec::with_capacity(count));
    team::share(threads, wakes, &|own| {
        let mut done = Vec::with_capacity(count.div_ceil(threads));
        for share in (0..threads).map(|turn| (own + turn) % threads) {
            loop {
                let number = next[share].fetch_add(1, Relaxed);
                if number >= begin(share + 1) || has_failed.load(Relaxed) {
                    break;
                }
                let taken = tasks[number].lock().ok().and_then(|mut task| task.take());
                let result = task(taken.expect("each task is taken once"));
                has_failed.fetch_or(result.is_err(), Relaxed);
                done.push((number, result));
            }
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).append(&mut done);
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_unstable_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, result)| result).collect()
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
    use crate::team::Team;
    use gradus_ir::Error;
    use std::collections::HashSet;
    use std::thread::current;
    use std::time::Duration;

    #[test]
    fn every_task_is_done_once_and_results_keep_their_order() {
        for (count, threads) in [0, 1, 2, 7, if cfg!(miri) { 20 } else { 1000 }]
            .into_iter()
            .flat_map(|count| [(count, 1), (count, 2), (count, 5)])
        {
            let times: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            let square = |task: usize| {
                times[task].fetch_add(1, Relaxed);
                Ok(task * task)
            };
            let squares = Team::new(threads).unwrap().enter(|| map((0..count).collect(), ELEMENTS + 1, square));
            assert_eq!(squares.unwrap(), (0..count).map(|task| task * task).collect::<Vec<_>>());
            assert!(times.iter().all(|times| times.load(Relaxed) == 1), "of {count}");
        }
    }

    #[test]
    fn an_error_is_returned_and_ends_the_work() {
        let (done, many) = (AtomicUsize::new(0), if cfg!(miri) { 100 } else { 100_000 });
        let run = |task| match task {
            3 => Err(Error::Backend("the third".into())),
            _ => {
                done.fetch_add(1, Relaxed);
                Ok(())
            }
        };
        let result = Team::new(3).unwrap().enter(|| map((0..many).collect(), ELEMENTS + 1, run));
        assert!(matches!(result, Err(Error::Backend(text)) if text == "the third"));
        assert!(done.load(Relaxed) < many - 1);
    }

    #[test]
    fn what_shares_work_may_share_it_again() {
        let inner = |task: usize| map((0..task).collect(), ELEMENTS + 1, Ok).map(|tasks| tasks.iter().sum::<usize>());
        let tasks = if cfg!(miri) { 8 } else { 100 };
        let sums = Team::new(3).unwrap().enter(|| map((0..tasks).collect(), ELEMENTS + 1, inner)).unwrap();
        assert_eq!(sums, (0..tasks).map(|task| task * task.saturating_sub(1) / 2).collect::<Vec<_>>());
    }

    #[test]
    fn small_kernels_in_a_row_wake_others() {
        // Longer than a helper stays awake, and than it takes to wake.
        let wait = || std::thread::sleep(Duration::from_millis(5));
        let kernel = || {
            wait();
            let ids = map(vec![(); 2], ELEMENTS + 1, |()| {
                wait();
                Ok(current().id())
            });
            ids.unwrap().iter().any(|&id| id != current().id())
        };
        let team = Team::new(2).unwrap();
        assert!(team.enter(|| (0..1000).any(|_| kernel())));
    }

    /// All helpers of a team wait for something that the work of another thread must bring about.
    #[test]
    fn helpers_that_are_busy_are_not_waited_for() {
        let team = Team::new(3).unwrap();
        let (start, end) = (std::sync::Barrier::new(4), std::sync::Barrier::new(4));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                team.enter(|| {
                    team::share(3, true, &|_| {
                        start.wait();
                        end.wait();
                    });
                });
            });
            start.wait();
            let done = team.enter(|| map((0..100).collect(), ELEMENTS + 1, |_| Ok(current().id()))).unwrap();
            assert_eq!(done.into_iter().collect::<HashSet<_>>(), HashSet::from([current().id()]));
            end.wait();
        });
    }
}
