//! Reading results: the GPU copies them to memory that the host can see, a piece at a time.

use crate::device::{Device, Inner};
use crate::scope::scoped;
use crate::staging::PIECE;
use crate::statistics::count;
use crate::{Buffer, Error};
use bytemuck::Pod;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use wgpu::SubmissionIndex;

/// A blocking read has at most this many pieces under way.
const PIECES_AHEAD: usize = 2;

impl Device {
    /// The first `bytes` of a buffer, once all that was launched on it is done. Blocks.
    ///
    /// What other threads launch on this buffer meanwhile may be seen or not.
    pub fn read(&self, buffer: &Buffer, bytes: u64) -> Result<Vec<u8>, Error> {
        self.check_read(buffer, bytes)?;
        self.read_wgpu(buffer.wgpu(), buffer.offset(), bytes)
    }

    /// [`Device::read`] of the first `count` values of some plain type, without another copy.
    pub fn read_as<T: Pod>(&self, buffer: &Buffer, count: usize) -> Result<Vec<T>, Error> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        self.check_read(buffer, bytes)?;
        self.read_wgpu(buffer.wgpu(), buffer.offset(), bytes)
    }

    /// The first `bytes` of a buffer as they are after all that was launched so far, whatever is launched later. Work
    /// is handed over at once; the future is woken by a thread of the device, so any executor will do.
    pub fn read_async(&self, buffer: &Buffer, bytes: u64) -> Download {
        self.download(buffer, bytes)
    }

    /// [`Device::read_async`] of the first `count` values of some plain type, without another copy.
    pub fn read_as_async<T: Pod + Send>(&self, buffer: &Buffer, count: usize) -> Download<T> {
        self.download(buffer, (count as u64).saturating_mul(size_of::<T>() as u64))
    }

    fn download<T: Pod + Send>(&self, buffer: &Buffer, bytes: u64) -> Download<T> {
        let outcome = Arc::new(Outcome::default());
        let promise = Promise(Some(outcome.clone()));
        match self.fetch_all::<T>(buffer, bytes) {
            Ok((pieces, index)) => {
                let device = self.clone();
                self.0.reader.send(Box::new(move || {
                    let mut result = Vec::with_capacity(values::<T>(bytes));
                    let taken = pieces.into_iter().try_for_each(|piece| piece.take(&device.0, &index, &mut result));
                    // Before anybody is woken: who sees the result may count on the device being let go.
                    drop(device);
                    promise.keep(taken.map(|()| result));
                }));
            }
            Err(error) => promise.keep(Err(error)),
        }
        Download(outcome)
    }

    /// Has the GPU copy the first `bytes` of a buffer, all at once, so that they are of one moment.
    fn fetch_all<T>(&self, buffer: &Buffer, bytes: u64) -> Result<(Vec<Piece>, Option<SubmissionIndex>), Error> {
        self.check_read(buffer, bytes)?;
        let mut pieces = Vec::new();
        let mut offset = 0;
        while offset < bytes {
            let length = piece_bytes::<T>().min(bytes - offset);
            pieces.push(Piece::new(self.staging(length.next_multiple_of(4))?, length));
            offset += length;
        }
        let index = self.fetch(buffer.wgpu(), buffer.offset(), &pieces)?;
        Ok((pieces, index))
    }

    fn check_read(&self, buffer: &Buffer, bytes: u64) -> Result<(), Error> {
        let fail = |message| Err(Error::Argument { what: format!("read of {bytes} bytes"), message });
        self.0.check()?;
        if !buffer.is_on(&self.0) {
            return fail("a buffer of another device".into());
        }
        if bytes > buffer.bytes() {
            return fail(format!("the buffer has {}", buffer.bytes()));
        }
        count(&self.0.counters.downloads, 1);
        count(&self.0.counters.downloaded_bytes, bytes);
        Ok(())
    }

    /// Reads any buffer of wgpu's that can be copied from, and that has a multiple of 4 bytes.
    pub(crate) fn read_wgpu<T: Pod>(&self, buffer: &wgpu::Buffer, start: u64, bytes: u64) -> Result<Vec<T>, Error> {
        let mut result = Vec::with_capacity(values::<T>(bytes));
        let mut under_way = VecDeque::new();
        let mut offset = 0;
        while offset < bytes || !under_way.is_empty() {
            while offset < bytes && under_way.len() < PIECES_AHEAD {
                let length = piece_bytes::<T>().min(bytes - offset);
                let piece = [Piece::new(self.staging(length.next_multiple_of(4))?, length)];
                let index = self.fetch(buffer, start + offset, &piece)?;
                under_way.push_back((piece, index));
                offset += length;
            }
            if let Some(([piece], index)) = under_way.pop_front() {
                piece.take(&self.0, &index, &mut result)?;
            }
        }
        Ok(result)
    }

    /// Has the GPU copy pieces of a buffer, from `offset` on, and asks for them to be mapped when that is done.
    fn fetch(&self, buffer: &wgpu::Buffer, offset: u64, pieces: &[Piece]) -> Result<Option<SubmissionIndex>, Error> {
        let inner = &*self.0;
        let (index, wait) = {
            let mut stream = inner.stream();
            if !pieces.is_empty() {
                let encoder = stream.encoder(inner)?;
                let mut at = offset;
                for piece in pieces {
                    encoder.copy_buffer_to_buffer(buffer, at, &piece.staging, 0, piece.bytes.next_multiple_of(4));
                    at += piece.bytes;
                }
            }
            let wait = stream.flush(inner)?;
            (stream.last(), wait)
        };
        for piece in pieces {
            let notice = Notice(Some(piece.mapped.clone()));
            let length = piece.bytes.next_multiple_of(4);
            let ((), error) = scoped(&inner.wgpu, || {
                piece.staging.map_async(wgpu::MapMode::Read, ..length, move |result| notice.give(result.is_ok()));
            });
            if let Some(error) = error {
                return Err(inner.error(error, piece.bytes));
            }
        }
        inner.wait_if(wait)?;
        Ok(index)
    }
}

