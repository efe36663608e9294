//! Running a plan: kernels in order, each into its buffer, and every buffer freed after its last reader.

use crate::attention::Attention;
use crate::block::Program;
use crate::block::{Operands, Source};
use crate::contract::Contraction;
use crate::custom::CustomStep;
use crate::memory::{Array, Memory};
use crate::parallel;
use crate::rows::RowProgram;
use crate::scan::Scan;
use crate::scatter::Scatter;
use crate::slice::Slice;
use crate::sort::Sort;
use crate::team::Team;
use gradus_ir::plan::{BufferId, Family, Kernel};
use gradus_ir::{Buffer, Data, Error, Executable, Number, Plan, Result};
use smallvec::SmallVec;
use std::sync::Arc;

/// A plan made ready for the CPU.
pub(crate) struct CpuExecutable {
    memory: Arc<Memory>,
    /// Who shares the work, if there is enough of it for several.
    team: Option<Arc<Team>>,
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
    outputs: SmallVec<[BufferId; 2]>,
    /// Buffers that no later kernel reads.
    freed: Vec<BufferId>,
}

enum Work {
    Elementwise(Box<Program>),
    Rows(Box<RowProgram>),
    Contract(Box<Contraction>),
    Scatter(Box<Scatter>),
    Scan(Box<Scan>),
    Sort(Box<Sort>),
    Attention(Box<Attention>),
    Custom(Box<CustomStep>),
}

/// What a buffer of the plan holds during a run.
enum Held {
    Nothing,
    Input(Buffer),
    Made(Array),
}

impl CpuExecutable {
    pub(crate) fn new(plan: Plan, memory: Arc<Memory>, team: Option<Arc<Team>>) -> Result<CpuExecutable> {
        let mut steps = Vec::with_capacity(plan.kernels.len());
        let mut alive: Vec<bool> = vec![false; plan.buffers.len()];
        for &output in &plan.outputs {
            alive[output] = true;
        }
        for kernel in plan.kernels.iter().rev() {
            let work = Work::new(kernel)?;
            let loads: Vec<BufferId> = kernel.loads.iter().map(|load| load.buffer).collect();
            let outputs: SmallVec<[BufferId; 2]> = kernel.outputs.iter().map(|store| store.buffer).collect();
            let mut freed = Vec::new();
            for &buffer in loads.iter().chain(&outputs) {
                if !alive[buffer] {
                    alive[buffer] = true;
                    freed.push(buffer);
                }
            }
            // Walking backwards: before its first writer a buffer holds nothing (but an input is there from the start).
            for &output in &outputs {
                if !loads.contains(&output) && plan.buffers[output].input.is_none() {
                    alive[output] = false;
                }
            }
            steps.push(Step { work, loads, outputs, freed });
        }
        steps.reverse();
        let overwriting = overwriting(&steps, &plan.buffers);
        // For small plans no thread is started.
        let team = match plan.kernels.iter().any(is_parallel) {
            true => Some(team.map_or_else(Team::global, Ok)?),
            false => None,
        };
        Ok(CpuExecutable { memory, team, buffers: plan.buffers, outputs: plan.outputs, steps, overwriting })
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
            let mut outs: SmallVec<[Array; 2]> = SmallVec::with_capacity(step.outputs.len());
            for &output in &step.outputs {
                let info = &self.buffers[output];
                outs.push(match step.loads.contains(&output) {
                    true => self.take(&mut held, output, inputs)?,
                    false => self.memory.allocate(info.dtype, info.len)?,
                });
            }
            let loads = step
                .loads
                .iter()
                .map(|b| if step.outputs.contains(b) { Ok(None) } else { data(&held[*b]).map(Some) })
                .collect::<Result<SmallVec<[_; 8]>>>()?;
            let mut written: SmallVec<[Data; 2]> = outs.iter_mut().map(Array::take).collect();
            let result = step.work.run(&loads, scalars, &mut written);
            drop(loads);
            outs.iter_mut().zip(written).for_each(|(out, data)| out.data = data);
            if let Err(error) = result {
                // No input has been written: indices are checked first, and a user's op writes over none.
                for (out, &output) in outs.into_iter().zip(&step.outputs) {
                    if let Some(slot) = self.buffers[output].input {
                        inputs[slot] = Some(Buffer::new(out));
                    }
                }
                return Err(error);
            }
            for (out, &output) in outs.into_iter().zip(&step.outputs) {
                held[output] = Held::Made(out);
            }
            for &buffer in &step.freed {
                held[buffer] = Held::Nothing;
            }
        }
        self.memory.note_launches(self.steps.len());
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
        Family::Scan { .. } | Family::Sort { .. } | Family::Custom(_) => elements > parallel::ELEMENTS,
        Family::Contract { contracted, .. } => {
            let axes = &kernel.loads[0].view.axes;
            let summed: usize = axes[axes.len() - contracted..].iter().map(|a| a.extent).product();
            let copied = kernel.loads.iter().map(|l| l.view.shape().numel()).max().unwrap_or(0);
            elements * summed > parallel::PRODUCTS || copied > parallel::ELEMENTS
        }
        Family::Attention { .. } => {
            let keys = kernel.loads[1].view.axes.iter().rev().nth(1).map_or(0, |axis| axis.extent);
            let queries = kernel.loads[0].view.axes.iter().rev().skip(1).map(|axis| axis.extent).product::<usize>();
            queries * keys > parallel::ELEMENTS
        }
        Family::Scatter { .. } => false,
    }
}

