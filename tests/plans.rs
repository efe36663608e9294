//! What plans look like: which kernels there are, and how much memory they need. Numbers are the fuzzer's business.

#[path = "support/devices.rs"]
mod devices;
#[path = "support/steps.rs"]
mod steps;
#[allow(dead_code)]
mod support;

use devices::own_backends;
use gradus::ir::op::UnaryOp;
use gradus::ir::plan::{Family, Instruction, Kernel};
use gradus::ir::{Plan, Target, plan, plan_in_order};
use gradus::tensor::graph::trace;
use gradus::{Conv, DType, Device, Key, Tensor, custom_gradient, grad};
use std::slice::from_ref;
use steps::{cross_entropy, layer_norm, steps};
use support::Rng;

/// A device's own limits, and WebGPU's.
fn targets() -> [Target; 2] {
    let webgpu = Target::default();
    [Target { bindings: 32, longest_row: usize::MAX, joins_gradients: true, ..webgpu.clone() }, webgpu]
}

fn normal<const N: usize>(shape: [usize; N], seed: u64) -> Tensor {
    let tensor = Tensor::randn(shape, Key::new(seed), &Device::cpu());
    tensor.eval().unwrap();
    tensor
}

/// The plan that computes some tensors.
fn planned(outputs: &[Tensor], target: &Target) -> Plan {
    plan(&trace(outputs, &[]).unwrap().graph, target)
}

fn families(plan: &Plan) -> Vec<&'static str> {
    plan.kernels.iter().map(|kernel| kernel.family_name()).collect()
}

#[track_caller]
fn expect(what: &str, outputs: &[Tensor], expected: &[&str]) {
    for target in targets() {
        let plan = planned(outputs, &target);
        assert_eq!(families(&plan), expected, "{what} for {} bindings:\n{plan}", target.bindings);
    }
}

/// The gradient of a sum weighted by what comes from above.
fn pulled_back(output: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    let above = normal([output.shape()[0], output.shape()[1]], 99);
    grad(&(output * above).sum(..), inputs.iter().copied()).unwrap()
}

#[test]
fn row_programs_are_found_by_structure() {
    let x = normal([32, 50], 1).tracked();
    let labels = Tensor::from_vec((0..32).collect::<Vec<i32>>(), [32], &Device::cpu());
    let (gain, bias) = (normal([50], 2), normal([50], 3));
    let rms = |x: &Tensor| x * (x.square().mean_keepdim(-1) + 1e-5).rsqrt() * &gain;
    expect("softmax", &[x.softmax(-1)], &["reduce"]);
    expect("log-softmax", &[x.log_softmax(-1)], &["reduce"]);
    expect("layer norm", &[layer_norm(&x, &gain, &bias)], &["reduce"]);
    expect("RMS norm", &[rms(&x)], &["reduce"]);
    // The mean of the losses is over another axis.
    let losses = -x.log_softmax(-1).gather(1, &labels.reshape([32, 1]));
    expect("cross-entropy", &[losses], &["reduce"]);
    expect("mean cross-entropy", &[cross_entropy(&x, &labels)], &["reduce", "reduce"]);

    expect("gradient of softmax", &pulled_back(&x.softmax(-1), &[&x]), &["reduce"]);
    expect("gradient of log-softmax", &pulled_back(&x.log_softmax(-1), &[&x]), &["reduce"]);
    expect("gradient of layer norm", &pulled_back(&layer_norm(&x, &gain, &bias), &[&x]), &["reduce"]);
    expect("gradient of RMS norm", &pulled_back(&rms(&x), &[&x]), &["reduce"]);
    let loss = cross_entropy(&x, &labels);
    let gradient = grad(&loss, [&x]).unwrap().remove(0);
    expect("gradient of cross-entropy", std::slice::from_ref(&gradient), &["reduce"]);
    // The loss and its gradient look at the logits together.
    expect("cross-entropy with its gradient", &[loss, gradient], &["reduce", "reduce"]);
}

#[test]
fn gradients_of_a_normalisation_s_weights_share_a_kernel() {
    let x = normal([32, 50], 1);
    let (gain, bias) = (normal([50], 2).tracked(), normal([50], 3).tracked());
    let gradients = pulled_back(&layer_norm(&x, &gain, &bias), &[&gain, &bias]);
    // Mean and deviation of each row, then both sums over rows.
    expect("gradients of gain and bias", &gradients, &["reduce", "reduce"]);
}

