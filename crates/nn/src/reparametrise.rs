//! Weights made of others, which are trained in their place.

use crate::parameter::Form;
use crate::{Buffer, Init, Mode, Param, Walk};
use gradus_tensor::{Axes, Error, ErrorKind, Result, Tensor, no_grad};

/// Weight normalisation (Salimans, Kingma 2016): from now on the weight `[out, …]` of a layer is `g · v / ‖v‖`, row by row, and its
/// lengths `g [out, 1, …]` and directions `v [out, …]` are trained in its place. It starts as what it was. Their paths are PyTorch's:
/// `parametrizations.weight.original0` and `…original1`.
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, Module, weight_norm};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = Linear::new(3, 2, &Init::new(0, &device));
/// weight_norm(&layer.weight)?;
/// let paths: Vec<String> = layer.parameters().into_iter().map(|(path, _)| path).collect();
/// assert_eq!(paths, ["parametrizations.weight.original0", "parametrizations.weight.original1", "bias"]);
/// assert_eq!(layer.forward(&Tensor::ones([1, 3], &device)).shape()[..], [1, 2]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// # Errors
/// If the weight has no axes, carries an error, or is already made of others.
#[track_caller]
pub fn weight_norm(weight: &Param) -> Result<()> {
    let v = present("weight_norm", weight, 1)?;
    let g = norms(&v.widened()).to_dtype(v.dtype());
    let [g, v] = [g, v].map(Param::new);
    put("weight_norm", weight, WeightNorm { g, v })
}

/// Spectral normalisation (Miyato et al. 2018): from now on the weight `[out, …]` of a layer, as a matrix of `out` rows, is divided by
/// its largest singular value, so that the layer lengthens nothing. That value comes from one step of the power method at each
/// forward pass in training, and 15 steps at first. Paths are PyTorch's: `parametrizations.weight.original`, and the buffers
/// `parametrizations.weight.0._u` and `…_v`.
///
/// ```
/// use gradus_nn::{Init, Linear, Module, spectral_norm};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let init = Init::new(0, &device);
/// let layer = Linear::from_tensors(Tensor::new([[3.0, 0.0], [0.0, 1.0]], &device), None);
/// spectral_norm(&layer.weight, &init)?;
/// let weight = layer.weight.tensor().to_vec::<f32>()?;
/// assert!((weight[0] - 1.0).abs() < 1e-5 && (weight[3] - 1.0 / 3.0).abs() < 1e-5);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
///
/// # Errors
/// If the weight has fewer than two axes, carries an error, or is already made of others.
#[track_caller]
pub fn spectral_norm(weight: &Param, init: &Init) -> Result<()> {
    let original = present("spectral_norm", weight, 2)?;
    let matrix = as_matrix(&original);
    let draw = |extent: usize| unit(&Tensor::randn([extent, 1], init.rng().key(), &matrix));
    let (mut u, mut v) = (draw(matrix.shape()[0]), draw(matrix.shape()[1]));
    for _ in 0..15 {
        (u, v) = power_step(&matrix, &v);
    }
    let [u, v] = [u, v].map(|vector| Buffer::new(vector.flatten()));
    put("spectral_norm", weight, SpectralNorm { original: Param::new(original), u, v, mode: Mode::training() })
}

/// The value of a weight of so many axes at least, constant to gradients.
#[track_caller]
fn present(op: &'static str, weight: &Param, axes: usize) -> Result<Tensor> {
    let value = weight.master().detach();
    if let Some(error) = value.error() {
        return Err(error.clone());
    }
    if value.rank() < axes {
        let expected = format!("a weight of at least {axes} axes");
        return Err(Error::new(op, ErrorKind::Rank { expected, shape: value.shape().clone() }));
    }
    if weight.has_form() {
        return Err(twice(op));
    }
    Ok(value)
}

#[track_caller]
fn put(op: &'static str, weight: &Param, form: impl Form + 'static) -> Result<()> {
    if weight.is_frozen() {
        form.original().into_iter().for_each(Param::freeze);
    }
    if weight.take_form(form) { Ok(()) } else { Err(twice(op)) }
}

#[track_caller]
fn twice(op: &'static str) -> Error {
    let (expected, found) = ("a weight that is not made of others", "one that is".to_string());
    Error::new(op, ErrorKind::Argument { argument: "the weight", expected, found })
}

/// The Euclidean norm of each row `[out, 1, …]`.
#[track_caller]
fn norms(v: &Tensor) -> Tensor {
    v.square().sum_keepdim(Axes::from((1..v.rank()).collect::<Vec<_>>())).sqrt()
}

#[derive(Debug)]
struct WeightNorm {
    g: Param,
    v: Param,
}

impl Form for WeightNorm {
    fn value(&self) -> Tensor {
        let v = self.v.master();
        let wide = v.widened();
        (&wide * (self.g.master().widened() / norms(&wide))).to_dtype(v.dtype())
    }

    fn original(&self) -> Vec<&Param> {
        vec![&self.g, &self.v]
    }

    fn visit(&self, walk: &mut Walk<'_>) {
        walk.field("original0", &self.g);
        walk.field("original1", &self.v);
    }
}

#[derive(Debug)]
struct SpectralNorm {
    original: Param,
    /// The left singular vector, `[out]`.
    u: Buffer,
    /// The right one.
    v: Buffer,
    mode: Mode,
}

/// `[out, all else]`, in f32 where it is f16.
#[track_caller]
fn as_matrix(weight: &Tensor) -> Tensor {
    weight.widened().flatten_range(1, -1)
}

/// A column of length 1.
#[track_caller]
fn unit(column: &Tensor) -> Tensor {
    column / column.square().sum(..).sqrt().maximum(1e-12)
}

/// Singular vectors as columns, from the right one before.
#[track_caller]
fn power_step(matrix: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
    let u = unit(&matrix.matmul(v));
    let v = unit(&matrix.t().matmul(&u));
    (u, v)
}

impl Form for SpectralNorm {
    fn value(&self) -> Tensor {
        let weight = self.original.master();
        let matrix = as_matrix(&weight);
        let (mut u, mut v) = (self.u.tensor().unsqueeze(1), self.v.tensor().unsqueeze(1));
        if self.mode.is_training() {
            (u, v) = no_grad(|| power_step(&matrix, &v));
            for (buffer, column) in [(&self.u, &u), (&self.v, &v)] {
                if let Err(error) = buffer.update(&column.squeeze(1), column) {
                    return Tensor::build(weight.device(), || Err(error));
                }
            }
        }
        let largest = (u * matrix.matmul(&v)).sum(..);
        (weight.widened() / largest).to_dtype(weight.dtype())
    }

    fn original(&self) -> Vec<&Param> {
        vec![&self.original]
    }

    fn visit(&self, walk: &mut Walk<'_>) {
        walk.field("original", &self.original);
        walk.field("0._u", &self.u);
        walk.field("0._v", &self.v);
        walk.field("mode", &self.mode);
    }
}
