//! Sums of products, by Einstein's notation: views, sums and matrix products.

use crate::tensor::first_failed;
use crate::{Error, Result, Tensor};
use gradus_ir::op::Op;
use gradus_ir::{Error as ErrorKind, Shape};

/// A sum of products in Einstein's notation, as in NumPy: labels name the axes of each operand, and those of the result after
/// `->`. What the result does not name is summed over; a label that occurs twice in an operand takes its diagonal; without
/// `->` the result has the labels that occur once, in alphabetical order. `...` stands for any number of axes, which
/// broadcast; other axes of one label have equal extents. Spaces mean nothing.
///
/// Several operands are multiplied two by two, always those whose product is smallest.
///
/// ```
/// # use gradus_tensor::{Device, Tensor, einsum};
/// let device = Device::cpu();
/// let (a, b) = (Tensor::new([[1, 2], [3, 4]], &device), Tensor::new([[5, 6], [7, 8]], &device));
/// assert_eq!(einsum("ij,jk->ik", &[&a, &b]).to_vec::<i32>()?, [19, 22, 43, 50]);
/// assert_eq!(einsum("ii", &[&a]).item::<i32>()?, 5); // the trace
/// assert_eq!(einsum("ii->i", &[&a]).to_vec::<i32>()?, [1, 4]); // the diagonal
/// assert_eq!(einsum("...ij->...ji", &[&a]).to_vec::<i32>()?, [1, 3, 2, 4]); // the transpose
/// assert_eq!(einsum("ij,ik,jk->", &[&a, &b, &a]).item::<i32>()?, 376);
/// let error = einsum("ij,jk->iz", &[&a, &b]).error().unwrap().to_string();
/// assert!(error.contains("\"ij,jk->iz\", with 'z' at position 8"));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn einsum(equation: &str, operands: &[&Tensor]) -> Tensor {
    let Some(first) = operands.first() else {
        let kind = ErrorKind::Argument { argument: "operands", expected: "at least one tensor", found: "none".into() };
        return Tensor::failed(Error::new("einsum", kind), &crate::Device::cpu());
    };
    if let Some(failed) = first_failed(operands.iter().copied()) {
        return failed;
    }
    let terms = match Terms::new(equation, operands) {
        Ok(terms) => terms,
        Err(kind) => return first.fail("einsum", kind),
    };
    terms.sum_of_products()
}

/// What an axis is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// The axis of `...` that has so many of them after it.
    Rest(std::cmp::Reverse<usize>),
    Letter(char),
}

/// A letter, or `...`, and its position in the equation.
type Symbol = (Option<char>, usize);

/// An equation taken apart.
struct Equation<'e> {
    text: &'e str,
    operands: Vec<Vec<Symbol>>,
    result: Option<Vec<Symbol>>,
}

