//! Threads that share work. They stay awake for a moment after it, so that what comes next reaches them within a
//! microsecond: to wake one that sleeps takes as long as to read some megabytes.

use gradus_ir::{Error, Result};
use smallvec::SmallVec;
use std::any::Any;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a helper without work stays awake.
const AWAKE_FOR: Duration = Duration::from_micros(200);

/// So many turns of a loop that waits come before the processor is offered to others at each.
const TURNS: usize = 1 << 10;

thread_local! {
    /// Whom this thread can ask for help.
    static HELPERS: RefCell<Arc<[Helper]>> = RefCell::new(Arc::new([]));
}

/// A thread that asks, and its helpers. Whoever asks does the work too.
#[derive(Debug)]
pub(crate) struct Team {
    helpers: Arc<[Helper]>,
    threads: Vec<JoinHandle<()>>,
}

/// A thread that helps.
#[derive(Debug)]
struct Helper {
    /// What it does: a job that it is asked to do, or one of the constants below.
    state: AtomicPtr<Job<'static>>,
    thread: OnceLock<Thread>,
}

/// It waits for a job, and sees within a microsecond that there is one.
const AWAKE: *mut Job<'static> = ptr::null_mut();
/// It has to be woken.
const ASLEEP: *mut Job<'static> = ptr::without_provenance_mut(1);
/// It is at work on a job.
const BUSY: *mut Job<'static> = ptr::without_provenance_mut(2);
/// It is told to end.
const ENDING: *mut Job<'static> = ptr::without_provenance_mut(3);

/// Work for several threads, each of which is given its number.
struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    /// How many helpers have done their part.
    finished: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Team {
    /// Starts the helpers of a team of so many threads.
    pub(crate) fn new(threads: usize) -> Result<Team> {
        if threads == 0 {
            return Err(Error::Backend("a CPU device needs at least one thread".into()));
        }
        let helper = |_| Helper { state: AtomicPtr::new(AWAKE), thread: OnceLock::new() };
        let mut team = Team { helpers: (1..threads).map(helper).collect(), threads: Vec::new() };
        for number in 1..threads {
            let helpers = team.helpers.clone();
            let start = thread::Builder::new().name(format!("gradus {number}")).spawn(move || {
                let helper = helpers.clone();
                HELPERS.set(helpers);
                helper[number - 1].serve(number);
            });
            let started = start.map_err(|error| Error::Backend(format!("cannot start {threads} threads: {error}")))?;
            // Nobody asks before all are known.
            _ = team.helpers[number - 1].thread.set(started.thread().clone());
            team.threads.push(started);
        }
        Ok(team)
    }

    /// The team of all devices that have none of their own.
    pub(crate) fn global() -> Result<Arc<Team>> {
        static GLOBAL: Mutex<Option<Arc<Team>>> = Mutex::new(None);
        let mut global = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(team) = &*global {
            return Ok(team.clone());
        }
        Ok(global.insert(Arc::new(Team::new(global_size()?)?)).clone())
    }

    /// How many threads it has.
    pub(crate) fn size(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs something that may ask this team.
    pub(crate) fn enter<R>(&self, run: impl FnOnce() -> R) -> R {
        /// Puts back whom the thread could ask before, also where `run` panics.
        struct Before(Arc<[Helper]>);
        impl Drop for Before {
            fn drop(&mut self) {
                HELPERS.set(std::mem::replace(&mut self.0, Arc::new([])));
            }
        }
        let _before = Before(HELPERS.replace(self.helpers.clone()));
        run()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        for helper in &*self.helpers {
            helper.state.store(ENDING, Release);
            helper.wake();
        }
        for thread in self.threads.drain(..) {
            // A helper catches what its work panics with.
            _ = thread.join();
        }
    }
}

impl Helper {
    /// Gives it a job if it is free. Whether it has taken it is known when the job is taken back.
    fn ask(&self, job: *mut Job<'static>, wakes: bool) -> bool {
        if self.state.compare_exchange(AWAKE, job, Release, Relaxed).is_ok() {
            return true;
        }
        let woken = wakes && self.state.compare_exchange(ASLEEP, job, Release, Relaxed).is_ok();
        if woken {
            self.wake();
        }
        woken
    }

    /// Takes a job back, unless it has been begun.
    fn take_back(&self, job: *mut Job<'static>) -> bool {
        self.state.compare_exchange(job, AWAKE, Relaxed, Relaxed).is_ok()
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Does what it is asked, until it is told to end.
    fn serve(&self, number: usize) {
        while let Some(job) = self.next() {
            #[allow(unsafe_code)]
            // SAFETY: whoever asked keeps the job until it is taken back, which fails once the state is BUSY, or finished.
            let job = unsafe { &*job };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (job.work)(number))) {
                *job.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            // First free, then finished: who waits for this finds a free helper. The job is not touched after that.
            self.state.store(AWAKE, Release);
            job.finished.fetch_add(1, Release);
        }
    }

    /// The next job, begun; `None` when it is told to end.
    fn next(&self) -> Option<*const Job<'static>> {
        let (mut turns, mut idle) = (0, Instant::now());
        loop {
            match self.state.load(Relaxed) {
                ENDING => return None,
                AWAKE if idle.elapsed() < AWAKE_FOR => wait(&mut turns),
                AWAKE => {
                    if self.state.compare_exchange(AWAKE, ASLEEP, Relaxed, Relaxed).is_ok() {
                        while self.state.load(Relaxed) == ASLEEP {
                            thread::park();
                        }
                    }
                    (turns, idle) = (0, Instant::now());
                }
                job => {
                    if self.state.compare_exchange(job, BUSY, AcqRel, Relaxed).is_ok() {
                        return Some(job);
                    }
                }
            }
        }
    }
}

