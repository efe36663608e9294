//! Windows: overlapping parts of a tensor, side by side.

use crate::Tensor;
use gradus_ir::Error as ErrorKind;
use gradus_ir::op::{Op, PadAxis, WindowAxis};

/// One number for all spatial axes (`2`), or one for each (`[2, 1]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spatial {
    /// The same along all axes.
    All(usize),
    /// One for each axis, outermost first.
    Each(Vec<usize>),
}

impl Spatial {
    /// One number for each of `axes` axes.
    pub(crate) fn resolve(&self, argument: &'static str, axes: usize) -> Result<Vec<usize>, ErrorKind> {
        match self {
            Spatial::All(number) => Ok(vec![*number; axes]),
            Spatial::Each(numbers) if numbers.len() == axes => Ok(numbers.clone()),
            Spatial::Each(numbers) => {
                let found = format!("{numbers:?} for {axes} spatial axes");
                Err(ErrorKind::Argument { argument, expected: "one number, or one for each spatial axis", found })
            }
        }
    }
}

impl From<usize> for Spatial {
    fn from(number: usize) -> Spatial {
        Spatial::All(number)
    }
}

impl<const N: usize> From<[usize; N]> for Spatial {
    fn from(numbers: [usize; N]) -> Spatial {
        Spatial::Each(numbers.to_vec())
    }
}

impl From<Vec<usize>> for Spatial {
    fn from(numbers: Vec<usize>) -> Spatial {
        Spatial::Each(numbers)
    }
}

impl Tensor {
    /// Windows of `size` elements along an axis, that begin `stride` apart: the axis counts windows then, and what lies in
    /// each follows as a new last axis. Nothing is copied; the gradient sums what the windows share.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::arange(5, &Device::cpu());
    /// let pairs = x.window(0, 2, 1);
    /// assert_eq!(pairs.shape()[..], [4, 2]);
    /// assert_eq!(pairs.to_vec::<i32>()?, [0, 1, 1, 2, 2, 3, 3, 4]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn window(&self, axis: isize, size: usize, stride: usize) -> Tensor {
        match self.axis(axis) {
            Ok(axis) => self.windows(&[WindowAxis { axis, size, stride, dilation: 1 }]),
            Err(kind) => self.fail("window", kind),
        }
    }

    #[track_caller]
    pub(crate) fn windows(&self, windows: &[WindowAxis]) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        // A step that is never made may be as long as it likes.
        let cut = |window: &WindowAxis| {
            let longest = self.shape()[window.axis].max(1);
            let dilation = if window.size == 1 { window.dilation.min(longest) } else { window.dilation };
            WindowAxis { stride: window.stride.min(longest), dilation, ..*window }
        };
        Tensor::record(Op::Window(windows.iter().map(cut).collect()), &[self], None)
    }

    /// Windows over the last axes, one size, stride and dilation for each of them.
    #[track_caller]
    pub(crate) fn spatial_windows(&self, size: &[usize], stride: &[usize], dilation: &[usize]) -> Tensor {
        let first = self.rank().saturating_sub(size.len());
        let window = |i: usize| WindowAxis { axis: first + i, size: size[i], stride: stride[i], dilation: dilation[i] };
        self.windows(&(0..size.len()).map(window).collect::<Vec<_>>())
    }

    /// Zeros around, and between, the elements of the last axes.
    #[track_caller]
    pub(crate) fn pad_spatial(&self, pads: &[PadAxis]) -> Tensor {
        if pads.iter().all(|pad| *pad == PadAxis::default()) {
            return self.clone();
        }
        let before = std::iter::repeat_n(PadAxis::default(), self.rank() - pads.len());
        Tensor::record(Op::Pad(before.chain(pads.iter().copied()).collect()), &[self], None)
    }
}
