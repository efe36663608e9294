//! From groups to kernels.

use super::builder::Builder;
use super::group::{Form, Group, GroupId, Level};
use super::{Fused, Fuser, Value};
use crate::graph::NodeId;
use crate::plan::{BufferId, Expression, Family, Instruction, Kernel, Load, Plan};
use std::collections::HashSet;

impl Fuser<'_> {
    /// The buffer of an output: whole, row-major, and not one that a donation may overwrite.
    pub(super) fn output(&mut self, id: NodeId) -> BufferId {
        let (load, after) = self.whole(id);
        let is_donated = self.buffers[load.buffer].input.is_some_and(|slot| self.graph.donated[slot]);
        if !is_donated {
            return load.buffer;
        }
        self.copied(id, &Builder::of_load(load, self.ty(id).dtype), after).buffer
    }

    /// A value in a buffer that holds it and nothing else, row-major, and which groups must run before it is read.
    pub(super) fn whole(&mut self, id: NodeId) -> (Load, Vec<GroupId>) {
        let ty = self.ty(id).clone();
        let (load, after) = match self.value(id) {
            Value::Uniform(instruction) => {
                return (self.copied(id, &Builder::of_source(instruction, ty.shape, ty.dtype), Vec::new()), Vec::new());
            }
            _ => self.stored(id),
        };
        if load.view.is_contiguous() && self.buffers[load.buffer].len == ty.shape.numel() {
            return (load, after);
        }
        (self.copied(id, &Builder::of_load(load, ty.dtype), after), Vec::new())
    }

    /// Which buffers somebody reads: those of outputs, and those that a group loads which is itself needed.
    fn live_buffers(&self, outputs: &[BufferId]) -> Vec<bool> {
        let mut live = vec![false; self.buffers.len()];
        let mut open: Vec<BufferId> = outputs.to_vec();
        let mut seen = vec![false; self.groups.len()];
        while let Some(buffer) = open.pop() {
            live[buffer] = true;
            if let Some(group) = self.maker[buffer].map(|group| self.found_group(group))
                && !std::mem::replace(&mut seen[group], true)
            {
                open.extend(self.groups[group].loads.iter().map(|load| load.buffer));
            }
        }
        live
    }

    /// Who waits for a group that is not needed (what it computes is computed by its readers) waits for what that one waits for.
    fn wait_for_needed(&mut self, waits: &[Vec<GroupId>]) {
        let needed: Vec<bool> = self.groups.iter().map(Group::is_needed).collect();
        for id in (0..self.groups.len()).filter(|&id| needed[id]) {
            let mut seen: HashSet<GroupId> = HashSet::new();
            let mut open: Vec<GroupId> = self.groups[id].after.iter().map(|&group| self.found_group(group)).collect();
            let mut after = Vec::new();
            while let Some(group) = open.pop() {
                match needed[group] {
                    _ if !seen.insert(group) => {}
                    true => after.push(group),
                    false => open.extend(&waits[group]),
                }
            }
            self.groups[id].after = after;
        }
    }

    /// Reductions of the same rows that read the same become one kernel, unless one must wait for the other.
    fn join_siblings(&mut self) {
        let reduces = |group: &Group| {
            group.moved.is_none() && group.axes.is_some() && group.stores.iter().all(|store| store.per_row)
        };
        for second in 0..self.groups.len() {
            if !reduces(&self.groups[second]) {
                continue;
            }
            for first in 0..second {
                let (a, b) = (&self.groups[first], &self.groups[second]);
                let alike = reduces(a) && a.space == b.space && a.axes == b.axes;
                if !alike || !a.loads.iter().any(|load| b.loads.contains(load)) {
                    continue;
                }
                if self.reaches(&[first], &[second]) || self.reaches(&[second], &[first]) {
                    continue;
                }
                let mut joined = self.groups[first].clone();
                if let Some(places) = joined.absorb(&self.groups[second], Level::Element)
                    && self.is_sound(&joined)
                {
                    self.groups[first] = joined;
                    self.groups[second].moved = Some((first, places));
                    break;
                }
            }
        }
    }

    /// The kernels of the groups that are needed.
    pub(super) fn finish(mut self, outputs: Vec<BufferId>, origins: &[NodeId]) -> Fused {
        self.now = usize::MAX;
        // Those that are not needed forget what they read, but not what is to run before them.
        let waits: Vec<Vec<GroupId>> = (0..self.groups.len()).map(|group| self.waits(group).collect()).collect();
        let used =
            |fuser: &Self| fuser.groups.iter().map(|group| group.stores.len() + group.loads.len()).sum::<usize>();
        let mut before = usize::MAX;
        // A store that nobody reads, or a register that no store needs, may have been the only reader of another store.
        while used(&self) < before {
            before = used(&self);
            let live = self.live_buffers(&outputs);
            for group in &mut self.groups {
                group.stores.retain(|store| live[store.buffer]);
                group.drop_unused();
            }
        }
        self.wait_for_needed(&waits);
        if self.enabled {
            self.join_siblings();
        }
        let alive: Vec<GroupId> = (0..self.groups.len()).filter(|&id| self.groups[id].is_needed()).collect();
        let mut place = vec![None; self.groups.len()];
        alive.iter().enumerate().for_each(|(at, &id)| place[id] = Some(at));
        let mut after = Vec::with_capacity(alive.len());
        for &id in &alive {
            let earlier = self.groups[id].after.iter().map(|&group| self.found_group(group));
            let mut earlier: Vec<usize> = earlier.filter_map(|group| place[group]).collect();
            earlier.sort_unstable();
            earlier.dedup();
            after.push(earlier);
        }
        let kernels = alive.iter().map(|&id| self.groups[id].kernel(origins)).collect();
        Fused { plan: Plan { buffers: self.buffers, kernels, outputs }, after }
    }
}

