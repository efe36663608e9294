//! Row programs: reductions along the trailing axes, with maps before, between and after them.

mod program;

use crate::affine::{Affine, Space};
use crate::compiler::Compiler;
use crate::expression::{self, loads_at_once, loads_vectors};
use crate::module::Width;
use crate::tuning::{TEAM, Tuning};
use gradus_ir::op::ReduceOp;
use gradus_ir::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Register, Store};
use gradus_ir::{DType, Error, Result, Shape, View, ViewAxis};

/// Elements of a row that are folded before the partial result joins the others.
const BLOCK: usize = 128;
/// Elements that one invocation folds at most: software adapters end loops after 65,535 steps.
const LONGEST: usize = 32768;

/// How many times as long a row must be to be worth a team if it is walked along once.
const WALKED_ONCE: usize = 8;

/// What an invocation computes at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lanes {
    /// One element.
    One,
    /// Four neighbours along the row.
    Along,
    /// An element of each of four rows.
    Across,
}

impl Lanes {
    /// How many neighbours of a row.
    fn step(self) -> usize {
        if self == Lanes::Along { 4 } else { 1 }
    }

    fn width(self) -> Width {
        if self == Lanes::One { Width::Scalar } else { Width::Vector }
    }

    /// How many rows an invocation walks along.
    fn rows(self) -> usize {
        if self == Lanes::Across { 4 } else { 1 }
    }

    /// Whether every access is a vector or stands still, and there is a vector.
    fn fit(self, kernel: &Kernel, split: usize) -> bool {
        let (space, maps) = self.space(kernel, split);
        let group = space.axes(1);
        !group.is_empty()
            && space.extents[group.end - 1].is_multiple_of(4)
            && maps.iter().all(loads_at_once)
            && maps.iter().any(loads_vectors)
            && (self == Lanes::Along || kernel.outputs.iter().all(|store| store.per_row))
    }

    /// A kernel's space and its maps, the neighbours last: rows and then the elements of each, or the other way round.
    fn space(self, kernel: &Kernel, split: usize) -> (Space, Vec<Affine>) {
        let mut maps = expression::maps(kernel, &kernel.space);
        let (outer, inner) = kernel.space.split_at(split);
        if self == Lanes::Across {
            maps.iter_mut().for_each(|map| map.axes.rotate_left(split));
            return (Space::simplified(&[inner, outer], &mut maps), maps);
        }
        (Space::simplified(&[outer, inner], &mut maps), maps)
    }
}

/// Who walks along a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walkers {
    /// An invocation.
    One,
    /// A share of a workgroup, which has `across` rows. Where it is `down`, neighbouring invocations stand at neighbouring
    /// rows.
    Several { workgroup: usize, across: usize, down: bool },
}

impl Walkers {
    /// What suits a kernel with so many rows of this length.
    fn of(compiler: &Compiler<'_>, kernel: &Kernel, split: usize, [rows, row_len]: [usize; 2], most: usize) -> Walkers {
        let Tuning { cooperates, busy, row_workgroup, long_row, row_share, abreast, .. } = *compiler.tuning;
        if compiler.has_teams() {
            return Walkers::team(compiler, kernel, split, [rows, row_len]).unwrap_or(Walkers::One);
        }
        if !cooperates || row_len < long_row {
            return Walkers::One;
        }
        let workgroup = (row_workgroup as usize).min(most);
        if reads_rows(kernel, split) {
            let slices = row_len.div_ceil(row_share).next_power_of_two().min(workgroup);
            return Walkers::Several { workgroup, across: workgroup / slices, down: false };
        }
        // Many rows are enough to do anyway; and what is stored along columns would be scattered.
        let is_wide = rows >= busy;
        if is_wide || !kernel.outputs.iter().all(|store| store.per_row) {
            return Walkers::One;
        }
        Walkers::Several { workgroup, across: abreast.min(workgroup), down: true }
    }

