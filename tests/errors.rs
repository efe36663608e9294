//! Misuse: every mistake gives an error that names the op, what did not fit and the line; nothing panics, and nothing is
//! silently wrong.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, gpu_device, has, own_gpu};
use gradus::tensor::ErrorKind as Kind;
use gradus::{
    Cell, Conv, DType, Device, Error, Grad, Key, PadMode, Pool, Result, Tensor, assign, cat, custom_gradient, einsum,
    eval, grad, stack,
};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::slice::from_ref;

fn device() -> Device {
    Device::cpu_with(1, None).unwrap()
}

fn ones<const N: usize>(shape: [usize; N]) -> Tensor {
    Tensor::ones(shape, &Device::cpu())
}

/// Checks an error's op and message, and that it names the line that calls this.
#[track_caller]
fn says(error: &Error, op: &str, message: &str) {
    let (here, text) = (Location::caller(), error.to_string());
    assert!(error.op() == op && text.contains(message), "expected {op}: {message}\n   found {text}");
    let place = format!("{op} at {}:{}: ", here.file(), here.line());
    assert!(here.file().ends_with("tests/errors.rs") && text.starts_with(&place), "expected {place}\n   found {text}");
}

/// Checks the error that a tensor carries; see [`says`].
#[track_caller]
fn fails(tensor: &Tensor, op: &str, message: &str) {
    let error = tensor.error().unwrap_or_else(|| panic!("no error: {tensor}"));
    says(error, op, message);
    // What carries an error is a tensor like any other, and passes it on.
    assert!(tensor.shape().is_empty() && tensor.dtype() == DType::F32 && tensor.to_string().contains(message));
    assert_eq!(tensor.to_vec::<f32>().unwrap_err().to_string(), error.to_string());
}

#[test]
fn orders_and_equations_that_do_not_fit() {
    let (x, v, s) = (ones([2, 3]), ones([4]), ones([]));
    fails(&x.cumsum(2), "cumsum", "axis 2 is out of range for shape [2, 3] (rank 2)");
    fails(&s.cumprod(0), "cumprod", "axis 0 is out of range for shape [] (rank 0)");
    fails(&x.gt(0.0).cumsum(0), "cumsum", "does not take bool");
    fails(&x.linear_recurrence(&v, 0), "linear_recurrence", "shapes [2, 3] and [4] do not broadcast");
    fails(&x.to_dtype(DType::I32).linear_recurrence(2, 0), "linear_recurrence", "does not take i32");
    fails(&x.argsort(-3, false), "argsort", "axis -3 is out of range");
    fails(&s.sort(0, false), "sort", "axis 0 is out of range");
    fails(&x.topk(4, 1, true).0, "topk", "k is 4 of an axis of extent 3, expected at most as many as there are");
    fails(&x.topk(1, 2, true).1, "topk", "axis 2 is out of range");
    fails(&x.searchsorted(&v, false), "searchsorted", "expected a vector in order, found rank 2");
    fails(&v.searchsorted(&x.to_dtype(DType::I32), false), "lt", "dtypes f32 and i32 differ");
    says(&(&x + &v).unique().unwrap_err(), "add", "do not broadcast");

    let equation = |text: &str, message: &str| {
        let tensor = einsum(text, &[&x, &x.t()]);
        let error = tensor.error().unwrap_or_else(|| panic!("no error: {text}"));
        assert!(error.op() == "einsum" && error.to_string().contains(message), "{text}: {error}");
    };
    fails(&einsum("ij->k", &[&x]), "einsum", "\"ij->k\", with 'k' at position 4, expected labels of the result");
    fails(&einsum("ij", &[]), "einsum", "operands is none, expected at least one tensor");
    equation("ij,jk->iz", "with 'z' at position 8");
    equation("ij, j%", "with '%' at position 5, expected letters, \"...\", commas and one \"->\"");
    equation("ij,jk->i->k", "with '-' at position 8");
    equation("ij,jk->i,k", "with ',' at position 8");
    equation("ij,j..", "with '.' at position 4, expected three dots in a row");
    equation("i...j...,jk", "with '.' at position 5, expected \"...\" once for each tensor");
    equation("ij,jk->ii", "with 'i' at position 8, expected each label once in the result");
    equation("ij", "\"ij\" with 1 for 2 operands, expected labels for each operand");
    equation("ij,jkl", "\"ij,jkl\" with 3 for operand 1 of shape [3, 2], expected a label for each axis");
    equation("i,ij", "with 1 for operand 0 of shape [2, 3]");
    equation("...i,ij->j", "which ends at position 10, expected \"...\" also in the result");
    equation("ij,ij", "operands is 2 for 'i' of operand 0 and 3 for that of 1, expected equal extents");
    equation("ii,ij", "operands is 2 for 'i' of operand 0 and 3 for that of 0");
    equation("...,...", "2 for an axis of \"...\" of operand 0 and 3 for that of 1");
    fails(&einsum("i,i", &[&v, &v.to_dtype(DType::I32)]), "matmul", "dtypes f32 and i32 differ");
}

