//! Vectors for numbered things.

use crate::{Init, Initializer, Layer, Module, Param, watch};
use gradus_tensor::Tensor;

/// A vector for each of so many things: `x [...]` of integers, `weight [things, width]`, `y [..., width]`. An index out of range
/// is an error of the run.
///
/// Vectors start normal with deviation 1, as in PyTorch.
///
/// ```
/// use gradus_nn::{Embedding, Init, Layer};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = Embedding::new(65, 16, &Init::new(0, &device));
/// assert_eq!(layer.forward(&Tensor::new([[3, 64], [0, 3]], &device)).shape()[..], [2, 2, 16]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct Embedding {
    /// `[things, width]`.
    pub weight: Param,
    padding: Option<usize>,
}

impl Embedding {
    /// A layer for so many things.
    #[track_caller]
    pub fn new(things: usize, width: usize, init: &Init) -> Embedding {
        Embedding::from_tensor(init.tensor([things, width], Initializer::Normal { mean: 0.0, std: 1.0 }))
    }

    /// A layer from its vectors.
    #[track_caller]
    pub fn from_tensor(weight: Tensor) -> Embedding {
        Embedding { weight: Param::new(weight), padding: None }
    }

    /// A layer whose vector of one index, which fills up sequences, is 0 at first and never trained.
    ///
    /// ```
    /// use gradus_nn::{Embedding, Init, Layer};
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = Embedding::with_padding(5, 2, 1, &Init::new(0, &device));
    /// assert_eq!(layer.forward(&Tensor::new([1], &device)).to_vec::<f32>()?, [0.0, 0.0]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn with_padding(things: usize, width: usize, padding: usize, init: &Init) -> Embedding {
        let weight = init.tensor([things, width], Initializer::Normal { mean: 0.0, std: 1.0 });
        let is_padding = Tensor::arange(things, init.device()).eq(padding).unsqueeze(1);
        Embedding { padding: Some(padding), ..Embedding::from_tensor(is_padding.where_(0.0, weight)) }
    }

    /// The index that fills up sequences, if there is one.
    pub fn padding(&self) -> Option<usize> {
        self.padding
    }
}

impl Layer for Embedding {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let call = watch(self);
        let weight = self.weight.tensor();
        let y = Tensor::build(x.device(), || {
            let [_, width] = weight.dims()?;
            let rows = weight.index_select(0, &x.flatten());
            let rows = match self.padding {
                // No gradient reaches the vector of padding.
                Some(padding) => x.flatten().ne(padding).unsqueeze(1).where_(&rows, rows.detach()),
                None => rows,
            };
            Ok(rows.reshape(x.shape().with_inserted(x.rank(), width)))
        });
        call.output(y)
    }
}
