//! Laziness as ARCHITECTURE promises it, on every device: what is kept, what is overwritten, what an assignment changes
//! and what it never does. Nothing here looks at a clock.

#[path = "support/devices.rs"]
mod devices;

use devices::{grain, is_cpu, own_devices};
use gradus::ir::philox;
use gradus::tensor::graph::NodeRef;
use gradus::{Cell, DType, Device, ErrorKind, Grad, Key, Result, Tensor, assign, cat, eval, grad, no_grad};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Elements of the tensors whose memory is counted, and their bytes.
const N: usize = 1024;
const BYTES: usize = 4 * N;

/// Devices of one's own with a budget of `count` tensors of `N` elements, and room for a few numbers.
fn room_for(count: usize) -> Vec<Device> {
    own_devices(Some(room(count)))
}

fn room(count: usize) -> usize {
    count * BYTES + BYTES / 2
}

fn own_device() -> Device {
    Device::cpu_with(1, None).unwrap()
}

fn full(value: f32, device: &Device) -> Tensor {
    Tensor::from_vec(vec![value; N], [N], device)
}

fn in_use(device: &Device) -> usize {
    device.memory().in_use
}

/// The bytes of tensors of `N` elements and of single numbers.
fn bytes(tensors: usize, numbers: usize, device: &Device) -> usize {
    tensors * BYTES + numbers * 4 * grain(device)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec().unwrap()
}