#[test]
fn shapes_that_do_not_fit() {
    let (x, v, s) = (ones([2, 3]), ones([4]), ones([]));
    fails(&(&x + &v), "add", "shapes [2, 3] and [4] do not broadcast");
    fails(&(1.0 - &x * &v), "mul", "shapes [2, 3] and [4] do not broadcast");
    fails(&x.maximum(&v), "max", "shapes [2, 3] and [4] do not broadcast");
    fails(&x.lt(&v), "lt", "shapes [2, 3] and [4] do not broadcast");
    fails(&x.gt(0.0).where_(&v, 0.0), "where", "shapes [2, 3] and [4] do not broadcast");
    fails(&x.clamp(&v, 1.0), "clamp", "shapes [2, 3] and [4] do not broadcast");
    fails(&x.prelu(&v), "prelu", "shapes [2, 3] and [4] do not broadcast");
    fails(&x.masked_fill(&v.gt(0.0), 1.0), "where", "shapes [4] and [2, 3] do not broadcast");
    fails(&x.broadcast_to([3]), "broadcast_to", "cannot expand [2, 3] to [3]");
    fails(&x.reshape([4]), "reshape", "cannot reshape [2, 3] (6 elements) to [4] (4 elements)");
    fails(&x.reshape([-1, 4]), "reshape", "cannot reshape [2, 3] (6 elements) to [1, 4] (4 elements)");
    fails(&x.reshape([-1, -1]), "reshape", "dims is [-1, -1], expected extents of which at most one is -1");
    fails(&x.reshape([-2, 3]), "reshape", "dims is [-2, 3]");
    fails(&x.matmul(&x), "matmul", "product of [2, 3] and [2, 3]: 3 columns on the left against 2 rows on the right");
    fails(&x.matmul(&v), "matmul", "product of [2, 3] and [4]: 3 columns on the left against 4 rows on the right");
    fails(&v.matmul(&x), "matmul", "product of [4] and [2, 3]: 4 columns on the left against 2 rows on the right");
    fails(&s.matmul(&x), "matmul", "product of [] and [2, 3]: a single number is no matrix");
    let (a, b) = (ones([2, 1, 3]), ones([3, 3, 1]));
    fails(&a.matmul(&b), "matmul", "batch extents [2] and [3] do not broadcast");
    fails(&x.dot(&v), "dot", "expected two vectors, found rank 2 (shape [2, 3])");
    fails(&v.dot(&ones([3])), "matmul", "product of [4] and [3]");
    fails(&cat(&[&x, &v], 0), "cat", "a tensor has shape [4], expected [4, 3]");
    fails(&cat(&[&x, &x.t()], 1), "cat", "a tensor has shape [3, 2], expected [2, 2]");
    fails(&cat(&[], 0), "cat", "tensors is none, expected at least one");
    fails(&stack(&[&x, &v], 0), "cat", "a tensor has shape [1, 4]");
    fails(&stack(&[&x], 3), "unsqueeze", "axis 3 is out of range for shape [2, 3] (rank 2)");
    fails(&x.split(1, &[1, 1])[0], "split", "sizes is [1, 1] for extent 3, expected sizes that sum to the extent");
    fails(&x.chunk(0, 0)[0], "chunk", "count is 0, expected at least 1");
    fails(&x.slice(1, 1..5), "slice", "range 1..5 is out of range for axis 1 of shape [2, 3]");
    fails(&x.slice(-1, -4..), "slice", "range -1..3 is out of range for axis 1 of shape [2, 3]");
    fails(&x.slice_step(0, .., 0), "slice", "step is 0, expected not 0");
    fails(&x.select_index(0, 2), "slice", "range 2..3 is out of range for axis 0 of shape [2, 3]");
    fails(&x.slice_assign(0, 1..2, &v), "broadcast_to", "cannot expand [4] to [1, 3]");
    fails(&x.permute([0, 0]), "permute", "axes [0, 0] are not a permutation of the axes of shape [2, 3]");
    fails(&x.permute([1, 0, 2]), "permute", "axis 2 is out of range for shape [2, 3] (rank 2)");
    fails(&x.permute_axes(&[1]), "permute", "axes [1] are not a permutation of the axes of shape [2, 3]");
    fails(&x.transpose(0, 2), "transpose", "axis 2 is out of range for shape [2, 3] (rank 2)");
    fails(&v.t(), "t", "expected at least rank 2, found rank 1 (shape [4])");
    fails(&v.tril(0), "tril", "expected at least rank 2, found rank 1 (shape [4])");
    fails(&x.squeeze(1), "squeeze", "extent is 3 for axis 1 of shape [2, 3], expected 1");
    fails(&x.unsqueeze(-4), "unsqueeze", "axis -4 is out of range for shape [2, 3] (rank 2)");
    fails(&x.flatten_range(1, 0), "flatten_range", "range is 1..=0, expected start before end");
    fails(&x.sum([0, -2]), "sum", "axes [0, -2] are not distinct axes of shape [2, 3]");
    fails(&x.softmax(usize::MAX), "max", "is out of range for shape [2, 3] (rank 2)");
    fails(&x.glu(1), "split", "sizes is [2, 2] for extent 3");
    fails(&ones([0, 3]).max(0), "max", "shape is [0, 3], expected at least one element to reduce");
    fails(&ones([2, 0]).argmin(1), "argmin", "shape is [2, 0], expected at least one element to reduce");
    for (name, failed) in [
        ("sum", x.sum(2)),
        ("flip", x.flip(2)),
        ("pad", x.pad(2, 1, 1)),
        ("repeat", x.repeat(2, 1)),
        ("split", x.split(2, &[1]).remove(0)),
        ("chunk", x.chunk(2, 1).remove(0)),
        ("gather", x.gather(2, &v)),
        ("log_softmax", x.log_softmax([2])),
        ("logsumexp", x.logsumexp([2])),
        ("mean", x.mean(2)),
        ("var", x.var(2, 0)),
    ] {
        let message = failed.error().unwrap().to_string();
        assert!(message.contains("axis 2 is out of range for shape [2, 3] (rank 2)"), "{name}: {message}");
    }
}

