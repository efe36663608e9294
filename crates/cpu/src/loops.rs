//! The innermost loops: one row over one block, compiled for the best instructions that the machine has.

use crate::address::Rows;
use crate::slice::{Slice, SliceMut, with_register, with_slice};
use gradus_ir::op::row::{Binary, BinaryVisitor, Compare, CompareVisitor, Unary, UnaryVisitor};
use gradus_ir::real::Real;
use gradus_ir::{DType, Data, Element, Number, f16, math, with_dtype};
use std::sync::LazyLock;

/// What the machine can do, found once.
static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);

/// What the machine can do.
#[cfg(target_arch = "x86_64")]
pub(crate) fn arch() -> pulp::Arch {
    *ARCH
}

/// Runs a loop compiled for the machine's vector instructions.
#[inline(always)]
pub(crate) fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    ARCH.dispatch(body)
}

/// Runs what is written for vectors of any length with those of the machine.
#[inline(always)]
pub(crate) fn simd<W: pulp::WithSimd>(body: W) -> W::Output {
    ARCH.dispatch(body)
}

/// The same as [`vectorised`], where the loop is told whether these instructions have fused multiply-adds. All that have give the same bits.
#[inline(always)]
pub(crate) fn vectorised_reals<R>(body: impl FnOnce(bool) -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce(bool) -> R> pulp::WithSimd for Body<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> R {
            (self.0)(fuses::<S>())
        }
    }
    ARCH.dispatch(Body(body))
}

/// Whether vector instructions have fused multiply-adds.
#[inline(always)]
pub(crate) fn fuses<S: pulp::Simd>() -> bool {
    !S::IS_SCALAR && cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"))
}

#[inline(always)]
fn map1<A: Copy, B>(x: &[A], out: &mut [B], f: impl Fn(A) -> B) {
    map1_reals(x, out, |x, _| f(x));
}

/// Maps an operand by a function that is told whether it may use fused multiply-adds.
#[inline(always)]
fn map1_reals<A: Copy, B>(x: &[A], out: &mut [B], f: impl Fn(A, bool) -> B) {
    debug_assert_eq!(x.len(), out.len());
    vectorised_reals(
        #[inline(always)]
        |fuses| {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = f(x, fuses);
            }
        },
    );
}

/// What a loop of two operands reads.
pub(crate) struct Operand<'a> {
    /// As many elements as the loop has, or one that stands for all, or the array that rows lie in.
    pub(crate) values: Slice<'a>,
    /// Which rows of it are read.
    pub(crate) rows: Option<Rows>,
}

/// The same, of a type.
pub(crate) struct Typed<'l, T> {
    values: &'l [T],
    rows: &'l Option<Rows>,
}

impl<'l> Typed<'l, f32> {
    /// What an operand of f32 reads.
    pub(crate) fn of(operand: &'l Operand<'_>) -> Typed<'l, f32> {
        Typed::new(operand.values.typed(), operand)
    }
}

impl<'l, T> Typed<'l, T> {
    pub(crate) fn new(values: &'l [T], operand: &'l Operand<'_>) -> Typed<'l, T> {
        Typed { values, rows: &operand.rows }
    }

    /// What is read for a row of so many elements: these, or one that stands for all.
    #[inline(always)]
    pub(crate) fn row(&self, number: usize, len: usize) -> &'l [T] {
        let (start, len) = match self.rows {
            Some(rows) => rows.row(number),
            None if self.values.len() == 1 => (0, 1),
            None => (number * len, len),
        };
        &self.values[start..start + len]
    }
}

/// Maps two operands row by row, by a function that is told whether it may use fused multiply-adds.
#[inline(always)]
fn map2<A: Copy, B: Copy>(a: Typed<'_, A>, b: Typed<'_, A>, out: &mut [B], f: impl Fn(A, A, bool) -> B) {
    /// Of whole slices, the compiler knows that they do not overlap.
    #[inline(always)]
    fn map<A: Copy, B: Copy>(a: &[A], b: &[A], out: &mut [B], f: impl Fn(A, A) -> B) {
        match (a, b) {
            (a, b) if a.len() == out.len() && b.len() == out.len() => {
                out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out = f(a, b));
            }
            (&[a], &[b]) => out.fill(f(a, b)),
            (a, &[b]) => out.iter_mut().zip(a).for_each(|(out, &a)| *out = f(a, b)),
            (&[a], b) => out.iter_mut().zip(b).for_each(|(out, &b)| *out = f(a, b)),
            _ => unreachable!("operands of {} and {} elements", a.len(), b.len()),
        }
    }
    let row = a.rows.or(*b.rows).map_or(out.len(), |rows| rows.len);
    vectorised_reals(
        #[inline(always)]
        |fuses| {
            for (number, out) in out.chunks_mut(row.max(1)).enumerate() {
                map(a.row(number, row), b.row(number, row), out, |a, b| f(a, b, fuses));
            }
        },
    );
}