impl Step {
    /// The buffers that it writes over.
    fn in_place(&self) -> impl Iterator<Item = BufferId> + '_ {
        self.outputs.iter().copied().filter(|output| self.loads.contains(output))
    }

    fn made(&self) -> impl Iterator<Item = BufferId> + '_ {
        self.outputs.iter().copied().filter(|output| !self.loads.contains(output))
    }
}

/// The first step that overwrites an input, and the most bytes that the steps from there on hold beyond those before.
fn overwriting(steps: &[Step], buffers: &[gradus_ir::plan::Buffer]) -> Option<(usize, usize)> {
    let first = steps.iter().position(|step| step.in_place().any(|output| buffers[output].input.is_some()))?;
    Some((first, peak(&steps[first..], buffers)))
}

/// The most bytes that some steps hold beyond those before.
fn peak(steps: &[Step], buffers: &[gradus_ir::plan::Buffer]) -> usize {
    let bytes = |b: BufferId| (buffers[b].len * buffers[b].dtype.size()) as isize;
    let (mut held, mut most) = (0, 0);
    for step in steps {
        held += step.made().map(bytes).sum::<isize>();
        most = most.max(held + step.work.scratch() as isize);
        held -= step.freed.iter().filter(|&&b| buffers[b].input.is_none()).map(|&b| bytes(b)).sum::<isize>();
    }
    most as usize
}

impl Executable for CpuExecutable {
    fn run(&self, inputs: &mut [Option<Buffer>], scalars: &[Number]) -> Result<Vec<Buffer>> {
        match &self.team {
            None => self.run_here(inputs, scalars),
            Some(team) => team.enter(|| self.run_here(inputs, scalars)),
        }
    }

    fn peak(&self) -> usize {
        peak(&self.steps, &self.buffers)
    }
}

