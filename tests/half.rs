//! f16: half the bytes, and what is added up is added in f32.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, has, own_devices, own_tunings};
use gradus::data::{DataError, FloatStorage, Safetensors, SafetensorsOptions};
use gradus::nn::{Conv2d, Init, Layer, LayerNorm, Module, MultiHeadAttention, RmsNorm};
use gradus::{Attention, CustomOp, DType, Device, ErrorKind, Key, Pool, Result, Tensor, f16, grad, vmap};
use std::slice::from_ref;

fn halves() -> impl Iterator<Item = Device> {
    devices().into_iter().filter(|device| has(device, DType::F16))
}

fn normal<const N: usize>(shape: [usize; N], device: &Device) -> Tensor {
    Tensor::randn(shape, Key::new(shape.iter().sum::<usize>() as u64), (device, DType::F16)).tracked()
}

/// What one number is as f16, and as f32 again.
fn numbers(x: &Tensor) -> Vec<f32> {
    assert_eq!(x.dtype(), DType::F16);
    x.to_vec::<f16>().unwrap().into_iter().map(f32::from).collect()
}

/// Checks a tensor of f16 with one of f32, in units of the largest element.
#[track_caller]
fn near(got: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(got.shape(), expected.shape());
    let expected = expected.to_vec::<f32>().unwrap();
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    for (i, (got, expected)) in numbers(got).iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * largest, "[{i}]: {got}, expected {expected}, largest {largest}");
    }
}

#[test]
fn arrays_of_any_length_take_two_bytes_an_element() {
    for device in own_devices(None).into_iter().filter(|device| has(device, DType::F16)) {
        for len in [0, 1, 2, 3, 4, 5, 127, 1001, 100_003] {
            let values: Vec<f16> = (0..len).map(|i| f16::from_f32(i as f32 * 0.37 - 100.0)).collect();
            let before = device.memory().in_use;
            let x = Tensor::from_vec(values.clone(), [len], &device);
            x.eval().unwrap();
            // Places in the pool are of a few sizes only.
            assert!(device.memory().in_use - before <= 5 * len / 2 + 256, "{device} {len}");
            assert_eq!(x.to_vec::<f16>().unwrap(), values, "{device} {len}");
            let negated: Vec<f16> = values.iter().map(|&value| -value).collect();
            assert_eq!((-&x).to_vec::<f16>().unwrap(), negated, "{device} {len}");
            assert_eq!(x.to_dtype(DType::F32).to_dtype(DType::F16).to_vec::<f16>().unwrap(), values, "{device} {len}");
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 256) as u8).collect();
            let widened = Tensor::from_bytes(&bytes, len, (&device, DType::F16));
            assert_eq!(numbers(&widened), bytes.iter().map(|&b| f32::from(b)).collect::<Vec<_>>(), "{device} {len}");
        }
    }
}

#[test]
fn users_ops_see_f16() {
    let op = CustomOp::define("half_of")
        .input("x", DType::F16)
        .output(DType::F16, |shapes| Ok(shapes[0].clone()))
        .cpu(|inputs, output| {
            let x = inputs[0].values::<f16>()?;
            output.values::<f16>()?.iter_mut().zip(x).for_each(|(out, x)| *out = *x * f16::from_f32(0.5));
            Ok(())
        })
        .wgsl(
            "@compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                 let i = flat_index(id);
                 if i < output_len() {
                     output[i] = x[i] * 0.5h;
                 }
             }",
        )
        .build()
        .unwrap();
    for device in halves() {
        let x = normal([1001], &device);
        near(&op.apply(&[&x]), &(x.to_dtype(DType::F32) * 0.5), 0.0);
    }
}

