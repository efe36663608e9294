//! Attention: a kernel of its own, that gives the output and what its gradient needs at once, or, for some targets, all gradients.

use super::builder::Builder;
use super::group::{Form, Group, GroupId, Level, Member};
use super::{Fuser, Value};
use crate::View;
use crate::graph::NodeId;
use crate::op::attention::{AttentionPart, AttentionShape};
use crate::plan::{Family, Instruction, Load, Store};
use smallvec::smallvec;

impl Fuser<'_> {
    pub(super) fn attention(&mut self, id: NodeId, part: AttentionPart, causal: bool, operands: &[NodeId]) -> Value {
        let shape = |i: usize| &self.ty(operands[i]).shape;
        let space = AttentionShape::of(shape(0), shape(1), shape(2)).space(part);
        let ty = self.ty(id).clone();
        let dtype = ty.dtype.computed();
        let mut group = Group::new(Form::Closed(Family::Attention { parts: smallvec![part], causal }), space);
        for &operand in operands {
            let (load, after) = self.unpadded(operand);
            // Their places count, so equal ones stay apart.
            group.loads.push(load);
            group.wait_for(after);
        }
        let at = self.beside(&group).unwrap_or(self.groups.len());
        if at == self.groups.len() {
            self.groups.push(group);
        } else if let Form::Closed(Family::Attention { parts, .. }) = &mut self.groups[at].form {
            parts.push(part);
        }
        let buffer = self.new_buffer(dtype, ty.shape.numel(), None, Some(at));
        let instructions = &mut self.groups[at].expression.instructions;
        instructions.push((Instruction::Accumulator, dtype));
        let register = instructions.len() - 1;
        self.groups[at].stores.push(Store { buffer, register, per_row: false });
        self.groups[at].members.push(Member { node: id, register, level: Level::Element });
        self.narrowed(id, Load { buffer, view: View::contiguous(&ty.shape) })
    }

    /// An operand as a load without padding.
    fn unpadded(&mut self, operand: NodeId) -> (Load, Vec<GroupId>) {
        let (load, after) = self.widened(operand);
        if load.view.axes.iter().all(|axis| axis.guard.is_none()) {
            return (load, after);
        }
        let dtype = self.ty(operand).dtype.computed();
        (self.copied(operand, &Builder::of_load(load, dtype), after), Vec::new())
    }

    /// The kernel that computes another part from the same operands, and may compute this one too.
    fn beside(&self, group: &Group) -> Option<GroupId> {
        let parts = |group: &'_ Group| match &group.form {
            Form::Closed(Family::Attention { parts, causal }) => Some((parts.clone(), *causal)),
            _ => None,
        };
        let (own, causal) = parts(group).filter(|_| self.enabled)?;
        let part = own[0];
        if part.is_gradient() && !self.target.joins_gradients {
            return None;
        }
        let is_joined = |other: &Group| {
            let others = parts(other).filter(|(_, other)| *other == causal);
            others.is_some_and(|(others, _)| {
                others.iter().all(|&other| other != part && other.is_gradient() == part.is_gradient())
            })
        };
        let alike = |other: &Group| is_joined(other) && other.loads == group.loads && other.after == group.after;
        self.groups.iter().position(alike)
    }
}
