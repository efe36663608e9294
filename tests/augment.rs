//! Random changes of batches against loops over pixels, on every device.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, has, own_devices};
use gradus::data::augment::{
    Augment, ColourJitter, Compose, CropPadding, CutMix, GaussianNoise, HorizontalFlip, Mixup, Normalise, RandomAffine,
    RandomCrop, RandomErase, VerticalFlip,
};
use gradus::{DType, Device, Key, Result, Tensor, compile};

/// Images on the host.
#[derive(Clone)]
struct Images {
    dims: [usize; 4],
    values: Vec<f32>,
}

impl Images {
    /// All values differ.
    fn new(dims: [usize; 4]) -> Images {
        let values = Tensor::rand(dims, Key::new(99), &Device::cpu()).to_vec().unwrap();
        Images { dims, values }
    }

    fn on(&self, device: &Device) -> Tensor {
        Tensor::from_vec(self.values.clone(), self.dims, device)
    }

    fn at(&self, n: usize, c: usize, y: usize, x: usize) -> f64 {
        let [_, channels, h, w] = self.dims;
        self.values[((n * channels + c) * h + y) * w + x] as f64
    }

    /// The images with `f(image, channel, row, column)` at each place.
    fn made(&self, [h, w]: [usize; 2], f: impl Fn(usize, usize, usize, usize) -> f64) -> Vec<f64> {
        let [n, c, ..] = self.dims;
        let places = (0..n * c * h * w).map(|i| (i / (c * h * w), i / (h * w) % c, i / w % h, i % w));
        places.map(|(n, c, y, x)| f(n, c, y, x)).collect()
    }
}

/// A uniform number for each image.
fn draws(n: usize, key: Key) -> Vec<f64> {
    Tensor::rand([n], key, &Device::cpu()).to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn between(n: usize, low: f64, high: f64, key: Key) -> Vec<f64> {
    draws(n, key).into_iter().map(|u| low + u * (high - low)).collect()
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &[f64], tolerance: f64, what: &str) {
    let found = found.to_vec::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((*found as f64 - expected).abs() <= tolerance, "{what}, element {i}: {found} in place of {expected}");
    }
}

const DIMS: [usize; 4] = [6, 3, 7, 5];

#[test]
fn flips() {
    let images = Images::new(DIMS);
    let [n, _, h, w] = DIMS;
    for device in devices() {
        let (x, key) = (images.on(&device), Key::new(3));
        let chosen: Vec<bool> = draws(n, key).into_iter().map(|u| u < 0.5).collect();
        assert!(chosen.contains(&true) && chosen.contains(&false));
        let across = images.made([h, w], |n, c, y, x| images.at(n, c, y, if chosen[n] { w - 1 - x } else { x }));
        assert_close(&HorizontalFlip::new(0.5).apply(&x, key), &across, 0.0, "horizontal");
        let down = images.made([h, w], |n, c, y, x| images.at(n, c, if chosen[n] { h - 1 - y } else { y }, x));
        assert_close(&VerticalFlip::new(0.5).apply(&x, key), &down, 0.0, "vertical");
        for (probability, axis) in [(0.0, None), (1.0, Some(3)), (f64::NAN, None)] {
            let expected = axis.map_or(x.clone(), |axis| x.flip(axis));
            assert!(same(&HorizontalFlip::new(probability).apply(&x, key), &expected));
        }
    }
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    a.to_vec::<f32>().unwrap() == b.to_vec::<f32>().unwrap()
}

/// What NumPy's `pad` puts beyond edges.
fn padded(images: &Images, mode: CropPadding, n: usize, c: usize, y: isize, x: isize) -> f64 {
    let [_, _, h, w] = images.dims;
    let place = |at: isize, extent: usize| {
        let last = extent as isize - 1;
        match mode {
            CropPadding::Value(_) => (0..=last).contains(&at).then_some(at),
            CropPadding::Edge => Some(at.clamp(0, last)),
            CropPadding::Reflect if at < 0 => Some(-at),
            CropPadding::Reflect => Some(if at > last { 2 * last - at } else { at }),
        }
    };
    match (place(y, h), place(x, w), mode) {
        (Some(y), Some(x), _) => images.at(n, c, y as usize, x as usize),
        (_, _, CropPadding::Value(value)) => value,
        _ => unreachable!(),
    }
}

