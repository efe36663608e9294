//! Convolutions against sums written out, pooling against loops, resizing and padding, on every device; gradients to the second
//! order, under `vmap`, and in memory: no gradient needs the windows written out.

#[path = "support/devices.rs"]
mod devices;
#[allow(dead_code)]
mod support;

use gradus::nn::{Conv2d, Init, Layer};
use gradus::{Conv, DType, Device, GradCheck, Key, PadMode, Pool, Result, Tensor, grad, value_and_grad, vmap};

/// What a convolution is, element by element: `x [n, c, h, w]`, `weight [o, c / groups, kh, kw]`.
struct Written {
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
}

impl Written {
    fn conv(&self) -> Conv {
        Conv::new().stride(self.stride).padding(self.padding).dilation(self.dilation).groups(self.groups)
    }

    fn out(&self, len: usize, kernel: usize, axis: usize) -> usize {
        (len + 2 * self.padding[axis] - self.dilation[axis] * (kernel - 1) - 1) / self.stride[axis] + 1
    }

    /// Calls `each(output, input, weight)` with the flat places of every product of a sum.
    fn each(&self, x: [usize; 4], w: [usize; 4], mut each: impl FnMut(usize, usize, usize)) -> [usize; 4] {
        let out = [x[0], w[0], self.out(x[2], w[2], 0), self.out(x[3], w[3], 1)];
        let flat = |s: [usize; 4], i: [usize; 4]| ((i[0] * s[1] + i[1]) * s[2] + i[2]) * s[3] + i[3];
        let index =
            |s: [usize; 4], i: usize| [i / (s[1] * s[2] * s[3]), i / (s[2] * s[3]) % s[1], i / s[3] % s[2], i % s[3]];
        for at in 0..out.iter().product() {
            let o = index(out, at);
            for tap in 0..w[1] * w[2] * w[3] {
                let [_, c, ky, kx] = index([1, w[1], w[2], w[3]], tap);
                let place = |axis: usize, k: usize| {
                    (o[2 + axis] * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.padding[axis])
                };
                let (Some(y), Some(z)) = (place(0, ky), place(1, kx)) else { continue };
                if y < x[2] && z < x[3] {
                    let channel = o[1] / (w[0] / self.groups) * w[1] + c;
                    each(at, flat(x, [o[0], channel, y, z]), flat(w, [o[1], c, ky, kx]));
                }
            }
        }
        out
    }
}

/// Of the sixth the CPU packs some channels of its windows at a time; of the last it turns the gradient of the weight.
const CASES: [(Written, [usize; 4], [usize; 4]); 7] = [
    (Written { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }, [2, 3, 6, 5], [4, 3, 3, 2]),
    (Written { stride: [2, 1], padding: [1, 2], dilation: [1, 1], groups: 1 }, [1, 2, 7, 6], [3, 2, 3, 3]),
    (Written { stride: [2, 3], padding: [2, 1], dilation: [2, 1], groups: 2 }, [2, 4, 9, 8], [6, 2, 3, 2]),
    (Written { stride: [1, 1], padding: [1, 1], dilation: [1, 2], groups: 4 }, [3, 4, 5, 6], [4, 1, 3, 3]),
    (Written { stride: [3, 2], padding: [0, 0], dilation: [1, 1], groups: 1 }, [2, 3, 8, 8], [5, 3, 1, 1]),
    (Written { stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1 }, [1, 80, 28, 28], [2, 80, 3, 3]),
    (Written { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }, [3, 83, 4, 7], [66, 83, 1, 1]),
];

fn close(got: &Tensor, expected: &[f64], what: &str) {
    let got = got.to_vec::<f32>().unwrap();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        assert!((g as f64 - e).abs() <= 1e-4 * (1.0 + e.abs()), "{what} [{i}]: {g} in place of {e}");
    }
}

