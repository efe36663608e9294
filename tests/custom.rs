//! Ops of the user, on every device: values against naive loops, gradients, transformations, plans, and what goes wrong.

#[path = "support/devices.rs"]
mod devices;
#[path = "support/validity.rs"]
mod validity;

use devices::{gpu_device, has, is_cpu, own_devices, own_tunings};
use gradus::ir::plan;
use gradus::tensor::graph::trace;
use gradus::{
    Cell, CustomOp, CustomOpBuilder, DType, Device, Error, ErrorKind, Grad, GradCheck, Key, Result, Tensor, assign,
    checkpoint, eval, grad, gradcheck, stack, vmap,
};
use std::fmt;
use std::panic::Location;
use std::slice::from_ref;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};

/// x³ − x, element by element, for floats.
fn cubic(dtype: DType) -> CustomOp {
    let builder = CustomOp::define("cubic").input("x", dtype).output(dtype, |shapes| Ok(shapes[0].clone()));
    let builder = match dtype {
        DType::F64 => builder.cpu(|inputs, output| {
            let x = inputs[0].values::<f64>()?;
            output.values::<f64>()?.iter_mut().zip(x).for_each(|(y, x)| *y = x * x * x - x);
            Ok(())
        }),
        _ => builder.cpu(|inputs, output| {
            let x = inputs[0].values::<f32>()?;
            output.values::<f32>()?.iter_mut().zip(x).for_each(|(y, x)| *y = x * x * x - x);
            Ok(())
        }),
    };
    builder
        .wgsl(
            "@compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                 let i = flat_index(id);
                 if i < output_len() { output[i] = x[i] * x[i] * x[i] - x[i]; }
             }",
        )
        .gradient(|x, _, g| vec![Some(g * (x[0].square() * 3.0 - 1.0))])
        .build()
        .unwrap()
}

/// The same, composed.
fn composed(x: &Tensor) -> Tensor {
    x.square() * x - x
}

/// Of matrices x [m, k] and y [n, k], the squared distances [m, n] of their rows. Its gradient calls it no more.
fn distances() -> CustomOp {
    CustomOp::define("distances")
        .input("x", DType::F32)
        .input("y", DType::F32)
        .output(DType::F32, |shapes| match (&shapes[0][..], &shapes[1][..]) {
            (&[m, k], &[n, l]) if k == l => Ok([m, n].into()),
            _ => Err("expected two matrices with rows of one length".into()),
        })
        .cpu(|inputs, output| {
            let (x, y) = (inputs[0].values::<f32>()?, inputs[1].values::<f32>()?);
            let (k, n) = (inputs[0].shape()[1], output.shape()[1]);
            for (at, sum) in output.values::<f32>()?.iter_mut().enumerate() {
                let (row, other) = (&x[at / n * k..][..k], &y[at % n * k..][..k]);
                *sum = row.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
            }
            Ok(())
        })
        .wgsl(
            "fn distance_of(row: u32, other: u32) -> f32 {
                 var sum = 0.0;
                 for (var k = 0u; k < x_shape(1u); k++) {
                     let difference = x[row * x_shape(1u) + k] - y[other * y_shape(1u) + k];
                     sum += difference * difference;
                 }
                 return sum;
             }
             @compute @workgroup_size(4, 4, 2)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                 let i = flat_index(id);
                 if i < output_len() { output[i] = distance_of(i / output_shape(1u), i % output_shape(1u)); }
             }",
        )
        .gradient(|inputs, _, g| {
            let (x, y) = (&inputs[0], &inputs[1]);
            let of_x = (x * g.sum_keepdim(1) - g.matmul(y)) * 2.0;
            let of_y = (y * g.sum(0).unsqueeze(1) - g.t().matmul(x)) * 2.0;
            vec![Some(of_x), Some(of_y)]
        })
        .build()
        .unwrap()
}

fn composed_distances(x: &Tensor, y: &Tensor) -> Tensor {
    (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(2)
}

fn normal<const N: usize>(shape: [usize; N], device: &Device) -> Tensor {
    let x = Tensor::randn(shape, Key::new(shape.iter().sum::<usize>() as u64), device);
    x.eval().unwrap();
    x
}

#[track_caller]
fn near(got: &Tensor, expected: &Tensor) {
    assert_eq!(got.shape(), expected.shape());
    let (got, expected) = (got.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= 1e-4 * expected.abs().max(1.0), "[{i}]: {got}, expected {expected}");
    }
}