#[test]
fn indices_that_do_not_fit() {
    let x = ones([2, 3]);
    let [index, flat] = [vec![2usize, 1], vec![2]].map(|shape| Tensor::zeros(shape, (&Device::cpu(), DType::I32)));
    fails(&x.gather(0, &index), "gather", "the index has shape [2, 1], expected [2, 3]");
    fails(&x.gather(0, &flat), "gather", "the index has shape [2], expected [2, 3]");
    fails(&x.gather(1, &x), "gather", "does not take f32: expected an integer index (i32 or u32)");
    fails(&x.scatter_add(1, &index, &x), "scatter_add", "the updates has shape [2, 3], expected [2, 1]");
    fails(&x.scatter_set(1, &flat, &x), "scatter_set", "the index has shape [2], expected [2, 0]");
    fails(&x.index_select(0, &index), "index_select", "expected an index of rank 1, found rank 2 (shape [2, 1])");
    let far = Tensor::new([[0], [3]], &Device::cpu());
    says(&x.gather(1, &far).eval().unwrap_err(), "gather", "index 3 is out of range for axis 1 of extent 3");
    says(&x.index_select(0, &far.flatten()).exp().eval().unwrap_err(), "gather", "index 3 is out of range for axis 0");
    says(&x.scatter_add(1, &-far, &ones([2, 1])).eval().unwrap_err(), "scatter_add", "index -3 is out of range");
    // What a device finds out is the same on each.
    for device in devices() {
        let (x, far) = (Tensor::ones([2, 3], &device), Tensor::new([[0], [3]], &device));
        let message = "index 3 is out of range for axis 1 of extent 3";
        says(&x.gather(1, &far).eval().unwrap_err(), "gather", message);
        says(&x.scatter_set(1, &far, &Tensor::ones([2, 1], &device)).eval().unwrap_err(), "scatter_set", message);
        let first = far.to_dtype(DType::U32).flatten();
        says(&x.index_select(0, &(first - 1)).eval().unwrap_err(), "gather", "index 4294967295 is out of range");
        // Seen from one that is computed on top of it, and from the next.
        let error = (x.gather(1, &far) * 2.0).exp().to_vec::<f32>().unwrap_err();
        assert_eq!(*error.kind(), Kind::Index { index: 3, axis: 1, extent: 3 }, "on {device}");
        assert_eq!(x.gather(1, &(far - 1).relu()).to_vec::<f32>().unwrap(), [1.0, 1.0]);
    }
    // The line is the forward op's, also where it is the gradient that fails.
    let w = Cell::parameter(ones([3]));
    let far = Tensor::new([7], &Device::cpu());
    let loss = w.tensor().gather(0, &far).sum(..);
    let error = grad(&loss, [&w.tensor()]).unwrap()[0].eval().unwrap_err().to_string();
    assert!(error.contains(&format!("tests/errors.rs:{}: index 7", line!() - 2)), "{error}");
}

/// Kernels without elements, and numbers that nothing has so many of: errors, or what they amount to, but no panic.
#[test]
fn numbers_beyond_all_bounds() {
    let device = Device::cpu_with(1, Some(1 << 20)).unwrap();
    let odd = [0, 1, 2, 3, 1 << 33, isize::MAX as usize, usize::MAX];
    let x = Tensor::ones([1, 4, 5, 3], &device).tracked();
    let kernels = [[4, 4, 2, 2], [4, 1, 1, 1], [4, 2, 0, 1], [4, 0, 2, 2], [0, 4, 1, 1]]
        .map(|shape| Tensor::ones(shape, &device));
    let nothing = x.slice(1, ..0);
    let (mut fine, mut wrong) = (0, 0);
    for (a, b) in odd.into_iter().flat_map(|a| odd.map(|b| (a, b))) {
        let mut tensors = Vec::new();
        for conv in [
            Conv::new().stride(a).padding(b),
            Conv::new().dilation(a).padding(b),
            Conv::new().stride(a).dilation(b).padding(1),
            Conv::new().groups(a).stride(b),
        ] {
            for kernel in &kernels {
                for x in [&x, &nothing] {
                    tensors.extend([x.conv2d(kernel, &conv), x.conv_transpose(kernel, &conv, 0)]);
                }
                tensors.push(x.conv_transpose(kernel, &conv, [a, b]));
            }
        }
        for pool in [Pool::new(2).stride(a).padding(b), Pool::new(a).stride(1).padding(b), Pool::new(1).dilation(a)] {
            tensors.extend([x.max_pool(&pool), x.avg_pool(&pool)]);
        }
        tensors.extend([x.adaptive_avg_pool([a, b]), x.adaptive_max_pool([a, b]), x.window(2, a, b)]);
        tensors.extend([x.resize_nearest([a, b]), x.resize_linear([a, b], true), x.resize_linear([a, b], false)]);
        for mode in [PadMode::Constant(2.0), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
            tensors.push(x.pad_with(2, a, b, mode));
        }
        for tensor in tensors {
            let gradient = Grad::of(&tensor.sum(..)).allow_unused().wrt([&x]).map(|mut g| g.remove(0));
            match tensor.eval().and_then(|()| gradient.and_then(|g| g.eval())) {
                Ok(()) => fine += 1,
                Err(_) => wrong += 1,
            }
        }
    }
    assert!(fine > 500 && wrong > 500, "{fine} fine, {wrong} wrong");
    let message = |y: Tensor| y.error().unwrap().to_string();
    let (none, conv) = (&kernels[2], Conv::new());
    assert!(message(x.conv_transpose(none, &conv.clone().groups(2), 0)).contains("kernel is 0, expected at least 1"));
    assert!(
        message(x.conv2d(&kernels[0], &conv.padding(usize::MAX))).contains("more elements than memory can address")
    );
    assert!(message(x.max_pool(&Pool::new(2).padding(usize::MAX))).contains("at most half a window"));
    assert!(message(x.resize_nearest(usize::MAX)).contains("more elements than memory can address"));
    // As long as it takes to the only window there is, or longer.
    assert_eq!(x.max_pool(&Pool::new(2).stride(usize::MAX)).shape()[..], [1, 4, 1, 1]);
}

