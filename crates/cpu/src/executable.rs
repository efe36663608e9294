//! Running a plan: kernels in order, each into its buffer, and every buffer freed after its last reader.

use crate::block::{BLOCK, Operands, Program};
use crate::contract::Contraction;
use crate::memory::{Array, Memory};
use crate::parallel;
use crate::reduce::Reduction;
use crate::scatter::Scatter;
use crate::slice::{Slice, SliceMut};
use gradus_ir::plan::{BufferId, Family, Kernel, Register};
use gradus_ir::{Buffer, DType, Data, Error, Executable, Number, Plan, Result};
use std::sync::Arc;

/// Elements of an element-wise kernel per task.
const TASK: usize = 16 * BLOCK;

/// A plan made ready for the CPU.
pub(crate) struct CpuExecutable {
    memory: Arc<Memory>,
    /// Where the work runs, if not on rayon's global threads and if there is enough of it for several threads.
    threads: Option<Arc<rayon::ThreadPool>>,
    buffers: Vec<gradus_ir::plan::Buffer>,
    outputs: Vec<BufferId>,
    steps: Vec<Step>,
    /// The first step that overwrites an input, and the bytes that the steps from there on need at once.
    overwriting: Option<(usize, usize)>,
}

/// A kernel made ready.
struct Step {
    work: Work,
    loads: Vec<BufferId>,
    output: BufferId,
    /// Buffers that no later kernel reads.
    freed: Vec<BufferId>,
}

enum Work {
    Elementwise(Program, Register),
    Reduce(Reduction, DType),
    Contract(Contraction),
    Scatter(Scatter),
}

/// What a buffer of the plan holds during a run.
enum Held {
    Nothing,
    Input(Buffer),
    Made(Array),
}

impl CpuExecutable {
    pub(crate) fn new(
        plan: Plan,
        memory: Arc<Memory>,
        threads: Option<Arc<rayon::ThreadPool>>,
    ) -> Result<CpuExecutable> {
        let mut steps = Vec::with_capacity(plan.kernels.len());
        let mut alive: Vec<bool> = vec![false; plan.buffers.len()];
        for &output in &plan.outputs {
            alive[output] = true;
        }
        for kernel in plan.kernels.iter().rev() {
            let [store] = &kernel.outputs[..] else {
                return Err(Error::Backend("a kernel with several outputs".into()));
            };
            let work = match &kernel.family {
                Family::Elementwise => Work::Elementwise(Program::new(kernel), store.register),
                Family::Reduce { op, axes } => {
                    let input = kernel.expression.instructions.last().map_or(DType::F32, |(_, dtype)| *dtype);
                    Work::Reduce(Reduction::new(kernel, *op, *axes), input)
                }
                Family::Contract { batch, contracted } => {
                    Work::Contract(Contraction::new(kernel, *batch, *contracted)?)
                }
                Family::Scatter { mode, axis } => Work::Scatter(Scatter::new(kernel, *mode, *axis)?),
            };
            let loads: Vec<BufferId> = match &work {
                Work::Elementwise(program, _) => program.buffers().collect(),
                Work::Reduce(reduction, _) => reduction.program().buffers().collect(),
                _ => kernel.loads.iter().map(|l| l.buffer).collect(),
            };
            let mut freed = Vec::new();
            for &buffer in loads.iter().chain([&store.buffer]) {
                if !alive[buffer] {
                    alive[buffer] = true;
                    freed.push(buffer);
                }
            }
            // Walking backwards: before its first writer a buffer holds nothing (but an input is there from the start).
            if !loads.contains(&store.buffer) && plan.buffers[store.buffer].input.is_none() {
                alive[store.buffer] = false;
            }
            steps.push(Step { work, loads, output: store.buffer, freed });
        }
        steps.reverse();
        let overwriting = overwriting(&steps, &plan.buffers);
        // Handing a small plan over to other threads would take longer than running it.
        let threads = threads.filter(|_| plan.kernels.iter().any(is_parallel));
        Ok(CpuExecutable { memory, threads, buffers: plan.buffers, outputs: plan.outputs, steps, overwriting })
    }

    fn run_here(&self, inputs: &mut [Option<Buffer>], scalars: &[Number]) -> Result<Vec<Buffer>> {
        let mut held: Vec<Held> = (0..self.buffers.len()).map(|_| Held::Nothing).collect();
        for (held, info) in held.iter_mut().zip(&self.buffers) {
            if let Some(slot) = info.input {
                let buffer = inputs[slot].clone().ok_or_else(|| Error::Backend(format!("input {slot} is missing")))?;
                *held = Held::Input(buffer);
            }
        }
        for (i, step) in self.steps.iter().enumerate() {
            if let Some((first, bytes)) = self.overwriting
                && i == first
            {
                self.memory.ensure(bytes)?;
            }
            let mut out = if step.is_in_place() {
                self.take(&mut held, step.output, inputs)?
            } else {
                let info = &self.buffers[step.output];
                self.memory.allocate(info.dtype, info.len)?
            };
            let loads = step
                .loads
                .iter()
                .map(|&b| if b == step.output { Ok(None) } else { slice(&held[b]).map(Some) })
                .collect::<Result<Vec<_>>>()?;
            if let Err(error) = step.work.run(Operands { loads, scalars }, &mut out.data) {
                // Nothing has been written: indices are checked first.
                if let Some(slot) = self.buffers[step.output].input {
                    inputs[slot] = Some(Buffer::new(out));
                }
                return Err(error);
            }
            held[step.output] = Held::Made(out);
            for &buffer in &step.freed {
                held[buffer] = Held::Nothing;
            }
        }
        let mut outputs: Vec<Buffer> = Vec::with_capacity(self.outputs.len());
        for (i, &id) in self.outputs.iter().enumerate() {
            let buffer = match std::mem::replace(&mut held[id], Held::Nothing) {
                Held::Input(buffer) => buffer,
                Held::Made(array) => Buffer::new(array),
                // An output that was asked for twice.
                Held::Nothing => {
                    let earlier = self.outputs[..i].iter().position(|&o| o == id);
                    earlier.map(|at| outputs[at].clone()).ok_or_else(|| Error::Backend("an output was freed".into()))?
                }
            };
            outputs.push(buffer);
        }
        Ok(outputs)
    }