#[test]
fn crops() {
    let images = Images::new(DIMS);
    let [n, _, h, w] = DIMS;
    let modes = [CropPadding::Value(0.0), CropPadding::Value(-2.5), CropPadding::Edge, CropPadding::Reflect];
    for device in devices() {
        let x = images.on(&device);
        for (i, mode) in modes.into_iter().enumerate() {
            for (height, width, padding) in [(h, w, 4), (3, 5, 0), (9, 2, 2)] {
                let key = Key::new(10 + i as u64);
                let first = |extent: usize, piece: usize, number| -> Vec<isize> {
                    let room = (extent + 2 * padding - piece + 1) as f64;
                    let places = draws(n, key.fold_in(number));
                    places.into_iter().map(|u| (u * room).floor() as isize - padding as isize).collect()
                };
                let (top, left) = (first(h, height, 0), first(w, width, 1));
                let expected = images.made([height, width], |n, c, y, x| {
                    padded(&images, mode, n, c, top[n] + y as isize, left[n] + x as isize)
                });
                let crop = RandomCrop::new(height, width).padding(padding).mode(mode);
                let found = crop.apply(&x, key);
                assert_eq!(found.shape()[..], [n, 3, height, width]);
                assert_close(&found, &expected, 0.0, &format!("{crop:?}"));
            }
        }
        // Every place is as likely as another: 3 · 3 places, 9000 crops, four standard deviations.
        let many = Tensor::arange(9, (&device, DType::F32)).reshape([1, 1, 3, 3]).broadcast_to([9000, 1, 3, 3]);
        let cut = RandomCrop::new(1, 1).apply(&many, Key::new(0)).to_vec::<f32>().unwrap();
        for place in 0..9 {
            let count = cut.iter().filter(|&&value| value == place as f32).count();
            assert!((875..=1125).contains(&count), "place {place}: {count}");
        }
        let image = Tensor::arange(4, &device).reshape([1, 1, 2, 2]);
        assert_eq!(RandomCrop::new(2, 2).apply(&image, Key::new(0)).to_vec::<i32>().unwrap(), [0, 1, 2, 3]);
    }
}

#[test]
fn affine() {
    let images = Images::new([5, 2, 9, 12]);
    let [n, _, h, w] = images.dims;
    let key = Key::new(21);
    let (degrees, shear, fill) = (40.0f64, 20.0f64, 0.25);
    let angle = between(n, -degrees.to_radians(), degrees.to_radians(), key.fold_in(0));
    let scale = between(n, 0.6, 1.5, key.fold_in(1));
    let slant = between(n, -shear.to_radians(), shear.to_radians(), key.fold_in(2));
    let down = between(n, -0.2 * h as f64, 0.2 * h as f64, key.fold_in(3));
    let right = between(n, -0.1 * w as f64, 0.1 * w as f64, key.fold_in(4));
    let value = |n: usize, c: usize, y: f64, x: f64| {
        let is_inside = (0.0..h as f64).contains(&y) && (0.0..w as f64).contains(&x);
        if is_inside { images.at(n, c, y as usize, x as usize) } else { fill }
    };
    let expected = images.made([h, w], |n, c, y, x| {
        // The matrix as it is documented, inverted by Cramer's rule.
        let (sin, cos) = angle[n].sin_cos();
        let (s, k) = (scale[n], slant[n].tan());
        // scale · [cos −sin; sin cos] · [1 −k; 0 1]
        let (a, b) = (s * cos, s * (-k * cos - sin));
        let (d, e) = (s * sin, s * (-k * sin + cos));
        let (cy, cx) = ((h - 1) as f64 / 2.0, (w - 1) as f64 / 2.0);
        let (px, py) = (x as f64 - cx - right[n], y as f64 - cy - down[n]);
        let det = a * e - b * d;
        let (fx, fy) = ((e * px - b * py) / det + cx, (a * py - d * px) / det + cy);
        let (x0, y0) = (fx.floor(), fy.floor());
        let (u, v) = (fx - x0, fy - y0);
        let above = value(n, c, y0, x0) * (1.0 - u) + value(n, c, y0, x0 + 1.0) * u;
        let beneath = value(n, c, y0 + 1.0, x0) * (1.0 - u) + value(n, c, y0 + 1.0, x0 + 1.0) * u;
        above * (1.0 - v) + beneath * v
    });
    for device in devices() {
        let x = images.on(&device);
        let change = RandomAffine::new().degrees(degrees).scale(0.6, 1.5).shear(shear).translate(0.2, 0.1).fill(fill);
        assert_close(&change.apply(&x, key), &expected, 2e-5, "affine");
        // Nothing is exactly nothing, and a turn that is known: 90 degrees clockwise.
        assert!(same(&RandomAffine::new().apply(&x, key), &x));
        let square = Images::new([1, 1, 4, 4]);
        let quarter = |x: &Tensor, key: Key| RandomAffine::new().degrees(90.0 / draw(key)).apply(x, key);
        let turned = square.made([4, 4], |n, c, y, x| square.at(n, c, 3 - x, y));
        assert_close(&quarter(&square.on(&device), Key::new(5)), &turned, 1e-5, "a quarter");
        // Far away there is only the fill, whatever the numbers are.
        let away = RandomAffine::new().translate(1e30, 1e30).fill(7.0).apply(&x, key);
        assert!(away.to_vec::<f32>().unwrap().iter().all(|&value| value == 7.0));
    }
}

