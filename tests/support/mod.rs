//! What the conformance tests and the fuzzer share: graphs with their data, running them on a backend, and the
//! comparison with the reference.

use gradus_cpu::reference::{self, Array, Tolerance};
use gradus_ir::op::{Op, PadAxis, SliceAxis, Type, WindowAxis};
use gradus_ir::{Backend, Buffer, DType, Data, Graph, NodeId, Number, Plan, Result, Shape, with_dtype};
use std::fmt;

/// A graph and what its slots hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) graph: Graph,
    pub(crate) inputs: Vec<Data>,
    pub(crate) scalars: Vec<Number>,
}

impl Case {
    /// Adds an input that holds `data`.
    pub(crate) fn input(&mut self, shape: impl Into<Shape>, data: Data) -> NodeId {
        let dtype = data.dtype();
        self.inputs.push(data);
        self.graph.input(shape, dtype, false)
    }

    /// Adds an op whose result follows from its operands.
    pub(crate) fn op(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        let wanted = self.ty(operands[0]).clone();
        self.typed(op, operands, wanted.shape, wanted.dtype)
    }

    /// Adds an op whose result has the wanted shape and dtype.
    pub(crate) fn typed(&mut self, op: Op, operands: &[NodeId], shape: impl Into<Shape>, dtype: DType) -> NodeId {
        let wanted = Type { shape: shape.into(), dtype };
        self.graph.add(op, operands, wanted).unwrap_or_else(|error| panic!("a test made a wrong graph: {error}"))
    }

    /// Adds a number of the user, or a random key, in the next scalar slot.
    pub(crate) fn slot(&mut self, number: Number) -> usize {
        self.scalars.push(number);
        self.scalars.len() - 1
    }

    /// The type of a node.
    pub(crate) fn ty(&self, id: NodeId) -> &Type {
        &self.graph.nodes()[id].ty
    }

    /// The outputs by the reference, with bounds for a backend of this tolerance.
    pub(crate) fn reference(&self, tolerance: Tolerance) -> Result<Vec<Array>> {
        reference::run_with_bounds(&self.graph, &self.inputs, &self.scalars, tolerance)
    }

    /// Uploads every input.
    pub(crate) fn upload(&self, backend: &dyn Backend) -> Result<Vec<Option<Buffer>>> {
        self.inputs.iter().map(|data| backend.upload(data.clone()).map(Some)).collect()
    }

    /// The outputs by a backend that runs `plan`.
    pub(crate) fn run(&self, backend: &dyn Backend, plan: Plan) -> Result<Vec<Data>> {
        let executable = backend.compile(plan)?;
        let outputs = executable.run(&mut self.upload(backend)?, &self.scalars)?;
        outputs.iter().map(|buffer| backend.read(buffer)).collect()
    }
}

/// An array of `len` elements that repeats `values`.
pub(crate) fn tiled(values: &[Number], dtype: DType, len: usize) -> Data {
    with_dtype!(dtype, T => wrap::<T>(values.iter().cycle().take(len).map(|&x| gradus_ir::Element::from_number(x))))
}

fn wrap<T: gradus_ir::Element>(values: impl Iterator<Item = T>) -> Data {
    T::wrap(values.collect())
}

/// The first element of a backend's outputs that the reference does not allow.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) output: usize,
    index: Vec<usize>,
    expected: f64,
    got: f64,
    bound: f64,
}

impl Mismatch {
    /// Compares a backend's outputs with the reference's: finite numbers within the bound; NaN and infinities must be
    /// met, unless the bound is infinite.
    pub(crate) fn find(expected: &[Array], got: &[Data]) -> Option<Mismatch> {
        assert_eq!(expected.len(), got.len(), "number of outputs");
        expected.iter().zip(got).enumerate().find_map(|(output, (expected, got))| {
            assert_eq!(expected.ty.dtype, got.dtype(), "dtype of output {output}");
            assert_eq!(expected.ty.shape.numel(), got.len(), "length of output {output}");
            (0..got.len()).find_map(|i| {
                let (want, bound) = (expected.values[i], expected.errors[i]);
                let got = got.get(i)?.to_f64();
                let same = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= bound;
                if same || bound == f64::INFINITY {
                    return None;
                }
                let shape = &expected.ty.shape;
                let index = shape.iter().zip(shape.strides()).map(|(&extent, stride)| i / stride as usize % extent);
                Some(Mismatch { output, index: index.collect(), expected: want, got, bound })
            })
        })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { output, index, expected, got, bound } = self;
        write!(f, "output {output} at {index:?}: expected {expected:e}, got {got:e}, bound {bound:e}")
    }
}

