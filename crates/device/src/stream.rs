//! The command stream: what is launched is encoded at once, and handed to the GPU some launches at a time.
//!
//! One encoder with one open compute pass. Copies end the pass; a flush ends both. The GPU is never more than a few
//! submissions behind, so that memory and latency stay bounded.

use crate::bindings::Bindings;
use crate::device::{Device, Inner};
use crate::ring::Ring;
use crate::scope::scoped;
use crate::statistics::count;
use crate::timing::Timer;
use crate::{Access, Buffer, Error, Parameters, Pipeline};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use wgpu::{CommandEncoder, ComputePass, SubmissionIndex};

/// After this many launches and copies they are handed to the GPU.
const LAUNCHES_PER_SUBMIT: u32 = 128;

/// The GPU is at most this many submissions behind.
const MOST_IN_FLIGHT: usize = 4;

/// After this many bytes of uploads they are handed to the GPU.
const UPLOADS_PER_SUBMIT: u64 = 64 << 20;

/// At most this many bytes of uploads, in the host's memory, wait for the GPU.
const MOST_UPLOADS_IN_FLIGHT: u64 = 128 << 20;

/// A kernel and what it works on.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The kernel.
    pub pipeline: &'a Pipeline,
    /// One buffer for each of its bindings. What it writes, it may bind only once.
    pub buffers: &'a [&'a Buffer],
    /// As many words as the pipeline was told.
    pub parameters: &'a [u32],
    /// Workgroups along x, y and z; with a 0 among them, nothing is done.
    pub workgroups: [u32; 3],
}

/// What is being recorded, and what the GPU works on.
#[derive(Debug)]
pub(crate) struct Stream {
    // The pass goes before the encoder that it is part of.
    pass: Option<ComputePass<'static>>,
    encoder: Option<CommandEncoder>,
    /// Launches and copies in the encoder.
    recorded: u32,
    /// Bytes of uploads that go to the GPU with the next submission.
    uploads: u64,
    /// What the open pass has set, to set nothing twice.
    set_pipeline: u64,
    set_group: u64,
    bindings: Bindings,
    ring: Option<Ring>,
    pub(crate) timer: Timer,
    in_flight: VecDeque<(SubmissionIndex, u64)>,
    in_flight_uploads: u64,
    last: Option<SubmissionIndex>,
}

impl Device {
    /// Launches a kernel. It is encoded now, and runs after what was launched before; the GPU gets it with a later
    /// launch, with [`Device::flush`], or when something is read.
    ///
    /// Fails with [`Error::Argument`] where the launch does not fit its pipeline. May wait where the GPU is far behind.
    pub fn launch(&self, launch: &Launch<'_>) -> Result<(), Error> {
        let inner = &*self.0;
        inner.check()?;
        launch.check(inner)?;
        if launch.workgroups.contains(&0) {
            return Ok(());
        }
        let mut stream = inner.stream();
        if launch.pipeline.0.parameters == Parameters::Uniform && !stream.ring_has_room(launch.pipeline.0.words) {
            let wait = stream.flush(inner)?;
            drop(stream);
            inner.wait_if(wait)?;
            // Another thread may fill the ring in between; then it is flushed once more, under the lock.
            stream = inner.stream();
            if !stream.ring_has_room(launch.pipeline.0.words) {
                stream.flush(inner)?;
            }
        }
        stream.launch(inner, launch)?;
        let wait = stream.flush_if_full(inner)?;
        drop(stream);
        inner.wait_if(wait)
    }

    /// Copies the first `bytes` of a buffer to the start of another, after what was launched before.
    ///
    /// Fails with [`Error::Argument`] where one of them is shorter, where they are different parts of one buffer, or where `bytes` is no multiple of 4 and the copy
    /// does not end with the target: what the GPU copies, and would overwrite, are multiples of 4.
    pub fn copy(&self, from: &Buffer, to: &Buffer, bytes: u64) -> Result<(), Error> {
        let inner = &*self.0;
        inner.check()?;
        let fail = |message: String| Err(Error::Argument { what: format!("copy of {bytes} bytes"), message });
        if !from.is_on(inner) || !to.is_on(inner) {
            return fail("a buffer of another device".into());
        }
        if bytes > from.bytes() || bytes > to.bytes() {
            return fail(format!("the source has {}, the target {}", from.bytes(), to.bytes()));
        }
        if !bytes.is_multiple_of(4) && bytes != to.bytes() {
            return fail(format!("no multiple of 4, and the target goes on to {}", to.bytes()));
        }
        if bytes == 0 || (from.slot().number == to.slot().number && from.offset() == to.offset()) {
            return Ok(());
        }
        if from.slot().number == to.slot().number {
            return fail("both are parts of one buffer".into());
        }
        let mut stream = inner.stream();
        let now = inner.recording.load(Ordering::Relaxed);
        from.slot().mark(now);
        to.slot().mark(now);
        let length = bytes.next_multiple_of(4);
        stream.encoder(inner)?.copy_buffer_to_buffer(from.wgpu(), from.offset(), to.wgpu(), to.offset(), length);
        stream.recorded += 1;
        count(&inner.counters.copies, 1);
        let wait = stream.flush_if_full(inner)?;
        drop(stream);
        inner.wait_if(wait)
    }

