//! Batches, made ahead of time by threads.

use crate::{DataError, Dataset, Sampler, Stack};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

type Collate<T, B> = Arc<dyn Fn(Vec<T>) -> Result<B, DataError> + Send + Sync>;

/// Makes batches of a data set's items, in a sampler's order.
///
/// With workers, threads make batches ahead of the one that asks for them, a few at most ([`prefetch`](Loader::prefetch)).
/// Batches come in the same order however many there are. An item that cannot be made is an error in place of its batch, which
/// names the item; a panic in a data set is such an error too, and later batches still come. Who drops an epoch midway stops
/// its threads, and waits for the items that they are at.
///
/// ```
/// use gradus_data::{Dataset, InMemory, Loader, Shuffled};
/// use gradus_tensor::{Device, Key};
/// let data = InMemory::new((0..10u32).map(|i| (vec![i as f32; 4], i)));
/// let sampler = Shuffled::new(data.len(), Key::new(7));
/// let loader = Loader::new(data, sampler, 4)?.workers(2);
/// for epoch in 0..2 {
///     for batch in loader.epoch(epoch) {
///         let (x, y) = batch?;
///         let x = x.to_tensor(&Device::cpu());
///         assert_eq!(x.shape()[..], [y.rows(), 4]);
///     }
/// }
/// # Ok::<(), gradus_data::DataError>(())
/// ```
///
/// Training goes on in the middle of an epoch with the batch that would have come next:
///
/// ```
/// use gradus_data::{Dataset, InMemory, Loader, LoaderState, Shuffled};
/// use gradus_tensor::Key;
/// let loader = Loader::new(InMemory::new(0..10), Shuffled::new(10, Key::new(7)), 4)?;
/// let mut epoch = loader.epoch(3);
/// epoch.next();
/// let saved = serde_json::to_string(&epoch.state()).unwrap();
///
/// let state: LoaderState = serde_json::from_str(&saved).unwrap();
/// let rest: Vec<_> = loader.resume(&state)?.collect::<Result<_, _>>()?;
/// assert_eq!(rest, epoch.collect::<Result<Vec<_>, _>>()?);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
pub struct Loader<D: Dataset, B> {
    data: Arc<D>,
    sampler: Arc<dyn Sampler>,
    collate: Collate<D::Item, B>,
    batch_size: usize,
    drop_last: bool,
    workers: usize,
    prefetch: Option<usize>,
}

/// Where a pass over a data set stands: enough to go on from there with the same sampler and batch size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// The epoch.
    pub epoch: u64,
    /// The batch of it that comes next, from 0.
    pub batch: usize,
    /// Items of a batch.
    pub batch_size: usize,
    /// Items of an epoch.
    pub items: usize,
}

impl<D, B> Loader<D, B>
where
    D: Dataset<Item: Stack<Batch = B>> + 'static,
    B: Send + 'static,
{
    /// Batches of `batch_size` items, stacked ([`Stack`]); the last may be smaller. No workers: batches are made by who asks.
    ///
    /// # Errors
    /// If the batch size is 0.
    pub fn new(data: D, sampler: impl Sampler + 'static, batch_size: usize) -> Result<Loader<D, B>, DataError> {
        Loader::with_collate(data, sampler, batch_size, D::Item::stack)
    }
}

impl<D: Dataset + 'static, B: Send + 'static> Loader<D, B> {
    /// Batches that `collate` makes of items: to pad texts of different lengths, or to put tensors onto a device.
    ///
    /// ```
    /// use gradus_data::{InMemory, Loader, InOrder};
    /// let words = InMemory::new(["mind", "the", "gap"]);
    /// let loader = Loader::with_collate(words, InOrder::new(3), 2, |words| Ok(words.join(" ")))?;
    /// assert_eq!(loader.epoch(0).collect::<Result<Vec<_>, _>>()?, ["mind the", "gap"]);
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// If the batch size is 0.
    pub fn with_collate(
        data: D,
        sampler: impl Sampler + 'static,
        batch_size: usize,
        collate: impl Fn(Vec<D::Item>) -> Result<B, DataError> + Send + Sync + 'static,
    ) -> Result<Loader<D, B>, DataError> {
        if batch_size == 0 {
            return Err(DataError::Argument { argument: "batch_size", found: "0".into(), expected: "at least 1" });
        }
        let (data, sampler, collate) = (Arc::new(data), Arc::new(sampler), Arc::new(collate));
        Ok(Loader { data, sampler, collate, batch_size, drop_last: false, workers: 0, prefetch: None })
    }

