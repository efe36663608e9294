//! How long the GPU works, by its own clock.

use crate::Error;
use crate::device::{Device, Inner};
use std::time::Duration;
use wgpu::{BufferUsages, ComputePassTimestampWrites, Features, QuerySet};

/// Passes in one query set, two timestamps each.
const PASSES_PER_SET: u32 = 64;

/// The passes that were recorded while somebody was timing.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    /// How many calls of [`Device::time`] are under way; they may be nested, or of several threads.
    calls: u32,
    passes: u32,
    sets: Vec<QuerySet>,
}

/// Where a pass writes its timestamps.
#[derive(Debug)]
pub(crate) struct Span {
    set: QuerySet,
    first: u32,
}

impl Span {
    pub(crate) fn writes(&self) -> ComputePassTimestampWrites<'_> {
        ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(self.first),
            end_of_pass_write_index: Some(self.first + 1),
        }
    }
}

impl Timer {
    /// The span of a new pass, if somebody is timing.
    pub(crate) fn span(&mut self, inner: &Inner) -> Result<Option<Span>, Error> {
        if self.calls == 0 {
            return Ok(None);
        }
        let (set, pass) = ((self.passes / PASSES_PER_SET) as usize, self.passes % PASSES_PER_SET);
        if set == self.sets.len() {
            let (ty, count) = (wgpu::QueryType::Timestamp, 2 * PASSES_PER_SET);
            let descriptor = wgpu::QuerySetDescriptor { label: None, ty, count };
            self.sets.push(inner.create(|device| device.create_query_set(&descriptor))?);
        }
        self.passes += 1;
        Ok(Some(Span { set: self.sets[set].clone(), first: 2 * pass }))
    }
}

/// Ends the timing of a call, also where its work panics.
struct Call<'a> {
    device: &'a Inner,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let timer = &mut self.device.stream().timer;
        timer.calls -= 1;
        if timer.calls == 0 {
            // Query sets stay for the next time.
            timer.passes = 0;
        }
    }
}

impl Device {
    /// Does `work` and says how long the GPU took for the launches made meanwhile, those of other threads included: the
    /// sum over its passes, without gaps between them and without copies. `None` where the device has no timestamps.
    ///
    /// What was launched before is handed over first and not counted.
    pub fn time<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<(R, Option<Duration>), Error> {
        let inner = &*self.0;
        inner.check()?;
        if !self.has(Features::TIMESTAMP_QUERY) {
            return Ok((work()?, None));
        }
        let (start, _call) = {
            let mut stream = inner.stream();
            stream.flush(inner)?;
            stream.timer.calls += 1;
            (stream.timer.passes, Call { device: inner })
        };
        let result = work()?;
        let (sets, passes) = {
            let mut stream = inner.stream();
            stream.flush(inner)?;
            (stream.timer.sets.clone(), start..stream.timer.passes)
        };
        let mut ticks = 0;
        for (number, set) in (0..).zip(&sets) {
            let first = passes.start.max(number * PASSES_PER_SET);
            let end = passes.end.min((number + 1) * PASSES_PER_SET);
            if first < end {
                ticks += self.ticks(set, first % PASSES_PER_SET, end - first)?;
            }
        }
        let nanoseconds = ticks as f64 * f64::from(inner.queue.get_timestamp_period());
        Ok((result, Some(Duration::from_nanos(nanoseconds as u64))))
    }

    /// The sum of ticks over some passes of a query set.
    fn ticks(&self, set: &QuerySet, first: u32, passes: u32) -> Result<u64, Error> {
        let inner = &*self.0;
        let bytes = u64::from(passes) * 16;
        let resolved = self.create_buffer(bytes, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC)?;
        {
            let mut stream = inner.stream();
            let queries = 2 * first..2 * (first + passes);
            stream.encoder(inner)?.resolve_query_set(set, queries, &resolved, 0);
        }
        let stamps: Vec<[u64; 2]> = self.read_wgpu(&resolved, 0, bytes)?;
        // A clock that is set back in between counts nothing.
        Ok(stamps.iter().map(|[start, end]| end.saturating_sub(*start)).sum())
    }
}