impl Group {
    /// Whether it becomes a kernel: somebody reads what it stores, and it is no part of another one.
    fn is_needed(&self) -> bool {
        self.moved.is_none() && !self.stores.is_empty()
    }

    /// Forgets what no store needs.
    fn drop_unused(&mut self) {
        if self.moved.is_some() || matches!(self.form, Form::Closed(_)) {
            return;
        }
        let needed = self.expression.needed(self.stores.iter().map(|store| store.register));
        let mut loads: Vec<Load> = Vec::new();
        let mut load_places = vec![usize::MAX; self.loads.len()];
        if let Form::Product { operands, .. } = &self.form {
            // The operands' loads come first and stay where they are.
            let read = |e: &Expression| e.instructions.iter().filter_map(|(i, _)| i.load()).max();
            let last = operands.iter().filter_map(read).max().unwrap_or(0);
            loads.extend(self.loads[..=last].iter().cloned());
            (0..=last).for_each(|load| load_places[load] = load);
        }
        let mut expression = Expression::default();
        let mut places = vec![usize::MAX; needed.len()];
        for (register, (instruction, dtype)) in self.expression.instructions.iter().enumerate() {
            if !needed[register] {
                continue;
            }
            if let Some(load) = instruction.load()
                && load_places[load] == usize::MAX
            {
                loads.push(self.loads[load].clone());
                load_places[load] = loads.len() - 1;
            }
            let instruction = instruction.renumbered(|load| load_places[load], |r| places[r]);
            expression.instructions.push((instruction, *dtype));
            places[register] = expression.instructions.len() - 1;
        }
        for store in &mut self.stores {
            store.register = places[store.register];
        }
        self.members.retain(|member| places[member.register] != usize::MAX);
        self.members.iter_mut().for_each(|member| member.register = places[member.register]);
        (self.loads, self.expression) = (loads, expression);
        let reduces = self.expression.instructions.iter().any(|(i, _)| matches!(i, Instruction::Reduce(..)));
        if !reduces && !self.stores.iter().any(|store| store.per_row) {
            self.axes = None;
        }
    }

    fn kernel(&self, origins: &[NodeId]) -> Kernel {
        let family = match (&self.form, self.axes) {
            (Form::Closed(family), _) => family.clone(),
            (Form::Product { batch, contracted, operands }, _) => {
                Family::Contract { batch: *batch, contracted: *contracted, operands: operands.clone() }
            }
            (Form::Map, Some(axes)) => Family::Reduce { axes },
            (Form::Map, None) => Family::Elementwise,
        };
        let mut nodes: Vec<NodeId> = self.members.iter().map(|member| origins[member.node]).collect();
        nodes.sort_unstable();
        nodes.dedup();
        Kernel {
            family,
            space: self.space.clone(),
            loads: self.loads.clone(),
            expression: self.expression.clone(),
            outputs: self.stores.clone(),
            nodes,
        }
    }
}