#[test]
fn an_optimiser_step_is_one_kernel() {
    let [p, g, m, v] = [1, 2, 3, 4].map(|seed| normal([40, 30], seed));
    let mean = m * 0.9 + &g * 0.1;
    let square = v * 0.999 + g.square() * 0.001;
    let updated = p * 0.99 - (&mean / 0.1) / (square.sqrt() / 0.03 + 1e-8) * 1e-3;
    expect("AdamW", &[mean, square, updated], &["elementwise"]);
}

#[test]
fn products_take_in_what_is_done_before_and_after() {
    let (x, w) = (normal([20, 30], 1), normal([40, 30], 2));
    let (bias, residual) = (normal([40], 3), normal([20, 40], 4));
    let y = x.matmul(&w.t());
    expect("transpose", std::slice::from_ref(&y), &["matmul"]);
    expect("bias and activation", &[(&y + &bias).gelu()], &["matmul"]);
    expect("residual and scale", &[&residual + (&y + &bias) * 0.5], &["matmul"]);
    expect("both before and after the activation", &[&y + &bias, (&y + &bias).relu()], &["matmul"]);
    expect("scaled operands", &[(&x * 0.25).matmul(&(-&w).t()) + &bias], &["matmul"]);
    let dropped =
        (&y + &bias).relu() * Tensor::bernoulli([20, 40], 0.5, Key::new(5), &Device::cpu()).to_dtype(y.dtype());
    expect("dropout after it", &[dropped], &["matmul"]);
}

#[test]
fn of_a_product_no_more_is_computed_than_is_read() {
    let (x, w) = (normal([20, 30], 1), normal([40, 30], 2));
    let part = |y: Tensor| y.slice(0, 5..).slice(1, ..8);
    let y = x.matmul(&w.t());
    expect("rows and columns", &[part(y.clone()) + 1.0], &["matmul"]);
    expect("turned, with a new axis", &[part(y.t()).unsqueeze(1)], &["matmul"]);
    expect("whole too", &[part(y.clone()), y], &["matmul", "elementwise"]);
    // The padding of an image has a gradient that nobody reads.
    let (images, weight) = (normal([2, 3, 6, 6], 3), normal([4, 3, 3, 3], 4));
    let convolved = images.conv2d(&weight, &Conv::new().padding(1));
    let gradient = grad(&(convolved * normal([2, 4, 6, 6], 5)).sum(..), [&images]).unwrap();
    expect("a convolution's input", &gradient, &["elementwise", "matmul"]);
    for target in targets() {
        let plan = planned(&gradient, &target);
        assert_eq!(plan.kernels[1].space.numel(), images.numel());
    }
}

#[test]
fn sources_and_gathers_are_loads() {
    let table = normal([50, 8], 1);
    let tokens = Tensor::from_vec((0..12).collect::<Vec<i32>>(), [12], &Device::cpu());
    let positions = normal([12, 8], 2);
    expect("embedding", &[(table.index_select(0, &tokens) + positions) * 2.0], &["elementwise"]);
    let x = normal([6, 7], 3);
    let noise = Tensor::rand([6, 7], Key::new(1), &Device::cpu());
    expect("noise", &[(&x + noise) * 0.5], &["elementwise"]);
    expect("a triangular mask", &[x.tril(0) + 1.0], &["elementwise"]);
}

#[test]
fn a_users_number_never_shapes_a_plan() {
    let x = normal([8], 1);
    let kernels = |number: f64| trace(&[&x * number + number], &[]).unwrap().graph;
    assert!([1.0, 0.5, -1.0, f64::NAN].iter().all(|&number| kernels(number) == kernels(0.0)));
    // The library's own numbers may.
    let plain = planned(&[(&x - x.zeros_like()) * x.ones_like()], &Target::default());
    assert!(plain.kernels.is_empty(), "{plain}");
}

#[test]
fn what_waits_for_a_value_that_its_readers_compute_waits_for_what_it_is_computed_from() {
    // The sums so far are of f32; those who read them as f16 narrow them, and no kernel does only that.
    let x = normal([2, 0], 1).to_dtype(DType::F16);
    x.eval().unwrap();
    let sums = x.linear_recurrence(&x, 1);
    let later = custom_gradient("later", from_ref(&sums), |_| x.clone(), |_, _, _| vec![None]);
    let plan = planned(&[later.exp().matmul(&sums.square().t())], &Target::default());
    let place = |is_it: &dyn Fn(&Kernel) -> bool| plan.kernels.iter().position(is_it).unwrap();
    let is_exp = |(instruction, _): &(Instruction, DType)| matches!(instruction, Instruction::Unary(UnaryOp::Exp, _));
    let scan = place(&|kernel| kernel.family_name() == "scan");
    assert!(scan < place(&|kernel| kernel.expression.instructions.iter().any(is_exp)), "{plan}");
}