/// How many threads [`Team::global`] has: what `GRADUS_THREADS` says, or as many as run at once.
pub(crate) fn global_size() -> Result<usize> {
    match std::env::var_os("GRADUS_THREADS") {
        Some(threads) => parsed(&threads),
        None => Ok(thread::available_parallelism().map_or(1, usize::from)),
    }
}

fn parsed(threads: &OsStr) -> Result<usize> {
    let number = threads.to_str().and_then(|threads| threads.trim().parse().ok()).filter(|&threads| threads > 0);
    number.ok_or_else(|| {
        Error::Backend(format!("GRADUS_THREADS is {threads:?}: set it to a number of threads for the CPU, at least 1"))
    })
}

/// How many threads can share the work of this one: its helpers, and itself.
pub(crate) fn size() -> usize {
    HELPERS.with_borrow(|helpers| helpers.len() + 1)
}

/// Runs `work` with number 0 here, and with numbers below `threads` on those helpers that are free and come before this is done;
/// sleeping ones are woken if `wakes`. Returns when all are done. Panics as they do.
pub(crate) fn share(threads: usize, wakes: bool, work: &(dyn Fn(usize) + Sync)) {
    let helpers = HELPERS.with_borrow(Arc::clone);
    let job = Job { work, finished: AtomicUsize::new(0), panic: Mutex::new(None) };
    let address = ptr::from_ref(&job).cast_mut().cast::<Job<'static>>();
    let asked: SmallVec<[&Helper; 32]> =
        helpers.iter().take(threads.saturating_sub(1)).filter(|helper| helper.ask(address, wakes)).collect();
    let own = catch_unwind(AssertUnwindSafe(|| work(0)));
    // Who has not begun is not waited for. The others are, so that nobody knows of the job when this returns.
    let begun = asked.iter().filter(|helper| !helper.take_back(address)).count();
    let mut turns = 0;
    while job.finished.load(Acquire) < begun {
        wait(&mut turns);
    }
    let others = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(panic) = own.err().or(others) {
        resume_unwind(panic);
    }
}

fn wait(turns: &mut usize) {
    *turns += 1;
    if *turns < TURNS { std::hint::spin_loop() } else { thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_number_of_threads_is_at_least_one() {
        assert_eq!(parsed(OsStr::new(" 3 ")).unwrap(), 3);
        for wrong in ["0", "-1", "many", ""] {
            let error = parsed(OsStr::new(wrong)).unwrap_err().to_string();
            assert!(error.contains(&format!("GRADUS_THREADS is {wrong:?}")), "{error}");
        }
        assert!(Team::new(0).unwrap_err().to_string().contains("at least one thread"));
        assert_eq!(Team::new(1).unwrap().size(), 1);
    }

    #[test]
    fn helpers_are_woken_where_that_is_wanted() {
        let team = Team::new(2).unwrap();
        let asleep = || {
            while team.helpers[0].state.load(Acquire) != ASLEEP {
                thread::yield_now();
            }
        };
        team.enter(|| {
            asleep();
            let has_helped = AtomicBool::new(false);
            share(2, false, &|number| has_helped.store(number == 1, Release));
            assert!(!has_helped.load(Acquire));
            // Each waits for the other.
            let both = Barrier::new(2);
            share(2, true, &|_| _ = both.wait());
            asleep();
            share(2, true, &|_| _ = both.wait());
        });
    }

    #[test]
    fn a_panic_reaches_whoever_asked_and_ends_no_helper() {
        let team = Team::new(3).unwrap();
        for guilty in [0, 1, 2, 0, 1, 2] {
            let all = Barrier::new(3);
            let shared = catch_unwind(AssertUnwindSafe(|| {
                team.enter(|| {
                    share(3, true, &|number| {
                        all.wait();
                        assert!(number != guilty, "thread {number}");
                    });
                });
            }));
            let panic = shared.expect_err("it panics");
            assert_eq!(*panic.downcast::<String>().unwrap(), format!("thread {guilty}"));
            assert_eq!(size(), 1, "the team is left");
        }
    }

    #[test]
    fn many_threads_share_one_team() {
        let team = Team::new(4).unwrap();
        let (done, rounds) = (AtomicUsize::new(0), if cfg!(miri) { 10 } else { 500 });
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    team.enter(|| {
                        for round in 0..rounds {
                            let (next, here) = (AtomicUsize::new(0), AtomicUsize::new(0));
                            share(1 + round % 5, round % 2 == 0, &|_| {
                                while next.fetch_add(1, Relaxed) < 20 {
                                    here.fetch_add(1, Relaxed);
                                }
                            });
                            assert_eq!(here.into_inner(), 20);
                            done.fetch_add(1, Relaxed);
                        }
                    });
                });
            }
        });
        assert_eq!(done.into_inner(), 4 * rounds);
    }
}
