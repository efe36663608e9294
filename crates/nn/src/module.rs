//! Modules: things that hold parameters. A walk shows them, with their paths, to a visitor.

use crate::pattern::Pattern;
use crate::state::{StateError, StateLoader};
use crate::{Buffer, Mode, Param};
use gradus_tensor::{Result, Rng, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// once, under its first path; its messages use this path from now on. Frozen ones are among them.
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

    /// The parameters that are trained: those that are not [frozen](Param::freeze).
    fn trainable_parameters(&self) -> Vec<(String, Param)> {
        self.parameters().into_iter().filter(|(_, parameter)| !parameter.is_frozen()).collect()
    }

    /// The parameters whose paths match a pattern of names between dots: `*` stands for any part of a name, `?` for one
    /// character, and `**` for any number of names, also none. A pattern that begins with `*.` looks at every depth.
    ///
    /// | pattern | matches |
    /// | --- | --- |
    /// | `*.bias` | every bias |
    /// | `encoder.**` | everything in `encoder` |
    /// | `layers.*.weight` | `layers.0.weight`, but not `layers.0.norm.weight` |
    /// | `**.norm?.*` | what is in `norm1`, `norm2`, … at any depth |
    ///
    /// ```
    /// use gradus_nn::{Init, Linear, Module, Relu, Sequential};
    /// use gradus_tensor::Device;
    /// let init = Init::new(0, &Device::cpu());
    /// let net = Sequential::new().then(Linear::new(2, 3, &init)).then(Relu).then(Linear::new(3, 1, &init));
    /// let biases: Vec<String> = net.parameters_matching("*.bias").into_iter().map(|(path, _)| path).collect();
    /// assert_eq!(biases, ["0.bias", "2.bias"]);
    /// assert_eq!(net.parameters_matching("0.**").len(), 2);
    /// ```
    fn parameters_matching(&self, pattern: &str) -> Vec<(String, Param)> {
        let pattern = Pattern::new(pattern);
        self.parameters().into_iter().filter(|(path, _)| pattern.matches(path)).collect()
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

    /// The number of numbers in parameters, also in frozen ones.
    fn num_parameters(&self) -> usize {
        self.parameters().iter().map(|(_, p)| p.shape().numel()).sum()
    }

    /// Freezes all parameters; see [`Param::freeze`]. Running statistics are no parameters: [`eval`](Module::eval) of the
    /// frozen part keeps them.
    ///
    /// ```
    /// use gradus_nn::{Init, Linear, Module, Sequential};
    /// use gradus_tensor::Device;
    /// let init = Init::new(0, &Device::cpu());
    /// let (body, head) = (Linear::new(8, 4, &init), Linear::new(4, 2, &init));
    /// body.freeze();
    /// let net = Sequential::new().then(body).then(head);
    /// let trained: Vec<String> = net.trainable_parameters().into_iter().map(|(path, _)| path).collect();
    /// assert_eq!(trained, ["1.weight", "1.bias"]);
    /// ```
    fn freeze(&self) {
        self.parameters().iter().for_each(|(_, parameter)| parameter.freeze());
    }

    /// Trains all parameters again.
    fn unfreeze(&self) {
        self.parameters().iter().for_each(|(_, parameter)| parameter.unfreeze());
    }

    /// Freezes the parameters that match a [pattern](Module::parameters_matching), and says how many they are.
    ///
    /// # Errors
    /// If there are none: a misspelt pattern would train what should stay as it is.
    #[track_caller]
    fn freeze_matching(&self, pattern: &str) -> Result<usize> {
        let matching = Pattern::new(pattern).select(self.parameters())?;
        matching.iter().for_each(|(_, parameter)| parameter.freeze());
        Ok(matching.len())
    }

    /// Trains the parameters that match a [pattern](Module::parameters_matching) again, and says how many they are.
    ///
    /// # Errors
    /// If there are none.
    #[track_caller]
    fn unfreeze_matching(&self, pattern: &str) -> Result<usize> {
        let matching = Pattern::new(pattern).select(self.parameters())?;
        matching.iter().for_each(|(_, parameter)| parameter.unfreeze());
        Ok(matching.len())
    }

    /// Parameters and buffers by path: PyTorch's `state_dict`, for layers that PyTorch has. A parameter that is used in several
    /// places comes under each of its paths. These tensors are those of now; training does not change them.
    ///
    /// ```
    /// use gradus_nn::{Init, Linear, Module};
    /// use gradus_tensor::{Device, Tensor};
    /// let device = Device::cpu();
    /// let [a, b] = [1, 2].map(|seed| Linear::new(3, 2, &Init::new(seed, &device)));
    /// b.load_state_dict(&a.state_dict())?;
    /// assert_eq!(a.weight.tensor().to_vec::<f32>()?, b.weight.tensor().to_vec::<f32>()?);
    ///
    /// let mut wrong = a.state_dict();
    /// wrong.remove("bias");
    /// wrong.insert("scale".into(), Tensor::ones([2], &device));
    /// let error = b.load_state_dict(&wrong).unwrap_err().to_string();
    /// assert!(error.contains("missing: bias") && error.contains("unexpected: scale"), "{error}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn state_dict(&self) -> BTreeMap<String, Tensor> {
        struct Collect(BTreeMap<String, Tensor>);
        impl Visitor for Collect {
            fn parameter(&mut self, path: &str, parameter: &Param) {
                self.0.insert(path.to_string(), parameter.cell().tensor().detach());
            }
            fn buffer(&mut self, path: &str, buffer: &Buffer) {
                self.0.insert(path.to_string(), buffer.tensor());
            }
        }
        let mut collect = Collect(BTreeMap::new());
        self.visit(&mut Walk::new(&mut collect));
        collect.0
    }

    /// Takes parameters and buffers from tensors by path, which may lie on any device. Floats of another dtype are converted, so
    /// that a model of f16 takes the state of one of f32. [`StateLoader`] can load a part, or under other names.
    ///
    /// # Errors
    /// [`StateError`] names everything that is missing, unexpected, or of another shape; nothing is changed then.
    fn load_state_dict(&self, tensors: &BTreeMap<String, Tensor>) -> Result<(), StateError> {
        StateLoader::new().load(&|walk: &mut Walk<'_>| self.visit(walk), tensors).map(|_| ())
    }

    /// Which object this is, for what watches layers at work, such as a [`Summary`](crate::Summary).
    fn identity(&self) -> Identity {
        let address = (self as *const Self).cast::<()>().addr();
        Identity { address, type_name: std::any::type_name::<Self>() }
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

/// An object by its place in memory and its type: two layers of no size may share a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    address: usize,
    /// The type's full name.
    pub type_name: &'static str,
}

/// What a walk shows; implement what is wanted.
pub trait Visitor {
    /// A part and its path, before what is in it.
    fn part(&mut self, _path: &str, _part: Identity) {}
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
    pub(crate) path: String,
    pub(crate) visitor: &'a mut dyn Visitor,
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
        self.visitor.part(&self.path, part.identity());
        part.visit(self);
        self.path.truncate(before);
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

    fn identity(&self) -> Identity {
        match self {
            Some(part) => part.identity(),
            None => Identity { address: 0, type_name: "" },
        }
    }
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        (**self).visit(walk);
    }

    fn identity(&self) -> Identity {
        (**self).identity()
    }
}

impl<M: Module + ?Sized> Module for Arc<M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        (**self).visit(walk);
    }

    fn identity(&self) -> Identity {
        (**self).identity()
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