#[test]
fn long_chains_drop_and_run_in_a_small_stack() {
    let device = own_device();
    let body = move || {
        let chain = |x: &Tensor, count: usize| (0..count).fold(x.clone(), |y, _| -y);
        let w = Cell::parameter(Tensor::ones([1], &device));
        drop(chain(&w.tensor(), 1_000_000));
        let x = w.tensor();
        let y = chain(&x, 20_001);
        assert_eq!(values(&grad(&y, [&x]).unwrap()[0]), [-1.0]);
        // Views, through which simplification looks for constants.
        let pair = Cell::parameter(Tensor::new([1.0, 2.0], &device));
        let flipped = (0..20_001).fold(pair.tensor(), |y, _| y.flip(0));
        assert_eq!(values(&(&flipped * 2.0)), [4.0, 2.0]);
        drop((pair, flipped));
        // The assignment cuts the graph.
        w.set(&x * 2.0).unwrap();
        assert_eq!(values(&y), [-1.0]);
        drop(x);
        assert_eq!(in_use(&device), 8);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(body).unwrap().join().unwrap();
}

#[test]
fn what_is_held_is_kept_and_nothing_else() {
    for device in own_devices(None) {
        let w = Cell::parameter(full(2.0, &device));
        let start = in_use(&device);
        let loss = { w.tensor().exp().log() }.sum(..);
        loss.eval().unwrap();
        assert_eq!(in_use(&device) - start, bytes(0, 1, &device), "only the loss was held");

        let logits = w.tensor() * 3.0;
        let loss = logits.exp().log().mean(..);
        loss.eval().unwrap();
        assert!(NodeRef::new(&logits).unwrap().was_evaluated());
        assert_eq!(in_use(&device) - start, bytes(1, 2, &device));
        let peak = device.memory().peak;
        assert_eq!(values(&logits), [6.0; N]);
        w.set(w.tensor() + 1.0).unwrap();
        assert_eq!(values(&logits), [6.0; N], "what was computed from the old weights");
        assert!(device.memory().peak <= peak);
        assert_eq!(values(&w.tensor()), [3.0; N]);
    }
}

#[test]
fn tensors_read_after_an_assignment_show_the_values_from_before() {
    for device in own_devices(None) {
        let (w, statistics) = (Cell::parameter(full(1.0, &device)), Cell::buffer(full(5.0, &device)));
        let (old, doubled) = (w.tensor(), w.tensor() * 2.0);
        let (deep, view) = ((&doubled + statistics.tensor()).sum(..), statistics.tensor().reshape([16, 64]).t());
        assign([(w.clone(), w.tensor() * 10.0), (statistics.clone(), statistics.tensor() * w.tensor() + 1.0)]).unwrap();
        w.set(w.tensor() + 1.0).unwrap();
        assert_eq!(values(&w.tensor()), [11.0; N]);
        assert_eq!(values(&statistics.tensor()), [6.0; N]);
        assert_eq!(values(&old), [1.0; N]);
        assert_eq!(values(&doubled), [2.0; N]);
        assert_eq!(deep.item::<f32>().unwrap(), 7.0 * N as f32);
        assert_eq!(values(&view), [5.0; N]);
    }
}

#[test]
fn an_update_reuses_the_old_buffer() {
    for device in room_for(2) {
        let w = Cell::parameter(full(1.0, &device));
        let gradient = full(0.5, &device);
        for _ in 0..3 {
            w.set(w.tensor() - &gradient).unwrap();
        }
        assert_eq!(values(&w.tensor()), [-0.5; N]);
        assert_eq!((in_use(&device), device.memory().peak / BYTES), (2 * BYTES, 2));
    }
    // Adam's three tensors, in one run.
    for device in room_for(5) {
        let [w, m, v] = [1.0, 0.0, 0.0].map(|x| Cell::parameter(full(x, &device)));
        let gradient = full(2.0, &device);
        for _ in 0..3 {
            let new_m = m.tensor() * 0.9 + &gradient * 0.1;
            let new_v = v.tensor() * 0.99 + gradient.square() * 0.01;
            let new_w = w.tensor() - &new_m / (new_v.sqrt() + 1e-8);
            assign([(w.clone(), new_w), (m.clone(), new_m), (v.clone(), new_v)]).unwrap();
        }
        assert_eq!(in_use(&device), 4 * BYTES);
    }
}

#[test]
fn a_buffer_that_something_else_owns_is_not_overwritten() {
    for device in room_for(1) {
        let w = Cell::parameter(full(1.0, &device));
        let old = w.tensor();
        let error = w.set(w.tensor() * 0.5).unwrap_err();
        let message = format!("{BYTES} bytes asked for, {BYTES} in use, limit {}", room(1));
        assert!(error.to_string().contains(&message) && error.to_string().contains("GRADUS_MEMORY_LIMIT"), "{error}");
        assert_eq!((values(&old), values(&w.tensor())), (vec![1.0; N], vec![1.0; N]));
        drop(old);
        w.set(w.tensor() * 0.5).unwrap();
        assert_eq!(values(&w.tensor()), [0.5; N]);
    }
    // Held: the tensor that the cell was made from, and a view that was evaluated.
    for device in own_devices(None) {
        let x = full(1.0, &device);
        let w = Cell::parameter(x.clone());
        w.set(w.tensor() + 1.0).unwrap();
        let view = w.tensor().reshape([16, 64]);
        view.eval().unwrap();
        w.set(w.tensor() + 1.0).unwrap();
        assert_eq!([values(&x), values(&view), values(&w.tensor())], [1.0, 2.0, 3.0].map(|v| vec![v; N]));
    }
}

#[test]
fn failed_assignments_change_nothing() {
    for device in room_for(3) {
        let cells = [1.0, 2.0].map(|x| Cell::parameter(full(x, &device)));
        let [a, b] = cells.clone();
        let misfit = Tensor::ones([3], &device);
        let out_of_range = || a.tensor().gather(0, &Tensor::new([N as i32], &device)).sum(..);
        let too_large = || {
            // Read twice, so that it is stored.
            let large = Tensor::ones([4, N], &device).exp();
            large.sum(0) + large.max(0)
        };
        let wrongs: [(&dyn Fn() -> Tensor, &str); 6] = [
            (&|| misfit.clone(), "the new value has shape [3], expected [1024]"),
            (&|| a.tensor() + &misfit, "do not broadcast"),
            (&|| full(1.0, &own_device()), "different devices"),
            (&|| a.tensor().to_dtype(DType::I32), "dtypes f32 and i32 differ"),
            (&|| b.tensor() * 0.5 - out_of_range(), "index 1024 is out of range for axis 0 of extent 1024"),
            (&|| b.tensor() * 0.5 - too_large(), "out of memory"),
        ];
        for (wrong, message) in wrongs {
            let wrong = wrong();
            let error = assign([(a.clone(), a.tensor() * 10.0), (b.clone(), wrong.clone())]).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert_eq!(cells.each_ref().map(|c| values(&c.tensor())[N - 1]), [1.0, 2.0], "{message}");
        }
        // Both are as good as new: gradients flow, and updates are in place.
        let loss = (a.tensor() * b.tensor()).sum(..);
        let gradient = grad(&loss, [&a.tensor()]).unwrap().remove(0);
        a.set(a.tensor() - gradient).unwrap();
        assert_eq!(values(&a.tensor()), [-1.0; N]);
        assert_eq!(in_use(&device), bytes(2, 1, &device));
    }
}

/// What fails after much else has run: beside an update in place, behind one, and for lack of memory.
#[test]
fn assignments_that_fail_late_change_nothing() {
    for device in room_for(2) {
        let w = Cell::parameter(full(1.0, &device));
        let far = Tensor::new([9], &device);
        let updates: [&dyn Fn(Tensor) -> Tensor; 3] = [
            &|w| (w * 0.5 + 1.0) * Tensor::ones([1], &device).gather(0, &far),
            &|w| (w * 0.5).reshape([N, 1]).gather(1, &far.broadcast_to([N, 1])).reshape([N]),
            &|w| {
                // Read twice, so that it is stored.
                let large = Tensor::ones([4, N], &device).exp();
                (w * 0.5).unsqueeze(0) + large.sum_keepdim(0) + large.max_keepdim(0)
            },
        ];
        for update in updates {
            w.set(update(w.tensor()).reshape([N])).unwrap_err();
            assert_eq!(values(&w.tensor()), [1.0; N]);
        }
    }
}

#[test]
fn a_held_tensor_that_fails_does_not_fail_the_update() {
    for device in own_devices(None) {
        let w = Cell::parameter(full(1.0, &device));
        let failing = w.tensor().gather(0, &Tensor::new([-1], &device));
        let fine = w.tensor() * 2.0;
        w.set(w.tensor() + 1.0).unwrap();
        w.set(w.tensor() + 1.0).unwrap();
        assert_eq!((values(&w.tensor()), values(&fine)), (vec![3.0; N], vec![2.0; N]));
        assert!(failing.eval().unwrap_err().to_string().contains("index -1"));
    }
}

#[test]
fn cells_are_shared_counted_and_named() {
    for device in own_devices(None) {
        let a = Cell::parameter(Tensor::new([1.0, 2.0], &device));
        let tied = a.clone();
        a.set_name("embedding.weight");
        assert!(tied.same(&a) && tied.is_parameter() && tied.name() == "embedding.weight");
        assert!(!Cell::buffer(a.tensor()).is_parameter());
        let loss = (a.tensor() * tied.tensor()).sum(..);
        assert_eq!(values(&grad(&loss, [&tied.tensor()]).unwrap()[0]), [2.0, 4.0]);

        assert_eq!(a.version(), 0);
        tied.set(a.tensor() + 1.0).unwrap();
        assert_eq!((a.version(), values(&a.tensor())), (1, vec![2.0, 3.0]));
        a.set(Tensor::zeros([3], &device)).unwrap_err();
        assert_eq!(a.version(), 1);
        // Listed twice, the last value counts; if one fails, none does.
        assign([(a.clone(), a.tensor() * 2.0), (tied.clone(), a.tensor() * 3.0)]).unwrap();
        assert_eq!(values(&tied.tensor()), [6.0, 9.0]);
        let failing = a.tensor().gather(0, &Tensor::new([5, 6], &device));
        let (version, loss) = (a.version(), a.tensor().square().sum(..));
        assign([(a.clone(), a.tensor() * 2.0), (tied.clone(), failing)]).unwrap_err();
        assert_eq!((a.version(), values(&tied.tensor())), (version, vec![6.0, 9.0]));
        assert_eq!(values(&grad(&loss, [&a.tensor()]).unwrap()[0]), [12.0, 18.0], "as if nothing had been");
        drop(loss);
        // A cell that holds its own value, and one that takes another's.
        let b = Cell::buffer(a.tensor());
        a.set(a.tensor()).unwrap();
        a.set(a.tensor() + 1.0).unwrap();
        assert_eq!((values(&a.tensor()), values(&b.tensor())), (vec![7.0, 10.0], vec![6.0, 9.0]));
        assign([(a.clone(), b.tensor()), (b.clone(), a.tensor())]).unwrap();
        assert_eq!((values(&a.tensor()), values(&b.tensor())), (vec![6.0, 9.0], vec![7.0, 10.0]));
    }
}

#[test]
fn an_evaluated_loss_keeps_its_graph_until_a_parameter_changes() {
    for device in own_devices(None) {
        let [w, v] = [2.0, 3.0].map(|x| Cell::parameter(Tensor::new([x, 1.0], &device)));
        w.set_name("w");
        let (x, y) = (w.tensor(), v.tensor());
        let loss = (&x * &x * &y).sum(..);
        assert_eq!(loss.item::<f32>().unwrap(), 13.0);
        assert!(NodeRef::new(&loss).unwrap().was_evaluated());
        let first = grad(&loss, [&x, &y]).unwrap();
        assert_eq!((values(&first[0]), values(&first[1])), (vec![12.0, 2.0], vec![4.0, 1.0]));
        assert_eq!(values(&grad(&first[0].sum(..), [&x]).unwrap()[0]), [6.0, 2.0]);

        let pending = (&x * &y).sum(..);
        w.set(w.tensor() * 2.0).unwrap();
        for (stale, target) in [(&loss, &x), (&loss, &w.tensor()), (&pending, &x), (&first[0].sum(..), &x)] {
            let error = grad(stale, [target]).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::ParameterUpdated { name: "w".into() }, "{error}");
        }
        assert_eq!((loss.item::<f32>().unwrap(), pending.item::<f32>().unwrap()), (13.0, 7.0));
        let loss = (w.tensor() * v.tensor()).sum(..);
        assert_eq!(values(&grad(&loss, [&w.tensor()]).unwrap()[0]), [3.0, 1.0]);
    }
}