    /// A subgroup for each row, where that pays. Invocations with a row each would read places far apart, and where rows are a
    /// power of two long, these drive each other out of a cache.
    fn team(compiler: &Compiler<'_>, kernel: &Kernel, split: usize, [rows, row_len]: [usize; 2]) -> Option<Walkers> {
        let Tuning { workgroup, long_row, busy, .. } = *compiler.tuning;
        let shortest = if is_walked_once(kernel) { WALKED_ONCE * long_row } else { long_row };
        // As few as keep all busy have a workgroup each.
        let across = (rows * TEAM).div_ceil(busy).next_power_of_two().min(workgroup as usize / TEAM);
        let team = Walkers::Several { workgroup: TEAM * across, across, down: false };
        let needs_no_barrier = team.subgroup(compiler, kernel, &reductions(kernel)).is_some();
        (row_len >= shortest && needs_no_barrier && reads_rows(kernel, split)).then_some(team)
    }

    /// The size of subgroups, where each of them has neighbours along rows, and shaders can exchange what these have.
    fn subgroup(self, compiler: &Compiler<'_>, kernel: &Kernel, reductions: &[Register]) -> Option<usize> {
        let (Walkers::Several { workgroup, down: false, .. }, Some((least, most))) =
            (self, compiler.limits().subgroup_size)
        else {
            return None;
        };
        let size = most as usize;
        let is_bool = |&register: &Register| kernel.expression.dtype(register) == DType::Bool;
        let fits = least == most && size.is_power_of_two() && workgroup.is_multiple_of(size);
        (fits && !reductions.iter().any(is_bool)).then_some(size)
    }
}

/// A row program, or one of the two that a long one is made of.
#[derive(Clone, Copy)]
struct RowProgram<'k> {
    kernel: &'k Kernel,
    axes: usize,
    /// Each row in so many parts, parts first.
    parts: usize,
    /// How many elements a part has.
    segment: usize,
    walkers: Walkers,
    /// How many invocations of a row exchange what they have folded without meeting at a barrier, where they can.
    subgroup: Option<usize>,
    lanes: Lanes,
    /// Whether a partial result joins the others after a block, where several walk along a row.
    in_blocks: bool,
    /// How many numbers an invocation holds from walk to walk at most.
    most_held: usize,
    /// Where the parts of an argmax have left their indices, and how many there are.
    candidates: Option<(BufferId, usize)>,
}

pub(super) fn compile(compiler: &mut Compiler<'_>, kernel: &Kernel, axes: usize) -> Result<()> {
    let split = kernel.space.len() - axes;
    let rows: usize = kernel.space[..split].iter().product();
    let row_len = kernel.row_len();
    // Indices and the ends of segments are words.
    if row_len > 1 << 31 {
        return Err(Error::TooLarge { shape: kernel.space.clone() });
    }
    let reductions = reductions(kernel);
    let lanes = lanes(kernel, split, &reductions);
    let most = largest_workgroup(compiler, kernel, &reductions);
    let walkers = Walkers::of(compiler, kernel, split, [rows, row_len], most);
    let lanes = match (walkers, lanes) {
        (Walkers::One, lanes) if !compiler.tuning.cooperates => lanes,
        (Walkers::Several { down: false, .. }, Lanes::Along) => Lanes::Along,
        // The invocations of a GPU that stand at neighbouring rows read neighbours anyway.
        _ => Lanes::One,
    };
    let (parts, segment) = match walkers {
        _ if !may_be_cut(kernel, &reductions) => (1, row_len.max(1)),
        Walkers::Several { .. } if compiler.has_teams() => {
            parts(compiler.tuning.busy / TEAM, rows, row_len, compiler.tuning.row_segment)
        }
        Walkers::Several { workgroup, across, .. } => {
            // Twice as many as keep the adapter busy: they do little but wait for what they load.
            let workgroups = 2 * compiler.tuning.busy / workgroup;
            parts(workgroups, rows.div_ceil(across), row_len, compiler.tuning.row_segment)
        }
        Walkers::One => parts(compiler.tuning.busy, rows / lanes.rows(), row_len, compiler.tuning.segment),
    };
    let most_held = compiler.tuning.held;
    let subgroup = walkers.subgroup(compiler, kernel, &reductions);
    // Of a GPU, which has more invocations, none has as much to fold.
    let in_blocks = compiler.has_teams() && segment > BLOCK * TEAM * lanes.step();
    let whole =
        RowProgram { kernel, axes, parts, segment, walkers, subgroup, lanes, in_blocks, most_held, candidates: None };
    if parts == 1 {
        return whole.compile(compiler);
    }
    let mut partials = Vec::with_capacity(reductions.len());
    for &register in &reductions {
        partials.push(compiler.add_buffer(kernel.expression.dtype(register), parts * rows));
    }
    let mut first = kernel.clone();
    first.outputs = (reductions.iter().zip(&partials))
        .map(|(&register, &buffer)| Store { buffer, register, per_row: true })
        .collect();
    RowProgram { kernel: &first, ..whole }.compile(compiler)?;
    if let (Instruction::Reduce(op, _), [partial]) = (&kernel.expression.instructions[reductions[0]].0, &partials[..])
        && op.gives_index()
    {
        let candidates = Some((*partial, parts));
        let (walkers, subgroup, lanes) = (Walkers::One, None, Lanes::One);
        let last = RowProgram { parts: 1, segment: parts, walkers, subgroup, lanes, candidates, ..whole };
        return last.compile(compiler);
    }
    compile(compiler, &combining(kernel, split, &reductions, &partials, parts), 1)
}

