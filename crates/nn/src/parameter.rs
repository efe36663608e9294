//! What modules are made of: parameters, buffers, and the mode.

use crate::{Module, Walk, cast_input};
use gradus_tensor::{Cell, Error, Operand, Result, Shape, Tensor};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// A trained tensor. Cloning shares it, which ties weights.
#[derive(Clone, Debug)]
pub struct Param {
    cell: Cell,
    frozen: Arc<AtomicBool>,
    form: Arc<OnceLock<Box<dyn Form>>>,
}

/// How a parameter's value is made of others, which are trained in its place.
pub(crate) trait Form: Send + Sync + fmt::Debug {
    /// The value now.
    fn value(&self) -> Tensor;
    /// What is trained.
    fn original(&self) -> Vec<&Param>;
    /// Shows what it is made of.
    fn visit(&self, walk: &mut Walk<'_>);
}

impl Param {
    /// A parameter with an initial value.
    #[track_caller]
    pub fn new(tensor: Tensor) -> Param {
        Param { cell: Cell::parameter(tensor), frozen: Arc::default(), form: Arc::default() }
    }

    /// From now on the value is made of others; says whether it was not so before.
    pub(crate) fn take_form(&self, form: impl Form + 'static) -> bool {
        self.form.set(Box::new(form)).is_ok()
    }

    /// Whether the value is made of others.
    pub(crate) fn has_form(&self) -> bool {
        self.form.get().is_some()
    }

    /// The present value, as layers compute with it: in an [`autocast`](crate::autocast) as f16 where it is f32. It is constant
    /// to gradients if the parameter is frozen.
    #[track_caller]
    pub fn tensor(&self) -> Tensor {
        cast_input(&self.master())
    }

    /// The present value as it is kept, also in an [`autocast`](crate::autocast): for what is computed in f32 there.
    #[track_caller]
    pub fn master(&self) -> Tensor {
        if let Some(form) = self.form.get() {
            return form.value();
        }
        let tensor = self.cell.tensor();
        if self.is_frozen() { tensor.detach() } else { tensor }
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.cell.shape()
    }

    /// From now on the parameter is constant: no gradient is computed for it, nor for what leads to nothing else that is trained,
    /// and it is not among the [trainable](Module::trainable_parameters) ones. An optimiser trains what was trainable when it
    /// was made, so freeze before that.
    ///
    /// ```
    /// use gradus_nn::{Init, Layer, Linear, Module};
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = Linear::new(2, 1, &Init::new(0, &device));
    /// layer.bias.as_ref().unwrap().freeze();
    /// assert_eq!(layer.trainable_parameters().len(), 1);
    /// ```
    pub fn freeze(&self) {
        self.set_frozen(true);
    }

    fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
        if let Some(form) = self.form.get() {
            form.original().into_iter().for_each(|original| original.set_frozen(frozen));
        }
    }

    /// Trains the parameter again.
    pub fn unfreeze(&self) {
        self.set_frozen(false);
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Replaces the value (of a parameter that is made of others, what it was before).
    ///
    /// # Errors
    /// If shape, dtype or device differ.
    #[track_caller]
    pub fn set(&self, tensor: Tensor) -> Result<()> {
        self.cell.set(tensor)
    }

    /// The cell behind it.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }
}

impl From<&Param> for Operand {
    fn from(parameter: &Param) -> Operand {
        Operand::Tensor(parameter.tensor())
    }
}

impl Module for Param {
    fn visit(&self, walk: &mut Walk<'_>) {
        let Some(form) = self.form.get() else {
            return walk.visitor.parameter(&walk.path, self);
        };
        // PyTorch's path for what `layer.weight` is made of: `layer.parametrizations.weight`.
        let (layer, name) = walk.path.rsplit_once('.').unwrap_or(("", &walk.path));
        let dot = if layer.is_empty() { "" } else { "." };
        let path = format!("{layer}{dot}parametrizations.{name}");
        let before = std::mem::replace(&mut walk.path, path);
        form.visit(walk);
        walk.path = before;
    }
}

/// A tensor that belongs to a module's state but is not trained, such as running statistics.
#[derive(Clone, Debug)]
pub struct Buffer {
    cell: Cell,
    /// What the value that waits to be computed was made of.
    seen: Arc<Mutex<Option<Tensor>>>,
    updates: Arc<AtomicUsize>,
}

/// After so many updates a buffer is computed, if nothing else did so: each update may hold a batch. The first time it is what
/// it starts from; computed by itself, that makes the plan of the first step the one of all later ones.
const MOST_UPDATES: usize = 16;

impl Buffer {
    /// A buffer with an initial value.
    #[track_caller]
    pub fn new(tensor: Tensor) -> Buffer {
        Buffer { cell: Cell::buffer(tensor), seen: Arc::default(), updates: Arc::default() }
    }

    /// The present value.
    pub fn tensor(&self) -> Tensor {
        self.cell.tensor()
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.cell.shape()
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// If shape, dtype or device differ.
    #[track_caller]
    pub fn set(&self, tensor: Tensor) -> Result<()> {
        self.cell.set(tensor)
    }

    /// Replaces the value from inside of a forward pass, by one that depends on the batch through `seen` (such as its mean): it
    /// is computed with the next step of an optimiser, in the same run, or when it is read. Gradients do not flow through it.
    ///
    /// # Errors
    /// If shape, dtype or device differ; in a compiled function, which can assign nothing; and inside of `vmap`, where there is
    /// no value to keep.
    #[track_caller]
    pub fn update(&self, value: &Tensor, seen: &Tensor) -> Result<(), Error> {
        let before = self.cell.tensor();
        self.cell.set_lazily(value.detach())?;
        if self.updates.fetch_add(1, Ordering::Relaxed).is_multiple_of(MOST_UPDATES) {
            before.eval()?;
        }
        // What is held is kept when the loss is computed, so that the update need not compute it again.
        *self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(seen.clone());
        Ok(())
    }

    /// The cell behind it.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }
}

impl Module for Buffer {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.visitor.buffer(&walk.path, self);
    }
}

/// Whether a layer behaves as in training or as in use. It starts in training.
#[derive(Clone, Debug)]
pub struct Mode(Arc<AtomicBool>);

impl Mode {
    /// The mode of training.
    pub fn training() -> Mode {
        Mode(Arc::new(AtomicBool::new(true)))
    }

    /// Whether the layer behaves as in training.
    pub fn is_training(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it; [`Module::train`] and [`Module::eval`] do so for a whole model.
    pub fn set_training(&self, training: bool) {
        self.0.store(training, Ordering::Relaxed);
    }
}

impl Module for Mode {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.visitor.mode(self);
    }
}
