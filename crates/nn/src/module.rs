//! Modules: things that hold parameters. A walk shows them, with their paths, to a visitor.

use gradus_tensor::{Cell, Operand, Result, Rng, Shape, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that holds parameters, by itself or in parts. Derive it: the derive shows every field to the walk.
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, Module};
/// use gradus_tensor::{Device, Tensor};
///
/// #[derive(Module)]
/// struct Net {
///     hidden: Linear,
///     output: Linear,
/// }
///
/// impl Layer for Net {
///     fn forward(&self, x: &Tensor) -> Tensor {
///         self.output.forward(&self.hidden.forward(x).relu())
///     }
/// }
///
/// let init = Init::new(1, &Device::cpu());
/// let net = Net { hidden: Linear::new(2, 16, &init), output: Linear::new(16, 1, &init) };
/// let paths: Vec<String> = net.parameters().into_iter().map(|(path, _)| path).collect();
/// assert_eq!(paths, ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]);
/// assert_eq!(net.num_parameters(), 2 * 16 + 16 + 16 + 1);
/// ```
pub trait Module {
    /// Shows every part to the walk.
    fn visit(&self, walk: &mut Walk<'_>);

    /// The parameters with their paths, in the order of their fields. A parameter that is used in several places comes
    /// once, under its first path; its messages use this path from now on.
    fn parameters(&self) -> Vec<(String, Param)> {
        #[derive(Default)]
        struct Collect(Vec<(String, Param)>);
        impl Visitor for Collect {
            fn parameter(&mut self, path: &str, parameter: &Param) {
                if !self.0.iter().any(|(_, p)| p.cell().same(parameter.cell())) {
                    parameter.cell().set_name(path);
                    self.0.push((path.to_string(), parameter.clone()));
                }
            }
        }
        let mut collect = Collect::default();
        self.visit(&mut Walk::new(&mut collect));
        collect.0
    }

    /// The buffers (state that is not trained) with their paths.
    fn buffers(&self) -> Vec<(String, Buffer)> {
        #[derive(Default)]
        struct Collect(Vec<(String, Buffer)>);
        impl Visitor for Collect {
            fn buffer(&mut self, path: &str, buffer: &Buffer) {
                self.0.push((path.to_string(), buffer.clone()));
            }
        }
        let mut collect = Collect::default();
        self.visit(&mut Walk::new(&mut collect));
        collect.0
    }

    /// The number of trained numbers.
    fn num_parameters(&self) -> usize {
        self.parameters().iter().map(|(_, p)| p.shape().numel()).sum()
    }

    /// From now on layers behave as in training: dropout drops.
    fn train(&self) {
        set_mode(&|walk| self.visit(walk), true);
    }

    /// From now on layers behave as in use: dropout passes everything.
    fn eval(&self) {
        set_mode(&|walk| self.visit(walk), false);
    }
}

fn set_mode(visit: &dyn Fn(&mut Walk<'_>), training: bool) {
    struct Set(bool);
    impl Visitor for Set {
        fn mode(&mut self, mode: &Mode) {
            mode.set_training(self.0);
        }
    }
    visit(&mut Walk::new(&mut Set(training)));
}

/// What a walk shows; implement what is wanted.
pub trait Visitor {
    /// A parameter and its path.
    fn parameter(&mut self, _path: &str, _parameter: &Param) {}
    /// A buffer and its path.
    fn buffer(&mut self, _path: &str, _buffer: &Buffer) {}
    /// A source of random keys and its path.
    fn rng(&mut self, _path: &str, _rng: &Rng) {}
    /// The mode of a layer that differs in training.
    fn mode(&mut self, _mode: &Mode) {}
}

/// A walk through the parts of a module; it knows the path so far.
pub struct Walk<'a> {
    path: String,
    visitor: &'a mut dyn Visitor,
}

impl<'a> Walk<'a> {
    /// A walk that shows what it meets to `visitor`.
    pub fn new(visitor: &'a mut dyn Visitor) -> Walk<'a> {
        Walk { path: String::new(), visitor }
    }

    /// Walks through a part under its name.
    pub fn field(&mut self, name: &str, part: &dyn Module) {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        part.visit(self);
        self.path.truncate(before);
    }
}

/// A trained tensor. Cloning shares it, which ties weights.
#[derive(Clone, Debug)]
pub struct Param(Cell);

impl Param {
    /// A parameter with an initial value.
    #[track_caller]
    pub fn new(tensor: Tensor) -> Param {
        Param(Cell::parameter(tensor))
    }

    /// The present value.
    pub fn tensor(&self) -> Tensor {
        self.0.tensor()
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.0.shape()
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// If shape, dtype or device differ.
    #[track_caller]
    pub fn set(&self, tensor: Tensor) -> Result<()> {
        self.0.set(tensor)
    }

    /// The cell behind it.
    pub fn cell(&self) -> &Cell {
        &self.0
    }
}

impl From<&Param> for Operand {
    fn from(parameter: &Param) -> Operand {
        Operand::Tensor(parameter.tensor())
    }
}

impl Module for Param {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.visitor.parameter(&walk.path, self);
    }
}

/// A tensor that belongs to a module's state but is not trained, such as running statistics.
#[derive(Clone, Debug)]
pub struct Buffer(Cell);

impl Buffer {
    /// A buffer with an initial value.
    #[track_caller]
    pub fn new(tensor: Tensor) -> Buffer {
        Buffer(Cell::buffer(tensor))
    }

    /// The present value.
    pub fn tensor(&self) -> Tensor {
        self.0.tensor()
    }

    /// The cell behind it.
    pub fn cell(&self) -> &Cell {
        &self.0
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

impl Module for Rng {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.visitor.rng(&walk.path, self);
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        for (i, part) in self.iter().enumerate() {
            walk.field(&i.to_string(), part);
        }
    }
}

impl<M: Module, const N: usize> Module for [M; N] {
    fn visit(&self, walk: &mut Walk<'_>) {
        for (i, part) in self.iter().enumerate() {
            walk.field(&i.to_string(), part);
        }
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        if let Some(part) = self {
            part.visit(walk);
        }
    }
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        (**self).visit(walk);
    }
}

impl<M: Module + ?Sized> Module for Arc<M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        (**self).visit(walk);
    }
}

/// Plain data holds no parameters.
macro_rules! plain {
    ($($t:ty)*) => {
        $(impl Module for $t {
            fn visit(&self, _walk: &mut Walk<'_>) {}
        })*
    };
}
plain!(bool f32 f64 usize u32 u64 i32 i64 String);
