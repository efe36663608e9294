//! Profiles: how long each kernel takes that a piece of a program runs.

use crate::device::Device;
use crate::error::{Error, Result};
use gradus_ir::{Error as ErrorKind, KernelSummary};
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct KernelRun {
    /// What the kernel does.
    pub kernel: Arc<KernelSummary>,
    /// When it began, from the beginning of the profile, by the host's clock.
    pub start: Duration,
    /// How long it took: by the device's own clock where there is one, else by the host's.
    pub time: Duration,
}

/// What [`Device::profile`] has seen. It prints as a table.
#[derive(Clone, Debug)]
pub struct Profile {
    device: String,
    /// Every run of a kernel, in order.
    pub runs: Vec<KernelRun>,
}

/// Where runs are noted while a profile is made.
pub(crate) struct Recorder {
    begin: Instant,
    runs: Mutex<Vec<KernelRun>>,
}

impl Recorder {
    pub(crate) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(crate) fn note(&self, run: KernelRun) {
        // A list is whole after every push, so a poisoned lock is still good.
        self.runs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(run);
    }
}

impl Device {
    /// Runs `body` and measures each kernel that this device runs meanwhile, one after the other: the times are those of
    /// the kernels alone, and `body` as a whole takes longer than without a profile. Kernels of other threads on this
    /// device count too; [compiled](crate::compile) functions run unseen.
    ///
    /// ```
    /// use gradus_tensor::{Device, Key, Tensor};
    /// let device = Device::cpu();
    /// let x = Tensor::rand([64, 64], Key::new(0), &device);
    /// let (norm, profile) = device.profile(|| x.matmul(&x).square().sum(..).item::<f32>())?;
    /// assert!(norm > 0.0 && profile.runs.iter().any(|run| run.kernel.family == "matmul"));
    /// println!("{profile}");
    /// std::fs::write(std::env::temp_dir().join("trace.json"), profile.to_chrome_trace()).unwrap();
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// What `body` returns as an error; [`ErrorKind::Backend`] if another profile of this device is under way.
    #[track_caller]
    pub fn profile<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<(R, Profile)> {
        struct End<'a>(&'a Device);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.planner().plans.end_profile();
            }
        }
        let recorder = Arc::new(Recorder { begin: Instant::now(), runs: Mutex::default() });
        if !self.planner().plans.begin_profile(recorder.clone()) {
            return Err(Error::new("profile", ErrorKind::Backend("a profile of this device is under way".into())));
        }
        let end = End(self);
        let result = body();
        drop(end);
        let runs = std::mem::take(&mut *recorder.runs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        Ok((result?, Profile { device: self.to_string(), runs }))
    }
}

impl Profile {
    /// The time of all kernels together.
    pub fn total(&self) -> Duration {
        self.runs.iter().map(|run| run.time).sum()
    }

    /// The runs as a trace in Chrome's format (JSON), which `chrome://tracing` and <https://ui.perfetto.dev> show.
    pub fn to_chrome_trace(&self) -> String {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let mut text = String::from("{\"traceEvents\":[\n");
        let device = json(&self.device);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":1,\"args\":{{\"name\":{device}}}}}"
        );
        for KernelRun { kernel, start, time } in &self.runs {
            let name = json(&format!("{} {}", kernel.family, kernel.space));
            let (start, time) = (micros(*start), micros(*time));
            let _ = write!(
                text,
                ",\n{{\"name\":{name},\"cat\":\"{}\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":{start:.3},\"dur\":{time:.3},\"args\":{{\"ops\":{},\"line\":{},\"bytes\":{},\"operations\":{}}}}}",
                kernel.family,
                json(&kernel.ops),
                json(&kernel.line),
                kernel.bytes,
                kernel.operations,
            );
        }
        text.push_str("\n]}\n");
        text
    }
}

/// A text as JSON.
fn json(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", control as u32);
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

impl fmt::Display for Profile {
    /// A line for each kernel that does the same on the same line of the program, the dearest first: how often it ran, its
    /// time, its share of all, and how fast it moved bytes and computed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places: HashMap<&KernelSummary, usize> = HashMap::new();
        let mut lines: Vec<(&KernelSummary, u32, Duration)> = Vec::new();
        for run in &self.runs {
            let place = *places.entry(&run.kernel).or_insert(lines.len());
            if place == lines.len() {
                lines.push((&run.kernel, 0, Duration::ZERO));
            }
            lines[place].1 += 1;
            lines[place].2 += run.time;
        }
        lines.sort_by_key(|(_, _, time)| std::cmp::Reverse(*time));
        let total = self.total().as_secs_f64();
        writeln!(f, "{} kernels on {}: {:.1} µs", self.runs.len(), self.device, total * 1e6)?;
        writeln!(f, "      µs    %  runs    GB/s  GFLOP/s  kernel")?;
        for (kernel, count, time) in lines {
            let seconds = time.as_secs_f64().max(1e-12);
            let rate = |of_one: usize| of_one as f64 * f64::from(count) / seconds / 1e9;
            let share = 100.0 * seconds / total.max(1e-12);
            let (bytes, operations) = (rate(kernel.bytes), rate(kernel.operations));
            let KernelSummary { family, space, ops, line, .. } = kernel;
            writeln!(
                f,
                "{:8.1} {share:4.0} {count:5} {bytes:7.1} {operations:8.1}  {family} {space}: {ops} ({line})",
                seconds * 1e6
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::json;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(json("a\\b \"c\"\n×"), "\"a\\\\b \\\"c\\\"\\u000a×\"");
    }
}