/// Checks the error that a tensor carries: its op, its message, and that it names a line of the caller's file.
#[track_caller]
fn says(tensor: &Tensor, op: &str, message: &str) {
    let text = tensor.error().unwrap_or_else(|| panic!("no error: {tensor}")).to_string();
    let place = format!("{op} at {}:", Location::caller().file());
    assert!(text.starts_with(&place) && text.contains(message), "expected {place} {message}\n   found {text}");
}

#[test]
fn values_of_many_shapes() {
    let (cubic, distances) = (cubic(DType::F32), distances());
    for device in own_tunings() {
        for shape in
            [vec![], vec![0], vec![1], vec![7], vec![3, 0, 2], vec![2, 3, 4], vec![1, 1, 1, 5, 1], vec![300_001]]
        {
            let count: usize = shape.iter().product();
            let x: Vec<f32> = (0..count).map(|i| (i % 17) as f32 / 4.0 - 2.0).collect();
            let expected: Vec<f32> = x.iter().map(|x| x * x * x - x).collect();
            let y = cubic.apply(&[&Tensor::from_vec(x, shape.clone(), &device)]);
            assert_eq!(y.shape()[..], shape);
            assert_eq!(y.to_vec::<f32>().unwrap(), expected, "{shape:?} on {device}");
        }
        for (m, n, k) in [(1, 1, 1), (3, 5, 4), (0, 2, 3), (2, 3, 0), (70, 50, 2)] {
            let (x, y) = (normal([m, k], &device), normal([n, k], &device));
            near(&distances.apply(&[&x, &y]), &composed_distances(&x, &y));
            // Operands that are views, numbers, or one and the same.
            let (turned, number) = (normal([k, m], &device), Tensor::full([n, k], 0.5, &device));
            near(&distances.apply(&[&turned.t(), &y]), &composed_distances(&turned.t(), &y));
            near(&distances.apply(&[&x, &number]), &composed_distances(&x, &number));
            near(&distances.apply(&[&x, &x]), &composed_distances(&x, &x));
            let wide = normal([m + 2, k], &device);
            near(&distances.apply(&[&wide.slice(0, 2..), &y]), &composed_distances(&wide.slice(0, 2..), &y));
        }
    }
}

#[test]
fn dtypes_in_the_order_of_their_declaration() {
    // A mixture in which no two inputs could change places.
    let mixture = CustomOp::define("mixture")
        .input("b", DType::Bool)
        .input("i", DType::I32)
        .input("u", DType::U32)
        .input("f", DType::F32)
        .output(DType::I32, |shapes| Ok(shapes[1].clone()))
        .cpu(|inputs, output| {
            let (b, i) = (inputs[0].values::<bool>()?, inputs[1].values::<i32>()?);
            let (u, f) = (inputs[2].values::<u32>()?, inputs[3].values::<f32>()?);
            for (at, y) in output.values::<i32>()?.iter_mut().enumerate() {
                *y = i[at] + if b[at] { (u[at] / 2) as i32 } else { (f[at] * 10.0) as i32 };
            }
            Ok(())
        })
        .wgsl(
            "@compute @workgroup_size(1)
             fn main(@builtin(workgroup_id) id: vec3<u32>) {
                 let at = flat_index(id);
                 output[at] = i[at] + select(i32(f[at] * 10.0), i32(u[at] / 2u), b[at] != 0u);
             }",
        )
        .build()
        .unwrap();
    let is_small = CustomOp::define("is_small")
        .input("x", DType::I32)
        .output(DType::Bool, |shapes| Ok(shapes[0].clone()))
        .cpu(|inputs, output| {
            let x = inputs[0].values::<i32>()?;
            output.values::<bool>()?.iter_mut().zip(x).for_each(|(y, x)| *y = *x < 10);
            Ok(())
        })
        .wgsl("@compute @workgroup_size(1) fn main(@builtin(workgroup_id) at: vec3<u32>) { output[at.x] = u32(x[at.x] < 10); }")
        .build()
        .unwrap();
    for device in own_tunings() {
        let b = Tensor::new([true, false, true], &device);
        let i = Tensor::new([-5, 0, 7], &device);
        let u = Tensor::from_vec(vec![u32::MAX, 3, 9], [3], &device);
        let f = Tensor::new([0.5, 1.5, 2.5], &device);
        let y = mixture.apply(&[&b, &i, &u, &f]);
        assert_eq!(y.to_vec::<i32>().unwrap(), [i32::MAX - 5, 15, 11]);
        let small = is_small.apply(&[&y]);
        assert_eq!(small.to_vec::<bool>().unwrap(), [false, false, false]);
        assert_eq!(is_small.apply(&[&(&y - 6)]).logical_not().to_vec::<bool>().unwrap(), [true, false, false]);
    }
}

