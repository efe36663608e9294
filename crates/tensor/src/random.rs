//! Random numbers: keys, and what is drawn from them.

use crate::notes::{is_drawn, note_draw, note_fold};
use crate::{DType, Device, Element, Error, Operand, Placement, Tensor};
use gradus_ir::op::Op;
use gradus_ir::{Error as ErrorKind, Number, Shape, philox};
use std::sync::{Arc, Mutex};

/// The key of a stream of random numbers. One key gives the same numbers at every use and on every device; draw each
/// tensor from a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The key of a seed.
    pub fn new(seed: u64) -> Key {
        Key(seed)
    }

    /// Key number `index` of those that this one leads to; they are independent of it and of each other.
    ///
    /// ```
    /// # use gradus_tensor::Key;
    /// let key = Key::new(7);
    /// assert_ne!(key.fold_in(0), key.fold_in(1));
    /// assert_eq!(key.fold_in(1), Key::new(7).fold_in(1));
    /// ```
    pub fn fold_in(self, index: u64) -> Key {
        // Counters with a non-zero upper half are never used for elements.
        let words = philox::philox4x32(
            [index as u32, (index >> 32) as u32, 0x6772_6164, 1],
            [self.0 as u32, (self.0 >> 32) as u32],
        );
        let folded = Key(words[0] as u64 | (words[1] as u64) << 32);
        note_fold(self, index, folded);
        folded
    }

    /// The number behind the key.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The numbers 0 … `n` − 1 in random order (Fisher-Yates).
    pub fn shuffled(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let words = philox::block(self.0, i as u64);
            let random = words[0] as u128 | (words[1] as u128) << 32;
            // A 64-bit fraction of i + 1; the bias is below 2⁻³² for any n that fits memory.
            order.swap(i, ((random * (i as u128 + 1)) >> 64) as usize);
        }
        order
    }
}

/// A source of keys: seeded, counting, shared by its clones. Initialisation and dropout draw from one.
///
/// ```
/// use gradus_tensor::{Device, Rng, Tensor};
/// let rng = Rng::new(42);
/// let a = Tensor::randn([2], rng.key(), &Device::cpu());
/// let b = Tensor::randn([2], rng.key(), &Device::cpu());
/// assert_ne!(a.to_vec::<f32>()?, b.to_vec::<f32>()?);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rng(Arc<Mutex<RngState>>);

/// Where a source of keys stands: enough to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngState {
    /// The key that it started from.
    pub key: Key,
    /// How many keys it has given.
    pub drawn: u64,
}

impl Rng {
    /// A source that starts from a seed.
    pub fn new(seed: u64) -> Rng {
        Rng::from_key(Key::new(seed))
    }

    /// A source that starts from a key.
    pub fn from_key(key: Key) -> Rng {
        Rng(Arc::new(Mutex::new(RngState { key, drawn: 0 })))
    }

    /// The next key.
    pub fn key(&self) -> Key {
        let mut state = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.drawn += 1;
        let key = state.key.fold_in(state.drawn - 1);
        note_draw(self, key);
        key
    }

    /// A source of its own, whose keys do not depend on how many are drawn here later.
    pub fn split(&self) -> Rng {
        Rng::from_key(self.key())
    }

    /// Where it stands.
    pub fn state(&self) -> RngState {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Goes back (or on) to a state.
    pub fn set_state(&self, state: RngState) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = state;
    }
}

impl Tensor {
    /// Uniform random numbers in [0, 1); f32 unless the placement names a dtype. Those of f16 are multiples of 2⁻¹¹.
    #[track_caller]
    pub fn rand(shape: impl Into<Shape>, key: Key, on: impl Into<Placement>) -> Tensor {
        let Placement { device, dtype } = on.into();
        let dtype = dtype.unwrap_or(DType::F32);
        if !dtype.is_float() {
            let kind = ErrorKind::DType { expected: "a float dtype", found: dtype };
            return Tensor::failed(Error::new("rand", kind), &device);
        }
        let drawn = Tensor::random(shape.into(), key, dtype.computed(), &device);
        if dtype != DType::F16 || drawn.error().is_some() {
            return drawn;
        }
        // Rounded down: to the nearest, some would be 1.
        ((&drawn * drawn.constant(2048.0)).floor() * drawn.constant(1.0 / 2048.0)).to_dtype(dtype)
    }

    /// Random 32-bit words, as u32.
    #[track_caller]
    pub fn random_bits(shape: impl Into<Shape>, key: Key, device: &Device) -> Tensor {
        Tensor::random(shape.into(), key, DType::U32, device)
    }

    #[track_caller]
    fn random(shape: Shape, key: Key, dtype: DType, device: &Device) -> Tensor {
        Tensor::source(Op::Random(0), Some(Number::Int(key.0 as i64)), shape, dtype, device)
    }

    /// Normal random numbers of mean 0 and variance 1 (Box-Muller); f32 unless the placement names a dtype.
    #[track_caller]
    pub fn randn(shape: impl Into<Shape>, key: Key, on: impl Into<Placement>) -> Tensor {
        let (shape, mut on) = (shape.into(), on.into());
        let dtype = on.dtype.unwrap_or(DType::F32);
        on.dtype = Some(dtype.computed());
        let radius = Tensor::rand(shape.clone(), key.fold_in(0), on.clone());
        let angle = Tensor::rand(shape, key.fold_in(1), on);
        if radius.error().is_some() {
            return radius;
        }
        // 1 − u lies in (0, 1], where the logarithm is finite.
        let radius = ((radius.constant(1.0) - &radius).log() * radius.constant(-2.0)).sqrt();
        let tau = angle.constant(std::f64::consts::TAU);
        (radius * (angle * tau).cos()).to_dtype(dtype)
    }

    /// true with the given probability, as a bool tensor.
    #[track_caller]
    pub fn bernoulli(shape: impl Into<Shape>, probability: impl Into<Operand>, key: Key, device: &Device) -> Tensor {
        Tensor::rand(shape, key, device).lt(probability)
    }

    /// The numbers 0 … `n` − 1 in random order, as i32.
    #[track_caller]
    pub fn permutation(n: usize, key: Key, device: &Device) -> Tensor {
        if i32::try_from(n).is_err() {
            let kind = ErrorKind::TooLarge { shape: Shape::new(&[n]) };
            return Tensor::failed(Error::new("permutation", kind), device);
        }
        if is_drawn(key) {
            // It is drawn on the host: every call would have this one.
            return Tensor::failed(Error::new("permutation", ErrorKind::Recording), device);
        }
        let order = key.shuffled(n).into_iter().map(|i| i as i32).collect();
        Tensor::upload(i32::wrap(order), Shape::new(&[n]), device)
    }
}
