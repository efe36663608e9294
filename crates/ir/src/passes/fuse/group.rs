//! A kernel in the making: what several nodes share.

use super::builder::{Builder, append, axis_through, loops, position_or_push};
use crate::graph::NodeId;
use crate::op::{Op, ReduceOp};
use crate::plan::{BufferId, Expression, Family, Instruction, Load, Register, Store};
use crate::{DType, Shape, Target, View, ViewAxis};

/// The position of a group.
pub(super) type GroupId = usize;

/// Instructions of a kernel at most.
const MOST_INSTRUCTIONS: usize = 96;
/// How often a kernel walks along its rows at most.
const MOST_PASSES: usize = 5;

/// For what a value stands in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Each index of the space has a value.
    Element,
    /// Each row has.
    Row,
}

/// What happens around a group's expression.
#[derive(Clone)]
pub(super) enum Form {
    /// Maps, and reductions along rows.
    Map,
    /// A matrix product and maps of it.
    Product { batch: usize, contracted: usize, operands: [Expression; 2] },
    /// Nothing can be added.
    Closed(Family),
}

/// A node that is computed in a group.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) register: Register,
    pub(super) level: Level,
}

/// A kernel in the making.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) form: Form,
    pub(super) space: Shape,
    /// The number of trailing axes that are a row, once something is reduced.
    pub(super) axes: Option<usize>,
    pub(super) loads: Vec<Load>,
    pub(super) expression: Expression,
    pub(super) stores: Vec<Store>,
    pub(super) members: Vec<Member>,
    /// Groups that must run earlier, although nothing of theirs is read.
    pub(super) after: Vec<GroupId>,
    /// The group that has taken this one over, and where its registers are there.
    pub(super) moved: Option<(GroupId, Vec<Register>)>,
}

impl Group {
    pub(super) fn new(form: Form, space: Shape) -> Group {
        Group {
            form,
            space,
            axes: None,
            loads: Vec::new(),
            expression: Expression::default(),
            stores: Vec::new(),
            members: Vec::new(),
            after: Vec::new(),
            moved: None,
        }
    }

    /// Notes groups that must run earlier.
    pub(super) fn wait_for(&mut self, groups: impl IntoIterator<Item = GroupId>) {
        for group in groups {
            position_or_push(&mut self.after, group);
        }
    }

    /// Where rows begin: the number of axes before them.
    pub(super) fn split(&self) -> usize {
        self.space.len() - self.axes.unwrap_or(0)
    }

    /// The shape that has an element for each value of a level.
    pub(super) fn shape_of(&self, level: Level) -> Shape {
        match level {
            Level::Element => self.space.clone(),
            Level::Row => Shape::new(&self.space[..self.split()]),
        }
    }

    fn row_len(&self) -> usize {
        self.space[self.split()..].iter().product()
    }

    /// Whether the space cannot be seen as another shape.
    fn is_bound(&self) -> bool {
        self.expression.instructions.iter().any(|(i, _)| matches!(i, Instruction::Gather { .. }))
            || matches!(self.form, Form::Product { .. })
    }

    /// A view of a level's shape as one of the whole space.
    pub(super) fn fitted(&self, view: &View, level: Level) -> Option<View> {
        let mut view = match self.shape_of(level) {
            shape if view.shape() == shape => view.clone(),
            shape => view.through(&Op::Reshape, &shape)?,
        };
        if level == Level::Row {
            view.axes.extend(self.space[self.split()..].iter().map(|&extent| ViewAxis::still(extent)));
        }
        Some(view)
    }

    /// Adds a load that is seen by a level.
    pub(super) fn load(&mut self, load: &Load, level: Level) -> Option<usize> {
        let view = self.fitted(&load.view, level)?;
        Some(position_or_push(&mut self.loads, Load { view, ..*load }))
    }

    /// Adds a load that is gathered from: as it is, whatever the row.
    pub(super) fn load_whole(&mut self, load: &Load, level: Level) -> usize {
        let mut view = load.view.clone();
        if level == Level::Row {
            view.axes.extend(self.space[self.split()..].iter().map(|&extent| ViewAxis::still(extent)));
        }
        position_or_push(&mut self.loads, Load { view, ..*load })
    }