/// For a workgroup for each row: its largest element, by workgroup memory.
const ROW_MAX: &str = "
var<workgroup> best: array<f32, 32>;
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let columns = x_shape(x_rank() - 1u);
    var found = x[row.x * columns];
    for (var k = lane; k < columns; k += 32u) { found = max(found, x[row.x * columns + k]); }
    best[lane] = found;
    for (var half = 16u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { best[lane] = max(best[lane], best[lane + half]); }
    }
    if lane == 0u { output[row.x] = best[0]; }
}";

fn row_max() -> CustomOpBuilder {
    CustomOp::define("row_max")
        .input("x", DType::F32)
        .output(DType::F32, |s| Ok(s[0].without(&[s[0].len() - 1])))
        .wgsl(ROW_MAX)
}

#[test]
fn grids_of_the_user() {
    let op = row_max().workgroups(|_, output| [output.numel() as u32, 1, 1]).build().unwrap();
    let [none, many] = [0, 70_000].map(|count| row_max().workgroups(move |_, _| [count, 1, 1]).build().unwrap());
    let panics = row_max().workgroups(|shapes, _| [shapes[1].len() as u32, 1, 1]).build().unwrap();
    for device in own_tunings().into_iter().filter(|device| !is_cpu(device)) {
        for shape in [[1, 1], [5, 7], [40, 100]] {
            let x = normal(shape, &device);
            assert_eq!(op.apply(&[&x]).to_vec::<f32>().unwrap(), x.max(1).to_vec::<f32>().unwrap());
        }
        let x = normal([2, 3], &device);
        let error = none.apply(&[&x]).eval().unwrap_err();
        let message = "the workgroups function of row_max failed: it gives [0, 1, 1], expected 1 to ";
        assert!(error.op() == "row_max" && error.to_string().contains(message), "{error}");
        assert!(
            many.apply(&[&x]).eval().unwrap_err().to_string().contains("it gives [70000, 1, 1], expected 1 to 65535")
        );
        let error = panics.apply(&[&x]).eval().unwrap_err().to_string();
        assert!(
            error.contains("the workgroups function of row_max failed: it panicked: index out of bounds"),
            "{error}"
        );
        assert_eq!(op.apply(&[&x]).shape()[..], [2]);
    }
}

#[test]
fn gradients() {
    let (cubic, distances) = (cubic(DType::F32), distances());
    for device in own_devices(None) {
        let (x, y) = (normal([4, 3], &device).tracked(), normal([5, 3], &device).tracked());
        let first = |f: &dyn Fn(&Tensor) -> Tensor| grad(&f(&x).sin().sum(..), [&x]).unwrap().remove(0);
        near(&first(&|x| cubic.apply(&[x])), &first(&composed));
        let second = |f: &dyn Fn(&Tensor) -> Tensor| {
            let first = grad(&f(&x).sin().sum(..), [&x]).unwrap().remove(0);
            grad(&first.square().sum(..), [&x]).unwrap().remove(0)
        };
        near(&second(&|x| cubic.apply(&[x])), &second(&composed));
        let both = |d: Tensor| grad(&d.sqrt().sum(..), [&x, &y]).unwrap();
        let (got, expected) = (both(distances.apply(&[&x, &y])), both(composed_distances(&x, &y)));
        got.iter().zip(&expected).for_each(|(got, expected)| near(got, expected));
        // A target that is not asked for costs nothing and changes nothing.
        near(&grad(&distances.apply(&[&x, &y.detach()]).sqrt().sum(..), [&x]).unwrap()[0], &expected[0]);
        // A checkpoint computes it again.
        let saved = checkpoint(|x| distances.apply(&[&x[0], &x[1]]).sqrt(), &[x.clone(), y.clone()]);
        let gradients = grad(&saved.sum(..), [&x, &y]).unwrap();
        gradients.iter().zip(&expected).for_each(|(got, expected)| near(got, expected));
    }
}

