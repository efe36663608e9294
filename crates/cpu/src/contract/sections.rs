//! Long sums in sections: products of parts of the summed axes at once, which are added up afterwards.

use super::{Contraction, MOST_PARTIAL, Operand, Part, Rules, SECTIONS};
use crate::block::Operands;
use crate::matrix::is_along_sums;
use crate::parallel;
use crate::slice::{Slice, Typed};
use gradus_ir::Result;

/// Of fewer rows side by side, `gemm` computes too few at once.
const WIDE: usize = 64;

/// So many rows of sections are added up at a time.
const JOINED_ROWS: usize = 16;

impl Contraction {
    /// How many sections the terms of each sum are cut into. They depend on nothing but sizes, so bits do not depend on the
    /// number of threads.
    pub(super) fn sections(&self) -> usize {
        let (terms, sums) = (self.outer.numel(), self.batch.numel() * self.m * self.n);
        if sums * SECTIONS > MOST_PARTIAL || self.batch.numel() >= SECTIONS { 1 } else { terms.clamp(1, SECTIONS) }
    }

    /// The sums of all batch indices, computed in so many sections.
    pub(super) fn in_sections<T: Typed>(
        &self,
        sections: usize,
        sides: [Slice<'_>; 2],
        operands: &Operands,
        rules: Rules<T>,
    ) -> Result<Vec<T>> {
        let terms = self.outer.numel();
        let bounds = |section: usize| section * terms / sections;
        let tasks: Vec<Part> = (0..self.batch.numel() * sections)
            .map(|task| (task / sections, task % sections))
            .map(|(index, s)| Part { index, rows: 0..self.m, terms: bounds(s)..bounds(s + 1) })
            .collect();
        let (matrix, is_turned) = (self.m * self.n, self.is_turned());
        let partial = |part: Part| {
            let mut sums = vec![T::default(); matrix];
            self.add(&part, sides, operands, &mut sums, false, |a, b, out, mode| match is_turned {
                true => (rules.product)(b, a, out, mode),
                false => (rules.product)(a, b, out, mode),
            })?;
            Ok(sums)
        };
        let partial = parallel::map(tasks, self.work(), partial)?;
        self.joined(&partial, is_turned, rules.sum)
    }

    /// Whether sections are computed with the operands' sides exchanged. `gemm` transposes one of them where the summed axis is
    /// the innermost of both: the one whose rows lie side by side in the result. It should be the smaller one.
    fn is_turned(&self) -> bool {
        let strides = |operand: &Operand| [operand.matrices.row, operand.matrices.column];
        self.n > self.m && self.m >= WIDE && self.operands.iter().all(|operand| is_along_sums(strides(operand)))
    }

    /// The sums of all sections of each batch index.
    fn joined<T: Typed>(&self, partial: &[Vec<T>], is_turned: bool, sum: fn(T, T) -> T) -> Result<Vec<T>> {
        let (m, n) = (self.m, self.n);
        let sections = partial.len() / self.batch.numel();
        let mut sums = vec![T::default(); self.batch.numel() * m * n];
        let rows = JOINED_ROWS.min(m);
        let tasks: Vec<_> = (sums.chunks_mut(m * n).zip(partial.chunks(sections)))
            .flat_map(|(sums, sections)| {
                (0..m).step_by(rows).zip(sums.chunks_mut(rows * n)).map(move |task| (task, sections))
            })
            .collect();
        let work = sections * self.batch.numel() * m * n;
        parallel::map(tasks, work, |((first, out), sections): ((usize, &mut [T]), &[Vec<T>])| {
            let (begin, others) = sections.split_first().expect("a section");
            if !is_turned {
                out.copy_from_slice(&begin[first * n..][..out.len()]);
                for section in others {
                    out.iter_mut().zip(&section[first * n..]).for_each(|(out, &part)| *out = sum(*out, part));
                }
                return Ok(());
            }
            let mut column = [T::default(); JOINED_ROWS];
            let column = &mut column[..out.len() / n];
            for j in 0..n {
                column.copy_from_slice(&begin[j * m + first..][..column.len()]);
                for section in others {
                    column.iter_mut().zip(&section[j * m + first..]).for_each(|(x, &part)| *x = sum(*x, part));
                }
                column.iter().zip(out[j..].iter_mut().step_by(n)).for_each(|(&x, out)| *out = x);
            }
            Ok(())
        })?;
        Ok(sums)
    }
}
