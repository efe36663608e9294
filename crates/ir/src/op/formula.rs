//! Derivatives as formulas: small expressions over rows that autograd turns into recorded ops.

use super::{BinaryOp, CompareOp, UnaryOp};
use std::fmt;
use std::rc::Rc;

/// The derivative of a row with respect to one operand.
#[derive(Clone, Copy)]
pub enum Derivative<F> {
    /// The cotangent of the operand, as a formula of operands, output and cotangent.
    Rule(F),
    /// Zero almost everywhere (`floor`, `sign`).
    Zero,
    /// None; a gradient that would flow through is an error (comparisons, booleans).
    NotDifferentiable,
}

/// Derivative of a unary row: `(x, y, g)` with operand, output and cotangent.
pub type UnaryDerivative = Derivative<fn(Formula, Formula, Formula) -> Formula>;

/// Derivative of a binary row with respect to one operand: `(a, b, y, g)`.
pub type BinaryDerivative = Derivative<fn(Formula, Formula, Formula, Formula) -> Formula>;

/// An element-wise expression. Cloning shares it.
#[derive(Clone)]
pub struct Formula(Rc<Term>);

/// What a [`Formula`] is made of.
pub enum Term {
    /// An argument: its position and the name that it prints as.
    Argument(usize, &'static str),
    /// A number that the library itself puts in.
    Const(f64),
    /// A unary row of a formula.
    Unary(UnaryOp, Formula),
    /// A binary row of two formulas.
    Binary(BinaryOp, Formula, Formula),
    /// `if left OP right { then } else { otherwise }`.
    Choose {
        /// The comparison.
        compare: CompareOp,
        /// Its left side.
        left: Formula,
        /// Its right side.
        right: Formula,
        /// The result where it holds.
        then: Formula,
        /// The result where it does not.
        otherwise: Formula,
    },
}

impl Formula {
    /// Argument number `index`, printed as `name`.
    pub fn argument(index: usize, name: &'static str) -> Formula {
        Formula(Rc::new(Term::Argument(index, name)))
    }

    /// A constant.
    pub fn constant(value: f64) -> Formula {
        Formula(Rc::new(Term::Const(value)))
    }

    /// The outermost term.
    pub fn term(&self) -> &Term {
        &self.0
    }

    /// An identity for tables of shared terms.
    pub fn address(&self) -> usize {
        Rc::as_ptr(&self.0) as usize
    }

    /// Applies a unary row.
    pub fn unary(self, op: UnaryOp) -> Formula {
        Formula(Rc::new(Term::Unary(op, self)))
    }

    /// Applies a binary row.
    pub fn binary(self, op: BinaryOp, other: Formula) -> Formula {
        Formula(Rc::new(Term::Binary(op, self, other)))
    }

    /// `if self OP right { then } else { otherwise }`.
    pub fn choose(self, compare: CompareOp, right: Formula, then: Formula, otherwise: Formula) -> Formula {
        Formula(Rc::new(Term::Choose { compare, left: self, right, then, otherwise }))
    }

    /// The value for given arguments, by the rows' exact functions.
    pub fn evaluate(&self, arguments: &[f64]) -> f64 {
        match self.term() {
            Term::Argument(index, _) => arguments[*index],
            Term::Const(value) => *value,
            Term::Unary(op, x) => op.exact(x.evaluate(arguments)),
            Term::Binary(op, a, b) => op.exact(a.evaluate(arguments), b.evaluate(arguments)),
            Term::Choose { compare, left, right, then, otherwise } => {
                let holds = compare.exact(left.evaluate(arguments), right.evaluate(arguments));
                if holds { then.evaluate(arguments) } else { otherwise.evaluate(arguments) }
            }
        }
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.term() {
            Term::Argument(_, name) => f.write_str(name),
            Term::Const(value) => write!(f, "{value}"),
            Term::Unary(op, x) => write!(f, "{}({x})", op.name()),
            Term::Binary(op, a, b) => match op.symbol() {
                Some(symbol) => write!(f, "({a} {symbol} {b})"),
                None => write!(f, "{}({a}, {b})", op.name()),
            },
            Term::Choose { compare, left, right, then, otherwise } => {
                write!(f, "({left} {} {right} ? {then} : {otherwise})", compare.symbol())
            }
        }
    }
}

macro_rules! operator {
    ($($trait:ident $method:ident),*) => {
        $(impl std::ops::$trait for Formula {
            type Output = Formula;
            fn $method(self, other: Formula) -> Formula {
                self.binary(BinaryOp::$trait, other)
            }
        }
        impl std::ops::$trait<f64> for Formula {
            type Output = Formula;
            fn $method(self, other: f64) -> Formula {
                self.binary(BinaryOp::$trait, Formula::constant(other))
            }
        }
        impl std::ops::$trait<Formula> for f64 {
            type Output = Formula;
            fn $method(self, other: Formula) -> Formula {
                Formula::constant(self).binary(BinaryOp::$trait, other)
            }
        })*
    };
}
operator!(Add add, Sub sub, Mul mul, Div div);

impl std::ops::Neg for Formula {
    type Output = Formula;
    fn neg(self) -> Formula {
        self.unary(UnaryOp::Neg)
    }
}
