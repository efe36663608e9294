//! A plan as a table that a person can read.

use super::memory::PlanMemory;
use crate::graph::NodeId;
use crate::op::attention::{AttentionPart, AttentionShape};
use crate::plan::{BufferId, Family, Instruction, Kernel, Load, Plan};
use crate::{DType, Shape};
use std::fmt;

/// What a kernel does, in words and numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelSummary {
    /// Its family, as [`Kernel::family_name`] has it.
    pub family: &'static str,
    /// Its iteration space.
    pub space: Shape,
    /// Bytes that it reads and writes at least.
    pub bytes: usize,
    /// Operations on numbers.
    pub operations: usize,
    /// Whether most of these multiply numbers of f16: a product's.
    pub multiplies_halves: bool,
    /// The ops that it computes.
    pub ops: String,
    /// The line that recorded the last of them, where it is known.
    pub line: String,
}

impl Plan {
    /// What one of the plan's kernels does. `lines` says of each node of the graph what it is and where it was recorded.
    pub fn summary(&self, kernel: &Kernel, lines: impl Fn(NodeId) -> Option<(String, String)>) -> KernelSummary {
        let named: Vec<(String, String)> = kernel.nodes.iter().filter_map(|&node| lines(node)).collect();
        KernelSummary {
            family: kernel.family_name(),
            space: kernel.space.clone(),
            bytes: self.traffic(kernel),
            operations: operations(kernel),
            multiplies_halves: self.multiplies_halves(kernel),
            ops: runs(named.iter().map(|(op, _)| op.as_str())),
            line: named.last().map(|(_, line)| line.clone()).unwrap_or_default(),
        }
    }

    /// A table with a line for each kernel: number, family, space, what it reads and writes, bytes, floating-point
    /// operations, the ops that it computes, and where they were recorded, as `lines` says of each node of the graph.
    pub fn table(&self, lines: impl Fn(NodeId) -> Option<(String, String)>) -> String {
        let header = ["", "kernel", "space", "reads", "writes", "bytes", "operations", "ops", "line"];
        let mut rows: Vec<[String; 9]> = vec![header.map(String::from)];
        for (number, kernel) in self.kernels.iter().enumerate() {
            let KernelSummary { family, space, bytes, operations, ops, line, .. } = self.summary(kernel, &lines);
            rows.push([
                number.to_string(),
                family.to_string(),
                space.to_string(),
                kernel.loads.iter().map(|load| self.read(load)).collect::<Vec<_>>().join(" "),
                kernel.outputs.iter().map(|store| self.written(store.buffer)).collect::<Vec<_>>().join(" "),
                bytes.to_string(),
                operations.to_string(),
                ops,
                line,
            ]);
        }
        let mut widths = [0; 9];
        for row in &rows {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
        }
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                0 | 5 | 6 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        let memory: PlanMemory = self.memory();
        text + &memory.to_string()
    }

    fn read(&self, load: &Load) -> String {
        let shape = load.view.shape();
        let mark = if load.view.is_contiguous() { "" } else { "*" };
        format!("{}{shape}{mark}", self.buffer_name(load.buffer))
    }

    fn written(&self, buffer: BufferId) -> String {
        format!("{} {}[{}]", self.buffer_name(buffer), self.buffers[buffer].dtype, self.buffers[buffer].len)
    }

    fn multiplies_halves(&self, kernel: &Kernel) -> bool {
        let is_half = |load: &Load| self.buffers[load.buffer].dtype == DType::F16;
        matches!(kernel.family, Family::Contract { .. }) && kernel.loads.iter().take(2).all(is_half)
    }

    /// The bytes that a kernel reads and writes at least: each element once.
    fn traffic(&self, kernel: &Kernel) -> usize {
        let mut read: Vec<(BufferId, usize)> = Vec::new();
        for load in &kernel.loads {
            let moving =
                load.view.axes.iter().filter(|axis| axis.stride != 0).map(|axis| axis.extent).product::<usize>();
            let elements = moving.min(self.buffers[load.buffer].len);
            match read.iter_mut().find(|(buffer, _)| *buffer == load.buffer) {
                Some((_, most)) => *most = (*most).max(elements),
                None => read.push((load.buffer, elements)),
            }
        }
        let read: usize = read.iter().map(|&(buffer, elements)| elements * self.buffers[buffer].dtype.size()).sum();
        read + kernel.outputs.iter().map(|store| self.bytes(store.buffer)).sum::<usize>()
    }
}

impl fmt::Display for Plan {
    /// The table without the lines of the source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table(|_| None))
    }
}

/// How many operations a kernel does: one for each instruction that computes at each index, and two for each product.
fn operations(kernel: &Kernel) -> usize {
    let elements = kernel.space.numel();
    let computes = |instruction: &Instruction| {
        matches!(
            instruction,
            Instruction::Unary(..)
                | Instruction::Binary(..)
                | Instruction::Compare(..)
                | Instruction::Select(..)
                | Instruction::Reduce(..)
        )
    };
    let own = elements * kernel.expression.instructions.iter().filter(|(i, _)| computes(i)).count();
    match kernel.family {
        Family::Contract { contracted, .. } => {
            let shape: Shape = kernel.loads[0].view.shape();
            let summed: usize = shape[shape.len() - contracted..].iter().product();
            own + 2 * elements * summed
        }
        Family::Scatter { .. } | Family::Custom(_) => elements,
        Family::Scan { op, .. } => elements * op.operands(),
        // So many comparisons find the order of a row, or its beginning.
        Family::Sort { kept, .. } => elements * kept.max(2).ilog2() as usize,
        Family::Attention { ref parts, .. } => {
            let loads = [0, 1, 2].map(|load| kernel.loads[load].view.shape());
            let shape = AttentionShape::of(&loads[0], &loads[1], &loads[2]);
            let (width, values) = (shape.width, shape.values);
            let own = |part: &AttentionPart| match part {
                AttentionPart::Output | AttentionPart::GradValue => values,
                AttentionPart::LogSumExp => 0,
                AttentionPart::GradQuery | AttentionPart::GradKey => width,
            };
            // All need the logits, and some the slopes.
            let has_slopes = |part: &AttentionPart| matches!(part, AttentionPart::GradQuery | AttentionPart::GradKey);
            let shared = width + if parts.iter().any(has_slopes) { values } else { 0 };
            2 * shape.logits().numel() * (shared + parts.iter().map(own).sum::<usize>())
        }
        Family::Elementwise | Family::Reduce { .. } => own,
    }
}

/// Words in order, with how often each follows itself.
fn runs<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for word in words {
        match runs.last_mut() {
            Some((last, count)) if *last == word => *count += 1,
            _ => runs.push((word, 1)),
        }
    }
    let shown = runs.iter().map(|(word, count)| if *count > 1 { format!("{word}×{count}") } else { word.to_string() });
    shown.collect::<Vec<_>>().join(" ")
}