/// Where in −1 … 1 the angle of the only image is.
fn draw(key: Key) -> f64 {
    2.0 * draws(1, key.fold_in(0))[0] - 1.0
}

#[test]
fn colours() {
    let key = Key::new(8);
    for channels in [3, 1] {
        let images = Images::new([4, channels, 5, 6]);
        let [n, _, h, w] = images.dims;
        let factor = |by: f64, number| between(n, (1.0f64 - by).max(0.0), 1.0 + by, key.fold_in(number));
        let (bright, contrast, colour) = (factor(0.5, 0), factor(1.5, 1), factor(0.8, 2));
        let unit = |x: f64| x.clamp(0.0, 1.0);
        let step = |values: Vec<f64>| Images { values: values.iter().map(|&x| x as f32).collect(), ..images.clone() };
        let grey = |images: &Images, n: usize, y: usize, x: usize| match channels {
            3 => 0.299 * images.at(n, 0, y, x) + 0.587 * images.at(n, 1, y, x) + 0.114 * images.at(n, 2, y, x),
            _ => images.at(n, 0, y, x),
        };
        let bright = step(images.made([h, w], |n, c, y, x| unit(images.at(n, c, y, x) * bright[n])));
        let mean = |n: usize| (0..h * w).map(|i| grey(&bright, n, i / w, i % w)).sum::<f64>() / (h * w) as f64;
        let means: Vec<f64> = (0..n).map(mean).collect();
        let away = |n: usize, c: usize, y: usize, x: usize| bright.at(n, c, y, x) - means[n];
        let strong = step(bright.made([h, w], |n, c, y, x| unit(means[n] + contrast[n] * away(n, c, y, x))));
        let expected = strong.made([h, w], |n, c, y, x| {
            let middle = grey(&strong, n, y, x);
            unit(middle + colour[n] * (strong.at(n, c, y, x) - middle))
        });
        for device in devices() {
            let x = images.on(&device);
            let jitter = ColourJitter::new().brightness(0.5).contrast(1.5).saturation(0.8);
            assert_close(&jitter.apply(&x, key), &expected, 1e-5, "jitter");
            assert!(same(&ColourJitter::new().apply(&x, key), &x));
            let dark = ColourJitter::new().brightness(0.0).apply(&(&x * 0.5), key);
            assert_close(&dark, &images.made([h, w], |n, c, y, x| 0.5 * images.at(n, c, y, x)), 0.0, "nothing");
        }
    }
    let images = Images::new(DIMS);
    let (means, deviations) = ([0.1, 0.5, 0.9], [0.5, 1.0, 2.0]);
    let expected = images.made([7, 5], |n, c, y, x| (images.at(n, c, y, x) - means[c]) / deviations[c]);
    for device in devices() {
        let normal = Normalise::new(means, deviations).apply(&images.on(&device), key);
        assert_close(&normal, &expected, 1e-6, "normalise");
    }
}