impl Work {
    fn new(kernel: &Kernel) -> Result<Work> {
        let output_of = |buffer: BufferId| kernel.outputs.iter().position(|store| store.buffer == buffer);
        let source = |load: &gradus_ir::plan::Load| Source {
            view: load.view.clone(),
            local: false,
            output: output_of(load.buffer),
        };
        let sources: Vec<Source> = kernel.loads.iter().map(source).collect();
        let registers: Vec<usize> = kernel.outputs.iter().map(|store| store.register).collect();
        Ok(match &kernel.family {
            Family::Elementwise => Work::Elementwise(Box::new(Program::new(
                &kernel.space,
                sources,
                &kernel.expression,
                &registers,
                &[],
                &[],
            ))),
            Family::Reduce { axes } => Work::Rows(Box::new(RowProgram::new(kernel, *axes))),
            Family::Contract { batch, contracted, operands } => {
                Work::Contract(Box::new(Contraction::new(kernel, *batch, *contracted, operands, &sources)))
            }
            Family::Scatter { mode, axis } => Work::Scatter(Box::new(Scatter::new(kernel, *mode, *axis)?)),
            Family::Scan { op, axis } => Work::Scan(Box::new(Scan::new(kernel, *op, *axis))),
            Family::Sort { descending, kept } => Work::Sort(Box::new(Sort::new(kernel, *descending, *kept))),
            Family::Attention { parts, causal } => Work::Attention(Box::new(Attention::new(kernel, parts, *causal)?)),
            Family::Custom(op) => Work::Custom(Box::new(CustomStep::new(kernel, op))),
        })
    }

    /// Runs it on the buffers that it loads; `None` stands for one that it writes over.
    fn run(&self, loads: &[Option<&Data>], scalars: &[Number], outs: &mut [Data]) -> Result<()> {
        let slices: SmallVec<[Option<Slice<'_>>; 8]> = loads.iter().map(|load| load.map(Slice::of)).collect();
        let operands = Operands { loads: &slices, computed: &[], scalars };
        match self {
            Work::Elementwise(program) => program.run(&operands, outs),
            Work::Rows(program) => {
                // What is updated in place has one element for each row: few, so they are copied.
                let kept: Vec<(usize, Data)> =
                    program.in_place().iter().map(|&(load, output)| (load, outs[output].clone())).collect();
                let mut slices: SmallVec<[Option<Slice<'_>>; 8]> = slices.iter().copied().collect();
                kept.iter().for_each(|(load, data)| slices[*load] = Some(Slice::of(data)));
                program.run(&Operands { loads: &slices, ..operands }, outs)
            }
            Work::Contract(contraction) => contraction.run(&operands, outs),
            Work::Scatter(scatter) => {
                let [base, Some(index), Some(updates)] = operands.loads[..] else {
                    return Err(Error::Backend("a scatter over its own updates".into()));
                };
                scatter.run(base, index, updates, &mut outs[0])
            }
            Work::Scan(scan) => scan.run(&slices, &mut outs[0]),
            Work::Attention(attention) => attention.run(&slices, outs),
            Work::Sort(sort) => {
                let [Some(load)] = operands.loads[..] else {
                    return Err(Error::Backend("a sort over its own operand".into()));
                };
                sort.run(load, &mut outs[0])
            }
            Work::Custom(custom) => {
                let loads: Vec<&Data> = loads.iter().flatten().copied().collect();
                custom.run(&loads, &mut outs[0])
            }
        }
    }

    /// The bytes that it takes for itself while it runs.
    fn scratch(&self) -> usize {
        match self {
            Work::Contract(contraction) => contraction.scratch(),
            Work::Attention(attention) => attention.scratch(),
            Work::Elementwise(_) | Work::Rows(_) | Work::Scatter(_) => 0,
            Work::Scan(_) | Work::Sort(_) | Work::Custom(_) => 0,
        }
    }
}

fn array(buffer: &Buffer) -> Result<&Array> {
    buffer.get().ok_or_else(|| Error::Backend("a buffer of another backend".into()))
}

fn data(held: &Held) -> Result<&Data> {
    match held {
        Held::Input(buffer) => Ok(&array(buffer)?.data),
        Held::Made(array) => Ok(&array.data),
        Held::Nothing => Err(Error::Backend("a buffer is read before it is written".into())),
    }
}
