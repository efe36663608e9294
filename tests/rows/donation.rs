//! Donated inputs are updated in place and nothing else is; and the same graph gives the same bits in every run.

use crate::support::{Case, Mismatch};
use crate::{FLOATS, NUMBERS, Tested, backends, factors, index_data};
use gradus_cpu::Cpu;
use gradus_ir::op::{BinaryOp, Op, ReduceOp, ScatterMode, SliceAxis, UnaryOp};
use gradus_ir::{Backend, DType, Data, Error, NodeId, Number, plan};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Polls a future to its end.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        std::thread::yield_now();
    }
}

/// A graph that may update its first input, and whether it does where this is donated.
struct InPlace {
    what: &'static str,
    build: fn(&mut Case, NodeId) -> Vec<NodeId>,
    taken: bool,
}

const IN_PLACE: [InPlace; 7] = [
    InPlace {
        what: "an update",
        build: |case, x| {
            let step = case.input([30, 40], factors(DType::F32, 1200, 8));
            vec![case.op(Op::Binary(BinaryOp::Sub), &[x, step])]
        },
        taken: true,
    },
    InPlace {
        what: "an update through an intermediate that is an output as well",
        build: |case, x| {
            let squared = case.op(Op::Unary(UnaryOp::Square), &[x]);
            vec![case.op(Op::Binary(BinaryOp::Add), &[squared, x]), squared]
        },
        taken: true,
    },
    InPlace { what: "the input itself", build: |_, x| vec![x], taken: true },
    InPlace {
        what: "a scatter into the input",
        build: |case, x| {
            let index = case.input([7, 40], index_data(DType::I32, 280, 30));
            let updates = case.input([7, 40], factors(DType::F32, 280, 9));
            vec![case.op(Op::Scatter(ScatterMode::Add, 0), &[x, index, updates])]
        },
        taken: true,
    },
    InPlace {
        what: "one kernel that reads twice",
        build: |case, x| {
            let turned = case.typed(Op::Permute([1, 0].as_slice().into()), &[x], [40, 30], DType::F32);
            let back = case.typed(Op::Reshape, &[turned], [30, 40], DType::F32);
            vec![case.op(Op::Binary(BinaryOp::Add), &[x, back])]
        },
        // The reshape copies, so that the sum reads the input only once.
        taken: true,
    },
    InPlace {
        what: "a square read in two layouts",
        build: |case, x| {
            let flip = [SliceAxis { start: 29, step: -1, len: 30 }, SliceAxis { start: 0, step: 1, len: 40 }];
            let flipped = case.typed(Op::Slice(flip.as_slice().into()), &[x], [30, 40], DType::F32);
            vec![case.op(Op::Binary(BinaryOp::Add), &[x, flipped])]
        },
        taken: false,
    },
    InPlace {
        what: "another shape",
        build: |case, x| vec![case.op(Op::Reduce(ReduceOp::Sum, [1].as_slice().into()), &[x])],
        taken: false,
    },
];

#[test]
fn donated_inputs_are_updated_in_place() {
    for Tested { name, backend, tolerance, .. } in backends() {
        for InPlace { what, build, taken } in IN_PLACE {
            let what = format!("{what} on {name}");
            let mut case = Case::default();
            let x = case.input([30, 40], factors(DType::F32, 1200, 7));
            case.graph.outputs = build(&mut case, x);
            let kept = case.run(backend, plan(&case.graph, backend.target())).unwrap();
            let mismatch = Mismatch::find(&case.reference(tolerance).unwrap(), &kept);
            assert_eq!(mismatch.map(|m| m.to_string()), None, "{what}");

            case.graph.donated[0] = true;
            assert_eq!(
                case.run(backend, plan(&case.graph, backend.target())).unwrap(),
                kept,
                "{what}: donation changed the result"
            );

            let executable = backend.compile(plan(&case.graph, backend.target())).unwrap();
            for shared in [false, true] {
                let mut inputs = case.upload(backend).unwrap();
                let held = shared.then(|| inputs[0].clone().unwrap());
                let outputs = executable.run(&mut inputs, &case.scalars).unwrap();
                let got: Vec<Data> = outputs.iter().map(|b| wait(backend.download(b)).unwrap()).collect();
                assert_eq!(got, kept, "{what}, shared: {shared}");
                assert_eq!(inputs[0].is_none(), taken, "{what}: taken");
                assert!(inputs[1..].iter().all(Option::is_some), "{what}: took what was not donated");
                if let Some(held) = held {
                    let held = wait(backend.download(&held)).unwrap();
                    assert_eq!(held, case.inputs[0], "{what}: a shared buffer changed");
                }
            }
        }
    }
}

