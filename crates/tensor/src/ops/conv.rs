//! Convolutions: matrix products over windows.

use super::window::Spatial;
use crate::Tensor;
use crate::tensor::first_failed;
use gradus_ir::Error as ErrorKind;
use gradus_ir::op::{Op, PadAxis, SliceAxis};

/// How a convolution walks: stride, zero padding on both sides, dilation, groups of channels. By default 1, 0, 1, 1.
///
/// ```
/// # use gradus_tensor::{Conv, Device, Tensor};
/// let device = Device::cpu();
/// let (images, weight) = (Tensor::ones([8, 3, 32, 32], &device), Tensor::ones([16, 3, 5, 3], &device));
/// let y = images.conv2d(&weight, &Conv::new().stride(2).padding([2, 1]));
/// assert_eq!(y.shape()[..], [8, 16, 16, 16]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    stride: Spatial,
    padding: Spatial,
    dilation: Spatial,
    groups: usize,
}

impl Default for Conv {
    fn default() -> Conv {
        Conv::new()
    }
}

impl Conv {
    /// Every position, without padding.
    pub fn new() -> Conv {
        Conv { stride: Spatial::All(1), padding: Spatial::All(0), dilation: Spatial::All(1), groups: 1 }
    }

    /// The distance between two positions of the kernel.
    pub fn stride(self, stride: impl Into<Spatial>) -> Conv {
        Conv { stride: stride.into(), ..self }
    }

    /// Zeros on both sides of each spatial axis.
    pub fn padding(self, padding: impl Into<Spatial>) -> Conv {
        Conv { padding: padding.into(), ..self }
    }

    /// The distance between two elements that a kernel looks at.
    pub fn dilation(self, dilation: impl Into<Spatial>) -> Conv {
        Conv { dilation: dilation.into(), ..self }
    }

    /// Channels in so many groups, each with kernels of its own; as many as there are channels is a depthwise convolution.
    pub fn groups(self, groups: usize) -> Conv {
        Conv { groups, ..self }
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.groups
    }
}

/// What a convolution comes down to.
struct Walk {
    kernel: Vec<usize>,
    stride: Vec<usize>,
    padding: Vec<usize>,
    dilation: Vec<usize>,
    groups: usize,
}

impl Walk {
    /// Checks `x [batch, channels, spatial…]` against `weight [first, second, kernel…]`, whose axis `inputs` counts the
    /// channels of x.
    fn new(x: &Tensor, weight: &Tensor, conv: &Conv, inputs: usize) -> Result<Walk, ErrorKind> {
        let (from, shape) = (x.shape(), weight.shape());
        if from.len() < 3 {
            let expected = "[batch, channels, spatial…]".into();
            return Err(ErrorKind::Rank { expected, shape: from.clone() });
        }
        if shape.len() != from.len() {
            let expected = format!("a weight of rank {}", from.len());
            return Err(ErrorKind::Rank { expected, shape: shape.clone() });
        }
        let axes = from.len() - 2;
        let (stride, dilation) = (conv.stride.resolve("stride", axes)?, conv.dilation.resolve("dilation", axes)?);
        let kernel = shape[2..].to_vec();
        let groups = vec![conv.groups];
        for (argument, numbers) in
            [("stride", &stride), ("dilation", &dilation), ("groups", &groups), ("kernel", &kernel)]
        {
            if numbers.contains(&0) {
                return Err(ErrorKind::Argument { argument, expected: "at least 1", found: "0".into() });
            }
        }
        let groups = conv.groups;
        let channels = if inputs == 0 { shape[0] } else { shape[1].saturating_mul(groups) };
        if from[1] != channels || !shape[0].is_multiple_of(groups) {
            let reason = format!("{} channels in {groups} groups against a weight {shape}", from[1]);
            return Err(ErrorKind::Contract { left: from.clone(), right: shape.clone(), reason });
        }
        let padding = conv.padding.resolve("padding", axes)?;
        Ok(Walk { kernel, stride, padding, dilation, groups })
    }

    fn axes(&self) -> usize {
        self.kernel.len()
    }

