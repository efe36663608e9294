//! A plan made ready for the GPU, and its run: buffers first, then launches, in order.

use crate::array::Array;
use crate::compiler::{Compiler, Launch};
use crate::error::of_device;
use crate::module::{Parameter, Slot};
use crate::ranges::{self, Range};
use crate::slots::{Place, Slots};
use crate::{Gpu, kernels};
use gradus_device::{self as device, Device};
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Register};
use gradus_ir::{Buffer, DType, Element, Error, Executable, Number, Plan, Result, f16};
use smallvec::SmallVec;
use std::ops::Range as Span;

/// A plan made ready.
pub(crate) struct GpuExecutable {
    device: Device,
    plan: Plan,
    launches: Vec<Launch>,
    steps: Vec<Step>,
    slots: Slots,
    /// How many indices are checked, each with a word of the status.
    checks: usize,
    /// Whether bounds of integers are of use: for checks, or for who reads an output.
    needs_ranges: bool,
}

/// A kernel of the plan, or some that are launched together.
struct Step {
    kernels: Span<usize>,
    checks: Vec<Check>,
    launches: Span<usize>,
    /// The inputs that it overwrites.
    overwrites: SmallVec<[BufferId; 1]>,
}

/// An index that must lie within an axis.
struct Check {
    /// The kernel whose expression gives the index.
    kernel: Kernel,
    register: Register,
    axis: usize,
    extent: usize,
    launch: usize,
    word: usize,
}

impl GpuExecutable {
    pub(crate) fn new(gpu: &Gpu, plan: Plan) -> Result<GpuExecutable> {
        let mut compiler = Compiler::new(gpu, plan.buffers.clone());
        let mut steps = Vec::with_capacity(plan.kernels.len());
        let mut checks = 0;
        let mut next = 0;
        while next < plan.kernels.len() {
            let kernels = next..next + kernels::together(&compiler, &plan.kernels[next..]);
            let mut found = Vec::new();
            for (kernel, register, axis, extent) in plan.kernels[kernels.clone()].iter().flat_map(indices) {
                let launch = compiler.launches.len();
                kernels::check(&mut compiler, &kernel, register, extent, checks)?;
                found.push(Check { kernel, register, axis, extent, launch, word: checks });
                checks += 1;
            }
            let first = compiler.launches.len();
            match &plan.kernels[kernels.clone()] {
                [kernel] => kernels::compile(&mut compiler, kernel)?,
                several => kernels::compile_together(&mut compiler, several)?,
            }
            let written =
                plan.kernels[kernels.clone()].iter().flat_map(|kernel| &kernel.outputs).map(|store| store.buffer);
            let overwrites = written.filter(|&id| plan.buffers[id].input.is_some()).collect();
            next = kernels.end;
            steps.push(Step { kernels, checks: found, launches: first..compiler.launches.len(), overwrites });
        }
        let Compiler { buffers, launches, .. } = compiler;
        let slots = Slots::new(&buffers, &launches, &plan.outputs);
        let is_int = |id: &BufferId| plan.buffers[*id].dtype.is_int();
        let needs_ranges = checks > 0 || plan.outputs.iter().any(is_int);
        Ok(GpuExecutable { device: gpu.device().clone(), plan, launches, steps, slots, checks, needs_ranges })
    }
}

/// The indices that a kernel uses: by which kernel and register to compute each, the axis and its extent.
fn indices(kernel: &Kernel) -> Vec<(Kernel, Register, usize, usize)> {
    if kernel.space.numel() == 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (instruction, _) in &kernel.expression.instructions {
        let (index, axis, extent) = match *instruction {
            Instruction::Gather { load, axis, index } => (index, axis, kernel.loads[load].view.axes[axis].extent),
            Instruction::Index { index, axis, extent } => (index, axis, extent),
            _ => continue,
        };
        found.push((Kernel { family: Family::Elementwise, ..kernel.clone() }, index, axis, extent));
    }
    if let Family::Scatter { axis, .. } = kernel.family {
        let extent = kernel.loads[0].view.axes[axis].extent;
        // Bounds do not depend on the dtype, nor does the comparison of bits with an extent.
        let expression = Expression::of_load(1, DType::U32);
        found.push((Kernel { family: Family::Elementwise, expression, ..kernel.clone() }, 0, axis, extent));
    }
    found
}

