//! Shapes and NumPy's broadcasting rule.

use smallvec::SmallVec;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// The extents of a tensor, outermost first. `[]` is a single number (zero-dimensional).
#[derive(Eq, Default)]
pub struct Shape(SmallVec<[usize; 4]>);

impl PartialEq for Shape {
    #[inline]
    fn eq(&self, other: &Shape) -> bool {
        // There are few: comparing them takes less than calling what compares memory.
        self.len() == other.len() && self.iter().zip(other.iter()).all(|(a, b)| a == b)
    }
}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Clone for Shape {
    #[inline]
    fn clone(&self) -> Shape {
        // A copy of memory, which `SmallVec`'s own clone is not.
        Shape(SmallVec::from_slice(&self.0))
    }
}

impl Shape {
    /// A shape from its extents.
    pub fn new(dims: &[usize]) -> Shape {
        Shape(SmallVec::from_slice(dims))
    }

    /// The number of elements, or `None` where the extents that are not 0 exceed `isize::MAX` bytes of the widest dtype.
    pub fn checked_numel(&self) -> Option<usize> {
        let nonzero = self.iter().filter(|&&d| d > 0).try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let addressable = nonzero <= isize::MAX as usize / 8;
        addressable.then_some(if self.contains(&0) { 0 } else { nonzero })
    }

    /// The number of elements (of a shape that passes [`checked_numel`](Shape::checked_numel); else at most `usize::MAX`).
    pub fn numel(&self) -> usize {
        if self.contains(&0) { 0 } else { self.iter().fold(1, |n, &d| n.saturating_mul(d)) }
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> SmallVec<[isize; 4]> {
        let mut strides: SmallVec<[isize; 4]> = SmallVec::from_elem(1, self.len());
        for axis in (1..self.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(self[axis].max(1) as isize);
        }
        strides
    }

    /// The shape that two shapes broadcast to (NumPy: align at the last axis; extents are equal or 1).
    ///
    /// ```
    /// # use gradus_ir::Shape;
    /// let (a, b) = (Shape::new(&[4, 1]), Shape::new(&[3]));
    /// assert_eq!(a.broadcast(&b), Some(Shape::new(&[4, 3])));
    /// assert_eq!(a.broadcast(&Shape::new(&[5, 2])), None);
    /// ```
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.len().max(other.len());
        let extent = |s: &Shape, axis: usize| (axis + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
        (0..rank)
            .map(|axis| match (extent(self, axis), extent(other, axis)) {
                (a, b) if a == b => Some(a),
                (1, b) => Some(b),
                (a, 1) => Some(a),
                _ => None,
            })
            .collect::<Option<SmallVec<_>>>()
            .map(Shape)
    }

    /// The shape with the extents of `axes` set to 1.
    pub fn with_ones(&self, axes: &[usize]) -> Shape {
        let mut dims = self.0.clone();
        for &axis in axes {
            dims[axis] = 1;
        }
        Shape(dims)
    }

    /// The shape without `axes`.
    pub fn without(&self, axes: &[usize]) -> Shape {
        Shape(self.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, &d)| d).collect())
    }

    /// The shape with axis `axis` set to `extent`.
    pub fn with(&self, axis: usize, extent: usize) -> Shape {
        let mut dims = self.0.clone();
        dims[axis] = extent;
        Shape(dims)
    }

    /// The shape with a new axis of `extent` before `axis`.
    pub fn with_inserted(&self, axis: usize, extent: usize) -> Shape {
        let mut dims = self.0.clone();
        dims.insert(axis, extent);
        Shape(dims)
    }
}

impl Deref for Shape {
    type Target = [usize];
    #[inline]
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(iter: I) -> Shape {
        Shape(iter.into_iter().collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0[..])
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Shape {
        shape.clone()
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Shape {
        Shape::new(dims)
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Shape {
        Shape(dims.into())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape::new(&dims)
    }
}

impl From<usize> for Shape {
    fn from(extent: usize) -> Shape {
        Shape::new(&[extent])
    }
}