#[test]
fn finite_differences() {
    let device = Device::cpu();
    let x = normal([3, 4], &device);
    let exact = cubic(DType::F64);
    gradcheck(|x| exact.apply(&[&x[0].exp()]).tanh().sum(..), &[x.to_dtype(DType::F64)], 2).unwrap();
    // An op of f32 rounds, also where the check promotes it.
    let (single, distances) = (cubic(DType::F32), distances());
    let rough = || GradCheck::default().step(1e-2).tolerance(1e-3).order(2);
    rough().check(|x| single.apply(&[&x[0]]).tanh().sum(..), from_ref(&x)).unwrap();
    let inputs = [x, normal([2, 4], &device)];
    rough().check(|x| distances.apply(&[&x[0], &x[1]]).sqrt().sum(..), &inputs).unwrap();
    // A wrong one is found.
    let wrong = CustomOp::define("wrong")
        .input("x", DType::F64)
        .output(DType::F64, |shapes| Ok(shapes[0].clone()))
        .cpu(|inputs, output| {
            let x = inputs[0].values::<f64>()?;
            output.values::<f64>()?.iter_mut().zip(x).for_each(|(y, x)| *y = x * x);
            Ok(())
        })
        .gradient(|x, _, g| vec![Some(g * &x[0])])
        .build()
        .unwrap();
    let error = gradcheck(|x| wrong.apply(&[&x[0]]).sum(..), &[inputs[1].to_dtype(DType::F64)], 1).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::GradCheck { .. }), "{error}");
}

/// Keeps what is warned of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Visit for Warnings {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        self.0.lock().unwrap().push(format!("{value:?}"));
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn examples_one_by_one() {
    for device in own_devices(None) {
        let distances = distances();
        let warnings = Warnings::default();
        tracing::subscriber::with_default(warnings.clone(), || {
            let (x, y) = (normal([3, 4, 2], &device), normal([5, 2], &device));
            let each = |f: &dyn Fn(&Tensor) -> Tensor| {
                let all: Vec<Tensor> = (0..3).map(|i| f(&x.select_index(0, i))).collect();
                stack(&all.iter().collect::<Vec<_>>(), 0)
            };
            let of_one = |x: &Tensor| distances.apply(&[x, &y]).sqrt();
            near(&vmap(|x| of_one(&x[0]), from_ref(&x)).unwrap(), &each(&of_one));
            let slope = |x: &Tensor| Grad::of(&of_one(x).sum(..)).wrt([x]).unwrap().remove(0);
            near(&vmap(|x| slope(&x[0]), from_ref(&x)).unwrap(), &each(&slope));
            // The gradient of what is mapped, with respect to what all examples share too.
            let (x, y) = (x.tracked(), y.tracked());
            let mapped = vmap(|x| distances.apply(&[&x[0], &y]).sqrt(), from_ref(&x)).unwrap();
            let looped = (0..3).map(|i| distances.apply(&[&x.select_index(0, i), &y]).sqrt().sum(..));
            let looped = looped.reduce(|a, b| a + b).unwrap();
            let (got, expected) = (grad(&mapped.sum(..), [&x, &y]).unwrap(), grad(&looped, [&x, &y]).unwrap());
            got.iter().zip(&expected).for_each(|(got, expected)| near(got, expected));
            // All pairs, by two maps of rows.
            let row =
                |x: &Tensor, y: &Tensor| distances.apply(&[&x.unsqueeze(0), &y.unsqueeze(0)]).squeeze(0).squeeze(0);
            let (rows, others) = (x.select_index(0, 0).detach(), y.detach());
            let pairs = vmap(|x| vmap(|y| row(&x[0], &y[0]), from_ref(&others)), from_ref(&rows)).unwrap();
            near(&pairs, &distances.apply(&[&rows, &others]));
            // No examples.
            let none = Tensor::zeros([0, 4, 2], &device);
            assert_eq!(vmap(|x| of_one(&x[0]), &[none]).unwrap().shape()[..], [0, 4, 5]);
        });
        let warnings = warnings.0.lock().unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("vmap runs the custom op distances once for each example"), "{warnings:?}");
    }
}