/// A function, of an f32 with fused multiply-adds if it may use them.
#[inline(always)]
pub(crate) fn unary<R: Unary, T: Real>(x: T, fuses: bool) -> T {
    if fuses { R::fast(T::Fused::from(x)).into() } else { R::fast(x) }
}

#[inline(always)]
fn binary<R: Binary, T: Real>(a: T, b: T, fuses: bool) -> T {
    if fuses { R::fast(T::Fused::from(a), T::Fused::from(b)).into() } else { R::fast(a, b) }
}

/// eˣ.
#[inline(always)]
pub(crate) fn exp<T: Real>(x: T, fuses: bool) -> T {
    if fuses { T::Fused::from(x).exp().into() } else { x.exp() }
}

/// `out = row(x)`. Slices are told of by reference: moved ones are read by other widths than they were just written by, for which
/// a processor waits until all that is written before, the whole block of the last loop, is in the cache.
pub(crate) struct UnaryLoop<'l, 'a> {
    pub(crate) x: &'l Slice<'a>,
    pub(crate) out: &'l mut SliceMut<'a>,
}

impl UnaryVisitor for UnaryLoop<'_, '_> {
    type Output = ();
    fn visit<R: Unary>(self) {
        match (self.x, self.out) {
            (Slice::Bool(x), SliceMut::Bool(out)) => map1(x, out, R::on_bool),
            (Slice::I32(x), SliceMut::I32(out)) => map1(x, out, R::fast_int::<i32>),
            (Slice::U32(x), SliceMut::U32(out)) => map1(x, out, R::fast_int::<u32>),
            (Slice::F32(x), SliceMut::F32(out)) => map1_reals(x, out, unary::<R, f32>),
            (Slice::F64(x), SliceMut::F64(out)) => map1_reals(x, out, unary::<R, f64>),
            _ => unreachable!("operand and result have one dtype, and a register of f16 is held as f32"),
        }
    }
}

/// `out = row(a, b)`.
pub(crate) struct BinaryLoop<'l, 'a> {
    pub(crate) a: &'l Operand<'a>,
    pub(crate) b: &'l Operand<'a>,
    pub(crate) out: &'l mut SliceMut<'a>,
}

impl BinaryVisitor for BinaryLoop<'_, '_> {
    type Output = ();
    fn visit<R: Binary>(self) {
        let BinaryLoop { a, b, out } = self;
        match (&a.values, &b.values, out) {
            (Slice::Bool(x), Slice::Bool(y), SliceMut::Bool(out)) => {
                map2(Typed::new(x, a), Typed::new(y, b), out, |a, b, _| R::on_bool(a, b));
            }
            (Slice::I32(x), Slice::I32(y), SliceMut::I32(out)) => {
                map2(Typed::new(x, a), Typed::new(y, b), out, |a, b, _| R::fast_int(a, b));
            }
            (Slice::U32(x), Slice::U32(y), SliceMut::U32(out)) => {
                map2(Typed::new(x, a), Typed::new(y, b), out, |a, b, _| R::fast_int(a, b));
            }
            (Slice::F32(x), Slice::F32(y), SliceMut::F32(out)) => {
                map2(Typed::new(x, a), Typed::new(y, b), out, binary::<R, f32>);
            }
            (Slice::F64(x), Slice::F64(y), SliceMut::F64(out)) => {
                map2(Typed::new(x, a), Typed::new(y, b), out, binary::<R, f64>);
            }
            _ => unreachable!("operands and result have one dtype, and a register of f16 is held as f32"),
        }
    }
}

/// `out = a OP b`.
pub(crate) struct CompareLoop<'l, 'a> {
    pub(crate) a: &'l Operand<'a>,
    pub(crate) b: &'l Operand<'a>,
    pub(crate) out: &'l mut [bool],
}

impl CompareVisitor for CompareLoop<'_, '_> {
    type Output = ();
    fn visit<R: Compare>(self) {
        let CompareLoop { a, b, out } = self;
        with_register!(Slice, a.values, x => {
            map2(Typed::new(x, a), Typed::new(b.values.typed(), b), out, |a, b, _| R::fast(a, b));
        });
    }
}