#[test]
fn erased_rectangles() {
    let images = Images::new([40, 2, 11, 8]);
    let [n, _, h, w] = images.dims;
    let key = Key::new(33);
    let chosen = draws(n, key.fold_in(0));
    let area = between(n, 0.1 * (h * w) as f64, 0.6 * (h * w) as f64, key.fold_in(1));
    let ratio = between(n, 0.3f64.ln(), 3.0f64.ln(), key.fold_in(2));
    let side = |n: usize, ratio: f64, extent: usize| (area[n] * ratio.exp()).sqrt().round().clamp(1.0, extent as f64);
    let (places, across) = (draws(n, key.fold_in(3)), draws(n, key.fold_in(4)));
    let is_erased = |n: usize, y: usize, x: usize| {
        let (height, width) = (side(n, ratio[n], h), side(n, -ratio[n], w));
        let top = (places[n] * (h as f64 - height + 1.0)).floor();
        let left = (across[n] * (w as f64 - width + 1.0)).floor();
        let within = |at: usize, first: f64, side: f64| (first..first + side).contains(&(at as f64));
        chosen[n] < 0.7 && within(y, top, height) && within(x, left, width)
    };
    let expected = images.made([h, w], |n, c, y, x| if is_erased(n, y, x) { -1.0 } else { images.at(n, c, y, x) });
    for device in devices() {
        let x = images.on(&device);
        let erase = RandomErase::new(0.7).area(0.1, 0.6).ratio(0.3, 3.0);
        assert_close(&erase.value(-1.0).apply(&x, key), &expected, 0.0, "erased");
        let noise = Tensor::randn(images.dims, key.fold_in(5), &device).to_vec::<f32>().unwrap();
        let noise = Images { values: noise, ..images.clone() };
        let filled = images.made(
            [h, w],
            |n, c, y, x| {
                if is_erased(n, y, x) { noise.at(n, c, y, x) } else { images.at(n, c, y, x) }
            },
        );
        assert_close(&erase.noise().apply(&x, key), &filled, 1e-6, "noise");
        assert!(same(&RandomErase::new(0.0).apply(&x, key), &x));
    }
}

/// The largest distance between the distribution of numbers and a cumulative one (Kolmogorov and Smirnov), over √n.
fn distance(mut numbers: Vec<f64>, cumulative: impl Fn(f64) -> f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let n = numbers.len() as f64;
    let gaps = numbers.iter().enumerate().map(|(i, &x)| {
        let expected = cumulative(x);
        (expected - i as f64 / n).abs().max((expected - (i + 1) as f64 / n).abs())
    });
    gaps.fold(0.0, f64::max) * n.sqrt()
}

#[test]
fn mixtures_are_of_two_examples() {
    for device in devices() {
        // Rows of a table, and images.
        for dims in [vec![7, 3], vec![5, 2, 4, 3]] {
            let x = Tensor::rand(&dims[..], Key::new(1), &device);
            let (n, size) = (dims[0], dims[1..].iter().product::<usize>());
            for mixup in [Mixup::new(0.4), Mixup::new(0.4).per_example()] {
                let mixed = mixup.apply(&x, Key::new(2));
                let (partner, weight) = (mixed.partner.to_vec::<i32>().unwrap(), mixed.weight.to_vec::<f32>().unwrap());
                let mut sorted = partner.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..n as i32).collect::<Vec<_>>());
                assert_eq!(weight.iter().all(|&w| w == weight[0]), mixup == Mixup::new(0.4));
                let values = x.to_vec::<f32>().unwrap();
                let value = |row: usize, i: usize| values[row * size + i] as f64;
                let expected: Vec<f64> = (0..n * size)
                    .map(|at| {
                        let (row, i, w) = (at / size, at % size, weight[at / size] as f64);
                        w * value(row, i) + (1.0 - w) * value(partner[row] as usize, i)
                    })
                    .collect();
                assert_close(&mixed.inputs, &expected, 1e-6, "mixup");
                let labels = Tensor::arange(n, &device);
                let soft = mixed.soft_labels(&labels, n).to_vec::<f32>().unwrap();
                for row in 0..n {
                    let (w, other) = (weight[row], partner[row] as usize);
                    assert!((soft[row * n..(row + 1) * n].iter().sum::<f32>() - 1.0).abs() < 1e-6);
                    let expected = if other == row { 1.0 } else { w };
                    assert!((soft[row * n + row] - expected).abs() < 1e-6);
                }
                assert_eq!(mixed.labels(&labels).1.to_vec::<i32>().unwrap(), partner);
            }
        }
    }
}