#[test]
fn conversions_round_to_the_nearest() {
    let cases = [
        (1.0 + 1.0 / 2048.0, 1.0),
        (1.0 + 3.0 / 2048.0, 1.0 + 2.0 / 1024.0),
        (65504.0, 65504.0),
        (65519.0, 65504.0),
        (65520.0, f32::INFINITY),
        (-1e10, f32::NEG_INFINITY),
        (2f32.powi(-24), 2f32.powi(-24)),
        (2f32.powi(-25), 0.0),
        (2f32.powi(-25) * 1.01, 2f32.powi(-24)),
        (6.0e-5, 1007.0 * 2f32.powi(-24)),
        (1e-30, 0.0),
        (f32::INFINITY, f32::INFINITY),
    ];
    for device in halves() {
        let (from, to): (Vec<f32>, Vec<f32>) = cases.into_iter().unzip();
        let x = Tensor::from_vec(from, [cases.len()], &device).to_dtype(DType::F16);
        assert_eq!(numbers(&x), to, "{device}");
        assert!(numbers(&Tensor::full([1], f32::NAN, (&device, DType::F16)))[0].is_nan());
        // Each op rounds by itself, also where several are one kernel.
        let one = Tensor::ones([3], (&device, DType::F16));
        assert_eq!(numbers(&((&one + 1.0 / 2048.0) - &one)), [0.0; 3], "{device}");
        let large = Tensor::full([3], 40_000.0, (&device, DType::F16));
        assert_eq!(numbers(&((&large + &large) * 0.25)), [f32::INFINITY; 3], "{device}");
        let ints = Tensor::new([70_000, -3, 2049], &device).to_dtype(DType::F16);
        assert_eq!(numbers(&ints), [f32::INFINITY, -3.0, 2048.0], "{device}");
    }
}

/// In f16 a sum of ones ends at 2048.
#[test]
fn sums_are_in_f32() {
    for device in halves() {
        let ones = Tensor::ones([100_000], (&device, DType::F16));
        let some = ones.slice(0, ..4096);
        assert_eq!(numbers(&some.sum(..)), [4096.0], "{device}");
        assert_eq!(numbers(&ones.mean(..)), [1.0], "{device}");
        assert_eq!(numbers(&ones.var(.., 0)), [0.0], "{device}");
        assert_eq!(numbers(&(&some * 30.0).norm(..)), [1920.0], "{device}");
        assert_eq!(numbers(&ones.softmax(0))[0], f16::from_f32(1e-5).to_f32(), "{device}");
        assert_eq!(numbers(&some.dot(&some)), [4096.0], "{device}");
        let rows = Tensor::ones([3, 4096], (&device, DType::F16));
        assert_eq!(numbers(&rows.matmul(&rows.t())), [4096.0; 9], "{device}");
        assert_eq!(numbers(&some.cumsum(0))[4095], 4096.0, "{device}");
        let index = Tensor::zeros([4096], (&device, DType::I32));
        let added = Tensor::zeros([2], (&device, DType::F16)).scatter_add(0, &index, &some);
        assert_eq!(numbers(&added), [4096.0, 0.0], "{device}");
        // The intermediate sums are over 65504, and what comes out is not.
        let waves = (Tensor::arange(4096, &device) / 2048).to_dtype(DType::F16) * -2.0 + 1.0;
        assert_eq!(numbers(&(waves * 60.0).sum(..)), [0.0], "{device}");
    }
}

