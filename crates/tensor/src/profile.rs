//! Profiles: how long each kernel takes that a piece of a program runs.

mod table;

use crate::ceilings::Ceilings;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::scope::Noting;
use gradus_ir::{Error as ErrorKind, KernelSummary};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct KernelRun {
    /// What the kernel does.
    pub kernel: Arc<KernelSummary>,
    /// The paths of the modules whose nodes, or gradients of whose nodes, it computes. The first one has most of them, and its
    /// time. Empty where no module recorded anything.
    pub modules: Arc<[String]>,
    /// When it began, from the beginning of the profile, by the host's clock.
    pub start: Duration,
    /// How long it took: by the device's own clock where there is one, else by the host's.
    pub time: Duration,
}

/// What [`Device::profile`] has seen. It prints as a table of kernels, and one of modules, if there were any.
#[derive(Clone, Debug)]
pub struct Profile {
    device: String,
    /// Every run of a kernel, in order.
    pub runs: Vec<KernelRun>,
    ceilings: Option<Ceilings>,
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
    /// Kernels know the layers that recorded their ops, forward and backward, by the paths of their parameters: in the whole model
    /// once an optimiser or `Module::parameters` has named these, else from the outermost layer on that ran.
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
        let (end, noting) = (End(self), Noting::begin());
        let result = body();
        drop((end, noting));
        let runs = std::mem::take(&mut *recorder.runs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        Ok((result?, Profile { device: self.to_string(), runs, ceilings: None }))
    }
}

impl Profile {
    /// The time of all kernels together.
    pub fn total(&self) -> Duration {
        self.runs.iter().map(|run| run.time).sum()
    }

    /// The same with how much each kernel reaches of the ceiling that binds it, in percent: moving its bytes as fast as a copy does,
    /// or its operations, whatever takes longer.
    ///
    /// ```
    /// use gradus_tensor::{Device, Key, Tensor};
    /// let device = Device::cpu();
    /// let ceilings = device.ceilings()?;
    /// let x = Tensor::rand([64, 64], Key::new(0), &device);
    /// let (_, profile) = device.profile(|| x.matmul(&x).eval())?;
    /// let profile = profile.against(ceilings);
    /// let product = profile.runs.iter().find(|run| run.kernel.family == "matmul").unwrap();
    /// assert!(profile.percent(product).unwrap() > 0.0);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    pub fn against(self, ceilings: Ceilings) -> Profile {
        Profile { ceilings: Some(ceilings), ..self }
    }

    /// How much a run reaches of the ceiling that binds it, in percent, if [ceilings](Profile::against) are known. What stays in
    /// caches, and products of f16 on units of their own, reach more than a hundred.
    pub fn percent(&self, run: &KernelRun) -> Option<f64> {
        Some(100.0 * self.floor(run)? / run.time.as_secs_f64().max(1e-12))
    }

    /// The least seconds of a run.
    fn floor(&self, KernelRun { kernel, .. }: &KernelRun) -> Option<f64> {
        let (bytes, operations) = (kernel.bytes as f64, kernel.operations as f64);
        Some(self.ceilings?.floor(bytes, operations, kernel.multiplies_halves, 0.0).seconds)
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
        for run in &self.runs {
            let KernelRun { kernel, modules, start, time } = run;
            let name = json(&format!("{} {}", kernel.family, kernel.space));
            let (start, time) = (micros(*start), micros(*time));
            let _ = write!(
                text,
                ",\n{{\"name\":{name},\"cat\":\"{}\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":{start:.3},\"dur\":{time:.3},\"args\":{{\"ops\":{},\"line\":{},\"bytes\":{},\"operations\":{}",
                kernel.family,
                json(&kernel.ops),
                json(&kernel.line),
                kernel.bytes,
                kernel.operations,
            );
            if !modules.is_empty() {
                let _ = write!(text, ",\"module\":{}", json(&modules.join(", ")));
            }
            if let Some(percent) = self.percent(run) {
                let _ = write!(text, ",\"percent_of_ceiling\":{percent:.1}");
            }
            text.push_str("}}");
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

#[cfg(test)]
mod tests {
    use super::json;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(json("a\\b \"c\"\n×"), "\"a\\\\b \\\"c\\\"\\u000a×\"");
    }
}