    /// Hands all that was launched and uploaded to the GPU.
    pub fn flush(&self) -> Result<(), Error> {
        let inner = &*self.0;
        inner.check()?;
        let wait = inner.stream().flush(inner)?;
        inner.wait_if(wait)
    }

    /// Waits until all that was launched is done.
    pub fn synchronise(&self) -> Result<(), Error> {
        let inner = &*self.0;
        inner.check()?;
        let last = {
            let mut stream = inner.stream();
            stream.flush(inner)?;
            stream.last.clone()
        };
        inner.wait_if(last)
    }
}

impl Launch<'_> {
    fn check(&self, inner: &Inner) -> Result<(), Error> {
        let pipeline = &*self.pipeline.0;
        let most = inner.limits.workgroups_per_dimension;
        let fits = pipeline.device == inner.number
            && self.buffers.len() == pipeline.layout.bindings.len()
            && self.parameters.len() == pipeline.words
            && self.workgroups.iter().all(|&n| n <= most)
            && self.buffers.iter().all(|b| b.is_on(inner));
        if fits { Ok(()) } else { Err(self.misfit(inner)) }
    }

    #[cold]
    fn misfit(&self, inner: &Inner) -> Error {
        let pipeline = &*self.pipeline.0;
        let message = if pipeline.device != inner.number {
            "was compiled on another device".into()
        } else if self.buffers.iter().any(|b| !b.is_on(inner)) {
            "a buffer of another device".into()
        } else if self.buffers.len() != pipeline.layout.bindings.len() {
            format!("{} buffers given, expected {}", self.buffers.len(), pipeline.layout.bindings.len())
        } else if self.parameters.len() != pipeline.words {
            format!("{} parameters given, expected {}", self.parameters.len(), pipeline.words)
        } else {
            let most = inner.limits.workgroups_per_dimension;
            format!("{:?} workgroups, at most {most} in each direction: split the grid", self.workgroups)
        };
        Error::Argument { what: format!("launch of \"{}\"", pipeline.label), message }
    }

    /// What a kernel writes lies apart from all else that it binds: in another buffer than what it reads, since wgpu knows
    /// a buffer as either, and in another part than what else it writes.
    fn check_aliases(&self) -> Result<(), Error> {
        let bindings = &self.pipeline.0.layout.bindings;
        for (i, (a, access)) in self.buffers.iter().zip(bindings).enumerate() {
            for (j, (b, other)) in self.buffers.iter().zip(bindings).enumerate().skip(i + 1) {
                let message = match (access, other) {
                    _ if a.slot().number != b.slot().number => continue,
                    (Access::Read, Access::Read) => continue,
                    (Access::ReadWrite, Access::ReadWrite) if !a.overlaps(b) => continue,
                    (Access::ReadWrite, Access::ReadWrite) => "are written and share memory",
                    _ => "are one buffer, and one of them is written",
                };
                let what = format!("launch of \"{}\"", self.pipeline.0.label);
                return Err(Error::Argument { what, message: format!("bindings {i} and {j} {message}") });
            }
        }
        Ok(())
    }
}

impl Stream {
    pub(crate) fn new() -> Stream {
        Stream {
            pass: None,
            encoder: None,
            recorded: 0,
            uploads: 0,
            set_pipeline: 0,
            set_group: 0,
            bindings: Bindings::new(),
            ring: None,
            timer: Timer::default(),
            in_flight: VecDeque::new(),
            in_flight_uploads: 0,
            last: None,
        }
    }

    /// Forgets buffers that are about to be freed.
    pub(crate) fn forget(&mut self, buffers: &[u64]) {
        self.bindings.forget(buffers);
    }

    /// Notes an upload; `true` if it is time to flush.
    pub(crate) fn uploaded(&mut self, bytes: u64) -> bool {
        self.uploads += bytes;
        self.uploads >= UPLOADS_PER_SUBMIT
    }