#[test]
fn a_kernel_of_its_own() {
    let device = Device::cpu();
    let (cubic, x) = (cubic(DType::F32), normal([4, 3], &device));
    let families = |outputs: &[Tensor]| {
        let graph = trace(outputs, &[]).unwrap().graph;
        let plan = plan(&graph, &Default::default());
        validity::check(&plan, &graph).unwrap_or_else(|what| panic!("{what}:\n{plan}"));
        plan.kernels.iter().map(|kernel| kernel.family_name()).collect::<Vec<_>>()
    };
    let inside = |x: &Tensor| cubic.apply(&[&(x * 0.5 + 0.1)]).exp() - 1.0;
    assert_eq!(families(&[inside(&x)]), ["elementwise", "custom", "elementwise"]);
    assert_eq!(families(&[cubic.apply(&[&x])]), ["custom"]);
    // What is not stored as it is gets copied.
    assert_eq!(families(&[cubic.apply(&[&x.t()])]), ["elementwise", "custom"]);
    // Equal ones are one; another op is another, also if it does the same.
    assert_eq!(families(&[cubic.apply(&[&x]) + cubic.apply(&[&x])]), ["custom", "elementwise"]);
    let same = self::cubic(DType::F32);
    assert_eq!(families(&[cubic.apply(&[&x]) + same.apply(&[&x])]), ["custom", "custom", "elementwise"]);
    for device in own_tunings() {
        let x = normal([40, 30], &device);
        near(&inside(&x), &(composed(&(&x * 0.5 + 0.1)).exp() - 1.0));
        near(&inside(&x.t()).softmax(1), &(composed(&(x.t() * 0.5 + 0.1)).exp() - 1.0).softmax(1));
    }
}

#[test]
fn loops_make_nothing_new() {
    let (cubic, distances) = (cubic(DType::F32), distances());
    for device in own_devices(None) {
        let weight = Cell::parameter(normal([6, 3], &device));
        let x = normal([8, 3], &device);
        let step = || {
            let loss = distances.apply(&[&cubic.apply(&[&(&x * 0.5)]), &weight.tensor()]).mean(..);
            let gradient = grad(&loss, [&weight.tensor()])?.remove(0);
            assign([(weight.clone(), weight.tensor() - gradient * 0.1)])?;
            loss.item::<f32>()
        };
        let first = step().unwrap();
        step().unwrap();
        let before = device.stats();
        let mut last = 0.0;
        for _ in 0..10 {
            last = step().unwrap();
        }
        let after = device.stats();
        assert!(last < first, "{first}, then {last}");
        let made = |stats: gradus::Stats| (stats.plans, stats.pipelines, stats.bind_groups, stats.buffers);
        assert_eq!(made(before), made(after), "on {device}");
    }
    // Where pipelines are dear, other shapes need none.
    for device in own_devices(None).into_iter().filter(|device| device.description().contains("llvmpipe")) {
        let run = |m, n| distances.apply(&[&normal([m, 3], &device), &normal([n, 3], &device)]).eval().unwrap();
        run(4, 5);
        let before = device.stats();
        run(6, 7);
        run(30, 20);
        let after = device.stats();
        assert_eq!((after.pipelines, after.plans), (before.pipelines, before.plans + 6));
    }
}

