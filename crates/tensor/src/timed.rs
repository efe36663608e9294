//! Plans that run one kernel at a time and say how long each took: to a profile, or, with `GRADUS_DEBUG=time`, on standard
//! error.

use crate::device::Device;
use crate::profile::{KernelRun, Recorder};
use gradus_ir::plan::BufferId;
use gradus_ir::{Buffer, Error, Executable, KernelSummary, NodeId, Number, Plan, Result};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// A plan whose kernels are plans of their own.
pub(crate) struct Timed {
    device: Device,
    /// For each buffer, the input slot that it comes from.
    inputs: Vec<Option<usize>>,
    kernels: Vec<Kernel>,
    outputs: Vec<BufferId>,
    /// Of a profile; without one, times are printed.
    recorder: Option<Arc<Recorder>>,
}

struct Kernel {
    executable: Box<dyn Executable>,
    summary: Arc<KernelSummary>,
    modules: Arc<[String]>,
    /// How many instructions its expression has.
    instructions: usize,
    /// The buffers of its input slots, and whether it writes over each.
    reads: Vec<(BufferId, bool)>,
    writes: Vec<BufferId>,
}

impl Timed {
    /// A plan; `lines` says what a node of its graph is and where it was recorded, `modules` whose nodes a kernel computes.
    pub(crate) fn new(
        device: &Device,
        plan: &Plan,
        lines: impl Fn(NodeId) -> Option<(String, String)>,
        modules: impl Fn(&gradus_ir::plan::Kernel) -> Vec<String>,
        recorder: Option<Arc<Recorder>>,
    ) -> Result<Timed> {
        let kernel = |kernel: &gradus_ir::plan::Kernel| {
            let writes: Vec<BufferId> = kernel.outputs.iter().map(|store| store.buffer).collect();
            let mut part = Plan { kernels: vec![kernel.clone()], outputs: writes.clone(), ..plan.clone() };
            part.buffers.iter_mut().for_each(|buffer| buffer.input = None);
            let mut reads: Vec<(BufferId, bool)> = Vec::new();
            for load in &kernel.loads {
                let slot = &mut part.buffers[load.buffer].input;
                if slot.is_none() {
                    *slot = Some(reads.len());
                    reads.push((load.buffer, writes.contains(&load.buffer)));
                }
            }
            let (summary, modules) = (Arc::new(plan.summary(kernel, &lines)), modules(kernel).into());
            let instructions = kernel.expression.instructions.len();
            Ok(Kernel { executable: device.backend().compile(part)?, summary, modules, instructions, reads, writes })
        };
        Ok(Timed {
            device: device.clone(),
            inputs: plan.buffers.iter().map(|buffer| buffer.input).collect(),
            kernels: plan.kernels.iter().map(kernel).collect::<Result<_>>()?,
            outputs: plan.outputs.clone(),
            recorder,
        })
    }

    fn print(&self, times: &[Duration]) {
        let total: Duration = times.iter().sum();
        let micros = |time: &Duration| time.as_secs_f64() * 1e6;
        let mut table = format!("{} kernels on {}: {:.1} µs\n", times.len(), self.device, micros(&total));
        for (kernel, time) in self.kernels.iter().zip(times) {
            let share = 100.0 * time.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
            let KernelSummary { family, space, bytes, operations, .. } = &*kernel.summary;
            let rate = |count: usize| count as f64 / time.as_secs_f64().max(1e-12) / 1e9;
            let rates = format!("{:6.1} GB/s {:7.1} GFLOP/s", rate(*bytes), rate(*operations));
            let name = format!("{family:<11} {:<20} {} instructions", space.to_string(), kernel.instructions);
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{:10.1} µs {share:3.0} % {rates}  {name}", micros(time));
        }
        eprint!("{table}");
    }
}

impl Executable for Timed {
    fn run(&self, inputs: &mut [Option<Buffer>], scalars: &[Number]) -> Result<Vec<Buffer>> {
        let missing = || Error::Backend("a buffer is read before it is written".into());
        let input = |slot: &Option<usize>| slot.and_then(|slot| inputs[slot].clone());
        let mut held: Vec<Option<Buffer>> = self.inputs.iter().map(input).collect();
        let mut times = Vec::with_capacity(self.kernels.len());
        for kernel in &self.kernels {
            let mut operands: Vec<Option<Buffer>> = Vec::with_capacity(kernel.reads.len());
            for &(id, is_overwritten) in &kernel.reads {
                if is_overwritten {
                    // Nothing else may own it.
                    operands.push(held[id].take());
                    self.inputs[id].into_iter().for_each(|slot| inputs[slot] = None);
                } else {
                    operands.push(held[id].clone());
                }
            }
            let mut written = Vec::new();
            let start = self.recorder.as_ref().map(|recorder| recorder.now());
            let time = self.device.backend().time(&mut || {
                written = kernel.executable.run(&mut operands, scalars)?;
                Ok(())
            });
            match time {
                Ok(time) => {
                    times.push(time);
                    if let (Some(recorder), Some(start)) = (&self.recorder, start) {
                        let (modules, kernel) = (kernel.modules.clone(), kernel.summary.clone());
                        recorder.note(KernelRun { kernel, modules, start, time });
                    }
                }
                Err(error) => {
                    // What it did not take still holds its value.
                    for (&(id, is_overwritten), operand) in kernel.reads.iter().zip(operands) {
                        if let (true, Some(slot)) = (is_overwritten, self.inputs[id]) {
                            inputs[slot] = operand;
                        }
                    }
                    return Err(error);
                }
            }
            for (&id, buffer) in kernel.writes.iter().zip(written) {
                held[id] = Some(buffer);
            }
        }
        if self.recorder.is_none() {
            self.print(&times);
        }
        self.outputs.iter().map(|&id| held[id].clone().ok_or_else(missing)).collect()
    }

    fn peak(&self) -> usize {
        self.kernels.iter().map(|kernel| kernel.executable.peak()).sum()
    }
}