    /// How far a kernel reaches along an axis beyond its first element.
    fn reach(&self, axis: usize) -> usize {
        self.dilation[axis].saturating_mul(self.kernel[axis] - 1)
    }
}

impl Tensor {
    /// The convolution (in the field's sense, a cross-correlation) of `[batch, channels, spatial…]` with a weight
    /// `[outputs, channels / groups, kernel…]`, for any number of spatial axes: `[batch, outputs, positions…]`, where an axis
    /// of extent `n` has `(n + 2 padding − dilation (kernel − 1) − 1) / stride + 1` positions.
    ///
    /// It is one matrix product over windows that are never written out; so are its gradients.
    #[track_caller]
    pub fn conv(&self, weight: &Tensor, conv: &Conv) -> Tensor {
        if let Some(failed) = first_failed([self, weight]) {
            return failed;
        }
        match Walk::new(self, weight, conv, 1) {
            Ok(walk) => {
                let pads: Vec<PadAxis> =
                    walk.padding.iter().map(|&pad| PadAxis { low: pad, high: pad, interior: 0 }).collect();
                let padded = self.pad_spatial(&pads);
                if padded.error().is_some() { padded } else { convolve(&padded, weight, &walk.stride, &walk) }
            }
            Err(kind) => self.fail("conv", kind),
        }
    }

    /// [`conv`](Tensor::conv) over one spatial axis: `[batch, channels, length]` and `[outputs, channels / groups, kernel]`.
    #[track_caller]
    pub fn conv1d(&self, weight: &Tensor, conv: &Conv) -> Tensor {
        self.conv_of_rank(3, weight, conv)
    }

    /// [`conv`](Tensor::conv) over two spatial axes: `[batch, channels, height, width]` and
    /// `[outputs, channels / groups, height, width]`.
    #[track_caller]
    pub fn conv2d(&self, weight: &Tensor, conv: &Conv) -> Tensor {
        self.conv_of_rank(4, weight, conv)
    }

    #[track_caller]
    fn conv_of_rank(&self, rank: usize, weight: &Tensor, conv: &Conv) -> Tensor {
        if self.error().is_none() && self.rank() != rank {
            let expected = format!("rank {rank}");
            return self.fail("conv", ErrorKind::Rank { expected, shape: self.shape().clone() });
        }
        self.conv(weight, conv)
    }

    /// The transposed convolution, which is the gradient of [`conv`](Tensor::conv) as a map of its own: from
    /// `[batch, channels, spatial…]` with a weight `[channels, outputs / groups, kernel…]` to `[batch, outputs, …]`, where an
    /// axis of `n` elements becomes `(n − 1) stride − 2 padding + dilation (kernel − 1) + output_padding + 1` long.
    ///
    /// ```
    /// # use gradus_tensor::{Conv, Device, Tensor};
    /// let device = Device::cpu();
    /// let (x, weight) = (Tensor::ones([1, 4, 7, 7], &device), Tensor::ones([4, 2, 3, 3], &device));
    /// let y = x.conv_transpose(&weight, &Conv::new().stride(2).padding(1), 1);
    /// assert_eq!(y.shape()[..], [1, 2, 14, 14]);
    /// ```
    #[track_caller]
    pub fn conv_transpose(&self, weight: &Tensor, conv: &Conv, output_padding: impl Into<Spatial>) -> Tensor {
        if let Some(failed) = first_failed([self, weight]) {
            return failed;
        }
        let output_padding = output_padding.into();
        self.transposed(weight, conv, &output_padding).unwrap_or_else(|kind| self.fail("conv_transpose", kind))
    }