#[test]
fn a_gradient_that_would_be_a_part_is_an_error() {
    for device in own_devices(None) {
        // One of two ways to x is gone.
        let x = Tensor::new([1.0, 2.0], &device);
        let y = x.square();
        let loss = (&y * &x).sum(..);
        assert_eq!(values(&grad(&loss, [&x]).unwrap()[0]), [3.0, 12.0]);
        y.eval().unwrap();
        for gradients in [grad(&loss, [&x]), Grad::of(&loss).allow_unused().wrt([&x]), grad(&loss, [&y, &x])] {
            assert_eq!(*gradients.unwrap_err().kind(), ErrorKind::GraphFreed);
        }
        assert_eq!(values(&grad(&loss, [&y]).unwrap()[0]), [1.0, 2.0]);
        assert_eq!(values(&grad(&(y.detach() * &x).sum(..), [&x]).unwrap()[0]), [1.0, 4.0]);
        // What came from elsewhere has nothing to do with it, nor has what is tracked.
        let other = Tensor::rand([2], Key::new(1), &device);
        other.eval().unwrap();
        assert_eq!(grad(&(&other * &x).sum(..), [&x]).map(|g| values(&g[0])).unwrap(), values(&other));
        let (w, v) = (Cell::parameter(Tensor::new([1.0, 2.0], &device)), x.tracked());
        w.set_name("w");
        assert_eq!(values(&grad(&(&y * &v * w.tensor()).sum(..), [&v]).unwrap()[0]), [1.0, 8.0]);

        // An assignment cuts what leads to other parameters, too.
        let product = &v * w.tensor();
        product.eval().unwrap();
        w.set(w.tensor() * 2.0).unwrap();
        let later = &product * 2.0;
        later.eval().unwrap();
        let name = "w".into();
        for (tensor, expected) in [(&product, ErrorKind::ParameterUpdated { name }), (&later, ErrorKind::GraphFreed)] {
            let loss = (tensor * &v * w.tensor()).sum(..);
            assert_eq!(*grad(&loss, [&v]).unwrap_err().kind(), expected);
            // The value that the parameter has now came after it.
            assert_eq!(grad(&loss, [&w.tensor()]).unwrap()[0].shape()[..], [2]);
            assert!(grad(&(tensor.detach() * &v).sum(..), [&v]).is_ok());
        }
    }
}