/// A small random source (splitmix64): the same seed gives the same tests everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A uniform number in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with the given probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of the items.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// The axes of a shape of this rank in random order.
    pub(crate) fn permutation(&mut self, rank: usize) -> Vec<usize> {
        let mut axes: Vec<usize> = (0..rank).collect();
        for i in (1..rank).rev() {
            axes.swap(i, self.below(i + 1));
        }
        axes
    }
}

/// A random view op on a shape, and the shape that it gives.
pub(crate) fn random_view(rng: &mut Rng, shape: &Shape) -> (Op, Shape) {
    let long: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] > 0).collect();
    match rng.below(6) {
        0 => {
            // Merge two neighbours, split an axis, or add an axis of extent 1.
            let axis = rng.below(shape.len().max(1));
            let reshaped = if rng.chance(0.4) && axis + 1 < shape.len() {
                shape.without(&[axis]).with(axis, shape[axis] * shape[axis + 1])
            } else if rng.chance(0.6) && axis < shape.len() && shape[axis].is_multiple_of(2) {
                shape.with(axis, shape[axis] / 2).with_inserted(axis, 2)
            } else {
                shape.with_inserted(axis, 1)
            };
            (Op::Reshape, reshaped)
        }
        1 => {
            let axes = rng.permutation(shape.len());
            let permuted = axes.iter().map(|&axis| shape[axis]).collect();
            (Op::Permute(axes.into()), permuted)
        }
        2 => (Op::Expand, shape.iter().map(|&n| if n == 1 { 1 + rng.below(3) } else { n }).collect()),
        3 => {
            let axes: Vec<SliceAxis> = shape
                .iter()
                .map(|&n| {
                    if n == 0 || rng.chance(0.3) {
                        return SliceAxis { start: 0, step: 1, len: n };
                    }
                    let (start, step) = (rng.below(n), rng.pick(&[1, 1, 2, 3, -1, -2]));
                    let room = if step > 0 { n - 1 - start } else { start };
                    SliceAxis { start, step, len: 1 + rng.below(room / step.unsigned_abs() + 1) }
                })
                .collect();
            let sliced = axes.iter().map(|s| s.len).collect();
            (Op::Slice(axes.into()), sliced)
        }
        4 if !long.is_empty() => {
            let mut windows: Vec<WindowAxis> = Vec::new();
            for _ in 0..1 + rng.below(2) {
                let axis = rng.pick(&long);
                let (dilation, stride) = (1 + rng.below(2), 1 + rng.below(3));
                let size = 1 + rng.below(((shape[axis] - 1) / dilation + 1).min(3));
                if windows.iter().all(|window| window.axis != axis) {
                    windows.push(WindowAxis { axis, size, stride, dilation });
                }
            }
            let counted = windows.iter().fold(shape.clone(), |s, w| s.with(w.axis, w.count(shape[w.axis])));
            let windowed = counted.iter().copied().chain(windows.iter().map(|window| window.size)).collect();
            (Op::Window(windows.into()), windowed)
        }
        _ => {
            let pads: Vec<PadAxis> = shape
                .iter()
                .map(|_| match rng.below(3) {
                    0 => PadAxis { low: rng.below(3), high: rng.below(3), interior: rng.below(2) },
                    _ => PadAxis::default(),
                })
                .collect();
            let padded = pads.iter().zip(&**shape).map(|(pad, &n)| pad.extent(n)).collect();
            (Op::Pad(pads.into()), padded)
        }
    }
}