#[test]
fn misuse_at_the_call() {
    let (device, distances) = (Device::cpu(), distances());
    let x = normal([2, 3], &device);
    let fails = |operands: &[&Tensor]| distances.apply(operands).error().cloned().unwrap_or_else(|| panic!("no error"));
    let kind = |operands: &[&Tensor]| fails(operands).kind().clone();
    assert_eq!(kind(&[]), ErrorKind::Operands { expected: 2, found: 0 });
    assert_eq!(kind(&[&x]), ErrorKind::Operands { expected: 2, found: 1 });
    let failed = distances.apply(&[&x, &x, &x]);
    says(&failed, "distances", "takes 2 operands, found 3");
    let failed = distances.apply(&[&x, &x.to_dtype(DType::I32)]);
    says(&failed, "distances", "operand y is i32, expected f32: convert it with to_dtype");
    let failed = distances.apply(&[&x, &x.t()]);
    let refused = "the shape function of distances failed: expected two matrices with rows of one length";
    says(&failed, "distances", refused);
    assert!(failed.to_string().contains("(operands of shape [2, 3], [3, 2])"), "{failed}");
    let other = Device::cpu_with(1, None).unwrap();
    says(&distances.apply(&[&x, &normal([2, 3], &other)]), "distances", "different devices");
    let broken = x.reshape([7]);
    assert_eq!(fails(&[&broken, &x]).to_string(), broken.error().unwrap().to_string());

    let last =
        CustomOp::define("last").input("x", DType::F32).output(DType::F32, |s| Ok([s[0][s[0].len() - 1]].into()));
    let failed = last.cpu(|_, _| Ok(())).build().unwrap().apply(&[&Tensor::new(1.0, &device)]);
    says(&failed, "last", "the shape function of last failed: it panicked: index out of bounds");
    // Neither half runs on the other kind of device.
    let gpu_only = row_max().build().unwrap();
    let message = "has no WGSL, without which it does not run on ";
    says(&gpu_only.apply(&[&x]), "row_max", "has no CPU function, without which it does not run on cpu");
    let cpu_only = CustomOp::define("first").input("x", DType::F32).output(DType::F32, |_| Ok([1].into()));
    let cpu_only = cpu_only.cpu(|x, y| {
        y.values::<f32>()?[0] = x[0].values::<f32>()?[0];
        Ok(())
    });
    let cpu_only = cpu_only.build().unwrap();
    assert_eq!(cpu_only.apply(&[&Tensor::new([5.0, 6.0], &device)]).to_vec::<f32>().unwrap(), [5.0]);
    if let Some(gpu) = gpu_device() {
        says(&cpu_only.apply(&[&normal([2], &gpu)]), "first", message);
    }
    // Without a gradient there is none, and the op is named.
    let x = x.tracked();
    let line = line!() + 1;
    let y = cpu_only.apply(&[&x]);
    let error = grad(&y.sum(..), [&x]).unwrap_err();
    assert!(
        error.to_string().contains("the gradient would flow through first, which is not differentiable")
            && error.to_string().contains(&format!("tests/custom.rs:{line}")),
        "{error}"
    );
    let count = CustomOp::define("count").input("x", DType::F32).output(DType::F32, |s| Ok(s[0].clone()));
    let count = count.cpu(|_, _| Ok(())).gradient(|_, _, _| vec![]).build().unwrap();
    let error = grad(&count.apply(&[&x]).sum(..), [&x]).unwrap_err().to_string();
    assert!(error.contains("gradients is 0 for 1 inputs of count, expected one per input"), "{error}");
}

#[test]
fn misuse_of_definitions() {
    let fails = |builder: CustomOpBuilder, message: &str| {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains(message), "expected {message}, found {error}");
    };
    let shaped = |builder: CustomOpBuilder| builder.output(DType::F32, |shapes| Ok(shapes[0].clone()));
    fails(shaped(CustomOp::define("op")).cpu(|_, _| Ok(())), "inputs is none, expected at least one");
    fails(
        CustomOp::define("op").input("x", DType::F32).cpu(|_, _| Ok(())),
        "output is none, expected a dtype and a shape",
    );
    fails(
        shaped(CustomOp::define("op").input("x", DType::F32)),
        "code is none, expected a CPU function, WGSL, or both",
    );
}

/// What is wrong with an op of x whose text this is.
#[cfg(feature = "gpu")]
fn wgsl_error(inputs: &[&str], text: &str) -> Error {
    let inputs = inputs.iter().fold(CustomOp::define("op"), |op, name| op.input(name, DType::F32));
    inputs.output(DType::F32, |shapes| Ok(shapes[0].clone())).wgsl(text).build().unwrap_err()
}