#[test]
fn evaluated_tensors_that_are_not_tracked_free_their_graph() {
    for device in own_devices(None) {
        let x = Tensor::new([1.0, 2.0], &device);
        let y = &x * 2.0;
        let loss = y.sum(..);
        assert_eq!(values(&grad(&loss, [&x]).unwrap()[0]), [2.0, 2.0]);
        loss.eval().unwrap();
        assert_eq!(*grad(&loss, [&x]).unwrap_err().kind(), ErrorKind::GraphFreed);
        // An intermediate target is as good as a leaf, and so is a number.
        assert_eq!(values(&grad(&y.square().sum(..), [&y]).unwrap()[0]), [4.0, 8.0]);
        let number = Tensor::full([], 3.0, &device);
        assert_eq!(grad(&(&x * &number).sum(..), [&number]).unwrap()[0].item::<f32>().unwrap(), 3.0);
    }
}

#[test]
fn gradients_stop_at_detach_and_no_grad() {
    for device in own_devices(None) {
        let w = Cell::parameter(Tensor::new([2.0, 3.0], &device));
        let x = w.tensor();
        assert_eq!(values(&grad(&(&x * x.detach()).sum(..), [&x]).unwrap()[0]), [2.0, 3.0]);
        assert_eq!(values(&grad(&(&x * no_grad(|| x.square())).sum(..), [&x]).unwrap()[0]), [4.0, 9.0]);
        let constant = no_grad(|| x.square().sum(..));
        assert!(matches!(grad(&constant, [&x]).unwrap_err().kind(), ErrorKind::Unreached { .. }));
        assert_eq!(values(&Grad::of(&constant).allow_unused().wrt([&x]).unwrap()[0]), [0.0, 0.0]);
        // `no_grad` ends where it ends, also by a panic.
        std::panic::catch_unwind(|| no_grad(|| panic!("on purpose"))).unwrap_err();
        assert_eq!(values(&grad(&x.square().sum(..), [&x]).unwrap()[0]), [4.0, 6.0]);
        // Detached tensors keep the values from before an assignment too.
        let detached = x.detach();
        drop(x);
        w.set(w.tensor() * 2.0).unwrap();
        assert_eq!(values(&detached), [2.0, 3.0]);
    }
}

