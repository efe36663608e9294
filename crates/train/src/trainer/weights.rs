//! The tensors of a model as a file.

use super::TrainError;
use gradus_data::{FloatStorage, Safetensors};
use gradus_nn::Module;
use gradus_tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// Saves a model's parameters and buffers under their paths, which are PyTorch's names, as a safetensors file. The path
/// holds what it held before, or all of the new file.
///
/// ```
/// use gradus_nn::{Init, Linear};
/// use gradus_tensor::Device;
/// use gradus_train::{load_weights, save_weights};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.safetensors");
/// let device = Device::cpu();
/// let model = Linear::new(2, 3, &Init::new(1, &device));
/// save_weights(&model, &path)?;
/// let other = Linear::new(2, 3, &Init::new(2, &device));
/// load_weights(&other, &path)?;
/// assert_eq!(model.weight.tensor().to_vec::<f32>()?, other.weight.tensor().to_vec::<f32>()?);
///
/// let error = load_weights(&Linear::without_bias(4, 3, &Init::new(3, &device)), &path).unwrap_err().to_string();
/// assert!(error.ends_with("unexpected: bias; of another shape: weight (expected [3, 4], found [3, 2])"), "{error}");
/// # Ok::<(), gradus_train::TrainError>(())
/// ```
///
/// # Errors
/// If a tensor cannot be read from its device, or the file cannot be written.
pub fn save_weights(model: &dyn Module, path: impl AsRef<Path>) -> Result<(), TrainError> {
    save_tensors(model.state_dict(), path.as_ref())
}

/// Gives a model the parameters and buffers of a safetensors file. [`StateLoader`](gradus_nn::StateLoader) loads a part, or
/// under other names.
///
/// # Errors
/// If the file cannot be read, or does not fit: the error lists everything that is missing, unexpected, or of another
/// shape or dtype. The model is then as it was.
pub fn load_weights(model: &dyn Module, path: impl AsRef<Path>) -> Result<(), TrainError> {
    let path = path.as_ref();
    let tensors = read_tensors(model, path)?;
    model.load_state_dict(&tensors).map_err(|source| TrainError::Misfit { path: path.to_path_buf(), source })
}

/// Saves tensors by name.
pub(super) fn save_tensors(tensors: BTreeMap<String, Tensor>, path: &Path) -> Result<(), TrainError> {
    let file = Safetensors { tensors, ..Safetensors::default() };
    Ok(file.write(path, FloatStorage::AsTheyAre)?)
}

/// The tensors of a file, on the device of a model. A model without parameters needs none.
pub(super) fn read_tensors(model: &dyn Module, path: &Path) -> Result<BTreeMap<String, Tensor>, TrainError> {
    match model.state_dict().values().next() {
        Some(tensor) => Ok(Safetensors::read(path, tensor.device())?.tensors),
        None => Ok(BTreeMap::new()),
    }
}