    /// Adds what a builder computes for a level; gives the register of its result.
    pub(super) fn add(&mut self, builder: &Builder, level: Level) -> Option<Register> {
        let places = self.add_all(&builder.space, &builder.loads, &builder.expression, level)?;
        places.last().copied()
    }

    fn add_all(
        &mut self,
        space: &Shape,
        loads: &[Load],
        expression: &Expression,
        level: Level,
    ) -> Option<Vec<Register>> {
        let shape = self.shape_of(level);
        let mut expression = expression.clone();
        for (instruction, _) in &mut expression.instructions {
            match instruction {
                Instruction::Gather { .. } if *space != shape => return None,
                Instruction::Random(_) if level == Level::Row && self.row_len() != 1 => return None,
                Instruction::Reduce(..) if level == Level::Row => return None,
                Instruction::Iota(axis) if *space != shape => {
                    *axis = axis_through(&Op::Reshape, *axis, space, &shape)?;
                }
                _ => {}
            }
        }
        let is_gathered = |at: usize| {
            expression.instructions.iter().any(|(i, _)| matches!(i, Instruction::Gather { load, .. } if *load == at))
        };
        let mut places = Vec::with_capacity(loads.len());
        for (at, load) in loads.iter().enumerate() {
            // Along its axis a gathered array has an extent of its own.
            places.push(if is_gathered(at) { self.load_whole(load, level) } else { self.load(load, level)? });
        }
        let loads = places;
        Some(append(&mut self.expression, &expression, &loads))
    }

    /// Sees the space as another shape of as many elements.
    fn reshape(&mut self, shape: &Shape) -> Option<()> {
        if self.space == *shape {
            return Some(());
        }
        if self.is_bound() {
            return None;
        }
        for load in &mut self.loads {
            load.view = load.view.through(&Op::Reshape, shape)?;
        }
        for (instruction, _) in &mut self.expression.instructions {
            if let Instruction::Iota(axis) = instruction {
                *axis = axis_through(&Op::Reshape, *axis, &self.space, shape)?;
            }
        }
        self.space = shape.clone();
        Some(())
    }

    /// Makes the `axes` trailing axes of `shape`, as which the space can be seen, the row.
    pub(super) fn set_row(&mut self, shape: &Shape, axes: usize) -> Option<()> {
        if !matches!(self.form, Form::Map) {
            return None;
        }
        // Both products count: of nothing there may be any number of rows.
        let cut = |shape: &Shape, axes: usize| {
            let (outer, row) = shape.split_at(shape.len() - axes);
            (outer.iter().product::<usize>(), row.iter().product::<usize>())
        };
        let wanted = cut(shape, axes);
        if let Some(own) = self.axes {
            return (cut(&self.space, own) == wanted).then_some(());
        }
        let own = (1..=self.space.len()).find(|&axes| cut(&self.space, axes) == wanted);
        match own {
            Some(own) => self.axes = Some(own),
            None => {
                self.reshape(shape)?;
                self.axes = Some(axes);
            }
        }
        Some(())
    }

    /// Takes another group over, whose elements are those of a level here; gives the places of its registers.
    pub(super) fn absorb(&mut self, guest: &Group, level: Level) -> Option<Vec<Register>> {
        if !matches!(guest.form, Form::Map) || matches!(self.form, Form::Closed(_)) {
            return None;
        }
        if let Some(axes) = guest.axes {
            if level == Level::Row {
                return None;
            }
            self.set_row(&guest.space, axes)?;
        }
        let places = self.add_all(&guest.space, &guest.loads, &guest.expression, level)?;
        let stores = guest.stores.iter().map(|store| Store {
            buffer: store.buffer,
            register: places[store.register],
            per_row: store.per_row || level == Level::Row,
        });
        self.stores.extend(stores);
        let members = guest.members.iter().map(|member| Member {
            node: member.node,
            register: places[member.register],
            level: if level == Level::Row { Level::Row } else { member.level },
        });
        self.members.extend(members);
        self.wait_for(guest.after.iter().copied());
        Some(places)
    }