#[test]
fn views_of_values_are_not_copied() {
    for device in own_devices(None) {
        let x = full(1.0, &device).reshape([16, 64]);
        x.eval().unwrap();
        assert_eq!(in_use(&device), BYTES);
        let views =
            [x.t(), x.slice(0, 2..10), x.reshape([32, 32]), x.broadcast_to([3, 16, 64]), x.flip(1), x.pad(0, 1, 1)];
        let sums: Vec<Tensor> = views.iter().map(|v| v.sum(..)).collect();
        eval(&sums).unwrap();
        let expected = bytes(1, views.len(), &device);
        assert_eq!(in_use(&device), expected);
        assert_eq!(sums.iter().map(|s| s.item::<f32>().unwrap()).sum::<f32>(), 7.5 * N as f32);
        assert_eq!(values(&views[2]), [1.0; N]);
        assert_eq!(in_use(&device), expected, "a reshape shares the buffer");
    }
}

#[test]
fn numbers_and_nothing_are_tensors_too() {
    for device in own_devices(None) {
        for shape in [vec![], vec![0], vec![2, 0, 3]] {
            let count = shape.iter().product::<usize>();
            let w = Cell::parameter(Tensor::full(shape.clone(), 2.0, &device));
            let (x, held) = (w.tensor(), w.tensor().exp());
            let loss = (x.square() * 3.0).sum(..);
            assert_eq!(loss.item::<f32>().unwrap(), 12.0 * count as f32);
            let gradient = grad(&loss, [&x]).unwrap().remove(0);
            assert_eq!(gradient.shape(), x.shape());
            drop(x);
            w.set(w.tensor() - gradient).unwrap();
            assert_eq!(values(&w.tensor()), vec![-10.0; count]);
            assert!(values(&held).iter().all(|y| (y - 2f32.exp()).abs() < 1e-5));
        }
        let empty = Tensor::zeros([0, 3], &device);
        assert_eq!(cat(&[&empty, &Tensor::ones([1, 3], &device)], 0).to_vec::<f32>().unwrap(), [1.0; 3]);
        assert_eq!(values(&empty.t().matmul(&empty)), [0.0; 9]);
        assert!(empty.mean(..).item::<f32>().unwrap().is_nan());
        assert_eq!(values(&empty.prod(0)), [1.0; 3]);
        assert!(empty.is_finite().all(..).item::<bool>().unwrap());
    }
}