/// The reductions of a kernel.
fn reductions(kernel: &Kernel) -> Vec<Register> {
    let instructions = kernel.expression.instructions.iter().enumerate();
    instructions.filter(|(_, (i, _))| matches!(i, Instruction::Reduce(..))).map(|(register, _)| register).collect()
}

/// The most invocations, a power of two, whose partial results fit into a workgroup's memory.
fn largest_workgroup(compiler: &Compiler<'_>, kernel: &Kernel, reductions: &[Register]) -> usize {
    let bytes = |&register: &Register| match kernel.expression.instructions[register].0 {
        Instruction::Reduce(op, _) if op.gives_index() => 8,
        _ => 4,
    };
    let most = compiler.limits().workgroup_bytes as usize / reductions.iter().map(bytes).sum::<usize>().max(1);
    if most == 0 { 1 } else { 1 << most.ilog2() }
}

/// What suits an adapter whose invocations are dear. What is best is found one by one, and so is what is gathered.
fn lanes(kernel: &Kernel, split: usize, reductions: &[Register]) -> Lanes {
    let instruction = |&register: &Register| &kernel.expression.instructions[register];
    let gives_index = |register| matches!(instruction(register).0, Instruction::Reduce(op, _) if op.gives_index());
    let gathers = kernel.expression.instructions.iter().any(|(i, _)| matches!(i, Instruction::Gather { .. }));
    let is_bool = |register| instruction(register).1 == DType::Bool;
    if gathers || reductions.iter().any(|r| gives_index(r) || is_bool(r)) {
        return Lanes::One;
    }
    let fitting = [Lanes::Along, Lanes::Across].into_iter().find(|lanes| lanes.fit(kernel, split));
    fitting.unwrap_or(Lanes::One)
}

/// Whether everything is known after one walk along a row, and nothing is stored on it.
fn is_walked_once(kernel: &Kernel) -> bool {
    kernel.expression.passes().into_iter().max() == Some(1) && kernel.outputs.iter().all(|store| store.per_row)
}

/// Whether the parts of a row can be reduced by different invocations. (What is best is found again among the parts' best.)
fn may_be_cut(kernel: &Kernel, reductions: &[Register]) -> bool {
    let gives_index = |&register: &Register| match kernel.expression.instructions[register].0 {
        Instruction::Reduce(op, _) => op.gives_index(),
        _ => false,
    };
    is_walked_once(kernel) && (!reductions.iter().any(gives_index) || reductions.len() == 1)
}