impl<'e> Equation<'e> {
    fn parse(text: &'e str) -> Result<Equation<'e>, ErrorKind> {
        let mut equation = Equation { text, operands: vec![Vec::new()], result: None };
        let mut characters = text.chars().enumerate().filter(|(_, c)| !c.is_whitespace()).peekable();
        while let Some((at, c)) = characters.next() {
            let mut follows = |wanted: char| characters.next_if(|&(_, c)| c == wanted).is_some();
            let symbol = match c {
                'a'..='z' | 'A'..='Z' => (Some(c), at),
                '.' if follows('.') && follows('.') => (None, at),
                '.' => return Err(equation.wrong(at, "three dots in a row")),
                ',' if equation.result.is_none() => {
                    equation.operands.push(Vec::new());
                    continue;
                }
                '-' if equation.result.is_none() && follows('>') => {
                    equation.result = Some(Vec::new());
                    continue;
                }
                _ => return Err(equation.wrong(at, "letters, \"...\", commas and one \"->\" before the result")),
            };
            let is_result = equation.result.is_some();
            let Some(symbols) = equation.result.as_mut().or(equation.operands.last_mut()) else { continue };
            let is_new = symbols.iter().all(|&(other, _)| other != symbol.0);
            symbols.push(symbol);
            if !is_new && symbol.0.is_none() {
                return Err(equation.wrong(at, "\"...\" once for each tensor"));
            }
            if !is_new && is_result {
                return Err(equation.wrong(at, "each label once in the result"));
            }
        }
        Ok(equation)
    }

    /// The error of a place in the equation.
    fn wrong(&self, at: usize, expected: &'static str) -> ErrorKind {
        let found = match self.text.chars().nth(at) {
            Some(c) => format!("{:?}, with {c:?} at position {at}", self.text),
            None => format!("{:?}, which ends at position {at}", self.text),
        };
        ErrorKind::Argument { argument: "equation", expected, found }
    }

    /// The labels of symbols, where `...` stands for `rest` axes.
    fn labels(symbols: &[Symbol], rest: usize) -> Vec<Label> {
        let dots = (0..rest).rev().map(|after| Label::Rest(std::cmp::Reverse(after)));
        let labels = symbols.iter().map(|&(letter, _)| match letter {
            Some(letter) => vec![Label::Letter(letter)],
            None => dots.clone().collect(),
        });
        labels.flatten().collect()
    }
}

/// A factor whose axes have different labels.
struct Term {
    tensor: Tensor,
    labels: Vec<Label>,
}

/// What is multiplied, and the labels of the result.
struct Terms {
    terms: Vec<Term>,
    result: Vec<Label>,
}

impl Terms {
    fn new(text: &str, operands: &[&Tensor]) -> Result<Terms, ErrorKind> {
        let equation = Equation::parse(text)?;
        if equation.operands.len() != operands.len() {
            let found = format!("{text:?} with {} for {} operands", equation.operands.len(), operands.len());
            return Err(ErrorKind::Argument { argument: "equation", expected: "labels for each operand", found });
        }
        let mut terms = Vec::with_capacity(operands.len());
        let mut most = 0;
        for (number, (symbols, operand)) in equation.operands.iter().zip(operands).enumerate() {
            let letters = symbols.iter().filter(|(letter, _)| letter.is_some()).count();
            let has_dots = letters < symbols.len();
            if letters > operand.rank() || (letters < operand.rank() && !has_dots) {
                let found = format!("{text:?} with {letters} for operand {number} of shape {}", operand.shape());
                return Err(ErrorKind::Argument { argument: "equation", expected: "a label for each axis", found });
            }
            let rest = operand.rank() - letters;
            most = most.max(rest);
            terms.push(Term { tensor: (*operand).clone(), labels: Equation::labels(symbols, rest) });
        }
        let occurs = |label: &Label| terms.iter().flat_map(|term| &term.labels).filter(|other| *other == label).count();
        let result = match &equation.result {
            Some(symbols) => {
                for &(letter, at) in symbols {
                    if letter.is_some_and(|letter| occurs(&Label::Letter(letter)) == 0) {
                        return Err(equation.wrong(at, "labels of the result that an operand has"));
                    }
                }
                if most > 0 && symbols.iter().all(|(letter, _)| letter.is_some()) {
                    let end = text.chars().count();
                    return Err(equation.wrong(end, "\"...\" also in the result"));
                }
                Equation::labels(symbols, most)
            }
            None => {
                let mut labels: Vec<Label> = terms.iter().flat_map(|term| term.labels.iter().copied()).collect();
                labels.retain(|label| matches!(label, Label::Rest(_)) || occurs(label) == 1);
                labels.sort_unstable();
                labels.dedup();
                labels
            }
        };
        let terms = Terms { terms, result };
        terms.check_extents()?;
        Ok(terms)
    }

    /// Axes of one label have equal extents; those of `...` may also have extent 1.
    fn check_extents(&self) -> Result<(), ErrorKind> {
        let axes = self.terms.iter().enumerate().flat_map(|(number, term)| {
            term.labels.iter().zip(&**term.tensor.shape()).map(move |(&label, &extent)| (number, label, extent))
        });
        let mut known: Vec<(usize, Label, usize)> = Vec::new();
        for (number, label, extent) in axes {
            if matches!(label, Label::Rest(_)) && extent == 1 {
                continue;
            }
            match known.iter().find(|(_, other, _)| *other == label) {
                None => known.push((number, label, extent)),
                Some(&(_, _, other)) if other == extent => {}
                Some(&(first, _, other)) => {
                    let name = match label {
                        Label::Letter(letter) => format!("{letter:?}"),
                        Label::Rest(_) => "an axis of \"...\"".into(),
                    };
                    let found = format!("{other} for {name} of operand {first} and {extent} for that of {number}");
                    return Err(ErrorKind::Argument { argument: "operands", expected: "equal extents", found });
                }
            }
        }
        Ok(())
    }

    #[track_caller]
    fn sum_of_products(mut self) -> Tensor {
        for at in 0..self.terms.len() {
            self.terms[at].take_diagonals();
            self.drop_repeated(at);
        }
        for at in 0..self.terms.len() {
            let alone: Vec<Label> = self.terms[at].labels.clone();
            let alone: Vec<Label> = alone.into_iter().filter(|label| !self.is_needed(label, &[at])).collect();
            self.terms[at].sum_over(&alone);
        }
        while self.terms.len() > 1 {
            let (first, second) = self.smallest_pair();
            let labels = self.kept(first, second);
            let (second, first) = (self.terms.swap_remove(second), self.terms.swap_remove(first));
            self.terms.push(first.times(second, &labels));
        }
        let term = self.terms.swap_remove(0);
        term.permuted(&self.result)
    }

    /// An axis of `...` of extent 1 that another term has at its full extent repeats there: it is left out.
    #[track_caller]
    fn drop_repeated(&mut self, at: usize) {
        let term = &self.terms[at];
        let is_longer = |other: &Term, label: &Label| other.extent(label).is_some_and(|extent| extent != 1);
        let repeated: Vec<Label> = (term.labels.iter().copied())
            .filter(|label| term.extent(label) == Some(1) && self.terms.iter().any(|other| is_longer(other, label)))
            .collect();
        self.terms[at].sum_over(&repeated);
    }