#[test]
fn weights_are_from_a_beta_distribution() {
    let n = 20_000;
    for device in devices() {
        let x = Tensor::zeros([n, 1], &device);
        let weights = |alpha| -> Vec<f64> {
            let mixed = Mixup::new(alpha).per_example().apply(&x, Key::new(17));
            mixed.weight.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
        };
        // 1.95: one in a thousand is farther.
        assert!(distance(weights(1.0), |x| x) < 1.95);
        assert!(distance(weights(0.5), |x| x.sqrt().asin() / std::f64::consts::FRAC_PI_2) < 1.95);
        assert!(distance(weights(2.0), |x| x * x * (3.0 - 2.0 * x)) < 1.95);
        for alpha in [1e-3, 0.1, 0.2, 8.0, 1e4] {
            let weights = weights(alpha);
            assert!(weights.iter().all(|weight| (0.0..=1.0).contains(weight)));
            let moment = |power: i32| weights.iter().map(|w| (w - 0.5).powi(power)).sum::<f64>() / n as f64;
            let variance = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!(moment(1).abs() < 4.0 * (variance / n as f64).sqrt(), "alpha {alpha}: mean {}", moment(1));
            assert!((moment(2) / variance - 1.0).abs() < 0.05, "alpha {alpha}: variance {}", moment(2));
        }
    }
}

#[test]
fn rectangles_are_those_of_the_partner() {
    let (n, h, w) = (64, 9, 14);
    for device in devices() {
        // Each pixel says whose it is, and where it was.
        let x = Tensor::arange(n * h * w, (&device, DType::F32)).reshape([n, 1, h, w]);
        for cutmix in [CutMix::new(1.0), CutMix::new(1.0).per_example()] {
            let mixed = cutmix.apply(&x, Key::new(4));
            let partner = mixed.partner.to_vec::<i32>().unwrap();
            let weight = mixed.weight.to_vec::<f32>().unwrap();
            let values = mixed.inputs.to_vec::<f32>().unwrap();
            let mut sizes = std::collections::BTreeSet::new();
            for image in 0..n {
                let mut cut = Vec::new();
                for place in 0..h * w {
                    let value = values[image * h * w + place] as usize;
                    assert_eq!(value % (h * w), place);
                    if value / (h * w) != image {
                        assert_eq!(value / (h * w), partner[image] as usize);
                        cut.push((place / w, place % w));
                    }
                }
                if partner[image] as usize == image {
                    continue;
                }
                assert!((weight[image] - (1.0 - cut.len() as f32 / (h * w) as f32)).abs() < 1e-6);
                if let (Some(first), Some(last)) = (cut.first(), cut.last()) {
                    let (height, width) = (last.0 - first.0 + 1, last.1 - first.1 + 1);
                    assert_eq!(height * width, cut.len(), "a rectangle without holes");
                    sizes.insert((height, width));
                }
            }
            assert_eq!(sizes.len() > 1, cutmix == CutMix::new(1.0).per_example(), "{sizes:?}");
        }
        // The weights alone are computed, not the images.
        let many = CutMix::new(1.0).per_example().apply(&Tensor::zeros([4000, 1, 256, 256], &device), Key::new(6));
        let own = many.weight.mean(..).item::<f32>().unwrap();
        assert!((own - expected_weight()).abs() < 0.02, "{own}");
    }
}

/// The mean part that stays, for λ uniform and middles anywhere: ∫ 1 − c(r)² dλ with side r = √(1 − λ) and the mean cut side
/// c(r) = r − r² / 4.
fn expected_weight() -> f32 {
    let steps = 10_000;
    let at = |i: usize| {
        let side = (1.0 - (i as f64 + 0.5) / steps as f64).sqrt();
        1.0 - (side - side * side / 4.0).powi(2)
    };
    ((0..steps).map(at).sum::<f64>() / steps as f64) as f32
}

/// What a training loop would do.
fn recipe() -> Compose {
    Compose::new()
        .then(RandomCrop::new(8, 8).padding(2))
        .then(HorizontalFlip::new(0.5))
        .then(RandomAffine::new().degrees(10.0))
        .then(ColourJitter::new().brightness(0.2).contrast(0.2).saturation(0.2))
        .then(RandomErase::new(0.5))
        .then(GaussianNoise::new(0.01))
        .then(Normalise::imagenet())
}