#[cfg(feature = "gpu")]
#[test]
fn bad_wgsl_is_shown_where_it_is() {
    let main = |body: &str| format!("@compute @workgroup_size(64)\nfn main() {{\n{body}\n}}\n");
    let fails = |text: &str, line: usize, column: usize, shown: &str, message: &str| {
        let error = wgsl_error(&["x"], text);
        let ErrorKind::Wgsl { message: found, at: Some(at) } = error.kind() else { panic!("{error}") };
        assert_eq!((at.line, at.column, at.text.as_str()), (line, column, shown), "{error}");
        assert!(found.contains(message), "{error}");
        assert!(error.to_string().contains(&format!("(line {line}, column {column}: `{}`)", shown.trim())), "{error}");
    };
    fails(&main("    output[0] = y;"), 3, 17, "    output[0] = y;", "no definition in scope for identifier: `y`");
    fails(&main("  let é = 1; output[0] = x[0] + 1u;"), 3, 26, "  let é = 1; output[0] = x[0] + 1u;", "");
    fails(&main("output[0] = x[0]"), 4, 1, "}", "expected");
    fails("}", 1, 1, "}", "expected global item");
    fails("fn main() {", 1, 12, "fn main() {", "expected");
    fails(&main("x[0] = 1.0;"), 3, 1, "x[0] = 1.0;", "");
    fails(&main("return 1.0;"), 3, 8, "return 1.0;", "");
    // Names that are taken, and arrays that nobody binds.
    let with = |item: &str| format!("{item}\n{}", main(""));
    fails(&with("var<private> output: f32;"), 1, 14, "var<private> output: f32;", "redefinition of `output`");
    fails(
        &with("fn x_len() -> u32 { return 1u; }"),
        1,
        4,
        "fn x_len() -> u32 { return 1u; }",
        "redefinition of `x_len`",
    );
    let own = "@group(0) @binding(5) var<storage, read_write> mine: array<f32>;";
    fails(&with(own), 1, 23, own, "mine is bound to nothing: an op sees its inputs, its output and workgroup memory");
    fails(&with("override n: u32 = 3;"), 1, 1, "override n: u32 = 3;", "nothing sets an override: write const");
    fails(&with("enable f16;"), 1, 1, "enable f16;", "");

    let says = |inputs: &[&str], text: &str, message: &str| {
        let error = wgsl_error(inputs, text).to_string();
        assert!(error.contains(message), "expected {message}, found {error}");
    };
    says(&["x"], "", "its WGSL does not compile: expected one entry point, found []");
    let two = "@compute @workgroup_size(1) fn a() {}\n@compute @workgroup_size(1) fn b() {}";
    says(&["x"], two, "expected one entry point, found [\"a\", \"b\"]");
    says(&["x"], "@fragment fn main() {}", "the entry point main is not marked @compute");
    let huge = "@compute @workgroup_size(16384, 16384, 16) fn main() {}";
    says(&["x"], huge, "@workgroup_size(16384, 16384, 16) is more than any device runs");
    for name in ["output", "fn", "not a name", "", "1", "x_len", "parameters"] {
        says(&["x", name], &main(""), "expected names that WGSL takes");
    }
    says(&["x", "x"], &main(""), "expected names that WGSL takes");
}

/// Workgroups that are valid, but larger than the device's.
#[cfg(feature = "gpu")]
#[test]
fn workgroups_beyond_the_device_are_errors() {
    let Some(device) = gpu_device() else { return };
    let limits = device.wgpu().unwrap().0.limits();
    let most = limits.max_compute_workgroup_size_x;
    for size in [format!("{}", most + 1), format!("{most}, {most}"), "16384, 16384, 8".into()] {
        let op = CustomOp::define("op")
            .input("x", DType::F32)
            .output(DType::F32, |shapes| Ok(shapes[0].clone()))
            .wgsl(format!("@compute @workgroup_size({size}) fn main() {{ output[0] = x[0]; }}"))
            .build()
            .unwrap();
        let error = op.apply(&[&Tensor::ones([3], &device)]).eval().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Wgsl { .. }), "{error}");
        let invocations = limits.max_compute_invocations_per_workgroup;
        assert!(error.to_string().contains(&format!("and {invocations} invocations in all")), "{error}");
    }
}

