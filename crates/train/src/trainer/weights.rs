//! The tensors of a model as a file.

use super::TrainError;
use gradus_data::{FloatStorage, Safetensors};
use gradus_nn::Module;
use gradus_tensor::{Cell, Tensor, assign};
use std::path::Path;

/// The cells of a model's parameters and buffers, by path.
fn cells(model: &dyn Module) -> Vec<(String, Cell)> {
    let parameters = model.parameters().into_iter().map(|(path, parameter)| (path, parameter.cell().clone()));
    let buffers = model.buffers().into_iter().map(|(path, buffer)| (path, buffer.cell().clone()));
    parameters.chain(buffers).collect()
}

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
/// assert!(error.ends_with("`bias` is in the file only; `weight` is [3, 2] in the file, [3, 4] in the model"), "{error}");
/// # Ok::<(), gradus_train::TrainError>(())
/// ```
///
/// # Errors
/// If a tensor cannot be read from its device, or the file cannot be written.
pub fn save_weights(model: &dyn Module, path: impl AsRef<Path>) -> Result<(), TrainError> {
    save(cells(model).into_iter().map(|(name, cell)| (name, cell.tensor())), path.as_ref())
}

/// Gives a model the parameters and buffers of a safetensors file. Floats are converted to the dtypes of the model.
///
/// # Errors
/// If the file cannot be read, or does not fit: the error lists everything that is missing, unexpected, or of another
/// shape or dtype. The model is then as it was.
pub fn load_weights(model: &dyn Module, path: impl AsRef<Path>) -> Result<(), TrainError> {
    load(&cells(model), path.as_ref())
}

/// Saves tensors by name.
pub(super) fn save(tensors: impl Iterator<Item = (String, Tensor)>, path: &Path) -> Result<(), TrainError> {
    let file = Safetensors { tensors: tensors.collect(), ..Safetensors::default() };
    Ok(file.write(path, FloatStorage::AsTheyAre)?)
}

/// Gives cells the tensors of a file, all or none.
pub(super) fn load(cells: &[(String, Cell)], path: &Path) -> Result<(), TrainError> {
    let Some((_, first)) = cells.first() else { return Ok(()) };
    let mut file = Safetensors::read(path, first.tensor().device())?;
    let (mut problems, mut values) = (Vec::new(), Vec::with_capacity(cells.len()));
    for (name, cell) in cells {
        let own = cell.tensor();
        let Some(tensor) = file.tensors.remove(name) else {
            problems.push(format!("`{name}` is in the model only"));
            continue;
        };
        let converts = tensor.dtype() == own.dtype() || tensor.dtype().is_float() && own.dtype().is_float();
        if tensor.shape() != own.shape() {
            problems.push(format!("`{name}` is {} in the file, {} in the model", tensor.shape(), own.shape()));
        } else if !converts {
            problems.push(format!("`{name}` is {} in the file, {} in the model", tensor.dtype(), own.dtype()));
        } else {
            values.push((cell.clone(), tensor.to_dtype(own.dtype()).to_device(own.device())));
        }
    }
    problems.extend(file.tensors.keys().map(|name| format!("`{name}` is in the file only")));
    problems.sort();
    if !problems.is_empty() {
        return Err(TrainError::Misfit { path: path.to_path_buf(), problems });
    }
    Ok(assign(values)?)
}

/// Gives a model's parameters and buffers, by path.
pub(super) fn tensors(model: &dyn Module) -> impl Iterator<Item = (String, Tensor)> {
    cells(model).into_iter().map(|(name, cell)| (name, cell.tensor()))
}