/// What a kernel writes over an index says nothing about the index.
#[test]
fn an_index_that_is_overwritten_is_looked_at_before() {
    for device in devices() {
        let table = Tensor::arange(10, &device);
        let index = Cell::buffer(Tensor::new([12, 1], &device));
        let y = table.index_select(0, &index.tensor());
        // The update computes y first, because it overwrites what y reads; that y fails is no reason for it to fail.
        index.set((index.tensor() + 1) % 10).unwrap();
        assert_eq!(index.tensor().to_vec::<i32>().unwrap(), [3, 2]);
        let error = y.to_vec::<i32>().unwrap_err();
        assert_eq!(*error.kind(), Kind::Index { index: 12, axis: 0, extent: 10 }, "on {device}");
        // One that the plan has computed itself: the remainder may take its place.
        let ones = Tensor::ones([10], (&device, DType::I32));
        let computed = ones.cumsum(0);
        let (y, wrapped) = (table.index_select(0, &computed), &computed % 3);
        drop(computed);
        let error = eval([&y, &wrapped]).unwrap_err();
        assert_eq!(*error.kind(), Kind::Index { index: 10, axis: 0, extent: 10 }, "on {device}");
        // What is in range after all is not refused.
        let computed = ones.slice(0, ..9).cumsum(0);
        let (y, wrapped) = (table.index_select(0, &computed), &computed % 3);
        drop(computed);
        assert_eq!(y.to_vec::<i32>().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(table.index_select(0, &wrapped).to_vec::<i32>().unwrap(), [1, 2, 0, 1, 2, 0, 1, 2, 0]);
    }
}

#[test]
fn dtypes_that_do_not_fit() {
    let device = Device::cpu();
    let (x, i, b) = (ones([2]), Tensor::new([1, 2], &device), Tensor::new([true, false], &device));
    let d = x.to_dtype(DType::F64);
    fails(&(&x + &i), "add", "dtypes f32 and i32 differ: convert one with to_dtype");
    fails(&x.pow(&d), "pow", "dtypes f32 and f64 differ");
    fails(&x.eq(&i), "eq", "dtypes f32 and i32 differ");
    fails(&b.where_(&x, &d), "where", "dtypes f32 and f64 differ");
    fails(&cat(&[&x, &i], 0), "cat", "dtypes f32 and i32 differ");
    fails(&x.dot(&d), "matmul", "dtypes f32 and f64 differ");
    fails(&x.scatter_add(0, &i, &d), "scatter_add", "dtypes f32 and f64 differ");
    fails(&(&i * 0.5), "number", "the number 0.5 does not fit dtype i32: convert the tensor with to_dtype first");
    fails(&(3_000_000_000u32 - &i), "number", "the number 3000000000 does not fit dtype i32");
    fails(&(i.to_dtype(DType::U32) + -1), "number", "the number -1 does not fit dtype u32");
    fails(&(&x + true), "number", "the number true does not fit dtype f32");
    fails(&b.eq(1), "number", "the number 1 does not fit dtype bool");
    fails(&i.leaky_relu(0.01), "number", "the number 0.01 does not fit dtype i32");
    fails(&(&b + &b), "add", "does not take bool: expected a number dtype");
    fails(&-&b, "neg", "does not take bool: expected a number dtype");
    fails(&b.sum(..), "sum", "does not take bool: expected a number dtype");
    fails(&b.lt(&b), "lt", "does not take bool: expected a number dtype");
    fails(&x.logical_and(&x), "and", "does not take f32: expected bool");
    fails(&x.logical_not(), "not", "does not take f32: expected bool");
    fails(&x.where_(&x, &x), "where", "does not take f32: expected bool");
    fails(&i.exp(), "exp", "does not take i32: expected a float dtype");
    fails(&i.mean(..), "mean", "does not take i32: expected a float dtype");
    fails(&i.var(.., 1), "var", "does not take i32: expected a float dtype");
    fails(&Tensor::rand([2], Key::new(1), (&device, DType::I32)), "rand", "does not take i32: expected a float dtype");
    fails(&Tensor::arange(2, (&device, DType::Bool)), "iota", "does not take bool: expected a number dtype");
    fails(&b.one_hot(2, DType::F32), "iota", "does not take bool: expected a number dtype");
    fails(&Tensor::full([2], 0.5, (&device, DType::I32)), "full", "the number 0.5 does not fit dtype i32");
    fails(&Tensor::new([1.5], (&device, DType::U32)), "new", "the number 1.5 does not fit dtype u32");
    fails(&Tensor::new([5_000_000_000i64], &device), "new", "the number 5000000000 does not fit dtype i32");
    says(&x.to_vec::<i32>().unwrap_err(), "to_vec", "does not take f32: expected i32");
    says(&x.sum(..).item::<f64>().unwrap_err(), "to_vec", "does not take f32: expected f64");
    says(&x.masked_select(&x).unwrap_err(), "to_vec", "does not take f32: expected bool");
}

#[test]
fn values_that_do_not_fit() {
    let device = Device::cpu();
    fails(&Tensor::new(vec![vec![1.0, 2.0], vec![3.0]], &device), "new", "rows of different lengths");
    fails(&Tensor::new(vec![vec![vec![1]], vec![]], &device), "new", "expected rows of equal length");
    fails(&Tensor::from_vec(vec![1.0f32; 5], [2, 3], &device), "upload", "5 values do not fill shape [2, 3]");
    fails(&ones([2]).reshape([usize::MAX, 2]), "reshape", "has more elements than memory can address");
    fails(&Tensor::from_vec(vec![1i32], [usize::MAX, 2], &device), "upload", "has more elements than memory can");
    fails(&Tensor::zeros([usize::MAX, 2], &device), "const", "has more elements than memory can address");
    fails(&Tensor::full([1 << 40, 1 << 40], 1, &device), "scalar", "has more elements than memory can address");
    fails(&Tensor::rand([usize::MAX], Key::new(0), &device), "random", "has more elements than memory can address");
    fails(&Tensor::arange(usize::MAX, &device), "iota", "has more elements than memory can address");
    fails(&Tensor::permutation(1 << 40, Key::new(0), &device), "permutation", "has more elements than memory can");
    fails(&ones([2]).broadcast_to([1 << 62, 2]), "expand", "has more elements than memory can address");
    fails(&ones([2]).repeat(0, usize::MAX), "expand", "has more elements than memory can address");
    let (column, row) = (ones([1 << 31, 1]), ones([1, 1 << 31]));
    fails(&column.matmul(&row), "matmul", "has more elements than memory can address");
    let impossible = row.broadcast_to([1 << 28, 1 << 31]);
    says(&(impossible + 1.0).eval().unwrap_err(), "add", "out of memory: 2305843009213693952 bytes asked for");
    says(&ones([2, 3]).dims::<3>().unwrap_err(), "dims", "expected rank 3, found rank 2 (shape [2, 3])");
    says(&ones([2]).item::<f32>().unwrap_err(), "item", "expected a single element, found rank 1 (shape [2])");
    says(&ones([0]).item::<f32>().unwrap_err(), "item", "expected a single element, found rank 1 (shape [0])");
    let error = Device::named("no such adapter").unwrap_err().to_string();
    assert!(error.contains("no device \"no such adapter\": "), "{error}");
}

#[test]
fn what_a_gpu_has_not() {
    let Some(gpu) = gpu_device() else { return };
    assert!(!has(&gpu, DType::F64));
    let message = "has no f64: use f32, or the device \"cpu\"";
    fails(&Tensor::zeros([2], (&gpu, DType::F64)), "const", message);
    fails(&Tensor::new([0.5], (&gpu, DType::F64)), "upload", message);
    fails(&Tensor::from_vec(vec![0.5f64], [1], (&gpu, DType::F64)), "upload", message);
    fails(&Tensor::rand([2], Key::new(0), (&gpu, DType::F64)), "random", message);
    let (x, wide) = (Tensor::ones([2], &gpu), ones([2]).to_dtype(DType::F64));
    fails(&x.to_dtype(DType::F64), "to_dtype", message);
    fails(&wide.to_device(&gpu), "upload", message);
    assert!(matches!(wide.to_device(&gpu).error().unwrap().kind(), Kind::NoDType { dtype: DType::F64, .. }));
    // What is f64 on the host only becomes what was asked for.
    let narrow = Tensor::from_vec(vec![0.5f64, -2.0], [2], (&gpu, DType::F32));
    assert_eq!(narrow.to_vec::<f32>().unwrap(), [0.5, -2.0]);
    let whole = Tensor::from_vec(vec![0.5f64, -2.0], [2], (&gpu, DType::I32));
    assert_eq!(whole.to_vec::<i32>().unwrap(), [0, -2]);
    // Two GPUs are two devices, as a GPU and the CPU are.
    let another = own_gpu(Some(1 << 20)).unwrap();
    let message = format!("tensors are on different devices, {gpu} and {another}: move one with to_device");
    fails(&(&x + Tensor::ones([2], &another)), "add", &message);
    fails(&(&x + ones([2])), "add", &format!("different devices, {gpu} and cpu"));
    assert_eq!((&x + ones([2]).to_device(&gpu)).to_vec::<f32>().unwrap(), [2.0, 2.0]);
    // More than its budget, at once and bit by bit.
    let out_of_memory = "out of memory: 4194304 bytes asked for";
    says(&Tensor::ones([1 << 20], &another).exp().eval().unwrap_err(), "exp", out_of_memory);
    let parts: Vec<Tensor> = (0..8).map(|i| Tensor::full([1 << 16], i, &another) * 2.0).collect();
    assert!(eval(&parts).unwrap_err().to_string().contains("out of memory"));
    assert_eq!(another.memory().in_use, 0, "a failed run leaves nothing");
    assert_eq!(parts[3].max(..).item::<i32>().unwrap_or(6), 6);
}

#[test]
fn devices_that_differ() {
    let (x, y) = (ones([2]), Tensor::ones([2], &device()));
    let message = format!("tensors are on different devices, cpu and {}: move one with to_device", y.device());
    fails(&(&x + &y), "add", &message);
    fails(&x.dot(&y), "matmul", &message);
    fails(&cat(&[&x, &y], 0), "cat", &message);
    fails(&stack(&[&x, &y], 0), "cat", &message);
    fails(&x.gt(0.0).where_(&x, &y), "where", &message);
    fails(&x.gather(0, &y.to_dtype(DType::I32)), "gather", &message);
    says(&Cell::buffer(x.clone()).set(y.clone()).unwrap_err(), "assign", &message);
    says(&assign([(Cell::buffer(x), ones([3]))]).unwrap_err(), "assign", "the new value has shape [3], expected [2]");
}

#[test]
fn the_first_error_wins() {
    let (x, line) = (ones([2, 3]).reshape([7]), line!());
    let first = x.error().unwrap().to_string();
    assert!(first.contains(&format!("errors.rs:{line}:")), "{first}");
    let ok = ones([2]);
    let later = [
        (&x + &ok) * 2.0,
        &ok - &x,
        3.0 / &x,
        -x.exp().matmul(&ok).sum(7).reshape([9]),
        ok.matmul(&x),
        cat(&[&ok, &x], 5),
        stack(&[&ok, &x], 0),
        x.gt(0.0).where_(1.0, &ok),
        ok.gt(0.0).where_(&ok, &x),
        ok.index_select(0, &x),
        x.index_select(0, &ok),
        ok.scatter_add(0, &x, &ok),
        x.slice(9, 3..).select_index(4, 7).flip(3).pad(2, 1, 1).repeat(8, 8),
        x.split(3, &[1, 2]).remove(1),
        x.chunk(3, 4).remove(3),
        ok.slice_assign(0, .., &x),
        x.to_dtype(DType::I32).one_hot(3, DType::F32).to_device(&device()),
        x.softmax(4).logsumexp(5).var(6, 1).norm(2).tril(1).glu(0).squeeze(1).unsqueeze(9).t(),
        x.detach().tracked().clamp(0.0, 1.0).powi(3).gelu().softplus(1.0, 20.0).prelu(&ok),
        custom_gradient("id", from_ref(&x), |x| x[0].clone(), |_, _, g| vec![Some(g.clone())]),
        Cell::parameter(x.clone()).tensor(),
        Tensor::build(ok.device(), || Ok(x.reshape([x.dims::<1>()?[0]]))),
    ];
    for (i, tensor) in later.iter().enumerate() {
        assert_eq!(tensor.error().unwrap_or_else(|| panic!("tensor {i} is fine")).to_string(), first, "tensor {i}");
    }
    let results: [Result<()>; 7] = [
        x.eval(),
        eval([&ok, &x]),
        x.dims::<1>().map(drop),
        x.item::<f32>().map(drop),
        x.masked_select(&ok.gt(0.0)).map(drop),
        grad(&x.sum(..), [&ok]).map(drop),
        Cell::buffer(ok.clone()).set(x.clone()),
    ];
    for (i, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap_err().to_string(), first, "result {i}");
    }
    // Modules put their names before those of their parts.
    let seen = x.in_module("0").in_module("encoder").in_module("model");
    assert!(seen.to_string().contains(" in module model.encoder.0: cannot reshape"), "{seen}");
    assert!(ok.in_module("model").error().is_none());
}