    #[track_caller]
    fn transposed(&self, weight: &Tensor, conv: &Conv, output_padding: &Spatial) -> Result<Tensor, ErrorKind> {
        let walk = Walk::new(self, weight, conv, 0)?;
        let axes = walk.axes();
        let more = output_padding.resolve("output_padding", axes)?;
        // Each element stands where its windows began, and the kernel walks over them backwards.
        let (mut pads, mut cuts) = (Vec::new(), Vec::new());
        for (axis, &more) in more.iter().enumerate() {
            let (reach, padding, len) = (walk.reach(axis), walk.padding[axis], self.shape()[2 + axis]);
            let far = reach.saturating_add(more);
            // Between one element and no other there is nothing.
            let interior = if len > 1 { walk.stride[axis] - 1 } else { 0 };
            let pad = PadAxis { low: reach.saturating_sub(padding), high: far.saturating_sub(padding), interior };
            let (start, end) = (padding.saturating_sub(reach), padding.saturating_sub(far));
            let len = pad.extent(len).checked_sub(start.saturating_add(end)).filter(|&len| len > reach);
            let Some(len) = len.filter(|_| more < walk.stride[axis].max(walk.dilation[axis])) else {
                let found = format!("padding {padding} and output padding {} along spatial axis {axis}", more);
                let expected = "less padding than the output has, and less output padding than stride or dilation";
                return Err(ErrorKind::Argument { argument: "padding", expected, found });
            };
            pads.push(pad);
            cuts.push(SliceAxis { start, step: 1, len });
        }
        let padded = self.pad_spatial(&pads);
        if padded.error().is_some() {
            return Ok(padded);
        }
        let whole =
            |x: &Tensor| x.shape()[..2].iter().map(|&len| SliceAxis { start: 0, step: 1, len }).collect::<Vec<_>>();
        let cut = if cuts.iter().zip(&padded.shape()[2..]).all(|(cut, &len)| cut.len == len) {
            padded
        } else {
            let slices = whole(&padded).into_iter().chain(cuts).collect();
            Tensor::record(Op::Slice(slices), &[&padded], None)
        };
        // [channels, outputs / groups, …] to [outputs, channels / groups, …], backwards.
        let backwards = weight.shape()[2..].iter().map(|&len| SliceAxis { start: len - 1, step: -1, len });
        let slices = whole(weight).into_iter().chain(backwards).collect();
        let weight = Tensor::record(Op::Slice(slices), &[weight], None);
        let [channels, outputs] = [weight.shape()[0], weight.shape()[1]];
        let groups = walk.groups;
        let kernel = || walk.kernel.iter().copied();
        let grouped: Vec<usize> = [groups, channels / groups, outputs].into_iter().chain(kernel()).collect();
        let turned: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + axes).collect();
        let merged: Vec<usize> =
            [groups.saturating_mul(outputs), channels / groups].into_iter().chain(kernel()).collect();
        let weight = weight.reshape(grouped).permute_axes(&turned).reshape(merged);
        Ok(if weight.error().is_some() { weight } else { convolve(&cut, &weight, &vec![1; axes], &walk) })
    }
}

/// The product of all windows of `x [batch, channels, spatial…]`, which is padded, with the kernels.
#[track_caller]
fn convolve(x: &Tensor, weight: &Tensor, stride: &[usize], walk: &Walk) -> Tensor {
    let (axes, groups) = (walk.axes(), walk.groups);
    let [batch, channels, outputs] = [x.shape()[0], x.shape()[1], weight.shape()[0]];
    let after = |first: [usize; 3], rest: &[usize]| first.into_iter().chain(rest.iter().copied()).collect::<Vec<_>>();
    let grouped = x.reshape(after([batch, groups, channels / groups], &x.shape()[2..]));
    let windows = grouped.spatial_windows(&walk.kernel, stride, &walk.dilation);
    if windows.error().is_some() {
        return windows;
    }
    let positions: Vec<usize> = windows.shape()[3..3 + axes].to_vec();
    // Images and groups are batches of products of [outputs, channels · kernel] and [positions, channels · kernel].
    let order: Vec<usize> = [0, 1].into_iter().chain(3..3 + axes).chain([2]).chain(3 + axes..3 + 2 * axes).collect();
    let kernels = weight.reshape(after([groups, outputs / groups, channels / groups], &walk.kernel)).unsqueeze(0);
    if kernels.error().is_some() {
        return kernels;
    }
    let kernels = kernels.expand_to(&kernels.shape().with(0, batch));
    let op = Op::Contract { batch: 2, contracted: 1 + axes };
    let y = Tensor::record(op, &[&kernels, &windows.permute_axes(&order)], None);
    y.reshape([batch, outputs].into_iter().chain(positions).collect::<Vec<_>>())
}