#[test]
fn keys_decide_and_make_no_plans() -> Result<()> {
    // Devices of its own, whose plans no other test makes.
    for device in own_devices(None) {
        let x = Tensor::rand([4, 3, 8, 8], Key::new(0), &device);
        x.eval()?;
        let changed = |seed: u64| recipe().apply(&x, Key::new(seed)).to_vec::<f32>();
        let first = changed(1)?;
        assert!(first.iter().all(|value| value.is_finite()));
        let plans = device.stats().plans;
        assert_eq!(first, changed(1)?);
        assert_ne!(first, changed(2)?);
        assert_eq!(device.stats().plans, plans, "keys and ranges are numbers of the user");
        // The same numbers are drawn on every device.
        let on_cpu = recipe().apply(&x.to_device(&Device::cpu()), Key::new(1)).to_vec::<f32>()?;
        assert!(first.iter().zip(on_cpu).all(|(a, b)| (a - b).abs() < 1e-4));

        let mixed = |x: &Tensor, key: Key| {
            let mixed = Mixup::new(0.3).apply(x, key);
            CutMix::new(0.3).apply(&mixed.inputs, key.fold_in(9)).inputs
        };
        let rng = gradus::Rng::new(5);
        let compiled = compile(|x| Ok(vec![mixed(&recipe().apply(&x[0], rng.key()), rng.key())]));
        let call = || compiled.call(std::slice::from_ref(&x));
        let (a, b) = (call()?, call()?);
        assert!(!same(&a[0], &b[0]), "each call draws keys of its own");
    }
    Ok(())
}

#[test]
fn half_precision_and_misuse() {
    for device in devices() {
        if has(&device, DType::F16) {
            let x = Tensor::rand([4, 3, 8, 8], Key::new(0), (&device, DType::F16));
            let half = recipe().apply(&x, Key::new(1));
            let mixed = Mixup::new(0.3).apply(&half, Key::new(2)).inputs;
            assert_eq!((half.dtype(), mixed.dtype()), (DType::F16, DType::F16));
            let single = recipe().apply(&x.to_dtype(DType::F32), Key::new(1)).to_vec::<f32>().unwrap();
            let half = half.to_dtype(DType::F32).to_vec::<f32>().unwrap();
            assert!(half.iter().zip(single).all(|(a, b)| (a - b).abs() < 0.05));
        }
        let images = Tensor::zeros([2, 3, 4, 4], &device);
        let says = |changed: Tensor, what: &str| {
            let error = changed.to_data().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let key = Key::new(0);
        says(recipe().apply(&Tensor::zeros([3, 4, 4], &device), key), "images [n, channels, height, width]");
        says(HorizontalFlip::new(0.5).apply(&Tensor::zeros([1, 1, 0, 3], &device), key), "at least 1 and less than");
        says(RandomCrop::new(9, 4).padding(2).apply(&images, key), "9 × 4 of images of 4 × 4 with a padding of 2");
        says(
            RandomCrop::new(4, 4).padding(4).mode(CropPadding::Reflect).apply(&images, key),
            "less than that to reflect",
        );
        says(RandomCrop::new(4, 4).padding(usize::MAX).apply(&images, key), "no larger than padded images");
        says(RandomAffine::new().scale(0.0, 1.0).apply(&images, key), "from above 0 to no less");
        says(RandomAffine::new().shear(90.0).apply(&images, key), "less than 90 degrees");
        says(ColourJitter::new().brightness(-0.1).apply(&images, key), "a number from 0 on");
        says(ColourJitter::new().apply(&Tensor::zeros([1, 2, 4, 4], &device), key), "1 (grey) or 3");
        says(ColourJitter::new().apply(&Tensor::zeros([1, 3, 4, 4], (&device, DType::I32)), key), "a float dtype");
        says(Normalise::new([0.0], [1.0]).apply(&images, key), "1 means and 1 deviations for 3 channels");
        says(Normalise::new([0.0; 3], [0.0; 3]).apply(&images, key), "numbers above 0");
        says(RandomErase::new(0.5).area(0.5, 1.5).apply(&images, key), "from 0 on to 1 at most");
        says(GaussianNoise::new(f64::NAN).apply(&images, key), "a number from 0 on");
        says(Mixup::new(0.0).apply(&images, key).inputs, "a number above 0");
        says(Mixup::new(1.0).apply(&Tensor::new(1.0, &device), key).weight, "at least rank 1");
        says(
            CutMix::new(1.0).apply(&Tensor::zeros([4, 4], &device), key).partner,
            "images [n, channels, height, width]",
        );
        // What is wrong first is what is said.
        let broken = Tensor::zeros([2, 3], &device) + Tensor::zeros([4], &device);
        says(recipe().apply(&broken, key), "do not broadcast");
    }
}
