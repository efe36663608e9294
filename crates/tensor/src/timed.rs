//! `GRADUS_DEBUG=time`: plans that run one kernel at a time and say how long each took.

use crate::device::Device;
use gradus_ir::plan::BufferId;
use gradus_ir::{Buffer, Error, Executable, Number, Plan, Result};
use std::fmt::Write;
use std::time::Duration;

/// A plan whose kernels are plans of their own.
pub(crate) struct Timed {
    device: Device,
    /// For each buffer, the input slot that it comes from.
    inputs: Vec<Option<usize>>,
    kernels: Vec<Kernel>,
    outputs: Vec<BufferId>,
}

struct Kernel {
    executable: Box<dyn Executable>,
    /// What it does, in words.
    name: String,
    /// The buffers of its input slots, and whether it writes over each.
    reads: Vec<(BufferId, bool)>,
    writes: Vec<BufferId>,
}

impl Timed {
    pub(crate) fn new(device: &Device, plan: &Plan) -> Result<Timed> {
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
            let ops = kernel.expression.instructions.len();
            let name = format!("{:<11} {:<20} {ops} instructions", kernel.family_name(), kernel.space.to_string());
            Ok(Kernel { executable: device.backend().compile(part)?, name, reads, writes })
        };
        Ok(Timed {
            device: device.clone(),
            inputs: plan.buffers.iter().map(|buffer| buffer.input).collect(),
            kernels: plan.kernels.iter().map(kernel).collect::<Result<_>>()?,
            outputs: plan.outputs.clone(),
        })
    }

    fn print(&self, times: &[Duration]) {
        let total: Duration = times.iter().sum();
        let micros = |time: &Duration| time.as_secs_f64() * 1e6;
        let mut table = format!("{} kernels on {}: {:.1} µs\n", times.len(), self.device, micros(&total));
        for (kernel, time) in self.kernels.iter().zip(times) {
            let share = 100.0 * time.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{:10.1} µs {share:3.0} %  {}", micros(time), kernel.name);
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
            let time = self.device.backend().time(&mut || {
                written = kernel.executable.run(&mut operands, scalars)?;
                Ok(())
            });
            match time {
                Ok(time) => times.push(time),
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
        self.print(&times);
        self.outputs.iter().map(|&id| held[id].clone().ok_or_else(missing)).collect()
    }

    fn peak(&self) -> usize {
        self.kernels.iter().map(|kernel| kernel.executable.peak()).sum()
    }
}