    /// So many threads make batches; 0, the default, makes them when they are asked for.
    pub fn workers(self, workers: usize) -> Self {
        Loader { workers, ..self }
    }

    /// How many batches there are at most, made or in the making, that nobody asked for yet: what bounds memory. At least 1,
    /// by default two for each worker.
    pub fn prefetch(self, batches: usize) -> Self {
        Loader { prefetch: Some(batches.max(1)), ..self }
    }

    /// Leaves out a last batch that is smaller than the others.
    pub fn drop_last(self) -> Self {
        Loader { drop_last: true, ..self }
    }

    /// How many batches an epoch has.
    pub fn len(&self) -> usize {
        let items = self.sampler.len();
        if self.drop_last { items / self.batch_size } else { items.div_ceil(self.batch_size) }
    }

    /// Whether an epoch has no batches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data set.
    pub fn data(&self) -> &D {
        &self.data
    }

    /// The batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch<B> {
        self.epoch_from(epoch, 0)
    }

    /// The batches that are left from a state on.
    ///
    /// # Errors
    /// [`DataError::State`] if it was taken with another batch size or number of items, or is of a batch that there is not.
    pub fn resume(&self, state: &LoaderState) -> Result<Epoch<B>, DataError> {
        let (items, batch_size) = (self.sampler.len(), self.batch_size);
        if (state.items, state.batch_size) != (items, batch_size) || state.batch > self.len() {
            let found = format!("batch {} of {} items, {} each", state.batch, state.items, state.batch_size);
            let expected = format!("at most {} of {items} items, {batch_size} each", self.len());
            return Err(DataError::State { found, expected });
        }
        Ok(self.epoch_from(state.epoch, state.batch))
    }

    /// The batches of an epoch from number `first` on; none if there are not so many.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Epoch<B> {
        let first = first.min(self.len());
        let order = self.sampler.order(epoch);
        let (data, collate, batch_size) = (self.data.clone(), self.collate.clone(), self.batch_size);
        let batches = self.len();
        let make: Make<B> = Arc::new(move |batch: usize| {
            let start = (batch * batch_size).min(order.len());
            let indices = &order[start..(start + batch_size).min(order.len())];
            let items = indices.iter().map(|&index| item(&*data, index)).collect::<Result<Vec<_>, _>>()?;
            guarded(|| format!("making batch {batch}"), || collate(items))
        });
        let prefetch = self.prefetch.unwrap_or(2 * self.workers);
        let workers = self.workers.min(prefetch).min(batches - first);
        let source =
            if workers == 0 { Source::Here(make) } else { Source::start(make, first, batches, workers, prefetch) };
        let state = LoaderState { epoch, batch: first, batch_size, items: self.sampler.len() };
        Epoch { source, state, batches }
    }
}

impl<D: Dataset, B> Clone for Loader<D, B> {
    fn clone(&self) -> Self {
        let (data, sampler, collate) = (self.data.clone(), self.sampler.clone(), self.collate.clone());
        Loader { data, sampler, collate, ..*self }
    }
}

impl<D: Dataset, B> fmt::Debug for Loader<D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loader { batch_size, drop_last, workers, prefetch, .. } = self;
        write!(f, "Loader {{ items: {}, batch_size: {batch_size}, drop_last: {drop_last}, ", self.sampler.len())?;
        write!(f, "workers: {workers}, prefetch: {prefetch:?} }}")
    }
}

/// An item, or the error that names it.
fn item<D: Dataset>(data: &D, index: usize) -> Result<D::Item, DataError> {
    match guarded(|| format!("making item {index}"), || data.get(index)) {
        Err(panicked @ DataError::Panicked { .. }) => Err(panicked),
        other => other.map_err(|source| DataError::Item { index, source: Box::new(source) }),
    }
}

/// What code of the user gives, a panic as an error.
pub(crate) fn guarded<T>(
    what: impl FnOnce() -> String,
    run: impl FnOnce() -> Result<T, DataError>,
) -> Result<T, DataError> {
    let text = |panic: Box<dyn Any + Send>| {
        let message = panic.downcast_ref::<&str>().map(|text| text.to_string());
        message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or("no text".into())
    };
    // What was half done belongs to the data set, which is asked again as it is.
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(DataError::Panicked { what: what(), message: text(panic) }))
}

type Make<B> = Arc<dyn Fn(usize) -> Result<B, DataError> + Send + Sync>;

