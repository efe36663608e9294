//! What a transformed function gives.

use gradus_tensor::{Result, Tensor};

/// What a function that is given to [`vmap`](crate::vmap) or [`checkpoint`](crate::checkpoint) may give: a tensor; an
/// array, a vector or a tuple of outputs; or a `Result` of them.
///
/// ```
/// use gradus_autograd::Outputs;
/// use gradus_tensor::{Device, Result, Tensor};
/// let x = Tensor::new([1.0, 2.0], &Device::cpu());
/// let outputs: Result<(Tensor, Vec<Tensor>)> = Ok((x.clone(), vec![x]));
/// let (first, others) = outputs.map_tensors(&mut |x| x * 2.0).checked()?;
/// assert_eq!(first.to_vec::<f32>()?, others[0].to_vec::<f32>()?);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub trait Outputs: Sized {
    /// The outputs without `Result`s.
    type Checked: Outputs<Checked = Self::Checked>;

    /// The outputs with every tensor replaced, in order.
    fn map_tensors(self, replace: &mut dyn FnMut(Tensor) -> Tensor) -> Self;

    /// The outputs, if there is no error among them.
    ///
    /// # Errors
    /// The first one.
    fn checked(self) -> Result<Self::Checked>;
}

impl Outputs for Tensor {
    type Checked = Tensor;

    fn map_tensors(self, replace: &mut dyn FnMut(Tensor) -> Tensor) -> Tensor {
        replace(self)
    }

    fn checked(self) -> Result<Tensor> {
        match self.error() {
            Some(error) => Err(error.clone()),
            None => Ok(self),
        }
    }
}

impl<T: Outputs> Outputs for Result<T> {
    type Checked = T::Checked;

    fn map_tensors(self, replace: &mut dyn FnMut(Tensor) -> Tensor) -> Result<T> {
        self.map(|outputs| outputs.map_tensors(replace))
    }

    fn checked(self) -> Result<T::Checked> {
        self?.checked()
    }
}

impl<T: Outputs> Outputs for Vec<T> {
    type Checked = Vec<T::Checked>;

    fn map_tensors(self, replace: &mut dyn FnMut(Tensor) -> Tensor) -> Vec<T> {
        self.into_iter().map(|outputs| outputs.map_tensors(replace)).collect()
    }

    fn checked(self) -> Result<Vec<T::Checked>> {
        self.into_iter().map(T::checked).collect()
    }
}

impl<T: Outputs, const N: usize> Outputs for [T; N] {
    type Checked = [T::Checked; N];

    fn map_tensors(self, replace: &mut dyn FnMut(Tensor) -> Tensor) -> [T; N] {
        self.map(|outputs| outputs.map_tensors(replace))
    }

    fn checked(self) -> Result<[T::Checked; N]> {
        let mut error = None;
        let checked = self.map(|outputs| outputs.checked().map_err(|e| error.get_or_insert(e).clone()).ok());
        match error {
            Some(error) => Err(error),
            None => Ok(checked.map(|outputs| outputs.expect("there was no error"))),
        }
    }
}

macro_rules! tuples {
    ($($($T:ident $x:ident),+;)*) => {
        $(impl<$($T: Outputs),+> Outputs for ($($T,)+) {
            type Checked = ($($T::Checked,)+);

            fn map_tensors(self, replace: &mut dyn FnMut(Tensor) -> Tensor) -> ($($T,)+) {
                let ($($x,)+) = self;
                ($($x.map_tensors(replace),)+)
            }

            fn checked(self) -> Result<($($T::Checked,)+)> {
                let ($($x,)+) = self;
                Ok(($($x.checked()?,)+))
            }
        })*
    };
}
tuples! {
    A a, B b;
    A a, B b, C c;
    A a, B b, C c, D d;
}