/// How many values these bytes are.
fn values<T>(bytes: u64) -> usize {
    bytes as usize / size_of::<T>().max(1)
}

/// The length of a piece that holds whole values and whole words.
fn piece_bytes<T>() -> u64 {
    let step = 4 * size_of::<T>().max(1) as u64;
    PIECE.next_multiple_of(step)
}

/// A part of a buffer on its way to the host.
#[derive(Debug)]
struct Piece {
    staging: wgpu::Buffer,
    bytes: u64,
    mapped: Arc<Mapped>,
}

/// Whether a piece can be looked at; `None` until that is known.
#[derive(Debug, Default)]
struct Mapped {
    state: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Mapped {
    fn state(&self) -> MutexGuard<'_, Option<bool>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells [`Mapped`] what became of the mapping: failure, if wgpu drops it without a word.
#[derive(Debug)]
struct Notice(Option<Arc<Mapped>>);

impl Notice {
    fn give(mut self, good: bool) {
        self.tell(good);
    }

    fn tell(&mut self, good: bool) {
        if let Some(mapped) = self.0.take() {
            *mapped.state() = Some(good);
            mapped.changed.notify_all();
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        self.tell(false);
    }
}

impl Piece {
    fn new(staging: wgpu::Buffer, bytes: u64) -> Piece {
        Piece { staging, bytes, mapped: Arc::default() }
    }

    /// Waits for the piece and appends it to `result`.
    fn take<T: Pod>(self, inner: &Inner, index: &Option<SubmissionIndex>, result: &mut Vec<T>) -> Result<(), Error> {
        inner.wait_if(index.clone())?;
        if !self.wait(inner)? {
            return Err(inner.lost_silently());
        }
        match self.staging.get_mapped_range(..self.bytes.next_multiple_of(4)) {
            Ok(view) => {
                let bytes = &view[..self.bytes as usize];
                match bytemuck::try_cast_slice(bytes) {
                    Ok(values) => result.extend_from_slice(values),
                    // No driver maps at an odd address; and if one did, the values would still be right.
                    Err(_) => result.extend(bytemuck::pod_collect_to_vec::<u8, T>(bytes)),
                }
            }
            Err(error) => return Err(inner.invalid(error.to_string())),
        }
        self.staging.unmap();
        inner.staging.put(self.staging);
        Ok(())
    }

    /// Waits until it is known whether the piece is mapped. The submission is done, so this is a matter of another
    /// thread that polls at the same time having the notice in hand, and not for long.
    fn wait(&self, inner: &Inner) -> Result<bool, Error> {
        let mut state = self.mapped.state();
        loop {
            if let Some(good) = *state {
                return Ok(good);
            }
            let (guard, timeout) = self
                .mapped
                .changed
                .wait_timeout(state, Duration::from_millis(1))
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() {
                drop(state);
                inner.notice()?;
                state = self.mapped.state();
            }
        }
    }
}

/// A read under way: a future that any executor can wait for. Dropping it does no harm.
#[derive(Debug)]
#[must_use = "the contents arrive when this future is awaited"]
pub struct Download<T = u8>(Arc<Outcome<T>>);

impl<T> Future for Download<T> {
    type Output = Result<Vec<T>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state();
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[derive(Debug)]
struct Outcome<T>(Mutex<Waiting<T>>);

#[derive(Debug)]
struct Waiting<T> {
    result: Option<Result<Vec<T>, Error>>,
    waker: Option<Waker>,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Outcome(Mutex::new(Waiting { result: None, waker: None }))
    }
}

impl<T> Outcome<T> {
    fn state(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, result: Result<Vec<T>, Error>) {
        let waker = {
            let mut state = self.state();
            state.result = Some(result);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The duty to set an outcome: an error, if it is dropped without being kept.
#[derive(Debug)]
struct Promise<T>(Option<Arc<Outcome<T>>>);

impl<T> Promise<T> {
    fn keep(mut self, result: Result<Vec<T>, Error>) {
        if let Some(outcome) = self.0.take() {
            outcome.set(result);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(outcome) = self.0.take() {
            let message = "the thread that reads results has ended, or could not be started: read again".into();
            outcome.set(Err(Error::Argument { what: "asynchronous read".into(), message }));
        }
    }
}

/// Work for the reader thread: waits for a read, and keeps its promise.
type Job = Box<dyn FnOnce() + Send>;

/// The thread that waits for asynchronous reads; started with the first, it ends with the device.
#[derive(Debug, Default)]
pub(crate) struct Reader(Mutex<Option<Sender<Job>>>);

impl Reader {
    /// Hands a job to the thread. If there is none and none can be started, the job's promise is broken.
    fn send(&self, job: Job) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match &*sender {
            Some(sender) => match sender.send(job) {
                Ok(()) => return,
                // The thread has died of a panic in a waker: another is started.
                Err(unsent) => unsent.0,
            },
            None => job,
        };
        let (to, from) = channel::<Job>();
        let thread = std::thread::Builder::new().name("gradus-read".into());
        if thread.spawn(move || from.into_iter().for_each(|job| job())).is_ok() && to.send(job).is_ok() {
            *sender = Some(to);
        }
    }
}
