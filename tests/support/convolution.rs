//! Convolution and pooling of images, composed of views, products and sums.

use gradus::Tensor;

/// A convolution of images `[n, height, width, channels]` with a 3 × 3 kernel `[9, channels, out]`, as nine products.
pub(crate) fn convolution(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let (height, width) = (x.shape()[1] as isize, x.shape()[2] as isize);
    let padded = x.pad(1, 1, 1).pad(2, 1, 1);
    let mut sum = bias.broadcast_to([x.shape()[0], x.shape()[1], x.shape()[2], bias.numel()]);
    for i in 0..9isize {
        let shifted = padded.slice(1, i / 3..i / 3 + height).slice(2, i % 3..i % 3 + width);
        sum = sum + shifted.matmul(&weight.select_index(0, i));
    }
    sum
}

/// The mean of 2 × 2 pixels.
pub(crate) fn pool(x: &Tensor) -> Tensor {
    let [n, height, width, channels] = x.dims().expect("images have four axes");
    x.reshape([n, height / 2, 2, width / 2, 2, channels]).mean([2, 4])
}