/// The batches of an epoch, in order.
pub struct Epoch<B> {
    source: Source<B>,
    /// That of the next batch.
    state: LoaderState,
    batches: usize,
}

enum Source<B> {
    Here(Make<B>),
    Threads { shared: Arc<Shared<B>>, threads: Vec<JoinHandle<()>> },
}

/// What threads and the one that asks share.
struct Shared<B> {
    queue: Mutex<Queue<B>>,
    /// A batch was asked for, or no more are wanted.
    asked: Condvar,
    /// A batch was made.
    made: Condvar,
}

struct Queue<B> {
    /// The next batch that nobody makes yet.
    next: usize,
    /// The batch that is asked for next.
    wanted: usize,
    made: BTreeMap<usize, Result<B, DataError>>,
    stopped: bool,
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, Queue<B>> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<B: Send + 'static> Source<B> {
    fn start(make: Make<B>, first: usize, batches: usize, workers: usize, prefetch: usize) -> Source<B> {
        let queue = Mutex::new(Queue { next: first, wanted: first, made: BTreeMap::new(), stopped: false });
        let shared = Arc::new(Shared { queue, asked: Condvar::new(), made: Condvar::new() });
        let work = |make: Make<B>, shared: Arc<Shared<B>>| {
            move || {
                let mut queue = shared.lock();
                while !queue.stopped && queue.next < batches {
                    if queue.next >= queue.wanted.saturating_add(prefetch) {
                        queue = shared.asked.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
                        continue;
                    }
                    let batch = queue.next;
                    queue.next += 1;
                    drop(queue);
                    let made = make(batch);
                    queue = shared.lock();
                    queue.made.insert(batch, made);
                    shared.made.notify_one();
                }
            }
        };
        // Fewer threads than wanted do too: the system may have no more.
        let start = |i: usize| {
            let thread = std::thread::Builder::new().name(format!("gradus-data-{i}"));
            thread.spawn(work(make.clone(), shared.clone())).ok()
        };
        let threads: Vec<JoinHandle<()>> = (0..workers).map_while(start).collect();
        if threads.is_empty() { Source::Here(make) } else { Source::Threads { shared, threads } }
    }
}

impl<B> Epoch<B> {
    /// Where it stands: [`Loader::resume`] goes on with the batch that comes next here. After the last batch it is the start of
    /// the next epoch.
    pub fn state(&self) -> LoaderState {
        let state = self.state.clone();
        if state.batch < self.batches {
            state
        } else {
            LoaderState { epoch: state.epoch.saturating_add(1), batch: 0, ..state }
        }
    }

    /// The number of the epoch.
    pub fn number(&self) -> u64 {
        self.state.epoch
    }
}

impl<B> Iterator for Epoch<B> {
    type Item = Result<B, DataError>;