    /// The store of a register, if there is one.
    pub(super) fn store_of(&self, register: Register, level: Level) -> Option<BufferId> {
        let per_row = level == Level::Row;
        self.stores.iter().find(|s| s.register == register && s.per_row == per_row).map(|s| s.buffer)
    }

    /// The registers that are stored, or may still have to be because `is_open` says so of a node.
    fn leaving(&self, is_open: impl Fn(NodeId) -> bool) -> Vec<(Register, Level)> {
        let level = |per_row| if per_row { Level::Row } else { Level::Element };
        let mut leaving: Vec<(Register, Level)> = self.stores.iter().map(|s| (s.register, level(s.per_row))).collect();
        for member in self.members.iter().filter(|member| is_open(member.node)) {
            position_or_push(&mut leaving, (member.register, member.level));
        }
        leaving
    }

    /// How many bindings are in use, or reserved for what may have to be stored.
    pub(super) fn bindings(&self, is_open: impl Fn(NodeId) -> bool) -> usize {
        // A buffer may be bound twice: as scalars and as vectors.
        let read = |at: usize| self.loads[..at].iter().filter(|l| l.buffer == self.loads[at].buffer).count() < 2;
        (0..self.loads.len()).filter(|&at| read(at)).count() + self.leaving(is_open).len()
    }

    /// Whether it is a kernel that the target can run, however its open nodes are used.
    pub(super) fn is_sound(&self, target: &Target, is_open: impl Fn(NodeId) -> bool) -> bool {
        let instructions = &self.expression.instructions;
        if instructions.len() > MOST_INSTRUCTIONS || self.bindings(&is_open) > target.bindings {
            return false;
        }
        if self.looks_up_late() {
            return false;
        }
        let reductions: Vec<ReduceOp> = instructions
            .iter()
            .filter_map(|(instruction, _)| if let Instruction::Reduce(op, _) = instruction { Some(*op) } else { None })
            .collect();
        if reductions.is_empty() {
            return true;
        }
        let passes = self.expression.passes().into_iter().max().unwrap_or(0);
        let searches = reductions.iter().filter(|op| op.gives_index()).count();
        if instructions.iter().any(|(i, _)| loops(i)) || passes > MOST_PASSES || searches > 1 {
            return false;
        }
        // A long row is cut into parts, each reduced on its own.
        let has_elements = || self.leaving(&is_open).iter().any(|(_, level)| *level == Level::Element);
        let is_long = self.row_len() > target.longest_row;
        !is_long || (passes == 1 && !has_elements() && (searches == 0 || reductions.len() == 1))
    }

    /// Whether an index is made of what the kernel has reduced or multiplied: then it could not be checked before.
    fn looks_up_late(&self) -> bool {
        let mut late: Vec<bool> = Vec::with_capacity(self.expression.instructions.len());
        let mut found = false;
        for (instruction, _) in &self.expression.instructions {
            let made_late = instruction.operands().iter().any(|&r| late[r]);
            found |= made_late && matches!(instruction, Instruction::Gather { .. } | Instruction::Index { .. });
            late.push(made_late || matches!(instruction, Instruction::Reduce(..) | Instruction::Accumulator));
        }
        found
    }

    /// Adds the reduction of a register along the row. Sums and products are rounded to their dtype once.
    pub(super) fn reduce(&mut self, op: ReduceOp, register: Register, dtype: DType) -> Register {
        let within = if matches!(op, ReduceOp::Sum | ReduceOp::Prod) { dtype.computed() } else { dtype };
        if within == dtype {
            return self.expression.push(Instruction::Reduce(op, register), dtype);
        }
        let element = self.expression.push(Instruction::Cast(register), within);
        let total = self.expression.push(Instruction::Reduce(op, element), within);
        self.expression.push(Instruction::Cast(total), dtype)
    }
}