fn host(x: &Tensor) -> Vec<f64> {
    x.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

#[test]
fn values_and_gradients_are_those_of_the_sums_written_out() -> Result<()> {
    for device in devices::devices() {
        for (i, (written, x_shape, w_shape)) in CASES.iter().enumerate() {
            let x = Tensor::randn(x_shape.to_vec(), Key::new(1), &device).tracked();
            let w = Tensor::randn(w_shape.to_vec(), Key::new(2), &device).tracked();
            let y = x.conv2d(&w, &written.conv());
            let g = Tensor::randn(y.shape().to_vec(), Key::new(3), &device);
            let gradients = grad(&(&y * &g).sum(..), [&x, &w])?;
            let (hx, hw, hg) = (host(&x), host(&w), host(&g));
            let (mut hy, mut dx, mut dw) = (vec![0.0; hg.len()], vec![0.0; hx.len()], vec![0.0; hw.len()]);
            let out = written.each(*x_shape, *w_shape, |o, a, b| {
                hy[o] += hx[a] * hw[b];
                dx[a] += hg[o] * hw[b];
                dw[b] += hg[o] * hx[a];
            });
            assert_eq!(y.shape()[..], out);
            close(&y, &hy, &format!("case {i} on {device}: value"));
            close(&gradients[0], &dx, &format!("case {i} on {device}: gradient of x"));
            close(&gradients[1], &dw, &format!("case {i} on {device}: gradient of the weight"));
            // The transposed convolution is this gradient, where no position is left over.
            let rest = |axis: usize, len: usize, k: usize| {
                len + 2 * written.padding[axis]
                    - written.dilation[axis] * (k - 1)
                    - 1
                    - (out[2 + axis] - 1) * written.stride[axis]
            };
            let more = [rest(0, x_shape[2], w_shape[2]), rest(1, x_shape[3], w_shape[3])];
            let back = g.conv_transpose(&w, &written.conv(), more);
            close(&back, &dx, &format!("case {i} on {device}: transposed"));
        }
    }
    Ok(())
}

/// What the CPU computes by tiles, some images or some rows of one at a time, is what it computes by windows, in f64. Sides are odd and even,
/// and the transposed convolution has filters that are turned around.
#[test]
fn tiles_agree_with_windows() -> Result<()> {
    let cases = [
        ([7, 32, 21, 25], 40, [1, 0]),
        ([1, 33, 63, 66], 32, [2, 1]),
        ([40, 130, 7, 7], 128, [1, 1]),
        ([2, 36, 400, 6], 48, [0, 1]),
        ([3, 64, 9, 700], 33, [1, 1]),
    ];
    for device in devices::devices().into_iter().filter(devices::is_cpu) {
        for (shape, outputs, padding) in cases {
            let conv = Conv::new().padding(padding);
            let x = Tensor::randn(shape, Key::new(1), &device).tracked();
            let w = Tensor::randn([outputs, shape[1], 3, 3], Key::new(2), &device).tracked();
            let y = x.conv2d(&w, &conv);
            let g = Tensor::randn(y.shape().to_vec(), Key::new(3), &device) / (y.numel() as f32).sqrt();
            let wide = |tensor: &Tensor| tensor.detach().to_dtype(DType::F64).tracked();
            let (wide_x, wide_w) = (wide(&x), wide(&w));
            let wide_y = wide_x.conv2d(&wide_w, &conv);
            let found = grad(&(&y * &g).sum(..), [&x, &w])?;
            let expected = grad(&(&wide_y * &wide(&g)).sum(..), [&wide_x, &wide_w])?;
            let what = |of: &str| format!("{of} of {shape:?} by {outputs} on {device}");
            close(&y, &wide_y.to_vec::<f64>()?, &what("value"));
            close(&found[0], &expected[0].to_vec::<f64>()?, &what("gradient of x"));
            close(&found[1], &expected[1].to_vec::<f64>()?, &what("gradient of the weight"));
        }
    }
    Ok(())
}

/// An infinity reaches the sums whose windows hold it, and no other, however they are computed.
#[test]
fn what_is_not_finite_stays_in_its_windows() -> Result<()> {
    let (channels, side) = (48, 44);
    for device in devices::devices() {
        for number in [f32::INFINITY, f32::NAN] {
            let mut x = vec![1.0; channels * side * side];
            x[5 * side * side + 11 * side + 14] = number;
            let x = Tensor::from_vec(x, [1, channels, side, side], &device);
            let w = Tensor::ones([channels, channels, 3, 3], &device);
            let y = x.conv2d(&w, &Conv::new().padding(1)).to_vec::<f32>()?;
            for (at, y) in y.into_iter().enumerate() {
                let (row, column) = (at / side % side, at % side);
                let is_near = row.abs_diff(11) <= 1 && column.abs_diff(14) <= 1;
                assert_eq!(y.is_finite(), !is_near, "{number} at {row}, {column} on {device}: {y}");
            }
        }
    }
    Ok(())
}

/// Bias and activation, of so many images that they are computed in parts.
#[test]
fn what_is_made_of_many_convolved_images_is_made_of_each() -> Result<()> {
    for device in devices::devices().into_iter().filter(devices::is_cpu) {
        let (x, w) = (
            Tensor::randn([70, 32, 31, 32], Key::new(1), &device),
            Tensor::randn([32, 32, 3, 3], Key::new(2), &device),
        );
        let bias = Tensor::randn([32, 1, 1], Key::new(3), &device);
        let layer = |x: &Tensor, w: &Tensor, bias: &Tensor| (x.conv2d(w, &Conv::new().padding(1)) + bias).relu();
        let wide = [&x, &w, &bias].map(|tensor| tensor.to_dtype(DType::F64));
        let expected = layer(&wide[0], &wide[1], &wide[2]).to_vec::<f64>()?;
        close(&layer(&x, &w, &bias), &expected, &format!("on {device}"));
    }
    Ok(())
}

#[test]
fn one_axis_is_walked_as_two_are() -> Result<()> {
    for device in devices::devices() {
        for (stride, padding, dilation, groups) in [(1, 0, 1, 1), (2, 1, 1, 2), (1, 3, 2, 4), (3, 2, 3, 1)] {
            let (x, w) = (
                Tensor::randn([2, 4, 13], Key::new(1), &device),
                Tensor::randn([8, 4 / groups, 3], Key::new(2), &device),
            );
            let conv = Conv::new().stride(stride).padding(padding).dilation(dilation).groups(groups);
            let y = x.conv1d(&w, &conv);
            let written = Written { stride: [1, stride], padding: [0, padding], dilation: [1, dilation], groups };
            let (hx, hw, mut hy) = (host(&x), host(&w), vec![0.0; y.numel()]);
            let out = written.each([2, 4, 1, 13], [8, 4 / groups, 1, 3], |o, a, b| hy[o] += hx[a] * hw[b]);
            assert_eq!(y.shape()[..], [out[0], out[1], out[3]]);
            close(&y, &hy, &format!("{conv:?} on {device}"));
        }
    }
    Ok(())
}

/// Every mode, along every axis, element by element.
#[test]
fn padding_shows_what_its_mode_says() -> Result<()> {
    let [rows, columns] = [3, 5];
    for device in devices::devices() {
        let x = Tensor::arange(rows * columns, &device).reshape([rows, columns]) + 1;
        for (axis, len) in [(0, rows), (1, columns)] {
            for (low, high) in [(0, 0), (2, 0), (0, 2), (1, 2), (2, 1)] {
                // Which place along the axis shows at `i`, counted from the first element; none shows the constant.
                let shown = |mode: PadMode, i: isize| -> Option<usize> {
                    let (n, inside) = (len as isize, usize::try_from(i).ok().filter(|&i| i < len));
                    match mode {
                        PadMode::Constant(_) => inside,
                        PadMode::Reflect => Some(if i < 0 { -i } else { (n - 1) - (n - 1 - i).abs() } as usize),
                        PadMode::Replicate => Some(i.clamp(0, n - 1) as usize),
                        PadMode::Circular => Some(i.rem_euclid(n) as usize),
                    }
                };
                for mode in [PadMode::Constant(7.0), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
                    let padded = len + low + high;
                    let shape = if axis == 0 { [padded, columns] } else { [rows, padded] };
                    let at = |i: usize| {
                        let place = [i / shape[1], i % shape[1]];
                        let along = shown(mode, place[axis] as isize - low as isize)?;
                        let [row, column] = if axis == 0 { [along, place[1]] } else { [place[0], along] };
                        Some((row * columns + column + 1) as i32)
                    };
                    let expected: Vec<i32> = (0..shape[0] * shape[1]).map(|i| at(i).unwrap_or(7)).collect();
                    let what = format!("{mode:?}, {low} and {high} around axis {axis} on {device}");
                    let y = x.pad_with(axis as isize, low, high, mode);
                    assert_eq!((y.shape().to_vec(), y.to_vec::<i32>()?), (shape.to_vec(), expected.clone()), "{what}");
                    let floats = x.to_dtype(DType::F32).pad_with(axis as isize, low, high, mode).to_vec::<f32>()?;
                    assert_eq!(floats, expected.iter().map(|&i| i as f32).collect::<Vec<_>>(), "{what}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn layers_keep_the_groups_of_their_weight() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::randn([2, 4, 6, 5], Key::new(1), &device);
    let layer = Conv2d::grouped(4, 8, 3, 4, &Init::new(0, &device)).with(Conv::new().padding(1));
    let grouped = Conv::new().padding(1).groups(4);
    let expected =
        x.conv2d(&layer.weight.tensor(), &grouped) + layer.bias.as_ref().unwrap().tensor().reshape([8, 1, 1]);
    close(&layer.forward(&x), &host(&expected), "a grouped layer");
    Ok(())
}

#[test]
fn gradients_agree_with_finite_differences_to_the_second_order() -> Result<()> {
    let device = Device::cpu();
    let (x, w) = (Tensor::randn([2, 4, 5], Key::new(1), &device), Tensor::randn([4, 2, 2], Key::new(2), &device));
    let conv = Conv::new().stride(2).padding(1).groups(2);
    let check = GradCheck::default().order(2);
    check.check(|x| x[0].conv1d(&x[1], &conv).square().sum(..), &[x.clone(), w.clone()])?;
    check.check(|x| x[0].conv_transpose(&x[1], &conv, 0).square().sum(..), &[x.clone(), w])?;
    // Windows on their own, twice, and in a product that is no convolution.
    check.check(|x| x[0].window(2, 3, 2).square().sum(..), std::slice::from_ref(&x))?;
    check.check(|x| (x[0].window(2, 3, 2).window(0, 2, 1) * x[0].sum(..)).sum(..), std::slice::from_ref(&x))?;
    check.check(
        |x| x[0].window(1, 2, 1).permute([0, 1, 3, 2]).matmul(&x[0].t().slice(2, ..2).unsqueeze(1)).sum(..),
        &[x],
    )
}

#[test]
fn every_example_has_its_own_gradient() -> Result<()> {
    let device = Device::cpu();
    let (x, w) = (Tensor::randn([3, 2, 6, 6], Key::new(1), &device), Tensor::randn([4, 2, 3, 3], Key::new(2), &device));
    let conv = Conv::new().padding(1);
    let of_one = |image: &Tensor| -> Result<Tensor> {
        let loss = |w: &[Tensor]| image.unsqueeze(0).conv2d(&w[0], &conv).square().sum(..);
        Ok(value_and_grad(loss, std::slice::from_ref(&w))?.1.remove(0))
    };
    let all = vmap(|x| Ok(vec![of_one(&x[0])?]), std::slice::from_ref(&x))?.remove(0);
    for (i, image) in x.split(0, &[1, 1, 1]).iter().enumerate() {
        close(&all.slice(0, i as isize..i as isize + 1), &host(&of_one(&image.squeeze(0))?), &format!("example {i}"));
    }
    Ok(())
}

#[test]
fn poolings_agree_with_loops() -> Result<()> {
    for device in devices::devices() {
        // Ties, and a NaN: the first of equal elements gets the gradient.
        let values: Vec<f32> = (0..2 * 7 * 6).map(|i| if i == 20 { f32::NAN } else { (i * 7 % 5) as f32 }).collect();
        let x = Tensor::new(values.clone(), &device).reshape([2, 1, 7, 6]).tracked();
        // A window of five by five is not taken apart.
        for (size, stride, padding, dilation) in
            [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 1), (2, 3, 0, 1), (2, 1, 1, 3), (3, 2, 1, 2), (5, 1, 2, 1)]
        {
            let pool = Pool::new(size).stride(stride).padding(padding).dilation(dilation);
            let out = [7, 6].map(|len| (len + 2 * padding - dilation * (size - 1) - 1) / stride + 1);
            let (mut largest, mut means) = (Vec::new(), Vec::new());
            let (mut d_largest, mut d_means) = (vec![0.0; values.len()], vec![0.0; values.len()]);
            for at in 0..2 * out[0] * out[1] {
                let (image, row, column) = (at / (out[0] * out[1]), at / out[1] % out[0], at % out[1]);
                let (mut best, mut sum) = (None, 0.0);
                for tap in 0..size * size {
                    let (r, c) = (row * stride + tap / size * dilation, column * stride + tap % size * dilation);
                    let (Some(r), Some(c)) = (r.checked_sub(padding), c.checked_sub(padding)) else { continue };
                    if r < 7 && c < 6 {
                        let place = (image * 7 + r) * 6 + c;
                        let better =
                            |b: usize| values[place] > values[b] || (values[place].is_nan() && !values[b].is_nan());
                        best = if best.is_none_or(better) { Some(place) } else { best };
                        sum += values[place] as f64;
                        d_means[place] += (at + 1) as f64 / (size * size) as f64;
                    }
                }
                largest.push(values[best.unwrap()] as f64);
                means.push(sum / (size * size) as f64);
                d_largest[best.unwrap()] += (at + 1) as f64;
            }
            let (max, mean) = (x.max_pool(&pool), x.avg_pool(&pool));
            let weights = Tensor::arange(max.numel(), &device).to_dtype(max.dtype()).reshape(max.shape()) + 1.0;
            // NaN times a weight would spread: the cotangent is given as it is.
            let gradient = |y: &Tensor| gradus::Grad::of(y).cotangent(&weights).wrt([&x]);
            let what = |name: &str| {
                format!("{name} of {size} by {stride}, padding {padding}, dilation {dilation}, on {device}")
            };
            same(&max, &largest, &what("maximum"));
            same(&gradient(&max)?[0], &d_largest, &what("gradient of the maximum"));
            same(&mean, &means, &what("mean"));
            same(&gradient(&mean)?[0], &d_means, &what("gradient of the mean"));
        }
    }
    Ok(())
}

fn same(got: &Tensor, expected: &[f64], what: &str) {
    let got = got.to_vec::<f32>().unwrap();
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let agrees = (g.is_nan() && e.is_nan()) || (g as f64 - e).abs() < 1e-4 * (1.0 + e.abs());
        assert!(agrees, "{what} [{i}]: {g} in place of {e}");
    }
    assert_eq!(got.len(), expected.len(), "{what}");
}

#[test]
fn pooling_resizing_and_padding_have_gradients() -> Result<()> {
    let x = Tensor::randn([1, 2, 5, 7], Key::new(5), &Device::cpu());
    let check = GradCheck::default().order(2);
    let maps: [fn(&Tensor) -> Tensor; 12] = [
        |x| x.max_pool(&Pool::new(2)),
        |x| x.max_pool(&Pool::new([3, 2]).stride(1).padding(1)),
        |x| x.avg_pool(&Pool::new(3).stride(2).padding(1)),
        |x| x.adaptive_avg_pool([2, 3]),
        |x| x.adaptive_max_pool([2, 7]),
        |x| x.resize_nearest([10, 9]),
        |x| x.resize_linear([8, 4], false),
        |x| x.resize_linear([3, 9], true),
        |x| x.pad_with(2, 2, 1, PadMode::Reflect),
        |x| x.pad_with(3, 1, 3, PadMode::Replicate),
        |x| x.pad_with(3, 4, 2, PadMode::Circular),
        |x| x.pad_with(2, 1, 2, PadMode::Constant(3.0)),
    ];
    for map in maps {
        check.check(|x| map(&x[0]).square().sum(..), std::slice::from_ref(&x))?;
    }
    Ok(())
}

#[test]
fn errors_say_what_does_not_fit() {
    let device = Device::cpu();
    let x = Tensor::ones([2, 3, 8, 8], &device);
    let says = |y: Tensor, what: &str| {
        let error = y.error().expect("an error").to_string();
        assert!(error.contains(what), "{error}");
    };
    says(x.conv2d(&Tensor::ones([4, 2, 3, 3], &device), &Conv::new()), "3 channels in 1 groups");
    says(x.conv2d(&Tensor::ones([4, 3, 9, 3], &device), &Conv::new()), "a window that fits");
    says(x.conv2d(&Tensor::ones([4, 3, 3, 3], &device), &Conv::new().stride(0)), "stride");
    says(x.conv2d(&Tensor::ones([4, 3, 3, 3], &device), &Conv::new().padding([1, 1, 1])), "one for each spatial axis");
    says(x.conv1d(&Tensor::ones([4, 3, 3], &device), &Conv::new()), "rank 3");
    says(x.max_pool(&Pool::new(2).padding(2)), "at most half a window");
    says(x.adaptive_avg_pool(0), "at least 1");
    says(x.pad_with(3, 8, 0, PadMode::Reflect), "8 around an axis of 8");
    says(x.resize_linear([0, 3], false), "at least 1");
    says(x.window(2, 9, 1), "a window that fits");
}

/// Windows written out would take as many times an image's memory as a kernel has elements.
#[test]
fn no_gradient_writes_windows_out() -> Result<()> {
    for device in devices::own_devices(None) {
        let side = if devices::is_cpu(&device) { 96 } else { 32 };
        let x = Tensor::randn([2, 4, side, side], Key::new(1), &device).tracked();
        let w = Tensor::randn([4, 4, 5, 5], Key::new(2), &device).tracked();
        gradus::eval([&x, &w])?;
        let image = x.numel() * 4;
        let before = device.memory().in_use;
        for stride in [1, 2] {
            let loss = x.conv2d(&w, &Conv::new().padding(2).stride(stride)).square().sum(..);
            gradus::eval(&grad(&loss, [&x, &w])?)?;
        }
        let most = device.memory().peak - before;
        assert!(most < 8 * image, "{device}: {most} bytes beyond the {image} of the images");
    }
    Ok(())
}