#[test]
fn failures_while_it_runs() {
    let device = Device::cpu_with(2, None).unwrap();
    let failing = CustomOp::define("failing")
        .input("x", DType::F32)
        .output(DType::F32, |shapes| Ok(shapes[0].clone()))
        .cpu(|inputs, output| {
            let x = inputs[0].values::<f32>()?;
            output.values::<f32>()?.copy_from_slice(x);
            match x[0] {
                0.0 => Err("x begins with 0".into()),
                1.0 => panic!("x begins with {}", x[0]),
                2.0 => inputs[0].values::<i32>().map(|_| ()).map_err(Into::into),
                3.0 => output.values::<bool>().map(|_| ()).map_err(Into::into),
                _ => Ok(()),
            }
        })
        .gradient(|_, _, g| vec![Some(g.clone())])
        .build()
        .unwrap();
    let cell = Cell::parameter(Tensor::new([4.0, 5.0], &device));
    cell.tensor().eval().unwrap();
    let in_use = device.memory().in_use;
    for (number, message) in [
        (0.0, "the CPU function of failing failed: x begins with 0"),
        (1.0, "the CPU function of failing failed: it panicked: x begins with 1"),
        (2.0, "the CPU function of failing failed: does not take f32: expected i32"),
        (3.0, "the CPU function of failing failed: does not take f32: expected bool"),
    ] {
        // In the run of an update in place, of which nothing may be lost.
        let x = Tensor::new([number, 7.0], &device);
        let line = line!() + 1;
        let y = failing.apply(&[&(&x * 1.0)]);
        let error = assign([(cell.clone(), cell.tensor() * 2.0 + &y)]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Custom { op: "failing", .. }), "{error}");
        let place = format!("failing at {}:{line}: {message}", file!().replace('\\', "/"));
        assert!(error.to_string().ends_with(&place[place.find("tests/").unwrap()..]), "{error}\n{place}");
        assert_eq!(cell.tensor().to_vec::<f32>().unwrap(), [4.0, 5.0]);
        drop((x, y, error));
        assert_eq!(device.memory().in_use, in_use);
    }
    let y = failing.apply(&[&Tensor::new([4.0, 7.0], &device)]);
    assign([(cell.clone(), cell.tensor() * 2.0 + &y)]).unwrap();
    assert_eq!(cell.tensor().to_vec::<f32>().unwrap(), [12.0, 17.0]);
}

#[test]
fn indices_out_of_range_harm_nothing() {
    let wild = CustomOp::define("wild")
        .input("x", DType::F32)
        .output(DType::F32, |shapes| Ok(shapes[0].clone()))
        .wgsl(
            "@compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                 let i = flat_index(id);
                 output[min(i, output_len() - 1u)] = 1.0;
                 output[i + 4096u] = x[4294967295u - i] + f32(i / (x_len() - output_len()));
                 output[4294967295u - i * 64u] = f32(i32(i) % i32(x_rank() - 1u));
             }",
        )
        .build()
        .unwrap();
    for device in own_tunings().into_iter().filter(|device| !is_cpu(device)) {
        let all: Vec<Tensor> = (0..8).map(|i| normal([1000], &device) * i as f32).collect();
        eval(&all).unwrap();
        let before: Vec<Vec<f32>> = all.iter().map(|x| x.to_vec().unwrap()).collect();
        let results: Vec<Tensor> = all.iter().map(|x| wild.apply(&[x])).collect();
        let sums: Vec<Tensor> = all.iter().zip(&results).map(|(x, wild)| x + wild * 0.0).collect();
        eval(results.iter().chain(&sums)).unwrap();
        for (x, before) in all.iter().zip(before) {
            assert_eq!(x.to_vec::<f32>().unwrap(), before, "on {device}");
        }
        assert_eq!((normal([3], &device) * 0.0 + 1.0).to_vec::<f32>().unwrap(), [1.0; 3]);
    }
}

#[test]
fn compiled_and_without_gradients() -> Result<()> {
    let cubic = cubic(DType::F32);
    for device in own_devices(None) {
        let x = normal([5], &device);
        let f = gradus::compile(|x: &[Tensor]| Ok(vec![cubic.apply(&[&x[0]]) + 1.0]));
        near(&f.call(from_ref(&x))?[0], &(composed(&x) + 1.0));
        near(&gradus::no_grad(|| cubic.apply(&[&x])), &composed(&x));
        assert!(has(&device, DType::F64) == is_cpu(&device));
    }
    Ok(())
}
