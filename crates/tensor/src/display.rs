//! Printing, as NumPy does: aligned, abbreviated, with dtype, shape and device.

use crate::Tensor;
use gradus_ir::{Data, Number, Shape};
use std::fmt;

/// Arrays with more elements than this are abbreviated.
const THRESHOLD: usize = 1000;
/// Elements shown at each end of an abbreviated axis.
const EDGE: usize = 3;
/// Digits after the point.
const PRECISION: usize = 4;
/// Columns of a line.
const WIDTH: usize = 100;

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_data() {
            Err(error) => write!(f, "Tensor(error: {error})"),
            Ok(data) => {
                if data.is_empty() {
                    // Its other extents may be as long as they like.
                    f.write_str("[]")?;
                } else {
                    Picture::new(&data, self.shape()).write(f, 0, 0)?;
                }
                writeln!(f)?;
                write!(f, "{} {} on {}", self.dtype(), self.shape(), self.device())
            }
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Picture<'a> {
    data: &'a Data,
    shape: &'a Shape,
    abbreviate: bool,
    scientific: bool,
    whole: bool,
    width: usize,
}

impl Picture<'_> {
    fn new<'a>(data: &'a Data, shape: &'a Shape) -> Picture<'a> {
        let abbreviate = shape.numel() > THRESHOLD;
        let mut picture = Picture { data, shape, abbreviate, scientific: false, whole: true, width: 0 };
        let mut shown = Vec::new();
        picture.shown(0, 0, &mut shown);
        let (mut largest, mut smallest) = (0f64, f64::INFINITY);
        for &at in &shown {
            if let Some(Number::Float(x)) = data.get(at)
                && x.is_finite()
            {
                picture.whole &= x.fract() == 0.0;
                largest = largest.max(x.abs());
                smallest = if x == 0.0 { smallest } else { smallest.min(x.abs()) };
            }
        }
        picture.scientific = largest >= 1e8 || smallest < 1e-4 || largest / smallest > 1e7;
        picture.width = shown.iter().map(|&at| picture.text(at).len()).max().unwrap_or(0);
        picture
    }

    /// The positions along an axis that are shown; `None` stands for the dots.
    fn positions(&self, axis: usize) -> Vec<Option<usize>> {
        let extent = self.shape[axis];
        if !self.abbreviate || extent <= 2 * EDGE {
            return (0..extent).map(Some).collect();
        }
        (0..EDGE).map(Some).chain([None]).chain((extent - EDGE..extent).map(Some)).collect()
    }

    fn shown(&self, axis: usize, start: usize, into: &mut Vec<usize>) {
        if axis == self.shape.len() {
            into.push(start);
            return;
        }
        let stride = self.shape[axis + 1..].iter().product::<usize>();
        for i in self.positions(axis).into_iter().flatten() {
            self.shown(axis + 1, start + i * stride, into);
        }
    }

    fn text(&self, at: usize) -> String {
        match self.data.get(at) {
            None => String::new(),
            Some(Number::Bool(b)) => b.to_string(),
            Some(Number::Int(i)) => i.to_string(),
            Some(Number::Float(x)) if x.is_nan() => "nan".into(),
            Some(Number::Float(x)) if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.into(),
            Some(Number::Float(x)) if self.scientific => format!("{x:.PRECISION$e}"),
            Some(Number::Float(x)) if self.whole => format!("{x:.0}."),
            Some(Number::Float(x)) => format!("{x:.PRECISION$}"),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, axis: usize, start: usize) -> fmt::Result {
        if axis == self.shape.len() {
            return write!(f, "{:>width$}", self.text(start), width = self.width);
        }
        let last = axis + 1 == self.shape.len();
        let stride = self.shape[axis + 1..].iter().product::<usize>();
        let indent = " ".repeat(axis + 1);
        f.write_str("[")?;
        let mut column = axis + 1;
        for (n, position) in self.positions(axis).into_iter().enumerate() {
            if n > 0 && !last {
                // Blank lines between matrices, as many as there are axes below them.
                let newlines = self.shape.len() - axis - 1;
                write!(f, "{}{indent}", "\n".repeat(newlines))?;
            } else if n > 0 {
                column += self.width + 1;
                if column + self.width > WIDTH {
                    write!(f, "\n{indent}")?;
                    column = axis + 1;
                } else {
                    f.write_str(" ")?;
                }
            }
            match position {
                None => f.write_str("...")?,
                Some(i) => self.write(f, axis + 1, start + i * stride)?,
            }
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use crate::{Device, Tensor};

    fn text(tensor: &Tensor) -> String {
        tensor.to_string()
    }

    #[test]
    fn prints_as_numpy_does() {
        let device = Device::cpu();
        assert_eq!(text(&Tensor::new(2.5, &device)), "2.5000\nf32 [] on cpu");
        assert_eq!(
            text(&Tensor::new([[1.0, -2.0], [30.0, f32::NAN]], &device)),
            "[[ 1. -2.]\n [30. nan]]\nf32 [2, 2] on cpu"
        );
        assert_eq!(text(&Tensor::new([1e-6, 1.0], &device)), "[1.0000e-6  1.0000e0]\nf32 [2] on cpu");
        assert_eq!(text(&Tensor::arange(2000, &device)), "[   0    1    2 ... 1997 1998 1999]\ni32 [2000] on cpu");
        assert_eq!(text(&Tensor::zeros([0, 3], &device)), "[]\nf32 [0, 3] on cpu");
        assert_eq!(text(&Tensor::ones([2, 1, 2], &device)), "[[[1. 1.]]\n\n [[1. 1.]]]\nf32 [2, 1, 2] on cpu");
    }
}