#[test]
fn gradients_that_are_not_there() {
    let [w, v] = ["w", "head.bias"].map(|name| {
        let cell = Cell::parameter(ones([2, 2]));
        cell.set_name(name);
        cell
    });
    let (x, y) = (w.tensor(), v.tensor());
    let loss = x.square().sum(..);
    says(&grad(&loss, [&x, &y]).unwrap_err(), "grad", "the loss does not depend on head.bias: check the forward pass");
    says(&grad(&loss, [&x, &ones([2])]).unwrap_err(), "grad", "the loss does not depend on target 1");
    says(&grad(&loss, [&x.detach()]).unwrap_err(), "grad", "the loss does not depend on target 0");
    let unused = Grad::of(&loss).allow_unused().wrt([&y, &x]).unwrap();
    assert_eq!(unused[0].to_vec::<f32>().unwrap(), [0.0; 4]);
    assert_eq!(unused[1].to_vec::<f32>().unwrap(), [2.0; 4]);

    says(&grad(&x, [&x]).unwrap_err(), "grad", "must be a single number, found shape [2, 2]: reduce it");
    says(&Grad::of(&x).cotangent(&loss).wrt([&x]).unwrap_err(), "grad", "the cotangent has shape [], expected [2, 2]");
    let wide = ones([]).to_dtype(DType::F64);
    says(&Grad::of(&loss).cotangent(&wide).wrt([&x]).unwrap_err(), "grad", "dtypes f32 and f64 differ");
    let labels = Tensor::new([1, 0], &Device::cpu());
    says(&grad(&loss, [&labels]).unwrap_err(), "grad", "through the target target 0, which is of dtype i32");

    let (float, int) = (DType::F32, DType::I32);
    for (op, loss, line) in [
        ("to_dtype", x.argmax(0).to_dtype(float).sum(..), line!()),
        ("to_dtype", (x.gt(0.0).to_dtype(float) * &x).sum(..), line!()),
        ("to_dtype", x.to_dtype(int).to_dtype(float).sum(..), line!()),
        ("gather", ones([2, 2]).gather(0, &x.to_dtype(int)).sum(..), line!()),
    ] {
        let error = grad(&loss, [&x]).unwrap_err();
        let expected = format!("through {op}, which is not differentiable, recorded at ");
        let place = format!("errors.rs:{line}: detach it");
        assert!(error.to_string().contains(&expected) && error.to_string().contains(&place), "{error}");
        assert_eq!(error.location().unwrap().line(), line!() - 4);
    }
    // Where nothing flows, nothing is asked.
    assert!(grad(&x.gt(0.0).where_(&x, 0.0).sum(..), [&x]).is_ok());
    let source = ones([2]);
    let freed = (&source * 3.0).exp();
    let through = &freed * 1.0;
    freed.eval().unwrap();
    assert_eq!(*grad(&through.sum(..), [&source]).unwrap_err().kind(), Kind::GraphFreed);
    // It cannot have been computed from what came later, nor, untracked, from what is tracked.
    for other in [&ones([2]), &x] {
        assert!(matches!(grad(&through.sum(..), [other]).unwrap_err().kind(), Kind::Unreached { .. }));
    }
    w.set(w.tensor() * 2.0).unwrap();
    for target in [&x, &w.tensor()] {
        let error = grad(&loss, [target]).unwrap_err().to_string();
        assert!(error.contains("parameter w was updated since the loss was recorded"), "{error}");
    }
    // The old value that is still held is a value like any other.
    assert!(grad(&x.sum(..), [&x]).is_ok());
}