/// Products that are large enough for what multiplies small matrices, where a GPU has it: whole and ragged tiles, both ways that
/// operands lie, numbers that are f16 only in the product itself, and sums in parts.
#[test]
fn large_products_are_those_of_the_same_numbers_in_f32() {
    let cpu = Device::cpu();
    for device in halves() {
        for (m, k, n) in [(1024, 128, 640), (1030, 333, 701), (1024, 4100, 700)] {
            for (turn_a, turn_b, is_stored) in
                [(false, false, true), (true, false, true), (false, true, true), (true, true, false)]
            {
                let operand = |rows: usize, columns: usize, turned: bool| {
                    let shape = if turned { [columns, rows] } else { [rows, columns] };
                    let x = Tensor::randn(shape, Key::new((rows + columns) as u64), &cpu).to_dtype(DType::F16);
                    let exact = x.to_dtype(DType::F32);
                    exact.eval().unwrap();
                    // A tenth of the way to the next number of f16, from where rounding comes back.
                    let here = if is_stored { x.to_device(&device) } else { exact.to_device(&device) * 1.0001 };
                    let here = here.to_dtype(DType::F16);
                    if is_stored {
                        here.eval().unwrap()
                    }
                    if turned { (exact.t(), here.t()) } else { (exact, here) }
                };
                let ((a, half_a), (b, half_b)) = (operand(m, k, turn_a), operand(k, n, turn_b));
                let expected = a.matmul(&b).to_vec::<f32>().unwrap();
                let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                let narrow = numbers(&half_a.matmul(&half_b));
                let wide = half_a.to_dtype(DType::F32).matmul(&half_b.to_dtype(DType::F32)).to_vec::<f32>().unwrap();
                for (what, got, tolerance) in [("f16", narrow, 6e-4), ("f32", wide, 1e-5)] {
                    let worst = got.iter().zip(&expected).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
                    assert!(
                        worst <= tolerance * largest,
                        "{device}, [{m}, {k}] by [{k}, {n}], turned {turn_a} {turn_b}, stored {is_stored}, to {what}: \
                         {worst} away, largest {largest}"
                    );
                }
            }
        }
    }
}

/// Checks what a layer gives, and the gradient of its input, with the same layer of f32.
fn check<L: Layer + Module>(x: &Tensor, narrow: L, wide: L) -> Result<()> {
    for ((_, from), (_, to)) in wide.parameters().into_iter().zip(narrow.parameters()) {
        to.set(from.tensor().to_dtype(DType::F16))?;
    }
    let wide_x = x.to_dtype(DType::F32).tracked();
    near(&narrow.forward(x), &wide.forward(&wide_x), 3e-3);
    let of_x = |layer: &L, x: &Tensor| {
        let loss = layer.forward(x).to_dtype(DType::F32).sin().sum(..);
        grad(&loss, [x])
    };
    near(&of_x(&narrow, x)?[0], &of_x(&wide, &wide_x)?[0], 2e-2);
    Ok(())
}

#[test]
fn layers_and_their_gradients_are_near_those_of_f32() -> Result<()> {
    for device in halves() {
        let wide = Init::new(3, &device);
        let narrow = Init::new(3, &device).dtype(DType::F16);
        check(&normal([2, 3, 9, 9], &device), Conv2d::new(3, 8, 3, &narrow), Conv2d::new(3, 8, 3, &wide))?;
        for scale in [1.0, 1000.0] {
            // Squares of thousands are beyond f16.
            let x = (normal([4, 64], &device) * scale).tracked();
            check(&x, LayerNorm::new(64, &narrow), LayerNorm::new(64, &wide))?;
            check(&x, RmsNorm::new(64, &narrow), RmsNorm::new(64, &wide))?;
        }
        let attention = |init| MultiHeadAttention::new(32, 4, init);
        check(&normal([2, 20, 32], &device), attention(&narrow), attention(&wide))?;
    }
    Ok(())
}

/// A parameter of another dtype is an error, as it is in any other op.
#[test]
fn norms_do_not_mix_dtypes() {
    for device in halves() {
        let (narrow, wide) = (Init::new(3, &device).dtype(DType::F16), Init::new(3, &device));
        let x = normal([4, 8], &device);
        let fails = |y: Tensor, op: &str| {
            let error = y.error().unwrap();
            assert!(matches!(error.kind(), ErrorKind::DTypes { .. }) && error.op() == op, "{error}");
            assert!(error.location().unwrap().file().ends_with("half.rs"), "{error}");
        };
        fails(LayerNorm::new(8, &wide).forward(&x), "layer_norm");
        fails(LayerNorm::new(8, &narrow).forward(&x.to_dtype(DType::F32)), "layer_norm");
        fails(RmsNorm::new(8, &wide).forward(&x), "rms_norm");
        fails(RmsNorm::new(8, &narrow).forward(&x.to_dtype(DType::F32)), "rms_norm");
    }
}