/// Chooses by bits. What is written as a condition becomes a choice of addresses, of which no vector is made.
trait Choose: Copy {
    fn choose(condition: bool, then: Self, otherwise: Self) -> Self;
}

macro_rules! choose {
    ($($t:ident $bits:ident ($to:expr, $from:expr);)*) => {
        $(impl Choose for $t {
            #[inline(always)]
            fn choose(condition: bool, then: $t, otherwise: $t) -> $t {
                let mask = $bits::from(condition).wrapping_neg();
                let (then, otherwise): ($bits, $bits) = ($to(then), $to(otherwise));
                $from((then & mask) | (otherwise & !mask))
            }
        })*
    };
}
choose! {
    bool u8 (u8::from, |bits: u8| bits != 0);
    i32 u32 (|x: i32| x as u32, |bits: u32| bits as i32);
    u32 u32 (|x: u32| x, |bits: u32| bits);
    f32 u32 (f32::to_bits, f32::from_bits);
    f64 u64 (f64::to_bits, f64::from_bits);
}

/// `out = condition ? then : otherwise`.
pub(crate) fn select(condition: &[bool], then: Slice<'_>, otherwise: Slice<'_>, out: SliceMut<'_>) {
    fn typed<T: Choose>(condition: &[bool], then: &[T], otherwise: &[T], out: &mut [T]) {
        vectorised(
            #[inline(always)]
            || {
                for (((out, &c), &t), &o) in out.iter_mut().zip(condition).zip(then).zip(otherwise) {
                    *out = T::choose(c, t, o);
                }
            },
        );
    }
    with_register!(SliceMut, out, out => typed(condition, then.typed(), otherwise.typed(), out));
}

/// A conversion that Rust's `as` does: floats truncate and saturate to integers, NaN to 0; integers wrap.
trait CastTo<D> {
    fn cast(self) -> D;
}

macro_rules! casts {
    ($($from:ident -> $($to:ident)*;)*) => {
        $($(impl CastTo<$to> for $from {
            #[inline(always)]
            fn cast(self) -> $to {
                self as $to
            }
        })*
        impl CastTo<bool> for $from {
            #[inline(always)]
            fn cast(self) -> bool {
                self != $from::default()
            }
        }
        impl CastTo<$from> for bool {
            #[inline(always)]
            fn cast(self) -> $from {
                self as u8 as $from
            }
        })*
    };
}
casts! {
    i32 -> i32 u32 f32 f64;
    u32 -> i32 u32 f32 f64;
    f32 -> i32 u32 f32 f64;
    f64 -> i32 u32 f32 f64;
}

impl CastTo<bool> for bool {
    #[inline(always)]
    fn cast(self) -> bool {
        self
    }
}

/// `out = x as the dtype of out`.
pub(crate) fn cast(x: Slice<'_>, out: SliceMut<'_>) {
    fn typed<A: Element + CastTo<B>, B>(x: &[A], out: &mut [B]) {
        map1(x, out, A::cast);
    }
    with_register!(SliceMut, out, out => with_register!(Slice, x, x => typed(x, out)));
}

/// `out = x as f16`, held as f32.
pub(crate) fn cast_to_f16(x: Slice<'_>, mut out: SliceMut<'_>) {
    let len = out.len();
    match x {
        Slice::F64(x) => map1(x, out.range(0, len).typed(), math::to_odd),
        x => cast(x, out.range(0, len)),
    }
    round_to_f16(out.typed());
}

/// Rounds a register of f16, which is held as f32.
pub(crate) fn round_to_f16(register: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || register.iter_mut().for_each(|x| *x = math::round_to_f16(*x)),
    );
}

/// An array of equal numbers, as a register of a dtype holds them.
pub(crate) fn filled(dtype: DType, number: Number, len: usize) -> Data {
    fn typed<T: Element>(number: Number, len: usize) -> Data {
        T::wrap(vec![T::from_number(number); len])
    }
    match dtype {
        DType::F16 => typed::<f32>(f16::from_number(number).into(), len),
        _ => with_dtype!(dtype, T => typed::<T>(number, len)),
    }
}

/// Copies elements between memory and registers, which hold f16 as f32.
pub(crate) fn copy(from: Slice<'_>, to: SliceMut<'_>) {
    match (from, to) {
        (Slice::F16(from), SliceMut::F32(to)) => map1(from, to, math::from_f16),
        (Slice::F32(from), SliceMut::F16(to)) => map1(from, to, math::to_f16),
        (from, to) => with_slice!(SliceMut, to, to => to.copy_from_slice(from.typed())),
    }
}
