//! Turned, moved, scaled and sheared images.

use super::{Augment, argument, extents, float, grid, inside, pixels, uniform};
use gradus_tensor::{DType, Key, Tensor};

/// Turns, scales, shears and moves each image at random, about its middle; pixels in between are interpolated (bilinear).
///
/// A pixel at p, counted from the middle of the image, moves to `scale · R(angle) · S(shear) · p + shift`, where R turns by the
/// angle (clockwise, as rows count downwards) and S moves rows to the left by tan(shear) of their distance from the middle.
///
/// ```
/// use gradus_data::augment::{Augment, RandomAffine};
/// use gradus_tensor::{Device, Key, Tensor};
/// let x = Tensor::rand([2, 3, 32, 32], Key::new(0), &Device::cpu());
/// let turned = RandomAffine::new().degrees(15.0).translate(0.1, 0.1).scale(0.9, 1.1).apply(&x, Key::new(1));
/// assert_eq!(turned.shape(), x.shape());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomAffine {
    degrees: f64,
    translate: (f64, f64),
    scale: (f64, f64),
    shear: f64,
    fill: f64,
}

impl Default for RandomAffine {
    fn default() -> RandomAffine {
        RandomAffine { degrees: 0.0, translate: (0.0, 0.0), scale: (1.0, 1.0), shear: 0.0, fill: 0.0 }
    }
}

impl RandomAffine {
    /// No change, until more is said.
    pub fn new() -> RandomAffine {
        RandomAffine::default()
    }

    /// Turned by an angle that is uniform in −`degrees` … `degrees`.
    pub fn degrees(self, degrees: f64) -> RandomAffine {
        RandomAffine { degrees, ..self }
    }

    /// Moved down and to the right by parts of the height and width that are uniform in ± these.
    pub fn translate(self, height: f64, width: f64) -> RandomAffine {
        RandomAffine { translate: (height, width), ..self }
    }

    /// Scaled by a factor that is uniform in `low` … `high`, above 0.
    pub fn scale(self, low: f64, high: f64) -> RandomAffine {
        RandomAffine { scale: (low, high), ..self }
    }

    /// Sheared by an angle that is uniform in −`degrees` … `degrees`, less than 90.
    pub fn shear(self, degrees: f64) -> RandomAffine {
        RandomAffine { shear: degrees, ..self }
    }

    /// What lies outside of images; 0 by default.
    pub fn fill(self, value: f64) -> RandomAffine {
        RandomAffine { fill: value, ..self }
    }
}

impl Augment for RandomAffine {
    /// The keys 0 … 4 of this one give each image's angle, scale, shear, and shift down and to the right.
    fn apply(&self, x: &Tensor, key: Key) -> Tensor {
        const OP: &str = "RandomAffine";
        Tensor::build(x.device(), || {
            let [n, _, h, w] = extents(OP, x)?;
            float(OP, x)?;
            let (low, high) = self.scale;
            if !(low > 0.0 && low <= high && high.is_finite()) {
                return Err(argument(OP, "scale", format!("{low} to {high}"), "from above 0 to no less"));
            }
            let can_shear = self.shear.abs() < 90.0;
            if !can_shear {
                return Err(argument(OP, "shear", format!("{}", self.shear), "less than 90 degrees"));
            }
            let between = |range: f64, key| uniform(n, -range, range, key, x);
            let angle = between(self.degrees.to_radians(), key.fold_in(0));
            let scale = uniform(n, low, high, key.fold_in(1), x);
            let shear = between(self.shear.to_radians(), key.fold_in(2)).tan();
            let down = between(self.translate.0 * h as f64, key.fold_in(3));
            let right = between(self.translate.1 * w as f64, key.fold_in(4));

            // From where each pixel comes: all of the above undone, in the other order.
            let (middle_y, middle_x) = ((h - 1) as f64 / 2.0, (w - 1) as f64 / 2.0);
            let (row, column) = grid(h, w, DType::F32, x);
            let (dy, dx) = (row - middle_y - down, column - middle_x - right);
            let (sin, cos) = (angle.sin(), angle.cos());
            let (turned_x, turned_y) = (&cos * &dx + &sin * &dy, &cos * &dy - &sin * &dx);
            let from_x = (turned_x + shear * &turned_y) / &scale + middle_x;
            let from_y = turned_y / &scale + middle_y;
            Ok(bilinear(x, &from_y, &from_x, self.fill))
        })
    }
}

/// The values at places between pixels, `[n, 1, h, w]`: means of the four around them, weighted by how near they are.
fn bilinear(x: &Tensor, from_y: &Tensor, from_x: &Tensor, fill: f64) -> Tensor {
    Tensor::build(x.device(), || {
        let [_, _, h, w] = x.dims()?;
        // Beyond one pixel outside, all is the same.
        let (y, x_) = (from_y.clamp(-2.0, h as f64 + 1.0), from_x.clamp(-2.0, w as f64 + 1.0));
        let (top, left) = (y.floor(), x_.floor());
        let (below, right) = (y - &top, x_ - &left);
        let (top, left) = (top.to_dtype(DType::I32), left.to_dtype(DType::I32));
        let tap = |row: Tensor, column: Tensor| {
            let there = pixels(x, &row, &column, [h, w]).widened();
            inside(&row, &column, [h, w]).where_(there, fill)
        };
        let above = tap(top.clone(), left.clone()) * (1.0f64 - &right) + tap(top.clone(), &left + 1) * &right;
        let beneath = tap(&top + 1, left.clone()) * (1.0f64 - &right) + tap(&top + 1, left + 1) * right;
        Ok((above * (1.0f64 - &below) + beneath * below).to_dtype(x.dtype()))
    })
}
