//! Random graphs with their data, of what the scheduler treats in ways of its own.

use crate::support::{Case, Rng, random_view, tiled};
use gradus_ir::op::attention::{AttentionPart, AttentionShape};
use gradus_ir::op::{Axes, BinaryOp, CompareOp, Op, PadAxis, ReduceOp, ScanOp, ScatterMode, SliceAxis, UnaryOp};
use gradus_ir::{DType, NodeId, Number, Shape};

/// The most elements of a node.
const LARGEST: usize = 3000;

/// A graph under construction.
pub(crate) struct Generator {
    rng: Rng,
    case: Case,
    /// Whether shapes may be large.
    large: bool,
    /// Whether there is f64, and f16; f32 takes their place.
    wide: bool,
    half: bool,
}

impl Generator {
    /// A random graph with its data.
    pub(crate) fn generate(seed: u64, dtypes: &[DType]) -> Case {
        let mut rng = Rng(seed);
        let large = rng.chance(0.15);
        let size = 3 + rng.below(23);
        let (wide, half) = (dtypes.contains(&DType::F64), dtypes.contains(&DType::F16));
        let mut generator = Generator { rng, case: Case::default(), large, wide, half };
        while generator.case.graph.nodes().len() < size {
            generator.step();
        }
        generator.finish()
    }

    /// Asks for all that nothing reads, and a little more; donates some inputs.
    fn finish(mut self) -> Case {
        let count = self.case.graph.nodes().len();
        let mut outputs: Vec<NodeId> =
            (0..count).filter(|id| !self.case.graph.nodes().iter().any(|node| node.operands.contains(id))).collect();
        for _ in 0..self.rng.below(3) {
            outputs.push(self.rng.below(count));
        }
        self.case.graph.outputs = outputs;
        for slot in 0..self.case.inputs.len() {
            self.case.graph.donated[slot] = self.rng.chance(0.4);
        }
        self.case
    }

    fn shape(&mut self) -> Shape {
        if self.large && self.rng.chance(0.5) {
            return match self.rng.below(2) {
                0 => Shape::new(&[1 + self.rng.below(LARGEST)]),
                _ => Shape::new(&[1 + self.rng.below(60), 1 + self.rng.below(50)]),
            };
        }
        (0..self.rng.below(5))
            .map(|_| self.rng.pick(&[0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6, 7]))
            .collect()
    }

    fn dtype(&mut self) -> DType {
        use DType::{Bool, F16, F32, F64, I32, U32};
        match self.rng.pick(&[F32, F32, F32, F32, F64, F16, F16, I32, I32, U32, Bool]) {
            F16 if !self.half => F32,
            F64 if !self.wide => F32,
            dtype => dtype,
        }
    }