    /// The encoder, with no pass open.
    pub(crate) fn encoder(&mut self, inner: &Inner) -> Result<&mut CommandEncoder, Error> {
        self.pass = None;
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => inner.create(|device| device.create_command_encoder(&Default::default()))?,
        };
        Ok(self.encoder.insert(encoder))
    }

    /// Begins a pass.
    fn begin(&mut self, inner: &Inner) -> Result<ComputePass<'static>, Error> {
        // A good moment to see whether the device is still there.
        inner.notice()?;
        (self.set_pipeline, self.set_group) = (0, 0);
        let span = self.timer.span(inner)?;
        let encoder = self.encoder(inner)?;
        inner.create(|_| {
            let timestamp_writes = span.as_ref().map(|span| span.writes());
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        })
    }

    fn launch(&mut self, inner: &Inner, launch: &Launch<'_>) -> Result<(), Error> {
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => self.begin(inner)?,
        };
        let encoded = self.encode(inner, launch, &mut pass);
        self.pass = Some(pass);
        encoded
    }

    /// Encodes a launch. This is what each one costs, so nothing is made, set or copied twice.
    fn encode(&mut self, inner: &Inner, launch: &Launch<'_>, pass: &mut ComputePass<'static>) -> Result<(), Error> {
        let pipeline = &*launch.pipeline.0;
        let now = inner.recording.load(Ordering::Relaxed);
        launch.buffers.iter().for_each(|buffer| buffer.slot().mark(now));

        let bound = launch.buffers.iter().map(|buffer| (buffer.slot().number, buffer.offset(), buffer.bound()));
        let (group, number) = self.bindings.get(pipeline.layout.number, bound, || {
            launch.check_aliases()?;
            bind_group(inner, launch)
        })?;
        if self.set_pipeline != pipeline.number {
            pass.set_pipeline(&pipeline.wgpu);
            self.set_pipeline = pipeline.number;
        }
        if self.set_group != number {
            pass.set_bind_group(0, group, &[]);
            self.set_group = number;
        }
        match pipeline.parameters {
            Parameters::None => {}
            Parameters::Immediates => pass.set_immediates(0, bytemuck::cast_slice(launch.parameters)),
            Parameters::Uniform => {
                let ring = match &mut self.ring {
                    Some(ring) => ring,
                    none => none.insert(Ring::new(inner)?),
                };
                let (group, offset) = ring.push(inner, launch.parameters)?;
                pass.set_bind_group(1, group, &[offset]);
            }
        }
        let [x, y, z] = launch.workgroups;
        pass.dispatch_workgroups(x, y, z);
        self.recorded += 1;
        count(&inner.counters.launches, 1);
        Ok(())
    }

    /// [`Stream::flush`], if enough is recorded.
    fn flush_if_full(&mut self, inner: &Inner) -> Result<Option<SubmissionIndex>, Error> {
        if self.recorded >= LAUNCHES_PER_SUBMIT { self.flush(inner) } else { Ok(None) }
    }

    /// Hands what is recorded to the GPU. Returns a submission that the caller should wait for, once it has let go of
    /// the stream, so that the GPU does not fall too far behind.
    pub(crate) fn flush(&mut self, inner: &Inner) -> Result<Option<SubmissionIndex>, Error> {
        self.pass = None;
        let encoder = self.encoder.take();
        let uploads = std::mem::take(&mut self.uploads);
        self.recorded = 0;
        if encoder.is_none() && uploads == 0 {
            return Ok(None);
        }
        let (index, error) = scoped(&inner.wgpu, || {
            if let Some(ring) = &mut self.ring {
                ring.send(&inner.queue);
            }
            inner.queue.submit(encoder.map(CommandEncoder::finish))
        });
        inner.recording.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = error {
            return Err(inner.error(error, uploads));
        }
        count(&inner.counters.submits, 1);
        self.last = Some(index.clone());
        self.in_flight.push_back((index, uploads));
        self.in_flight_uploads += uploads;
        inner.notice()?;
        let mut wait = None;
        while self.in_flight.len() > MOST_IN_FLIGHT || self.in_flight_uploads > MOST_UPLOADS_IN_FLIGHT {
            let Some((index, uploads)) = self.in_flight.pop_front() else { break };
            self.in_flight_uploads -= uploads;
            wait = Some(index);
        }
        Ok(wait)
    }

    /// The last submission.
    pub(crate) fn last(&self) -> Option<SubmissionIndex> {
        self.last.clone()
    }

    fn ring_has_room(&self, words: usize) -> bool {
        self.ring.as_ref().is_none_or(|ring| ring.has_room(words))
    }
}

fn bind_group(inner: &Inner, launch: &Launch<'_>) -> Result<wgpu::BindGroup, Error> {
    let entries: SmallVec<[wgpu::BindGroupEntry<'_>; 8]> = (0..)
        .zip(launch.buffers)
        .map(|(binding, buffer)| {
            let size = NonZeroU64::new(buffer.bound());
            let resource = wgpu::BufferBinding { buffer: buffer.wgpu(), offset: buffer.offset(), size };
            wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(resource) }
        })
        .collect();
    let layout = &launch.pipeline.0.layout.wgpu;
    count(&inner.counters.bind_groups, 1);
    inner.create(|device| {
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
    })
}