#[test]
fn custom_gradients_that_are_wrong() {
    let x = ones([2]).tracked();
    let with = |rule: fn(&Tensor) -> Vec<Option<Tensor>>| {
        let y = custom_gradient("halve", from_ref(&x), |x| &x[0] * 0.5, move |_, _, g| rule(g));
        grad(&y.sum(..), [&x])
    };
    let message = |rule| with(rule).unwrap_err().to_string();
    assert!(message(|_| vec![]).contains("gradients is 0 for 1 inputs of halve, expected one per input"));
    assert!(message(|g| vec![Some(g.clone()); 2]).contains("gradients is 2 for 1 inputs of halve"));
    assert!(message(|g| vec![Some(g.sum(..))]).contains("a custom gradient has shape [], expected [2]"));
    assert!(message(|g| vec![Some(g.to_dtype(DType::F64))]).contains("dtypes f32 and f64 differ"));
    assert!(message(|g| vec![Some(g.reshape([3]))]).contains("cannot reshape [2]"));
    assert!(matches!(with(|_| vec![None]).unwrap_err().kind(), Kind::Unreached { .. }));
    fails(&custom_gradient("f", &[], |_| ones([2]).reshape([3]), |_, _, _| vec![]), "reshape", "cannot reshape [2]");
}

/// A generator of bad ideas: a state, and whether extents may be huge (then none are 0).
struct Whim(u64, bool);