    fn number(&mut self, dtype: DType) -> Number {
        match dtype {
            DType::Bool => Number::Bool(self.rng.chance(0.5)),
            DType::I32 if self.rng.chance(0.8) => Number::Int(self.rng.below(19) as i64 - 9),
            DType::U32 if self.rng.chance(0.8) => Number::Int(self.rng.below(10) as i64),
            DType::I32 => Number::Int(self.rng.below(1 << 32) as i64 + i32::MIN as i64),
            DType::U32 => Number::Int(self.rng.below(1 << 32) as i64),
            DType::F16 | DType::F32 | DType::F64 => Number::Float(match self.rng.below(100) {
                0 => self.rng.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]),
                1..15 => self.rng.below(7) as f64 - 3.0,
                15..25 => 10f64.powf(self.rng.unit() * 6.0 - 3.0),
                _ => self.rng.unit() * 4.0 - 2.0,
            }),
        }
    }

    fn input(&mut self, shape: &Shape, dtype: DType) -> NodeId {
        let numbers: Vec<Number> = (0..shape.numel()).map(|_| self.number(dtype)).collect();
        self.case.input(shape, tiled(&numbers, dtype, numbers.len()))
    }

    /// A new node that reads nothing.
    fn source(&mut self, shape: &Shape, dtype: DType) -> NodeId {
        let op = match self.rng.below(10) {
            0 => {
                let number = self.number(dtype);
                Op::Scalar(self.case.slot(number))
            }
            1 => Op::Const(self.number(dtype)),
            2 if !shape.is_empty() && dtype != DType::Bool => Op::Iota(self.rng.below(shape.len())),
            3 if !matches!(dtype, DType::Bool | DType::I32 | DType::F16) => {
                let key = Number::Int(self.rng.below(1 << 60) as i64);
                Op::Random(self.case.slot(key))
            }
            _ => return self.input(shape, dtype),
        };
        self.case.typed(op, &[], shape, dtype)
    }

    /// Any node, a late one rather than an early one.
    fn any(&mut self) -> NodeId {
        let count = self.case.graph.nodes().len();
        if count == 0 || self.rng.chance(0.1) {
            let (shape, dtype) = (self.shape(), self.dtype());
            return self.source(&shape, dtype);
        }
        self.rng.below(count).max(self.rng.below(count))
    }

    /// Any node that satisfies the condition.
    fn any_where(&mut self, condition: impl Fn(&Shape, DType) -> bool) -> Option<NodeId> {
        let nodes = self.case.graph.nodes().iter().enumerate();
        let fitting: Vec<NodeId> =
            nodes.filter(|(_, node)| condition(&node.ty.shape, node.ty.dtype)).map(|(id, _)| id).collect();
        (!fitting.is_empty()).then(|| self.rng.pick(&fitting))
    }

    /// A node of this type: one that is there, one made from what is there by a cast, reshape or broadcast, or a new
    /// source.
    fn operand(&mut self, shape: &Shape, dtype: DType) -> NodeId {
        if self.rng.chance(0.6)
            && let Some(id) = self.any_where(|s, d| s == shape && d == dtype)
        {
            return id;
        }
        if self.rng.chance(0.3)
            && let Some(id) = self.any_where(|s, _| s == shape)
        {
            return self.cast(id, dtype);
        }
        if self.rng.chance(0.3)
            && let Some(id) = self.any_where(|s, d| s.numel() == shape.numel() && d == dtype)
        {
            return self.case.typed(Op::Reshape, &[id], shape, dtype);
        }
        if self.rng.chance(0.6)
            && let Some(id) = self.any_where(|s, d| s.broadcast(shape).as_ref() == Some(shape) && d == dtype)
        {
            let from = self.case.ty(id).shape.clone();
            let ones = std::iter::repeat_n(1, shape.len() - from.len());
            let aligned =
                self.case.typed(Op::Reshape, &[id], ones.chain(from.iter().copied()).collect::<Shape>(), dtype);
            return self.case.typed(Op::Expand, &[aligned], shape, dtype);
        }
        self.source(shape, dtype)
    }

    fn cast(&mut self, id: NodeId, dtype: DType) -> NodeId {
        let ty = self.case.ty(id).clone();
        if ty.dtype == dtype { id } else { self.case.typed(Op::Cast, &[id], ty.shape, dtype) }
    }

    /// Any node, cast to a dtype that is accepted.
    fn accepted(&mut self, accepts: impl Fn(DType) -> bool) -> NodeId {
        let id = self.any();
        if accepts(self.case.ty(id).dtype) {
            return id;
        }
        loop {
            let dtype = self.dtype();
            if accepts(dtype) {
                return self.cast(id, dtype);
            }
        }
    }

    /// An index below `extent` of this shape, valid by construction.
    fn index(&mut self, shape: &Shape, extent: usize) -> NodeId {
        let dtype = self.rng.pick(&[DType::I32, DType::U32]);
        if extent == 0 || self.rng.chance(0.5) {
            let numbers: Vec<Number> = (0..shape.numel()).map(|_| Number::from(self.rng.below(extent))).collect();
            return self.case.input(shape, tiled(&numbers, dtype, numbers.len()));
        }
        let number = self.operand(shape, dtype);
        let extent = self.case.typed(Op::Const(Number::from(extent)), &[], shape, dtype);
        self.case.op(Op::Binary(BinaryOp::Rem), &[number, extent])
    }

    /// Adds an op with what it needs.
    fn step(&mut self) {
        match self.rng.below(39) {
            0..4 => {
                let op = self.rng.pick(UnaryOp::ALL);
                let x = self.accepted(|dtype| op.accepts().contains(dtype));
                self.case.op(Op::Unary(op), &[x]);
            }
            4..8 => {
                let op = self.rng.pick(BinaryOp::ALL);
                self.pair(Op::Binary(op), |dtype| op.accepts().contains(dtype));
            }
            8 => {
                let op = self.rng.pick(CompareOp::ALL);
                self.pair(Op::Compare(op), |dtype| op.accepts().contains(dtype));
            }
            9 => {
                let then = self.any();
                let ty = self.case.ty(then).clone();
                let (condition, other) = (self.operand(&ty.shape, DType::Bool), self.operand(&ty.shape, ty.dtype));
                self.case.typed(Op::Select, &[condition, then, other], ty.shape, ty.dtype);
            }
            10 => {
                let (x, dtype) = (self.any(), self.dtype());
                self.cast(x, dtype);
            }
            11..16 => {
                let x = self.any();
                let ty = self.case.ty(x).clone();
                let (op, shape) = random_view(&mut self.rng, &ty.shape);
                if shape.numel() <= LARGEST && shape.len() <= 6 {
                    self.case.typed(op, &[x], shape, ty.dtype);
                }
            }
            16..18 => self.reduction(),
            18..20 => self.product(),
            20 => self.gather(),
            21 => self.scatter(),
            22 => {
                let (x, after) = (self.any(), self.any());
                self.case.op(Op::Barrier, &[x, after]);
            }
            23..27 => self.row(),
            27 => self.draws(),
            28 => self.numbers(),
            29 => self.there_and_back(),
            30 => self.lookup(),
            31 => self.line(),
            32 => self.cosine(),
            33..35 => self.scan(),
            35 => self.sort(),
            36..38 => self.attention(),
            _ => {
                let (shape, dtype) = (self.shape(), self.dtype());
                self.source(&shape, dtype);
            }
        }
    }

    /// A reduction along trailing axes, and what every element makes of its row's result: a step of a softmax or of a
    /// normalisation.
    fn row(&mut self) {
        let x = self.accepted(|dtype| dtype != DType::Bool);
        let ty = self.case.ty(x).clone();
        let rank = ty.shape.len();
        let axes: Vec<usize> = (rank - self.rng.below(rank.min(2) + 1)..rank).collect();
        let reduce = Op::Reduce(self.rng.pick(&[ReduceOp::Sum, ReduceOp::Sum, ReduceOp::Max]), axes.as_slice().into());
        if reduce.infer(&[&ty], &ty).is_err() {
            return;
        }
        let mut result = self.case.op(reduce, &[x]);
        if self.rng.chance(0.3) {
            let kept = ty.shape.without(&axes);
            let flat = self.case.typed(Op::Reshape, &[result], kept, ty.dtype);
            let changed = self.case.op(Op::Unary(UnaryOp::Square), &[flat]);
            result = self.case.typed(Op::Reshape, &[changed], ty.shape.with_ones(&axes), ty.dtype);
        }
        let spread = self.case.typed(Op::Expand, &[result], ty.shape.clone(), ty.dtype);
        let op = self.rng.pick(&[BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Add]);
        let other = if self.rng.chance(0.7) { x } else { self.operand(&ty.shape, ty.dtype) };
        self.case.op(Op::Binary(op), &[other, spread]);
    }

    /// Two draws of one type, which are never one.
    fn draws(&mut self) {
        let (shape, dtype) = (self.shape(), self.rng.pick(&[DType::F32, DType::U32]));
        let draws = [0; 2].map(|_| {
            let key = Number::Int(self.rng.below(1 << 60) as i64);
            let slot = self.case.slot(key);
            self.case.typed(Op::Random(slot), &[], &shape[..], dtype)
        });
        self.case.op(Op::Binary(BinaryOp::Sub), &draws);
    }

    /// What a user's two numbers make of a node.
    fn numbers(&mut self) {
        let mut x = self.accepted(|dtype| dtype != DType::Bool);
        let ty = self.case.ty(x).clone();
        for op in [BinaryOp::Mul, BinaryOp::Add] {
            let number = self.number(ty.dtype);
            let slot = self.case.slot(number);
            let number = self.case.typed(Op::Scalar(slot), &[], &ty.shape[..], ty.dtype);
            x = self.case.op(Op::Binary(op), &[x, number]);
        }
    }

    /// A node in another dtype, and then in its own again.
    fn there_and_back(&mut self) {
        let (x, dtype) = (self.any(), self.dtype());
        let own = self.case.ty(x).dtype;
        let there = self.cast(x, dtype);
        self.cast(there, own);
    }

    /// One element of each line of what a map gives.
    fn lookup(&mut self) {
        let x = self.accepted(|dtype| dtype != DType::Bool);
        let shape = self.case.ty(x).shape.clone();
        if shape.numel() > 0 && !shape.is_empty() {
            let axis = self.rng.below(shape.len());
            let map = self.case.op(Op::Unary(UnaryOp::Square), &[x]);
            let index = self.index(&shape.with(axis, 1), shape[axis]);
            self.case.op(Op::Gather(axis), &[map, index]);
        }
    }

    /// One line across an axis, repeated along it.
    fn line(&mut self) {
        let x = self.any();
        let ty = self.case.ty(x).clone();
        if ty.shape.numel() > 0 && !ty.shape.is_empty() {
            let axis = self.rng.below(ty.shape.len());
            let mut slices: Vec<SliceAxis> = ty.shape.iter().map(|&len| SliceAxis { start: 0, step: 1, len }).collect();
            slices[axis] = SliceAxis { start: self.rng.below(ty.shape[axis]), step: 1, len: 1 };
            let line = self.case.typed(Op::Slice(slices.into()), &[x], ty.shape.with(axis, 1), ty.dtype);
            self.case.typed(Op::Expand, &[line], ty.shape, ty.dtype);
        }
    }

    /// A map that gives 1 at zero, padded or reduced.
    fn cosine(&mut self) {
        let x = self.accepted(DType::is_float);
        let shape = self.case.ty(x).shape.clone();
        if shape.numel() > 0 && !shape.is_empty() {
            let map = self.case.op(Op::Unary(UnaryOp::Cos), &[x]);
            let axis = self.rng.below(shape.len());
            if self.rng.chance(0.5) {
                self.case.op(Op::Reduce(ReduceOp::Sum, [axis].as_slice().into()), &[map]);
            } else {
                let mut pads = vec![PadAxis::default(); shape.len()];
                pads[axis].low = 1;
                let padded = shape.with(axis, shape[axis] + 1);
                let dtype = self.case.ty(map).dtype;
                self.case.typed(Op::Pad(pads.into()), &[map], padded, dtype);
            }
        }
    }

    /// An op of two operands of one shape and dtype.
    fn pair(&mut self, op: Op, accepts: impl Fn(DType) -> bool) {
        let a = self.accepted(accepts);
        let ty = self.case.ty(a).clone();
        let b = self.operand(&ty.shape, ty.dtype);
        self.case.op(op, &if self.rng.chance(0.5) { [a, b] } else { [b, a] });
    }

    fn reduction(&mut self) {
        let x = self.accepted(|dtype| dtype != DType::Bool);
        let ty = self.case.ty(x).clone();
        let op = self.rng.pick(&ReduceOp::ALL);
        let axes = self.rng.permutation(ty.shape.len());
        let count = if op.gives_index() { 1.min(axes.len()) } else { self.rng.below(axes.len() + 1) };
        let op = Op::Reduce(op, axes[..count].into());
        // There is no largest element of nothing.
        if op.infer(&[&ty], &ty).is_ok() {
            self.case.op(op, &[x]);
        }
    }

    fn product(&mut self) {
        let a = self.accepted(|dtype| dtype != DType::Bool);
        let ty = self.case.ty(a).clone();
        let batch = self.rng.below(ty.shape.len().min(2) + 1);
        let contracted = self.rng.below((ty.shape.len() - batch).min(2) + 1);
        let summed = &ty.shape[ty.shape.len() - contracted..];
        let free: Vec<usize> = match self.rng.chance(0.3) {
            true => summed.to_vec(),
            false => (0..self.rng.below(3)).map(|_| self.rng.below(5)).collect(),
        };
        let b_shape: Shape = ty.shape[..batch].iter().chain(&free).chain(summed).copied().collect();
        if ty.shape.numel() * free.iter().product::<usize>() <= 2 * LARGEST {
            let mut operands = [a, self.operand(&b_shape, ty.dtype)];
            for operand in &mut operands {
                if self.rng.chance(0.2) {
                    *operand = self.case.op(Op::Unary(UnaryOp::Square), &[*operand]);
                }
            }
            let product = self.case.op(Op::Contract { batch, contracted }, &operands);
            if self.rng.chance(0.3) {
                self.case.op(Op::Unary(UnaryOp::Square), &[product]);
            }
        }
    }

    /// A node with an axis, this axis, and the shape of an index along it.
    fn indexed(&mut self, accepts: impl Fn(DType) -> bool) -> Option<(NodeId, usize, Shape)> {
        let x = self.any_where(|shape, dtype| !shape.is_empty() && accepts(dtype))?;
        let shape = self.case.ty(x).shape.clone();
        let axis = self.rng.below(shape.len());
        let indexed = shape.with(axis, self.rng.below(7));
        (indexed.numel() <= LARGEST && (shape[axis] > 0 || indexed.numel() == 0)).then_some((x, axis, indexed))
    }

    fn gather(&mut self) {
        if let Some((x, axis, shape)) = self.indexed(|_| true) {
            let extent = self.case.ty(x).shape[axis];
            let index = self.index(&shape, extent);
            self.case.op(Op::Gather(axis), &[x, index]);
        }
    }

    fn scan(&mut self) {
        let op = self.rng.pick(&ScanOp::ALL);
        let x = self.accepted(|dtype| if op == ScanOp::Recurrence { dtype.is_float() } else { dtype != DType::Bool });
        let ty = self.case.ty(x).clone();
        if !ty.shape.is_empty() {
            let axis = self.rng.below(ty.shape.len());
            let second = if op == ScanOp::Recurrence { Some(self.operand(&ty.shape, ty.dtype)) } else { None };
            let operands: Vec<NodeId> = [x].into_iter().chain(second).collect();
            self.case.op(Op::Scan(op, axis), &operands);
        }
    }

    /// Indices that put a node into order, and perhaps the node in this order.
    fn sort(&mut self) {
        if let Some(x) = self.any_where(|shape, _| !shape.is_empty()) {
            let axis = self.rng.below(self.case.ty(x).shape.len());
            let descending = self.rng.chance(0.5);
            let extent = self.case.ty(x).shape[axis];
            let kept = if self.rng.chance(0.5) { extent } else { self.rng.below(extent + 1) };
            let order = self.case.op(Op::Argsort { axis, descending, kept }, &[x]);
            if self.rng.chance(0.5) {
                self.case.op(Op::Gather(axis), &[x, order]);
            }
        }
    }

    /// An attention and one of its cotangents. What is not looked at must be finite: it is made of numbers that are.
    fn attention(&mut self) {
        let batch: Vec<usize> = (0..self.rng.below(2)).map(|_| 1 + self.rng.below(3)).collect();
        let [group, queries, keys, width, values] = [(); 5].map(|_| 1 + self.rng.below(5));
        let dtype = if self.wide && self.rng.chance(0.2) { DType::F64 } else { DType::F32 };
        let shape = AttentionShape { batch: Shape::new(&batch), group, queries, keys, width, values };
        let with = |inner: &[usize]| -> Shape { batch.iter().chain(inner).copied().collect() };
        let mask = if self.rng.chance(0.5) { Some(self.operand(&shape.logits(), DType::Bool)) } else { None };
        let causal = self.rng.chance(0.5);
        let mut numbers = |shape: &Shape| {
            let x = if causal || mask.is_some() {
                let numbers: Vec<Number> = (0..shape.numel()).map(|_| Number::Float(self.rng.unit() - 0.5)).collect();
                self.case.input(shape, tiled(&numbers, dtype, numbers.len()))
            } else {
                self.operand(shape, dtype)
            };
            self.case.op(Op::Unary(UnaryOp::Tanh), &[x])
        };
        let query = numbers(&shape.of_part(AttentionPart::GradQuery));
        let (key, value) = (numbers(&with(&[keys, width])), numbers(&with(&[keys, values])));
        let cotangent = numbers(&shape.of_part(AttentionPart::Output));
        let mut part = |part: AttentionPart, operands: &[NodeId]| {
            let operands: Vec<NodeId> = operands.iter().copied().chain(mask).collect();
            self.case.op(Op::Attention { part, causal }, &operands)
        };
        let operands = [query, key, value];
        let output = part(AttentionPart::Output, &operands);
        let sums = part(AttentionPart::LogSumExp, &operands);
        let last = Axes::from_slice(&[batch.len() + 2]);
        let parts = [AttentionPart::GradQuery, AttentionPart::GradKey, AttentionPart::GradValue];
        let wanted = self.rng.pick(&parts);
        let products = self.case.op(Op::Binary(BinaryOp::Mul), &[output, cotangent]);
        let products = self.case.op(Op::Reduce(ReduceOp::Sum, last), &[products]);
        let products = self.case.typed(Op::Reshape, &[products], shape.per_query(), dtype);
        let operands = [query, key, value, cotangent, sums, products].into_iter().chain(mask).collect::<Vec<_>>();
        self.case.op(Op::Attention { part: wanted, causal }, &operands);
    }

    fn scatter(&mut self) {
        let mode = self.rng.pick(&[ScatterMode::Add, ScatterMode::Set]);
        if let Some((base, axis, shape)) = self.indexed(|dtype| mode == ScatterMode::Set || dtype != DType::Bool) {
            let ty = self.case.ty(base).clone();
            let (index, updates) = (self.index(&shape, ty.shape[axis]), self.operand(&shape, ty.dtype));
            self.case.op(Op::Scatter(mode, axis), &[base, index, updates]);
        }
    }
}