#[test]
fn any_number_of_tensors_is_joined() {
    for device in own_devices(None) {
        for count in [1, 15, 16, 17, 31, 32, 33, 100, 300] {
            // Columns of 2 rows, some without elements: each number says whose it is, and where it lies.
            let number = |part: usize, row: usize, column: usize| (100 * part + 10 * row + column) as i32;
            let rows: [Vec<i32>; 2] = [0, 1].map(|row| {
                let of_part = |part: usize| (0..part % 4).map(move |column| number(part, row, column));
                (0..count).flat_map(of_part).collect()
            });
            let part = |part: usize| {
                let numbers: Vec<i32> =
                    (0..2 * (part % 4)).map(|i| number(part, i / (part % 4), i % (part % 4))).collect();
                Tensor::from_vec(numbers, [2, part % 4], &device)
            };
            let parts: Vec<Tensor> = (0..count).map(part).collect();
            let joined = cat(&parts.iter().collect::<Vec<_>>(), 1);
            assert_eq!(joined.to_vec::<i32>().unwrap(), rows.concat(), "{count}");
            let floats: Vec<Tensor> = parts.iter().map(|part| part.to_dtype(DType::F32).t() * 0.5).collect();
            let joined = cat(&floats.iter().collect::<Vec<_>>(), 0).t() * 2.0;
            assert_eq!(values(&joined), rows.concat().iter().map(|&x| x as f32).collect::<Vec<_>>(), "{count}");
        }
    }
}

#[test]
fn devices_are_told_apart() {
    for (a, b) in room_for(3).iter().flat_map(|a| room_for(1).into_iter().map(move |b| (a, b))) {
        assert!(*a != b && *a == a.clone());
        let [x, y] = [a, &b].map(|d| Cell::parameter(full(1.0, d)));
        assert!((x.tensor() + y.tensor()).error().is_some());
        let moved = y.tensor().to_device(a);
        assert_eq!(values(&(x.tensor() + moved)), [2.0; N]);
        assign([(x.clone(), x.tensor() + 1.0), (y.clone(), y.tensor().detach())]).unwrap();
        assert_eq!((values(&x.tensor()), values(&y.tensor())), (vec![2.0; N], vec![1.0; N]));
        // If one device fails, the other keeps its values too, whatever the order.
        let fails = || y.tensor().pad(0, 1, 0).exp().slice(0, ..-1);
        assign([(x.clone(), x.tensor() + 1.0), (y.clone(), fails())]).unwrap_err();
        assign([(y.clone(), fails()), (x.clone(), x.tensor() + 1.0)]).unwrap_err();
        assert_eq!((values(&x.tensor()), values(&y.tensor())), (vec![2.0; N], vec![1.0; N]));
    }
}