/// A run that meets a bad index leaves what it was given, also where other kernels have run by then.
#[test]
fn a_failed_run_leaves_donated_inputs_whole() {
    for Tested { name, backend, .. } in backends() {
        for bad in [30, 7] {
            let mut case = Case::default();
            let x = case.input([30, 40], factors(DType::F32, 1200, 7));
            let index = case.input([1, 40], Data::I32([vec![0; 39], vec![bad]].concat()));
            let doubled = case.op(Op::Binary(BinaryOp::Add), &[x, x]);
            let row = case.op(Op::Gather(0), &[doubled, index]);
            let rows = case.typed(Op::Expand, &[row], [30, 40], DType::F32);
            case.graph.outputs = vec![case.op(Op::Binary(BinaryOp::Sub), &[x, rows])];
            case.graph.donated[0] = true;
            let executable = backend.compile(plan(&case.graph, backend.target())).unwrap();
            let mut inputs = case.upload(backend).unwrap();
            let result = executable.run(&mut inputs, &case.scalars);
            if bad == 7 {
                assert!(result.is_ok() && inputs[0].is_none(), "on {name}");
                continue;
            }
            assert_eq!(result.unwrap_err(), Error::Index { index: 30, axis: 0, extent: 30 }, "on {name}");
            let left = inputs[0].as_ref().expect("a failed run takes nothing");
            assert_eq!(wait(backend.download(left)).unwrap(), case.inputs[0], "on {name}");
        }
    }
}

/// Graphs whose bits could depend on how the work is cut.
fn much_work() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for (shape, axes) in [
        (&[300_000][..], &[0][..]),
        (&[500, 600], &[0]),
        (&[500, 600], &[1]),
        (&[3, 100_000], &[1]),
        (&[20, 500, 30], &[1]),
        (&[100_000, 3], &[0]),
    ] {
        for (op, dtype) in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::ArgMax].map(|op| FLOATS.map(|d| (op, d))).concat()
        {
            let mut case = Case::default();
            let x = case.input(shape, factors(dtype, shape.iter().product(), 1));
            case.graph.outputs = vec![case.op(Op::Reduce(op, axes.into()), &[x])];
            cases.push((format!("{op:?} {dtype} {shape:?} over {axes:?}"), case));
        }
    }
    for (m, n, k) in [(300, 300, 300), (2000, 50, 70)] {
        for dtype in NUMBERS {
            let mut case = Case::default();
            let a = case.input([m, k], factors(dtype, m * k, 2));
            let b = case.input([n, k], factors(dtype, n * k, 3));
            case.graph.outputs = vec![case.op(Op::Contract { batch: 0, contracted: 1 }, &[a, b])];
            cases.push((format!("matmul {dtype} {m}×{n}×{k}"), case));
        }
    }
    let mut case = Case::default();
    let base = case.input([50], factors(DType::F32, 50, 5));
    let index = case.input([30_000], index_data(DType::I32, 30_000, 50));
    let updates = case.input([30_000], factors(DType::F32, 30_000, 6));
    case.graph.outputs = vec![case.op(Op::Scatter(ScatterMode::Add, 0), &[base, index, updates])];
    cases.push(("a scatter with many updates of each place".into(), case));

    let mut case = Case::default();
    let x = case.input([400, 500], factors(DType::F32, 200_000, 4));
    let y = case.op(Op::Permute([1, 0].as_slice().into()), &[x]);
    let slot = case.slot(Number::Int(3));
    let random = case.typed(Op::Random(slot), &[], [500, 400], DType::F32);
    let sum = case.op(Op::Binary(BinaryOp::Add), &[y, random]);
    case.graph.outputs = vec![case.op(Op::Unary(UnaryOp::Exp), &[sum])];
    cases.push(("an element-wise chain".into(), case));
    cases
}

#[test]
fn bits_do_not_depend_on_threads() {
    let [one, two, three] = [1, 2, 3].map(|threads| Cpu::new(Some(threads), None).unwrap());
    for (what, case) in much_work() {
        let run = |cpu: &Cpu| case.run(cpu, plan(&case.graph, cpu.target())).unwrap();
        let expected = run(&one);
        for (threads, cpu) in [(2, &two), (3, &three)] {
            assert!(run(cpu) == expected, "{what}: {threads} threads give other bits than one");
        }
    }
}

#[test]
fn every_run_gives_the_same_bits() {
    for on in backends() {
        let has = |case: &Case| case.graph.nodes().iter().all(|node| on.dtypes().contains(&node.ty.dtype));
        for (what, case) in much_work().into_iter().filter(|(_, case)| has(case)) {
            let run = || case.run(on.backend, plan(&case.graph, on.backend.target())).unwrap();
            let first = run();
            assert!(run() == first && run() == first, "{what} on {}", on.name);
        }
    }
}