/// The kernel that combines the parts of each row and does what there is to do after it.
fn combining(kernel: &Kernel, split: usize, reductions: &[Register], partials: &[BufferId], parts: usize) -> Kernel {
    let rows = Shape::new(&kernel.space[..split]);
    let count = rows.numel();
    let mut loads: Vec<Load> = Vec::new();
    for load in &kernel.loads {
        let mut view = View { axes: load.view.axes[..split].into(), offset: load.view.offset };
        view.axes.push(ViewAxis::still(parts));
        loads.push(Load { view, ..*load });
    }
    let mut expression = Expression::default();
    let per_row = kernel.expression.per_row(|load| &kernel.loads[load].view, split);
    let mut places = vec![Register::MAX; per_row.len()];
    for (register, (instruction, dtype)) in kernel.expression.instructions.iter().enumerate() {
        if !per_row[register] {
            continue;
        }
        let instruction = match *instruction {
            Instruction::Reduce(op, _) => {
                let at = reductions.iter().position(|&r| r == register).unwrap_or_default();
                let mut view = View::contiguous(&rows);
                view.axes.push(ViewAxis { extent: parts, stride: count as isize, guard: None });
                loads.push(Load { buffer: partials[at], view });
                Instruction::Reduce(op, expression.push(Instruction::Load(loads.len() - 1), *dtype))
            }
            _ => instruction.renumbered(|load| load, |r| places[r]),
        };
        places[register] = expression.push(instruction, *dtype);
    }
    let outputs = kernel.outputs.iter().map(|store| Store { register: places[store.register], ..store.clone() });
    Kernel {
        family: Family::Reduce { axes: 1 },
        space: rows.iter().copied().chain([parts]).collect(),
        loads,
        expression,
        outputs: outputs.collect(),
        nodes: Vec::new(),
    }
}

/// The kernel that adds up the parts `[parts, results]` of a buffer.
pub(super) fn sum_of_parts(partial: BufferId, parts: usize, results: usize, dtype: DType, output: BufferId) -> Kernel {
    let axis = |extent: usize, stride: usize| ViewAxis { extent, stride: stride as isize, guard: None };
    let view = View { axes: [axis(results, 1), axis(parts, results)].as_slice().into(), offset: 0 };
    let mut expression = Expression::of_load(0, dtype);
    let register = expression.push(Instruction::Reduce(ReduceOp::Sum, 0), dtype);
    Kernel {
        family: Family::Reduce { axes: 1 },
        space: Shape::new(&[results, parts]),
        loads: vec![Load { buffer: partial, view }],
        expression,
        outputs: vec![Store { buffer: output, register, per_row: true }],
        nodes: Vec::new(),
    }
}

/// Into how many parts to cut each result, and their length.
pub(super) fn parts(busy: usize, results: usize, inner: usize, shortest: usize) -> (usize, usize) {
    let wanted = busy.div_ceil(results.max(1));
    let segment = inner.div_ceil(wanted.max(1)).clamp(shortest, LONGEST).next_multiple_of(BLOCK);
    (inner.div_ceil(segment).max(1), segment)
}

/// Whether neighbours along the axes from `split` on, which are reduced, are neighbours in memory.
fn reads_rows(kernel: &Kernel, split: usize) -> bool {
    let (outer_axes, inner_axes) = kernel.space.split_at(split);
    let mut maps = expression::maps(kernel, &kernel.space);
    let space = Space::simplified(&[outer_axes, inner_axes], &mut maps);
    let (outer, inner) = (space.axes(0).last(), space.axes(1).last());
    let stride = |map: &Affine, axis: Option<usize>| axis.map_or(0, |axis| map.axes[axis].stride.unsigned_abs());
    let across = maps.iter().filter(|map| stride(map, outer) == 1 && stride(map, inner) != 1).count();
    let along = maps.iter().filter(|map| stride(map, inner) == 1).count();
    along >= across
}