#[test]
fn two_draws_are_never_one() {
    let key = Key::new(1);
    let draw = || Tensor::rand([8], key, &Device::cpu());
    let graph = trace(&[draw() - draw()], &[]).unwrap().graph;
    let kernel = &plan(&graph, &Target::default()).kernels[0];
    let draws = kernel.expression.instructions.iter().filter(|(i, _)| format!("{i:?}").starts_with("Random"));
    assert_eq!(draws.count(), 2);
}

#[test]
fn kernels_keep_to_the_limits_of_the_target() {
    let narrow = Target { bindings: 4, longest_row: 16, ..Target::default() };
    for step in steps(&Device::cpu()) {
        for target in targets().iter().chain([&narrow]) {
            let plan = step.plan(target);
            for kernel in &plan.kernels {
                let mut buffers: Vec<usize> = kernel.loads.iter().map(|load| load.buffer).collect();
                buffers.extend(kernel.outputs.iter().map(|store| store.buffer));
                buffers.sort_unstable();
                buffers.dedup();
                // A map of three operands has four buffers, whatever the limit.
                assert!(buffers.len() <= target.bindings.max(4), "{}: {} buffers\n{plan}", step.name, buffers.len());
                if let Family::Reduce { .. } = kernel.family {
                    let passes = kernel.expression.passes().into_iter().max().unwrap_or(0);
                    let stores = kernel.outputs.iter().any(|store| !store.per_row);
                    assert!(
                        kernel.row_len() <= target.longest_row || (passes <= 1 && !stores),
                        "{}\n{plan}",
                        step.name
                    );
                }
            }
        }
    }
}

/// What is alive at once in the planner's order is no more than in the best of a thousand random ones.
#[test]
fn the_order_needs_little_memory() {
    let target = Target { bindings: 32, ..Target::default() };
    for step in steps(&Device::cpu()) {
        let chosen = step.plan(&target).memory();
        let mut rng = Rng(1);
        let random = |_| plan_in_order(&step.graph, &target, &mut |ready| rng.below(ready.len())).memory().peak;
        let peaks: Vec<usize> = (0..1000).map(random).collect();
        let best = peaks.iter().copied().min().unwrap();
        let worst = peaks.iter().copied().max().unwrap();
        println!("{}: {chosen}; random orders from {best} to {worst} bytes", step.name);
        assert!(chosen.peak <= best, "{}: {} bytes alive at once; a random order has {best}", step.name, chosen.peak);
        assert!(chosen.pool as f64 <= 1.1 * chosen.peak as f64, "{}: {chosen}", step.name);
    }
}

/// A run takes at most a tenth more than is alive at once: what `Plan::memory` says, and what kernels need for themselves.
#[test]
fn a_run_takes_the_memory_that_its_plan_tells() {
    let kinds = own_backends().len();
    for kind in 0..kinds {
        for (number, step) in steps(&Device::cpu()).into_iter().enumerate() {
            // The other kind's kernels are slow here; where products are summed in parts, the first step has it all.
            if kind == 2 && number > 0 {
                continue;
            }
            let backend = own_backends().remove(kind);
            let plan = step.plan(backend.target());
            let told = plan.memory();
            assert!(told.pool as f64 <= 1.1 * told.peak as f64, "{}: {told}", step.name);
            let data = step.inputs.iter().map(|input| input.to_data().unwrap());
            let mut buffers: Vec<_> = data.map(|data| Some(backend.upload(data).unwrap())).collect();
            let executable = backend.compile(plan).unwrap();
            let before = backend.memory().in_use;
            let outputs = executable.run(&mut buffers, &step.scalars).unwrap();
            backend.synchronise().unwrap();
            let taken = backend.memory().peak - before;
            println!("{} on {}: {taken} bytes taken; {told}", step.name, backend.description());
            let peak = executable.peak();
            assert!(peak >= told.peak && taken as f64 <= 1.1 * peak as f64, "{}: {taken} of {peak}; {told}", step.name);
            drop(outputs);
        }
    }
}