    /// The array of a buffer that is about to be overwritten. A donated input that something else still owns is
    /// copied.
    fn take(&self, held: &mut [Held], id: BufferId, inputs: &mut [Option<Buffer>]) -> Result<Array> {
        match std::mem::replace(&mut held[id], Held::Nothing) {
            Held::Made(array) => Ok(array),
            Held::Input(buffer) => {
                if let Some(slot) = self.buffers[id].input {
                    inputs[slot] = None;
                }
                match buffer.into_unique::<Array>() {
                    Ok(array) => Ok(array),
                    Err(shared) => {
                        let mut copy = self.memory.allocate(self.buffers[id].dtype, self.buffers[id].len)?;
                        copy.data = array(&shared)?.data.clone();
                        Ok(copy)
                    }
                }
            }
            Held::Nothing => Err(Error::Backend(format!("buffer {id} is read before it is written"))),
        }
    }
}

/// Whether a kernel is large enough for the kernels' own thresholds to use several threads.
fn is_parallel(kernel: &Kernel) -> bool {
    let elements = kernel.space.numel();
    match kernel.family {
        Family::Elementwise | Family::Reduce { .. } => elements > parallel::ELEMENTS,
        Family::Contract { contracted, .. } => {
            let axes = &kernel.loads[0].view.axes;
            let summed: usize = axes[axes.len() - contracted..].iter().map(|a| a.extent).product();
            let copied = kernel.loads.iter().map(|l| l.view.shape().numel()).max().unwrap_or(0);
            elements * summed > parallel::PRODUCTS || copied > parallel::ELEMENTS
        }
        Family::Scatter { .. } => false,
    }
}

impl Step {
    fn is_in_place(&self) -> bool {
        self.loads.contains(&self.output)
    }
}

/// The first step that overwrites an input, and the most bytes that the steps from there on hold beyond those before.
fn overwriting(steps: &[Step], buffers: &[gradus_ir::plan::Buffer]) -> Option<(usize, usize)> {
    let first = steps.iter().position(|s| s.is_in_place() && buffers[s.output].input.is_some())?;
    let bytes = |b: BufferId| (buffers[b].len * buffers[b].dtype.size()) as isize;
    let (mut held, mut most) = (0, 0);
    for step in &steps[first..] {
        if !step.is_in_place() {
            held += bytes(step.output);
        }
        most = most.max(held);
        held -= step.freed.iter().filter(|&&b| buffers[b].input.is_none()).map(|&b| bytes(b)).sum::<isize>();
    }
    Some((first, most as usize))
}

impl Executable for CpuExecutable {
    fn run(&self, inputs: &mut [Option<Buffer>], scalars: &[Number]) -> Result<Vec<Buffer>> {
        match &self.threads {
            Some(pool) => pool.install(|| self.run_here(inputs, scalars)),
            None => self.run_here(inputs, scalars),
        }
    }
}

impl Work {
    fn run(&self, operands: Operands, out: &mut Data) -> Result<()> {
        match self {
            Work::Elementwise(program, register) => elementwise(program, *register, &operands, out),
            Work::Reduce(reduction, dtype) => reduction.run(*dtype, &operands, out),
            Work::Contract(contraction) => {
                let [Some(left), Some(right)] = operands.loads[..] else {
                    return Err(Error::Backend("a matrix product in place".into()));
                };
                contraction.run(left, right, out)
            }
            Work::Scatter(scatter) => {
                let [base, Some(index), Some(updates)] = operands.loads[..] else {
                    return Err(Error::Backend("a scatter over its own updates".into()));
                };
                scatter.run(base, index, updates, out)
            }
        }
    }
}

fn elementwise(program: &Program, register: Register, operands: &Operands, out: &mut Data) -> Result<()> {
    let task = |(task, mut out): (usize, SliceMut<'_>)| {
        let mut scratch = program.scratch(operands, out.len(), Some(register));
        for start in (0..out.len()).step_by(BLOCK) {
            let len = BLOCK.min(out.len() - start);
            program.evaluate(
                operands,
                &mut scratch,
                task * TASK + start,
                len,
                Some((register, out.range(start, len))),
            )?;
        }
        Ok(())
    };
    let elements = out.len();
    parallel::map(SliceMut::of(out).chunks(TASK).into_iter().enumerate().collect(), elements, task).map(|_| ())
}

fn array(buffer: &Buffer) -> Result<&Array> {
    buffer.get().ok_or_else(|| Error::Backend("a buffer of another backend".into()))
}

fn slice(held: &Held) -> Result<Slice<'_>> {
    match held {
        Held::Input(buffer) => Ok(Slice::of(&array(buffer)?.data)),
        Held::Made(array) => Ok(Slice::of(&array.data)),
        Held::Nothing => Err(Error::Backend("a buffer is read before it is written".into())),
    }
}