impl Whim {
    fn below(&mut self, n: u64) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n) as usize
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64)].clone()
    }

    fn axis(&mut self) -> isize {
        self.one_of(&[0, 0, 1, 1, 2, -1, -1, -2, -3, 3, 7, isize::MIN, isize::MAX])
    }

    fn count(&mut self) -> usize {
        let huge = [1, 2, 3, 1 << 33, isize::MAX as usize, usize::MAX];
        self.one_of(if self.1 { &huge } else { &[0, 1, 1, 2, 2, 3, 4, 6] })
    }

    fn shape(&mut self) -> Vec<usize> {
        (0..self.below(4)).map(|_| self.one_of(&[self.1 as usize, 1, 1, 2, 2, 3, 3, 4])).collect()
    }

    fn tensor(&mut self, devices: &[Device]) -> Tensor {
        let (shape, device) = (self.shape(), self.one_of(devices));
        let dtype = self.one_of(&[DType::F32, DType::F32, DType::F32, DType::F64, DType::I32, DType::U32, DType::Bool]);
        let counted = Tensor::arange(shape.iter().product(), &device).reshape(shape);
        (counted - 2).to_dtype(dtype)
    }

    fn op(&mut self, x: &Tensor, y: &Tensor, z: &Tensor) -> Tensor {
        let (a, b, n, m) = (self.axis(), self.axis(), self.count(), self.count());
        let number = self.one_of(&[0.0, 1.0, -1.0, 0.5, f64::NAN, f64::INFINITY, 1e300]);
        match self.below(66) {
            0 => x + y,
            1 => x % y,
            2 => x.pow(y),
            3 => x.maximum(number),
            4 => number / x,
            5 => x.eq(y),
            6 => x.lt(number),
            7 => x.where_(y, z),
            8 => x.masked_fill(y, number),
            9 => x.matmul(y),
            10 => x.dot(y),
            11 => x.reshape(self.shape()),
            12 => x.reshape([a as i32, b as i32]),
            13 => x.reshape([n, m]),
            14 => x.permute([a, b]),
            15 => x.permute_axes(&[n, m]),
            16 => x.transpose(a, b),
            17 => x.t().flatten_range(a, b),
            18 => x.unsqueeze(a),
            19 => x.squeeze(a),
            20 => x.squeeze(..),
            21 => x.broadcast_to(self.shape()),
            22 => x.broadcast_to([n, m]),
            23 => x.slice(a, b..),
            24 => x.slice(a, ..=b),
            25 => x.slice(a, b..self.axis()),
            26 => x.slice_step(a, .., b),
            27 => x.select_index(a, b),
            28 => x.flip(a),
            29 => x.pad(a, self.below(3), self.below(3)),
            30 => x.repeat(a, n),
            31 => x.split(a, &[n, m]).pop().unwrap(),
            32 => x.chunk(a, n.min(100)).pop().unwrap_or_else(|| x.clone()),
            33 => x.slice_assign(a, b.., y),
            34 => cat(&[x, y, z], a),
            35 => stack(&[x, y], a),
            36 => x.gather(a, y),
            37 => x.scatter_add(a, y, z),
            38 => x.scatter_set(a, y, z),
            39 => x.index_select(a, y),
            40 => x.one_hot(n, y.dtype()),
            41 => x.masked_select(y).unwrap_or_else(|_| x.clone()),
            42 => x.sum([a as i32, b as i32]),
            43 => x.prod(a),
            44 => x.max(..),
            45 => x.min_keepdim(a),
            46 => x.argmax(a),
            47 => x.mean(a),
            48 => x.var(a, n),
            49 => x.std(.., 1),
            50 => x.norm(a),
            51 => x.logsumexp(a),
            52 => x.softmax(a),
            53 => x.log_softmax(..),
            54 => x.any(a),
            55 => x.tril(a),
            56 => x.triu(b),
            57 => x.clamp(y, number),
            58 => x.powi(a as i32),
            59 => x.glu(a).gelu().softplus(number, 20.0),
            60 => x.to_dtype(y.dtype()),
            61 => Tensor::linspace(number, 1.0, n, x),
            62 => Tensor::eye(n, x),
            63 => x.is_finite().logical_xor(y),
            64 => x.exp().sinh().relu6().hardswish().elu(number),
            _ => -x.tracked().detach(),
        }
    }
}

