//! States of modules: tensors by path, in and out.

use crate::{Buffer, Module, Param, Visitor, Walk};
use gradus_tensor::{Cell, DType, Error, Shape, Tensor, assign};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How a state is loaded: by default all of it, under the paths of the module.
///
/// ```
/// use gradus_nn::{Init, Linear, Module, Relu, Sequential, StateLoader};
/// use gradus_tensor::Device;
/// let init = Init::new(0, &Device::cpu());
/// // A backbone that was saved inside of a larger model, under other names.
/// let saved = Sequential::new().then(Linear::new(4, 8, &init)).then(Relu).then(Linear::new(8, 2, &init));
/// let backbone = Linear::new(4, 8, &init);
/// let loaded = StateLoader::new().rename(|path| path.strip_prefix("0.").map(String::from)).into(&backbone, &saved.state_dict())?;
/// assert_eq!(loaded.loaded, ["weight", "bias"]);
/// # Ok::<(), gradus_nn::StateError>(())
/// ```
#[derive(Default)]
pub struct StateLoader<'a> {
    lenient: bool,
    prefix: String,
    rename: Option<Rename<'a>>,
}

/// The path for a tensor's name.
type Rename<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// What a load did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The paths that were given new values.
    pub loaded: Vec<String>,
    /// The paths that kept theirs.
    pub missing: Vec<String>,
    /// The names of tensors that belong to no path.
    pub unexpected: Vec<String>,
}

/// Why a state was not loaded; the module is then as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Tensors and paths do not fit.
    #[error("the state does not fit the module: {0}")]
    Misfits(Misfits),
    /// A tensor could not be computed or moved.
    #[error(transparent)]
    Tensor(#[from] Error),
}

/// All that does not fit between tensors and a module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Misfits {
    /// Paths that there is no tensor for.
    pub missing: Vec<String>,
    /// Names of tensors that belong to no path.
    pub unexpected: Vec<String>,
    /// Paths whose tensors have another shape: what is expected, and what was found.
    pub shapes: Vec<(String, Shape, Shape)>,
    /// Paths whose tensors have a dtype that is not converted (floats to integers, say): what is expected, and what was found.
    pub dtypes: Vec<(String, DType, DType)>,
}

impl Misfits {
    fn are_none(&self) -> bool {
        *self == Misfits::default()
    }
}

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut list = |what: &str, items: Vec<String>| {
            if !items.is_empty() {
                parts.push(format!("{what}: {}", items.join(", ")));
            }
        };
        list("missing", self.missing.clone());
        list("unexpected", self.unexpected.clone());
        let wrong = |path: &str, expected: &dyn fmt::Display, found: &dyn fmt::Display| {
            format!("{path} (expected {expected}, found {found})")
        };
        list("of another shape", self.shapes.iter().map(|(path, a, b)| wrong(path, a, b)).collect());
        list("of another dtype", self.dtypes.iter().map(|(path, a, b)| wrong(path, a, b)).collect());
        f.write_str(&parts.join("; "))
    }
}

impl<'a> StateLoader<'a> {
    /// All of it, under the paths of the module.
    pub fn new() -> StateLoader<'a> {
        StateLoader::default()
    }

    /// Paths without a tensor keep their values, and tensors that belong to no path are left out; [`Loaded`] names both. A tensor
    /// of another shape is an error all the same.
    pub fn lenient(mut self) -> StateLoader<'a> {
        self.lenient = true;
        self
    }

    /// Only tensors whose names begin so are looked at, without that beginning: `"model."`.
    pub fn prefix(mut self, prefix: &str) -> StateLoader<'a> {
        self.prefix = prefix.to_string();
        self
    }

    /// The path for a tensor's name (after the prefix); `None` leaves it out.
    pub fn rename(mut self, path_of: impl Fn(&str) -> Option<String> + 'a) -> StateLoader<'a> {
        self.rename = Some(Box::new(path_of));
        self
    }

    /// Loads tensors into a module, all at once or none.
    ///
    /// # Errors
    /// [`StateError`] names everything that does not fit.
    pub fn into(
        self,
        module: &(impl Module + ?Sized),
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Loaded, StateError> {
        self.load(&|walk: &mut Walk<'_>| module.visit(walk), tensors)
    }

    pub(crate) fn load(
        self,
        visit: &dyn Fn(&mut Walk<'_>),
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Loaded, StateError> {
        let mut cells = Cells::default();
        visit(&mut Walk::new(&mut cells));
        let mut given: BTreeMap<String, &Tensor> = BTreeMap::new();
        for (name, tensor) in tensors {
            let Some(name) = name.strip_prefix(&self.prefix) else { continue };
            match &self.rename {
                None => given.insert(name.to_string(), tensor),
                Some(path_of) => path_of(name).and_then(|path| given.insert(path, tensor)),
            };
        }
        let (mut misfits, mut loaded) = (Misfits::default(), Loaded::default());
        let mut values: Vec<(Cell, Tensor)> = Vec::new();
        for (path, cell) in &cells.0 {
            let Some(tensor) = given.remove(path) else {
                misfits.missing.push(path.clone());
                continue;
            };
            if let Some(error) = tensor.error() {
                return Err(error.clone().into());
            }
            let now = cell.tensor();
            if tensor.shape() != now.shape() {
                misfits.shapes.push((path.clone(), now.shape().clone(), tensor.shape().clone()));
            } else if now.dtype() != tensor.dtype() && now.dtype().is_float() != tensor.dtype().is_float() {
                misfits.dtypes.push((path.clone(), now.dtype(), tensor.dtype()));
            } else {
                loaded.loaded.push(path.clone());
                values.push((cell.clone(), converted(tensor, &now)));
            }
        }
        // Of tied weights, one name is enough.
        let is_set = |cell: &Cell| values.iter().any(|(other, _)| other.same(cell));
        let tied: BTreeSet<&String> = cells.0.iter().filter(|(_, cell)| is_set(cell)).map(|(path, _)| path).collect();
        misfits.missing.retain(|path| !tied.contains(path));
        misfits.unexpected = given.into_keys().collect();
        if self.lenient {
            loaded.missing = std::mem::take(&mut misfits.missing);
            loaded.unexpected = std::mem::take(&mut misfits.unexpected);
        }
        if !misfits.are_none() {
            return Err(StateError::Misfits(misfits));
        }
        assign(values)?;
        Ok(loaded)
    }
}

/// A tensor where another one is, and as what it is.
fn converted(tensor: &Tensor, like: &Tensor) -> Tensor {
    // On the device that the tensor comes from, or that it goes to: whichever has both dtypes.
    let narrow = tensor.to_dtype(like.dtype());
    match narrow.error() {
        None => narrow.to_device(like.device()),
        Some(_) => tensor.to_device(like.device()).to_dtype(like.dtype()),
    }
    .detach()
}

/// The cells of parameters and buffers by path.
#[derive(Default)]
struct Cells(Vec<(String, Cell)>);

impl Visitor for Cells {
    fn parameter(&mut self, path: &str, parameter: &Param) {
        self.0.push((path.to_string(), parameter.cell().clone()));
    }

    fn buffer(&mut self, path: &str, buffer: &Buffer) {
        self.0.push((path.to_string(), buffer.cell().clone()));
    }
}