#[test]
fn threads_share_a_device() {
    for device in own_devices(None) {
        let shared = full(1.0, &device) * 2.0 * 0.5;
        let steps = if is_cpu(&device) { 300 } else { 60 };
        let common = Cell::parameter(full(0.0, &device));
        let train = |thread: usize| -> Result<()> {
            let w = Cell::parameter(full(thread as f32, &device));
            let mut total = Tensor::zeros([], &device);
            for step in 0..steps {
                let loss = (w.tensor() * &shared).square().mean(..);
                let gradient = grad(&loss, [&w.tensor()])?.remove(0);
                if step % 3 == 0 {
                    assert!(loss.item::<f32>()? >= 0.0);
                }
                w.set(w.tensor() - gradient * (N as f32 / 2000.0))?;
                total = total + loss;
                // Everyone also reads and writes a cell in common: some whole value, never a mixture.
                common.set(w.tensor() * 0.0 + step as f32)?;
                let seen = common.tensor().to_vec::<f32>()?;
                assert!(seen.iter().all(|&x| x == seen[0] && (0.0..300.0).contains(&x)));
            }
            let expected = thread as f32 * 0.999f32.powi(steps);
            assert!(values(&w.tensor()).iter().all(|&x| (x - expected).abs() < 1e-3), "{expected}");
            assert!(total.item::<f32>()?.is_finite());
            Ok(())
        };
        let train = &train;
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || train(thread))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
    }
}

#[test]
fn random_numbers_are_the_same_on_every_device() {
    let draw = |device: &Device| values(&Tensor::rand([100_000], Key::new(1), device));
    let expected = draw(&own_device());
    assert!(own_devices(None).iter().all(|device| draw(device) == expected));
    // Words are those of the generator, four to a counter.
    let words = |device: &Device| Tensor::random_bits([1001], Key::new(3), device).to_vec::<u32>().unwrap();
    let expected: Vec<u32> = (0..1001).map(|i| philox::block(3, i / 4)[i as usize % 4]).collect();
    own_devices(None).iter().for_each(|device| assert_eq!(words(device), expected, "{device}"));
    let kept = |device: &Device| Tensor::bernoulli([10_000], 0.3, Key::new(2), device).to_vec::<bool>().unwrap();
    assert!(own_devices(None).iter().all(|device| kept(device) == kept(&own_device())));
}

/// Runs this test again in a process of its own with `GRADUS_MEMORY_LIMIT` set.
#[test]
fn the_environment_sets_a_budget() {
    if std::env::var("GRADUS_MEMORY_LIMIT").as_deref() == Ok("64K") {
        let device = Device::cpu();
        assert_eq!(device.memory().limit, Some(64 << 10));
        let error = Tensor::ones([1 << 14], &device).exp().sum(..).item::<f32>().unwrap_err().to_string();
        assert!(error.contains("out of memory: 65536 bytes asked for") || error.contains("limit 65536"), "{error}");
        return;
    }
    let test = ["--exact", "the_environment_sets_a_budget"];
    let child = std::process::Command::new(std::env::current_exe().unwrap());
    let status = { child }.args(test).env("GRADUS_MEMORY_LIMIT", "64K").output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
}

#[test]
fn values_can_be_awaited() {
    for device in own_devices(None) {
        let ready = |tensor: Tensor| {
            let future = tensor.to_vec_async::<f32>();
            drop(tensor);
            // The future is Send and owns what it needs.
            let poll = move || {
                let mut future = std::pin::pin!(future);
                for _ in 0..100_000 {
                    if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        return result;
                    }
                    std::thread::sleep(Duration::from_micros(100));
                }
                panic!("never ready");
            };
            std::thread::spawn(poll).join().unwrap()
        };
        assert_eq!(ready(Tensor::ones([2], &device) * 3.0).unwrap(), [3.0, 3.0]);
        assert!(ready(Tensor::ones([2], &device).reshape([3])).is_err());
        assert!(ready(Tensor::new([1, 2], &device)).is_err());
    }
}