/// Tries bad ideas, mostly on the first device, whose budget keeps large but possible tensors small. Says how many of
/// them worked, and how many were errors.
fn whims(devices: [Device; 2], seeds: u64) -> [u64; 2] {
    let devices = [&devices[0], &devices[0], &devices[0], &devices[0], &devices[1]].map(Clone::clone);
    let (mut fine, mut wrong) = (0, 0);
    for seed in 0..seeds {
        let whim = &mut Whim(seed * 7919, seed % 4 == 0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let [x, y, z] = [(); 3].map(|_| whim.tensor(&devices));
            let first = whim.op(&x, &y, &z);
            let second = if whim.1 { first.clone() } else { whim.op(&first, &x, &y) };
            let small = |t: &Tensor| t.numel() < 1 << 16 || t.device() == &devices[0];
            let loss = if second.dtype().is_float() { second.sum(..) } else { second.to_dtype(DType::F32).sum(..) };
            let gradient = Grad::of(&loss).allow_unused().wrt([&x, &first]);
            let text = if small(&second) { second.to_string() } else { String::new() };
            let errors = gradient.err().map_or(0, |e| e.to_string().len());
            (second.error().is_some() as usize, text.len() + errors)
        }));
        match result {
            Ok((failed, _)) => *if failed == 1 { &mut wrong } else { &mut fine } += 1,
            Err(_) => panic!("seed {seed} panics on {}", devices[0]),
        }
    }
    [fine, wrong]
}

#[test]
fn nothing_panics() {
    let [fine, wrong] = whims([Device::cpu_with(1, Some(1 << 20)).unwrap(), device()], 30_000);
    assert!(fine > 3000 && wrong > 3000, "{fine} fine, {wrong} wrong");
    // Every idea that works is a kernel or more to make.
    if let Some(gpu) = own_gpu(Some(1 << 20)) {
        let [fine, wrong] = whims([gpu, device()], 200);
        assert!(fine > 20 && wrong > 20, "{fine} fine, {wrong} wrong");
    }
}

#[test]
fn another_parameter_that_was_updated_is_not_blamed() -> Result<()> {
    let device = Device::cpu();
    // Neither has a name; the loss is made of the old value of the first, which is then updated.
    let (used, unused) = (Cell::parameter(Tensor::ones([2], &device)), Cell::parameter(Tensor::ones([2], &device)));
    let old = used.tensor();
    used.set(used.tensor() * 2.0)?;
    let loss = old.square().sum(..);
    let error = grad(&loss, [&unused.tensor()]).unwrap_err();
    assert!(matches!(error.kind(), Kind::Unreached { .. }), "{error}");
    let error = grad(&loss, [&used.tensor()]).unwrap_err();
    assert!(matches!(error.kind(), Kind::ParameterUpdated { .. }), "{error}");
    Ok(())
}