/// The buffers and numbers of one run.
struct Run<'r> {
    executable: &'r GpuExecutable,
    scalars: &'r [Number],
    /// The arrays of the input slots. An overwritten one is a copy, if something else owns the input.
    inputs: Vec<device::Buffer>,
    /// What the run makes, by buffer of the plan.
    made: Vec<Option<device::Buffer>>,
    status: Option<device::Buffer>,
}

impl Executable for GpuExecutable {
    fn run(&self, inputs: &mut [Option<Buffer>], scalars: &[Number]) -> Result<Vec<Buffer>> {
        let mut ranges: Vec<Range> = vec![None; self.plan.buffers.len()];
        let mut run = Run {
            executable: self,
            scalars,
            inputs: Vec::with_capacity(inputs.len()),
            made: vec![None; self.slots.places.len()],
            status: None,
        };
        for (slot, input) in inputs.iter().enumerate() {
            let input = input.as_ref().ok_or_else(|| Error::Backend(format!("input {slot} is missing")))?;
            run.inputs.push(array(input)?.buffer.clone());
        }
        for (id, slot) in self.input_ids() {
            if let Some(input) = &inputs[slot] {
                ranges[id] = array(input)?.range;
            }
        }
        // All memory comes first, so that nothing is half done when there is too little.
        let slots = self.slots.bytes.iter().map(|&bytes| self.device.allocate(bytes));
        let slots = slots.collect::<Result<SmallVec<[device::Buffer; 16]>, _>>().map_err(of_device)?;
        for (id, place) in self.slots.places.iter().enumerate() {
            if let Place::Slot(slot, offset) = *place {
                run.made[id] = Some(slots[slot].part(offset, self.slots.lengths[id]).map_err(of_device)?);
            }
        }
        let overwritten: Vec<usize> =
            self.steps.iter().flat_map(|s| &s.overwrites).filter_map(|&id| self.plan.buffers[id].input).collect();
        for &slot in &overwritten {
            if inputs[slot].as_ref().is_some_and(|input| !input.is_unique()) {
                let original = run.inputs[slot].clone();
                let copy = self.device.allocate(original.bytes()).map_err(of_device)?;
                self.device.copy(&original, &copy, original.bytes()).map_err(of_device)?;
                run.inputs[slot] = copy;
            }
        }
        let mut unchecked = false;
        for step in &self.steps {
            for check in &step.checks {
                unchecked |= run.check(check, &ranges)?;
            }
            if unchecked && !step.overwrites.is_empty() {
                run.verify()?;
                unchecked = false;
            }
            for &id in &step.overwrites {
                if let Some(slot) = self.plan.buffers[id].input {
                    inputs[slot] = None;
                }
            }
            for launch in &self.launches[step.launches.clone()] {
                run.launch(launch)?;
            }
            // Only now: the kernel may have written over an index that it, or one before it, has used.
            if self.needs_ranges {
                for kernel in &self.plan.kernels[step.kernels.clone()] {
                    ranges::propagate(&self.plan, kernel, scalars, &mut ranges);
                }
            }
        }
        if unchecked {
            run.verify()?;
        }
        Ok(self.outputs(&run, inputs, &ranges))
    }

    fn peak(&self) -> usize {
        self.slots.peak
    }
}

impl GpuExecutable {
    /// The plan's buffers that are inputs, with their slots.
    fn input_ids(&self) -> impl Iterator<Item = (BufferId, usize)> {
        self.plan.buffers.iter().enumerate().filter_map(|(id, buffer)| Some((id, buffer.input?)))
    }

    fn outputs(&self, run: &Run<'_>, inputs: &[Option<Buffer>], ranges: &[Range]) -> Vec<Buffer> {
        let mut outputs: Vec<Buffer> = Vec::with_capacity(self.plan.outputs.len());
        for (i, &id) in self.plan.outputs.iter().enumerate() {
            let info = &self.plan.buffers[id];
            let earlier = self.plan.outputs[..i].iter().position(|&other| other == id);
            let whole = info.input.and_then(|slot| inputs[slot].clone());
            let output = earlier.map(|at| outputs[at].clone()).or(whole).unwrap_or_else(|| {
                let buffer = run.buffer(Slot::Plan(id)).clone();
                Buffer::new(Array { buffer, dtype: info.dtype, len: info.len, range: ranges[id] })
            });
            outputs.push(output);
        }
        outputs
    }
}

