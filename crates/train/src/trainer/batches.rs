//! Where a trainer gets its batches.

use gradus_data::{Array, Dataset, Loader, TensorDataset};
use gradus_tensor::{Key, Tensor};
use std::error::Error;

/// What reading a batch may fail with.
pub type BatchError = Box<dyn Error + Send + Sync>;

/// Rows that are looked at together.
pub trait Batch {
    /// How many rows.
    fn rows(&self) -> usize;
}

/// Tensors whose first axis counts rows.
impl<const N: usize> Batch for [Tensor; N] {
    fn rows(&self) -> usize {
        self.first().and_then(|tensor| tensor.shape().first().copied()).unwrap_or(0)
    }
}

/// Arrays on the host, inputs and targets, whose first axis counts rows.
impl Batch for (Array, Array) {
    fn rows(&self) -> usize {
        self.0.rows()
    }
}

/// Inputs and targets, whose first axis counts rows.
impl Batch for (Tensor, Tensor) {
    fn rows(&self) -> usize {
        self.0.shape().first().copied().unwrap_or(0)
    }
}

/// A source of batches, epoch by epoch.
///
/// Which rows a batch has depends on the numbers of its epoch and its own, and on nothing else: a run that was
/// interrupted goes on with the batches that it would have had.
pub trait BatchSource {
    /// What a batch is.
    type Batch: Batch;

    /// How many batches an epoch has.
    fn batches(&self) -> usize;

    /// The batches of an epoch, from number `first` on.
    fn epoch(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<Self::Batch, BatchError>> + '_>;

    /// What `f` makes of each batch of this source: tensors on a device, or images that are turned and cropped at random.
    /// It gets the number of the epoch and that of the batch, to draw keys from.
    fn map_batches<B: Batch, F: Fn(u64, usize, Self::Batch) -> Result<B, BatchError>>(self, f: F) -> MapBatches<Self, F>
    where
        Self: Sized,
    {
        MapBatches { source: self, f }
    }
}

/// See [`BatchSource::map_batches`].
#[derive(Clone, Debug)]
pub struct MapBatches<S, F> {
    source: S,
    f: F,
}

impl<S: BatchSource, B: Batch, F: Fn(u64, usize, S::Batch) -> Result<B, BatchError>> BatchSource for MapBatches<S, F> {
    type Batch = B;

    fn batches(&self) -> usize {
        self.source.batches()
    }

    fn epoch(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<B, BatchError>> + '_> {
        let numbered = self.source.epoch(epoch, first).zip(first..);
        Box::new(numbered.map(move |(batch, number)| (self.f)(epoch, number, batch?)))
    }
}

impl<S: BatchSource + ?Sized> BatchSource for &S {
    type Batch = S::Batch;

    fn batches(&self) -> usize {
        (**self).batches()
    }

    fn epoch(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<Self::Batch, BatchError>> + '_> {
        (**self).epoch(epoch, first)
    }
}

impl<D: Dataset + 'static, B: Batch + Send + 'static> BatchSource for Loader<D, B> {
    type Batch = B;

    fn batches(&self) -> usize {
        self.len()
    }

    fn epoch(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<B, BatchError>> + '_> {
        Box::new(self.epoch_from(epoch, first).map(|batch| batch.map_err(Into::into)))
    }
}

/// The rows of tensors, a batch at a time.
///
/// ```
/// use gradus_data::{Array, Dataset, Loader, TensorDataset};
/// use gradus_tensor::{Device, Key, Tensor};
/// use gradus_train::{BatchSource, TensorBatches};
///
/// let data = TensorDataset::new([Tensor::arange(10, &Device::cpu())])?;
/// let batches = TensorBatches::new(data, 4).shuffled(Key::new(7));
/// let epoch = |number, first| -> Vec<i32> {
///     batches.epoch(number, first).flat_map(|batch| batch.unwrap()[0].to_vec::<i32>().unwrap()).collect()
/// };
/// assert_eq!(batches.batches(), 3);
/// assert_ne!(epoch(0, 0), epoch(1, 0));
/// assert_eq!(epoch(1, 0)[4..], epoch(1, 1));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TensorBatches<const N: usize> {
    data: TensorDataset<N>,
    size: usize,
    key: Option<Key>,
    drop_last: bool,
}

impl<const N: usize> TensorBatches<N> {
    /// Batches of `size` rows (at least 1), in order; the last may be smaller.
    pub fn new(data: TensorDataset<N>, size: usize) -> TensorBatches<N> {
        TensorBatches { data, size: size.max(1), key: None, drop_last: false }
    }

    /// In an order of its own for every epoch; the same key gives the same orders.
    pub fn shuffled(self, key: Key) -> Self {
        TensorBatches { key: Some(key), ..self }
    }

    /// Leaves out a last batch that is smaller than the others.
    pub fn drop_last(self) -> Self {
        TensorBatches { drop_last: true, ..self }
    }
}

impl<const N: usize> BatchSource for TensorBatches<N> {
    type Batch = [Tensor; N];

    fn batches(&self) -> usize {
        let rows = self.data.len();
        if self.drop_last { rows / self.size } else { rows.div_ceil(self.size) }
    }

    fn epoch(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<[Tensor; N], BatchError>> + '_> {
        let mut batches = self.data.batches(self.size);
        if let Some(key) = self.key {
            batches = batches.shuffled(key.fold_in(epoch));
        }
        if self.drop_last {
            batches = batches.drop_last();
        }
        Box::new(batches.skip(first).map(Ok))
    }
}

/// Batches that a function makes from the numbers of epoch and batch: see [`batches_from`].
#[derive(Clone, Debug)]
pub struct FromFn<F> {
    batches: usize,
    make: F,
}

/// Batches that `make(epoch, batch)` reads or computes, so many an epoch.
///
/// ```
/// use gradus_tensor::{Device, Key, Tensor};
/// use gradus_train::{BatchSource, batches_from};
///
/// // Random points and their distances from 0, made anew for every batch.
/// let device = Device::cpu();
/// let source = batches_from(100, |epoch, batch| {
///     let x = Tensor::randn([32, 2], Key::new(1).fold_in(epoch).fold_in(batch as u64), &device);
///     let y = x.square().sum(1).sqrt();
///     Ok((x, y))
/// });
/// assert_eq!(source.epoch(0, 98).count(), 2);
/// ```
pub fn batches_from<B: Batch, F: Fn(u64, usize) -> Result<B, BatchError>>(batches: usize, make: F) -> FromFn<F> {
    FromFn { batches, make }
}

impl<B: Batch, F: Fn(u64, usize) -> Result<B, BatchError>> BatchSource for FromFn<F> {
    type Batch = B;

    fn batches(&self) -> usize {
        self.batches
    }

    fn epoch(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<B, BatchError>> + '_> {
        Box::new((first..self.batches).map(move |batch| (self.make)(epoch, batch)))
    }
}
