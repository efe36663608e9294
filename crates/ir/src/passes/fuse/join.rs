//! Joining groups, and reading what cannot be joined.

use super::builder::{Builder, is_dear};
use super::group::{Form, Group, GroupId, Level, Member};
use super::{CHEAP_INSTRUCTIONS, CHEAP_LOADS, Computed, Fuser, Value};
use crate::graph::NodeId;
use crate::op::Op;
use crate::plan::{BufferId, Instruction, Load, Register, Store};
use crate::{Shape, View, ViewAxis};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// Makes the instruction of a node in a group, at a level, from its operands' registers, if it can stand there.
pub(super) type Make<'m> = dyn Fn(&mut Group, Level, &[Register]) -> Option<Instruction> + 'm;

impl Fuser<'_> {
    /// A map joins the groups of its operands, if it may, or starts a group. `reads` are groups that must have run.
    pub(super) fn map(&mut self, id: NodeId, operands: &[NodeId], reads: Vec<GroupId>, make: &Make<'_>) -> Value {
        let shape = self.ty(id).shape.clone();
        let mut hosts: Vec<(GroupId, Level)> = Vec::new();
        if self.enabled {
            for &operand in operands {
                if let Value::Register(computed) = self.value(operand)
                    && let Some(level) = self.aligned(&computed, &shape)
                    && !hosts.contains(&(computed.group, level))
                {
                    hosts.push((computed.group, level));
                }
            }
        }
        // Groups whose rows the node counts come first, as others fit into them; then the one that runs last.
        hosts.sort_by_key(|&(group, level)| (level == Level::Element, Reverse(group)));
        // All together if possible, else one of them.
        for all in [true, false] {
            for &host in hosts.iter().filter(|_| !all || hosts.len() > 1) {
                let groups = if all { &hosts[..] } else { std::slice::from_ref(&host) };
                if let Some(value) = self.join(id, operands, host, groups, &reads, make) {
                    return value;
                }
            }
        }
        let mut builders: Vec<Builder> = operands.iter().map(|&operand| self.apart(operand)).collect();
        loop {
            let mut group = Group::new(Form::Map, shape.clone());
            let registers: Vec<Register> = builders
                .iter()
                .map(|builder| group.add(builder, Level::Element).expect("operands of a map have its shape"))
                .collect();
            group.wait_for(operands.iter().flat_map(|&operand| self.waits_for(operand)));
            let instruction = make(&mut group, Level::Element, &registers).expect("a map can stand in its own shape");
            let register = group.expression.push(instruction, self.ty(id).dtype);
            group.members.push(Member { node: id, register, level: Level::Element });
            if self.is_sound(&group) || builders.iter().all(is_plain) {
                self.groups.push(group);
                return self.in_register(id, self.groups.len() - 1, register, Level::Element);
            }
            // Too much for one kernel: the largest operand is stored.
            let size = |builder: &Builder| (builder.loads.len(), builder.expression.instructions.len());
            let largest = (0..builders.len()).filter(|&i| !is_plain(&builders[i])).max_by_key(|&i| size(&builders[i]));
            let Some(largest) = largest else { unreachable!("an operand is not plain") };
            let (load, _) = self.stored(operands[largest]);
            builders[largest] = Builder::of_load(load, self.ty(operands[largest]).dtype);
        }
    }

    /// Puts a map into a host together with those groups of `groups` that may become part of it.
    fn join(
        &mut self,
        id: NodeId,
        operands: &[NodeId],
        (host, level): (GroupId, Level),
        groups: &[(GroupId, Level)],
        reads: &[GroupId],
        make: &Make<'_>,
    ) -> Option<Value> {
        let ty = self.ty(id).clone();
        let mut guests: Vec<(GroupId, Level)> = Vec::new();
        for &(guest, guest_level) in groups.iter().filter(|&&(guest, _)| guest != host) {
            let at = match (level, guest_level) {
                (Level::Element, Level::Element) | (Level::Row, Level::Row) => Level::Element,
                (Level::Row, Level::Element) => Level::Row,
                (Level::Element, Level::Row) => continue,
            };
            let others: Vec<GroupId> = guests.iter().map(|&(other, _)| other).chain([host]).collect();
            if !self.reaches(&[guest], &others) && !self.reaches(&others, &[guest]) {
                guests.push((guest, at));
            }
        }
        let is_here = |computed: &Computed| {
            let guest = guests.iter().any(|&(guest, _)| guest == computed.group);
            let known = groups.iter().find(|&&(group, _)| group == computed.group);
            (guest || computed.group == host) && self.aligned(computed, &ty.shape) == known.map(|&(_, level)| level)
        };
        // What else is read must not wait for what is joined.
        let mut before = reads.to_vec();
        for &operand in operands {
            match self.value(operand) {
                Value::Stored(load, after) => before.extend(self.maker[load.buffer].into_iter().chain(after)),
                Value::Register(computed) if !is_here(&computed) => before.push(computed.group),
                _ => {}
            }
        }
        let before: Vec<GroupId> = before.into_iter().map(|group| self.found_group(group)).collect();
        let joined: Vec<GroupId> = guests.iter().map(|&(guest, _)| guest).chain([host]).collect();
        if before.iter().any(|group| joined.contains(group)) || self.reaches(&before, &joined) {
            return None;
        }
        let here: Vec<Option<Computed>> = operands
            .iter()
            .map(|&operand| match self.value(operand) {
                Value::Register(computed) if is_here(&computed) => Some(computed),
                _ => None,
            })
            .collect();

        let mut group = self.groups[host].clone();
        let mut places: HashMap<GroupId, Vec<Register>> = HashMap::new();
        for &(guest, at) in &guests {
            places.insert(guest, group.absorb(&self.groups[guest], at)?);
        }
        let mut registers = Vec::with_capacity(operands.len());
        for (&operand, here) in operands.iter().zip(here) {
            registers.push(match here {
                Some(computed) => {
                    places.get(&computed.group).map_or(computed.register, |places| places[computed.register])
                }
                None => {
                    let builder = self.apart(operand);
                    group.wait_for(self.waits_for(operand));
                    group.add(&builder, level)?
                }
            });
        }
        let instruction = make(&mut group, level, &registers)?;
        let register = group.expression.push(instruction, ty.dtype);
        group.members.push(Member { node: id, register, level });
        if !self.is_sound(&group) {
            return None;
        }
        self.groups[host] = group;
        for (guest, places) in places {
            self.groups[guest].moved = Some((host, places));
        }
        Some(self.in_register(id, host, register, level))
    }

    /// At which level a node of this shape would read a register, index by index, in the register's own group.
    pub(super) fn aligned(&self, computed: &Computed, shape: &Shape) -> Option<Level> {
        let group = &self.groups[computed.group];
        let numel = |level| group.shape_of(level).numel();
        let is_whole = computed.view.is_contiguous() && shape.numel() == numel(computed.level);
        if is_whole {
            return Some(computed.level);
        }
        let is_spread = computed.level == Level::Row && shape.numel() == numel(Level::Element) && {
            let view = computed.view.through(&Op::Reshape, &group.space);
            view.is_some_and(|view| view.repeats_each(group.space.len() - group.split()))
        };
        is_spread.then_some(Level::Element)
    }

    /// A node's value computed on its own: from loads, in its shape.
    pub(super) fn apart(&mut self, id: NodeId) -> Builder {
        let ty = self.ty(id).clone();
        match self.value(id) {
            Value::Uniform(instruction) => return Builder::of_source(instruction, ty.shape, ty.dtype),
            Value::Iota(axis) => return Builder::of_source(Instruction::Iota(axis), ty.shape, ty.dtype),
            Value::Register(computed) if !self.uses.stored[computed.node] => {
                if let Some(builder) = self.cone(&computed) {
                    let cheap = builder.loads.len() <= CHEAP_LOADS
                        && builder.expression.instructions.len() <= CHEAP_INSTRUCTIONS
                        && !builder.has(is_dear);
                    // What has rows of its own is worth computing again if little more is read than its result.
                    let rows = self.groups[computed.group].axes.is_some() && builder.loads.len() <= CHEAP_LOADS + 2;
                    if cheap || (rows && !builder.has(is_dear)) || self.uses.readers[computed.node] == 1 {
                        return builder;
                    }
                }
            }
            _ => {}
        }
        let (load, _) = self.stored(id);
        Builder::of_load(load, ty.dtype)
    }

    /// Which groups must run before a node's value is computed on its own, beside those that make what it loads.
    pub(super) fn waits_for(&self, id: NodeId) -> Vec<GroupId> {
        match self.value(id) {
            Value::Stored(_, after) => after,
            Value::Register(computed) => self.groups[computed.group].after.clone(),
            Value::Uniform(_) | Value::Iota(_) => Vec::new(),
        }
    }

    /// What a register is made of, seen through its views. What was reduced on the way is stored, one value per row.
    pub(super) fn cone(&mut self, computed: &Computed) -> Option<Builder> {
        let group = &self.groups[computed.group];
        if computed.level == Level::Row || group.store_of(computed.register, Level::Element).is_some() {
            return None;
        }
        let expression = &group.expression;
        let (passes, per_row) =
            (expression.passes(), expression.per_row(|load| &group.loads[load].view, group.split()));
        let is_reduced = |r: Register| group.axes.is_some() && per_row[r] && passes[r] > 0;
        let mut needed: HashSet<Register> = HashSet::new();
        let mut open = vec![computed.register];
        while let Some(register) = open.pop() {
            if needed.insert(register) && !is_reduced(register) {
                open.extend(expression.instructions[register].0.operands());
            }
        }
        let mut needed: Vec<Register> = needed.into_iter().collect();
        needed.sort_unstable();
        let has_accumulator = needed.iter().any(|&r| expression.instructions[r].0 == Instruction::Accumulator);
        let reduced: Vec<Register> = needed.iter().copied().filter(|&r| is_reduced(r)).collect();
        let new = reduced.iter().filter(|&&r| group.store_of(r, Level::Row).is_none()).count();
        let room = group.bindings(|node| self.is_open(node)) + new <= self.target.bindings;
        if has_accumulator || is_reduced(computed.register) || !room {
            return None;
        }
        let instructions: Vec<_> = needed.iter().map(|&r| expression.instructions[r].clone()).collect();
        let (loads, space, split) = (group.loads.clone(), group.space.clone(), group.split());

        let mut builder = Builder::new(space.clone());
        let mut places: HashMap<Register, Register> = HashMap::new();
        for (register, (instruction, dtype)) in needed.into_iter().zip(instructions) {
            let instruction = if reduced.contains(&register) {
                let buffer = self.store(computed.group, register, Level::Row);
                Instruction::Load(builder.load(Load { buffer, view: along_rows(&space, split) }))
            } else {
                let mut used = |load: usize| builder.load(loads[load].clone());
                let load = instruction.load().map(&mut used);
                instruction.renumbered(|_| load.unwrap_or_default(), |r| places[&r])
            };
            places.insert(register, builder.expression.push(instruction, dtype));
        }
        let shape = &self.ty(computed.node).shape;
        let mut builder = if *shape == space { builder } else { builder.through(&Op::Reshape, shape)? };
        for (op, shape) in &computed.chain {
            builder = builder.through(op, shape)?;
        }
        Some(builder)
    }

    /// The buffer of a register, which is stored if it was not.
    pub(super) fn store(&mut self, group: GroupId, register: Register, level: Level) -> BufferId {
        if let Some(buffer) = self.groups[group].store_of(register, level) {
            return buffer;
        }
        let (dtype, len) = (self.groups[group].expression.dtype(register), self.groups[group].shape_of(level).numel());
        let buffer = self.new_buffer(dtype, len, None, Some(group));
        self.groups[group].stores.push(Store { buffer, register, per_row: level == Level::Row });
        buffer
    }

    /// A node's value as a load of its shape, and which groups must run before it is read.
    pub(super) fn stored(&mut self, id: NodeId) -> (Load, Vec<GroupId>) {
        let ty = self.ty(id).clone();
        match self.value(id) {
            Value::Stored(load, after) => (load, after),
            Value::Register(computed) => {
                let buffer = self.store(computed.group, computed.register, computed.level);
                (Load { buffer, view: computed.view }, Vec::new())
            }
            Value::Uniform(instruction) => {
                let one = self.copied(id, &Builder::of_source(instruction, Shape::default(), ty.dtype), Vec::new());
                (Load { view: View::splat(&ty.shape), ..one }, Vec::new())
            }
            Value::Iota(axis) => {
                let builder = Builder::of_source(Instruction::Iota(axis), ty.shape, ty.dtype);
                (self.copied(id, &builder, Vec::new()), Vec::new())
            }
        }
    }

    /// What a builder computes in a buffer of its own; it belongs to a node.
    pub(super) fn copied(&mut self, node: NodeId, builder: &Builder, after: Vec<GroupId>) -> Load {
        let mut group = Group::new(Form::Map, builder.space.clone());
        let register = group.add(builder, Level::Element).expect("a space fits itself");
        group.after = after;
        group.members.push(Member { node, register, level: Level::Element });
        self.groups.push(group);
        let buffer = self.store(self.groups.len() - 1, register, Level::Element);
        Load { buffer, view: View::contiguous(&builder.space) }
    }

    /// The groups that one must wait for.
    pub(super) fn waits(&self, group: GroupId) -> impl Iterator<Item = GroupId> + '_ {
        let makers = self.groups[group].loads.iter().filter_map(|load| self.maker[load.buffer]);
        makers.chain(self.groups[group].after.iter().copied()).map(|other| self.found_group(other))
    }

    /// Whether one of `from` is, or must wait for, one of `to`.
    pub(super) fn reaches(&self, from: &[GroupId], to: &[GroupId]) -> bool {
        let mut seen: HashSet<GroupId> = HashSet::new();
        let mut open: Vec<GroupId> = from.to_vec();
        while let Some(group) = open.pop() {
            if to.contains(&group) {
                return true;
            }
            if seen.insert(group) {
                open.extend(self.waits(group).filter(|&other| other != group));
            }
        }
        false
    }
}

fn is_plain(builder: &Builder) -> bool {
    builder.expression.instructions.len() <= 1
}

/// The view of a buffer with one element for each row.
fn along_rows(space: &Shape, split: usize) -> View {
    let mut view = View::contiguous(&Shape::new(&space[..split]));
    view.axes.extend(space[split..].iter().map(|&extent| ViewAxis::still(extent)));
    view
}