impl Run<'_> {
    fn buffer(&self, slot: Slot) -> &device::Buffer {
        match slot {
            Slot::Plan(id) => match self.executable.slots.places[id] {
                Place::Input(slot) => &self.inputs[slot],
                Place::Slot(..) | Place::Nowhere => self.made[id].as_ref().expect("launches and outputs have places"),
            },
            Slot::Status => self.status.as_ref().expect("the status is made before the first check"),
        }
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let buffers: SmallVec<[&device::Buffer; 8]> =
            launch.bindings.iter().map(|(slot, _)| self.buffer(*slot)).collect();
        let parameters: SmallVec<[u32; 32]> = launch.parameters.iter().map(|p| self.word(*p)).collect();
        let (pipeline, workgroups) = (&launch.pipeline, launch.workgroups);
        let launch = device::Launch { pipeline, buffers: &buffers, parameters: &parameters, workgroups };
        self.executable.device.launch(&launch).map_err(of_device)
    }

    fn word(&self, parameter: Parameter) -> u32 {
        match parameter {
            Parameter::Word(word) => word,
            Parameter::Scalar(slot, dtype) => bits(self.scalars[slot], dtype),
            Parameter::KeyLow(slot) => self.scalars[slot].to_i64() as u32,
            Parameter::KeyHigh(slot) => (self.scalars[slot].to_i64() >> 32) as u32,
        }
    }

    /// Makes sure that an index is in range: from what is known of it, or by a launch, whose result is then to be read.
    fn check(&mut self, check: &Check, ranges: &[Range]) -> Result<bool> {
        if let Some((low, high)) = ranges::of_registers(&check.kernel, ranges, self.scalars)[check.register]
            && low >= 0
            && high < check.extent as i64
        {
            return Ok(false);
        }
        if check.extent == 0 {
            return Err(Error::Index { index: 0, axis: check.axis, extent: 0 });
        }
        if self.status.is_none() {
            let zeros = vec![0; 4 * self.executable.checks];
            self.status = Some(self.executable.device.upload(&zeros).map_err(of_device)?);
        }
        self.launch(&self.executable.launches[check.launch])?;
        Ok(true)
    }

    /// Waits for the checks and reads what they found.
    fn verify(&self) -> Result<()> {
        let Some(status) = &self.status else { return Ok(()) };
        let words: Vec<u32> = self.executable.device.read_as(status, self.executable.checks).map_err(of_device)?;
        let mut checks = self.executable.steps.iter().flat_map(|step| &step.checks);
        match checks.find(|check| words[check.word] != 0) {
            None => Ok(()),
            Some(check) => {
                let word = words[check.word];
                let is_signed = self.executable.is_signed(check);
                let index = if is_signed { word as i32 as i64 } else { word as i64 };
                Err(Error::Index { index, axis: check.axis, extent: check.extent })
            }
        }
    }
}

impl GpuExecutable {
    /// Whether an index is of a signed dtype.
    fn is_signed(&self, check: &Check) -> bool {
        match check.kernel.expression.instructions[check.register] {
            (Instruction::Load(load), _) => self.plan.buffers[check.kernel.loads[load].buffer].dtype == DType::I32,
            (_, dtype) => dtype == DType::I32,
        }
    }
}

/// The bits of a number in a dtype, as kernels hold it.
fn bits(number: Number, dtype: DType) -> u32 {
    match dtype {
        DType::Bool => bool::from_number(number) as u32,
        DType::I32 => i32::from_number(number) as u32,
        DType::U32 => u32::from_number(number),
        DType::F16 => f16::from_number(number).to_f32().to_bits(),
        DType::F32 | DType::F64 => f32::from_number(number).to_bits(),
    }
}

fn array(buffer: &Buffer) -> Result<&Array> {
    buffer.get().ok_or_else(|| Error::Backend("a buffer of another backend".into()))
}