    /// Whether the result, or a term other than some, has a label.
    fn is_needed(&self, label: &Label, but: &[usize]) -> bool {
        let others = self.terms.iter().enumerate().filter(|(at, _)| !but.contains(at));
        self.result.contains(label) || others.into_iter().any(|(_, term)| term.labels.contains(label))
    }

    /// The labels that the product of two terms keeps.
    fn kept(&self, first: usize, second: usize) -> Vec<Label> {
        let labels = self.terms[first].labels.iter().chain(&self.terms[second].labels);
        labels.copied().filter(|label| self.is_needed(label, &[first, second])).collect()
    }

    /// The two terms whose product is smallest, and of these those that take least work.
    fn smallest_pair(&self) -> (usize, usize) {
        let size = |labels: &[Label], (first, second): (usize, usize)| {
            let mut seen: Vec<Label> = labels.to_vec();
            seen.sort_unstable();
            seen.dedup();
            let extent = |label| self.terms[first].extent(label).or(self.terms[second].extent(label)).unwrap_or(1);
            seen.iter().map(extent).fold(1usize, usize::saturating_mul)
        };
        let pairs =
            (0..self.terms.len()).flat_map(|first| (first + 1..self.terms.len()).map(move |second| (first, second)));
        let cost = |&pair: &(usize, usize)| {
            let all = [&self.terms[pair.0].labels[..], &self.terms[pair.1].labels].concat();
            (size(&self.kept(pair.0, pair.1), pair), size(&all, pair))
        };
        pairs.min_by_key(cost).unwrap_or((0, 1))
    }
}

impl Term {
    fn extent(&self, label: &Label) -> Option<usize> {
        self.labels.iter().position(|other| other == label).map(|axis| self.tensor.shape()[axis])
    }

    /// Makes one axis of two with one label, until there are no such: every n + 1-th element of both, merged.
    #[track_caller]
    fn take_diagonals(&mut self) {
        while let Some((first, second)) = repeated(&self.labels) {
            let extent = self.tensor.shape()[first];
            let rank = self.labels.len();
            let order: Vec<usize> =
                (0..rank).filter(|&axis| axis != first && axis != second).chain([first, second]).collect();
            let moved = self.tensor.permute_axes(&order);
            let merged: Shape = moved.shape()[..rank - 2].iter().copied().chain([extent * extent]).collect();
            self.tensor = moved.reshape(merged).slice_step(-1, .., extent as isize + 1);
            self.labels = order[..rank - 1].iter().map(|&axis| self.labels[axis]).collect();
        }
    }

    /// Sums over axes, which are gone then.
    #[track_caller]
    fn sum_over(&mut self, labels: &[Label]) {
        let axes: Vec<usize> = (0..self.labels.len()).filter(|&axis| labels.contains(&self.labels[axis])).collect();
        if !axes.is_empty() {
            self.tensor = self.tensor.sum(axes);
            self.labels.retain(|label| !labels.contains(label));
        }
    }

    /// The axes in the order of some labels.
    #[track_caller]
    fn permuted(&self, labels: &[Label]) -> Tensor {
        let place = |label: &Label| self.labels.iter().position(|other| other == label);
        self.tensor.permute_axes(&labels.iter().filter_map(place).collect::<Vec<_>>())
    }

    /// The product of two terms, summed over what is not kept.
    #[track_caller]
    fn times(self, other: Term, kept: &[Label]) -> Term {
        let (shared, own): (Vec<Label>, Vec<Label>) =
            self.labels.iter().partition(|&label| other.labels.contains(label));
        let others: Vec<Label> = other.labels.iter().copied().filter(|label| !shared.contains(label)).collect();
        let (batch, summed): (Vec<Label>, Vec<Label>) = shared.into_iter().partition(|label| kept.contains(label));
        let left = self.permuted(&[&batch[..], &own, &summed].concat());
        let right = other.permuted(&[&batch[..], &others, &summed].concat());
        let tensor = if summed.is_empty() {
            // Maps join what reads them.
            let at = batch.len();
            let spread = |shape: &Shape, first: usize, count: usize| {
                (0..count).fold(shape.clone(), |shape, _| shape.with_inserted(first, 1))
            };
            left.reshape(spread(left.shape(), at + own.len(), others.len()))
                * right.reshape(spread(right.shape(), at, own.len()))
        } else {
            Tensor::record(Op::Contract { batch: batch.len(), contracted: summed.len() }, &[&left, &right], None)
        };
        Term { tensor, labels: [batch, own, others].concat() }
    }
}

/// Two places with one label.
fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    let second = (0..labels.len()).find(|&at| labels[..at].contains(&labels[at]))?;
    Some((labels.iter().position(|label| *label == labels[second])?, second))
}