/// Places in an image of a thousand and its weights are computed in f32: near 1000, f16 knows halves only.
#[test]
fn resizing_is_in_f32() {
    for device in halves() {
        let x = normal([1, 1, 3, 900], &device);
        for align_corners in [false, true] {
            let resize = |x: &Tensor| x.resize_linear([2, 2100], align_corners);
            near(&resize(&x), &resize(&x.to_dtype(DType::F32)), 1e-3);
        }
        assert_eq!(numbers(&x.resize_linear([3, 900], false)), numbers(&x), "{device}");
    }
}

/// Logits, exponentials and their sums are in f32, also where a mask of floats is added.
#[test]
fn attention_with_a_bias_is_in_f32() {
    for device in halves() {
        let [query, key, value] = [[2, 9, 64], [2, 3000, 64], [2, 3000, 4]].map(|shape| normal(shape, &device));
        let bias = normal([9, 3000], &device);
        let attend = |[query, key, value, bias]: [&Tensor; 4]| {
            query.attention(key, value, &Attention::new().mask(bias).scale(0.5))
        };
        let narrow = attend([&query, &key, &value, &bias]);
        let wide = [&query, &key, &value, &bias].map(|x| x.to_dtype(DType::F32));
        near(&narrow, &attend(wide.each_ref()), 2e-3);
        let error = attend([&query, &key, &value, &wide[3]]);
        assert!(matches!(error.error().unwrap().kind(), ErrorKind::DTypes { .. }), "{error}");
    }
}

#[test]
fn order_pooling_and_maps() -> Result<()> {
    for device in halves() {
        let x = normal([2, 4, 8, 8], &device);
        let wide = x.to_dtype(DType::F32);
        let rows = x.flatten();
        assert_eq!(numbers(&rows.sort(0, false)), wide.flatten().sort(0, false).to_vec::<f32>()?, "{device}");
        let pool = Pool::new(2);
        assert_eq!(numbers(&x.max_pool(&pool)), wide.max_pool(&pool).to_vec::<f32>()?, "{device}");
        near(&x.avg_pool(&pool), &wide.avg_pool(&pool), 1e-3);
        let f = |x: &[Tensor]| x[0].exp().sum(..);
        near(&vmap(f, from_ref(&x))?, &vmap(f, from_ref(&wide))?, 1e-3);
        let index = Tensor::new([1, 0, 1, 1], &device);
        assert_eq!(numbers(&x.index_select(0, &index)), wide.index_select(0, &index).to_vec::<f32>()?, "{device}");
        let shown = Tensor::new([0.1f32, 2.0], &device).to_dtype(DType::F16).to_string();
        assert!(shown.contains("f16") || shown.contains("0.1"), "{shown}");
    }
    Ok(())
}

/// A device within the limits of WebGPU has no f16: the message says how to read a file of it all the same.
#[test]
fn files_are_read_where_there_is_no_f16() {
    let mut model = Safetensors::default();
    model.tensors.insert("w".into(), Tensor::ones([3], (&Device::cpu(), DType::F16)));
    let mut bytes = Vec::new();
    model.to_writer(&mut bytes, FloatStorage::AsTheyAre).unwrap();
    for device in own_tunings() {
        if has(&device, DType::F16) {
            assert_eq!(Safetensors::from_reader(&bytes[..], "it", &device).unwrap().tensors["w"].dtype(), DType::F16);
            continue;
        }
        let error = Safetensors::from_reader(&bytes[..], "it", &device).unwrap_err();
        assert!(matches!(error, DataError::NoF16 { .. }), "{error}");
        assert!(error.to_string().contains("SafetensorsOptions { f16_as_f32: true }"), "{error}");
        let options = SafetensorsOptions { f16_as_f32: true };
        let read = Safetensors::from_reader_with(&bytes[..], "it", &device, options).unwrap();
        assert_eq!(read.tensors["w"].to_vec::<f32>().unwrap(), [1.0; 3]);
    }
}
