//! Rotary positions.

use gradus_tensor::{Error, ErrorKind, Result, Tensor, cat, stack};

/// Positions as rotations (Su et al., "RoFormer", 2021): pairs of a query's numbers, and of a key's, are rotated by an angle that grows
/// with the position, so that their scalar product depends on the distance alone. Pair i of a head of width w turns by
/// base^(−2i/w) a position.
///
/// ```
/// use gradus_nn::Rotary;
/// use gradus_tensor::{Device, Key, Tensor};
/// let device = Device::cpu();
/// let [q, k] = [0, 1].map(|key| Tensor::randn([1, 8], Key::new(key), &device));
/// let at = |x: &Tensor, position| Rotary::new().rotate(x, position).flatten();
/// let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
/// assert!(near(at(&q, 7).dot(&at(&k, 4)).item()?, at(&q, 103).dot(&at(&k, 100)).item()?));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    base: f64,
    interleaved: bool,
}

impl Default for Rotary {
    fn default() -> Rotary {
        Rotary { base: 10_000.0, interleaved: false }
    }
}

impl Rotary {
    /// Base 10,000; pairs are of the first half and the second, as in GPT-NeoX and Llama.
    pub fn new() -> Rotary {
        Rotary::default()
    }

    /// Another base: larger ones for longer sequences.
    pub fn base(self, base: f64) -> Rotary {
        Rotary { base, ..self }
    }

    /// Pairs are neighbours, as in the paper and in GPT-J.
    pub fn interleaved(self) -> Rotary {
        Rotary { interleaved: true, ..self }
    }

    /// Rotates `x [..., length, width]`, of even width, whose first element along the length is at position `offset`.
    #[track_caller]
    pub fn rotate(&self, x: &Tensor, offset: usize) -> Tensor {
        Tensor::build(x.device(), || self.rotated(x, offset))
    }

    #[track_caller]
    fn rotated(&self, x: &Tensor, offset: usize) -> Result<Tensor> {
        if let Some(error) = x.error() {
            return Err(error.clone());
        }
        let (length, width) = match x.shape()[..] {
            [.., length, width] if width.is_multiple_of(2) && width > 0 => (length, width),
            _ => {
                let expected = "[..., length, width] of even width".into();
                return Err(Error::new("rotary", ErrorKind::Rank { expected, shape: x.shape().clone() }));
            }
        };
        // Angles of f16 would be off by whole turns.
        let wide = x.widened();
        let index = |count| Tensor::arange(count, x.device()).to_dtype(wide.dtype());
        let rates = (index(width / 2) * (-2.0 * self.base.ln() / width as f64)).exp();
        let angles = (index(length) + offset as f64).unsqueeze(1) * rates;
        let (cos, sin) = (angles.cos(), angles.sin());
        let half = (width / 2) as isize;
        let y = if self.interleaved {
            let pairs: Vec<usize> = x.shape()[..x.rank() - 1].iter().copied().chain([width / 2, 2]).collect();
            let pairs = wide.reshape(pairs);
            let (a, b) = (pairs.select_index(-1, 0), pairs.select_index(-1, 1));
            stack(&[&(&a * &cos - &b * &sin), &(&b * &cos + &a * &sin)], -1).reshape(x.shape())
        } else {
            let (a, b) = (wide.slice(-1, ..half), wide.slice(-1, half..));
            cat(&[&(&a * &cos - &b * &sin), &(&b * &cos + &a * &sin)], -1)
        };
        Ok(y.to_dtype(x.dtype()))
    }
}