    fn next(&mut self) -> Option<Result<B, DataError>> {
        let batch = self.state.batch;
        if batch >= self.batches {
            return None;
        }
        self.state.batch += 1;
        match &self.source {
            Source::Here(make) => Some(make(batch)),
            Source::Threads { shared, .. } => {
                let mut queue = shared.lock();
                loop {
                    if let Some(made) = queue.made.remove(&batch) {
                        queue.wanted = batch + 1;
                        shared.asked.notify_all();
                        return Some(made);
                    }
                    queue = shared.made.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batches - self.state.batch;
        (left, Some(left))
    }
}

impl<B> ExactSizeIterator for Epoch<B> {}

impl<B> Drop for Epoch<B> {
    fn drop(&mut self) {
        if let Source::Threads { shared, threads } = &mut self.source {
            shared.lock().stopped = true;
            shared.asked.notify_all();
            for thread in threads.drain(..) {
                // What panicked is in its batch.
                let _ = thread.join();
            }
        }
    }
}

impl<B> fmt::Debug for Epoch<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch {{ state: {:?}, batches: {} }}", self.state, self.batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InMemory, InOrder, Shuffled};
    use gradus_tensor::Key;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Items that take unequal times, so that threads overtake each other.
    struct Uneven(usize);

    impl Dataset for Uneven {
        type Item = u32;

        fn len(&self) -> usize {
            self.0
        }

        fn get(&self, index: usize) -> Result<u32, DataError> {
            std::thread::sleep(Duration::from_micros(300 * (index as u64 * 7 % 5)));
            match index {
                13 => Err(DataError::other("thirteen")),
                17 => panic!("seventeen of {}", self.0),
                _ => Ok(index as u32),
            }
        }
    }

    fn told(epoch: Epoch<crate::Array>) -> Vec<String> {
        epoch.map(|batch| batch.map_or_else(|error| error.to_string(), |batch| format!("{batch:?}"))).collect()
    }

    #[test]
    fn batches_do_not_depend_on_workers() {
        for drop_last in [false, true] {
            let loader = |workers: usize| {
                let loader = Loader::new(Uneven(30), Shuffled::new(30, Key::new(1)), 4).unwrap().workers(workers);
                if drop_last { loader.drop_last() } else { loader }
            };
            let expected = told(loader(0).epoch(2));
            assert_eq!(expected.len(), if drop_last { 7 } else { 8 });
            for workers in [1, 2, 5] {
                assert_eq!(told(loader(workers).prefetch(3).epoch(2)), expected);
            }
            for (message, with) in [("item 13: thirteen", 13), ("making item 17 panicked: seventeen of 30", 17)] {
                let order = Shuffled::new(30, Key::new(1)).order(2);
                let batch = order.iter().position(|&index| index == with).unwrap() / 4;
                if batch < expected.len() {
                    assert_eq!(expected[batch], message);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn an_epoch_goes_on_where_it_stood(items in 0usize..40, size in 1usize..7, taken in 0usize..9, workers in 0usize..3) {
            let data = InMemory::new(0..items as u32);
            let loader = Loader::new(data, Shuffled::new(items, Key::new(3)), size).unwrap().workers(workers);
            let mut epoch = loader.epoch(5);
            let before: Vec<_> = epoch.by_ref().take(taken).collect::<Result<_, _>>().unwrap();
            let state = epoch.state();
            let rest: Vec<_> = epoch.collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(before.len() + rest.len(), loader.len());
            let resumed = loader.resume(&state).unwrap();
            if rest.is_empty() {
                prop_assert_eq!((resumed.number(), resumed.len()), (6, loader.len()));
            } else {
                prop_assert_eq!(resumed.len(), rest.len());
                prop_assert_eq!(resumed.collect::<Result<Vec<_>, _>>().unwrap(), rest);
            }
        }
    }

    #[test]
    fn foreign_states_are_refused() {
        let loader = Loader::new(InMemory::new(0..10u32), InOrder::new(10), 4).unwrap();
        let state = loader.epoch(0).state();
        for wrong in [
            LoaderState { batch: 4, ..state.clone() },
            LoaderState { batch_size: 5, ..state.clone() },
            LoaderState { items: 11, ..state.clone() },
        ] {
            assert!(matches!(loader.resume(&wrong), Err(DataError::State { .. })));
        }
        assert!(loader.resume(&LoaderState { epoch: u64::MAX, ..state }).is_ok());
        assert!(Loader::new(InMemory::new(0..10u32), InOrder::new(10), 0).is_err());
        let beyond = Loader::new(InMemory::new(0..3u32), InOrder::new(4), 4).unwrap();
        assert!(beyond.epoch(0).next().unwrap().unwrap_err().to_string().contains("there is no row 3"));
        let panicking = Loader::with_collate(InMemory::new(0..3u32), InOrder::new(3), 2, |items| -> Result<(), _> {
            panic!("{} items", items.len())
        });
        let error = panicking.unwrap().workers(1).epoch(0).nth(1).unwrap().unwrap_err().to_string();
        assert_eq!(error, "making batch 1 panicked: 1 items");
    }

    /// Counts the items that there are.
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    struct Counting {
        alive: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Dataset for Counting {
        type Item = Counted;

        fn len(&self) -> usize {
            usize::MAX
        }

        fn get(&self, _: usize) -> Result<Counted, DataError> {
            let now = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            Ok(Counted(self.alive.clone()))
        }
    }

    #[test]
    fn memory_is_bounded_and_threads_end() {
        let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let data = Counting { alive: alive.clone(), most: most.clone() };
        let loader = Loader::with_collate(data, InOrder::new(1_000_000), 10, Ok).unwrap().workers(4).prefetch(6);
        let mut epoch = loader.epoch(0);
        for _ in 0..20 {
            let batch = epoch.next().unwrap().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            drop(batch);
        }
        // Threads had time to make as many as they may, and made no more: 6 batches, and the one that was held.
        drop(epoch);
        assert!((20..=70).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        // Threads were joined: nothing is left of what they made, nor anything that makes more.
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        assert_eq!(Arc::strong_count(&loader.data), 1);
    }
}
