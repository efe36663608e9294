//! The tensor handle: recording, reading, and what can be asked of it.

use crate::Placement;
use crate::cell::CellTag;
use crate::debug::DEBUG;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::node::{Edges, Node, Reach, Value};
use crate::rule::GradientRule;
use crate::transform::is_symbolic_draw;
use gradus_ir::op::{Op, Type};
use gradus_ir::{Buffer, DType, Data, Element, Error as ErrorKind, Number, Shape};
use smallvec::SmallVec;
use std::cell::Cell as ThreadCell;
use std::panic::Location;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

/// An n-dimensional array: a promise of values with a shape and a dtype, on a device. Cloning is cheap and shares it.
///
/// Ops record what to compute; reading ([`to_vec`](Tensor::to_vec), [`item`](Tensor::item), [`eval`](Tensor::eval))
/// computes it. An op on unfit operands gives a tensor that carries the error: every op on it passes the error on, and
/// reading returns it. Of a tensor that carries an error, `shape()` is `[]`, `dtype()` is f32, `split` and `chunk` give
/// tensors that carry it too, and printing shows it.
///
/// ```
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let x = Tensor::new([[1.0, 2.0], [3.0, 4.0]], &device);
/// let y = x.matmul(&x.t()) + 1.0;
/// assert_eq!(y.to_vec::<f32>()?, [6.0, 12.0, 12.0, 26.0]);
///
/// let wrong = (&x + Tensor::zeros([3], &device)) * 2.0;
/// let error = wrong.to_vec::<f32>().unwrap_err();
/// assert!(error.to_string().contains("shapes [2, 2] and [3] do not broadcast"));
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub struct Tensor(Inner);

enum Inner {
    Recorded(Arc<Node>),
    Failed(Error, Device),
}

thread_local! {
    static NO_GRAD: ThreadCell<bool> = const { ThreadCell::new(false) };
    static RECORDED_AT: ThreadCell<Option<&'static Location<'static>>> = const { ThreadCell::new(None) };
}

/// Records what `body` records as if it stood on another line: the gradient of an op on that of the op.
pub(crate) fn recorded_at<R>(location: &'static Location<'static>, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<&'static Location<'static>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDED_AT.set(self.0);
        }
    }
    let _restore = Restore(RECORDED_AT.replace(Some(location)));
    body()
}

/// The line that a new node is recorded on.
#[track_caller]
pub(crate) fn here() -> &'static Location<'static> {
    RECORDED_AT.get().unwrap_or(Location::caller())
}

/// Runs `body` without recording for gradients: what it computes is constant to a later `grad`.
///
/// ```
/// use gradus_tensor::{Device, Tensor, no_grad};
/// let x = Tensor::new([1.0, 2.0], &Device::cpu());
/// let norm = no_grad(|| x.norm(..));
/// # let _ = norm;
/// ```
pub fn no_grad<R>(body: impl FnOnce() -> R) -> R {
    with_no_grad(true, body)
}

/// Runs `body` with recording for gradients turned off, or on again.
pub(crate) fn with_no_grad<R>(off: bool, body: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            NO_GRAD.set(self.0);
        }
    }
    let _restore = Restore(NO_GRAD.replace(off));
    body()
}

/// Whether a [`no_grad`] is under way.
pub(crate) fn is_no_grad() -> bool {
    NO_GRAD.get()
}

impl Tensor {
    /// Shares a new node.
    // As for `Node::new`.
    #[inline(always)]
    pub(crate) fn share(mut node: Node) -> Tensor {
        // The first handle is counted while nobody else can see the node.
        *node.held.get_mut() = 1;
        let tensor = Tensor(Inner::Recorded(Arc::new(node)));
        if let Inner::Recorded(node) = &tensor.0
            && !node.is_number()
            && !node.recorded
            && !node.symbolic
            && node.is_pending()
        {
            if node.device.register(node) {
                evaluate::run_pending(&node.device);
            }
            if DEBUG.eager
                && let Err(error) = evaluate::run(std::slice::from_ref(node), &[])
            {
                return Tensor::failed(error, &node.device);
            }
        }
        tensor
    }

    /// A handle to a node.
    pub(crate) fn of(node: Arc<Node>) -> Tensor {
        node.held.fetch_add(1, Ordering::AcqRel);
        Tensor(Inner::Recorded(node))
    }

    /// A tensor that carries an error.
    pub(crate) fn failed(error: Error, device: &Device) -> Tensor {
        Tensor(Inner::Failed(error, device.clone()))
    }

    /// A tensor of `op` that carries an error, recorded by the caller.
    #[track_caller]
    pub(crate) fn fail(&self, op: &'static str, kind: ErrorKind) -> Tensor {
        match self.error() {
            Some(first) => Tensor::failed(first.clone(), self.device()),
            None => Tensor::failed(Error::new(op, kind), self.device()),
        }
    }

    /// The node, or the error that the tensor carries.
    pub(crate) fn node(&self) -> Result<&Arc<Node>> {
        match &self.0 {
            Inner::Recorded(node) => Ok(node),
            Inner::Failed(error, _) => Err(error.clone()),
        }
    }

    /// Records an op without operands.
    #[track_caller]
    pub(crate) fn source(op: Op, number: Option<Number>, shape: Shape, dtype: DType, device: &Device) -> Tensor {
        Tensor::draw(op, number, None, Type { shape, dtype }, device)
    }

    /// Records an op without operands, whose random numbers node `drawn` may have drawn before.
    #[track_caller]
    pub(crate) fn draw(op: Op, number: Option<Number>, drawn: Option<u64>, ty: Type, device: &Device) -> Tensor {
        let location = here();
        let fail = |kind| Tensor::failed(Error::located(op.name(), kind, location), device);
        if ty.shape.checked_numel().is_none() {
            return fail(ErrorKind::TooLarge { shape: ty.shape });
        }
        if !device.backend().target().dtypes.contains(&ty.dtype) {
            return fail(no_dtype(ty.dtype, device));
        }
        let ty = match op.infer(&[], &ty) {
            Ok(ty) => ty,
            Err(kind) => return fail(kind),
        };
        let mut node = Node::new(op, Edges::new(), Value::Pending, ty, device.clone(), location);
        node.number = number;
        node.drawn = drawn.unwrap_or(node.id);
        node.symbolic = matches!(node.op, Op::Random(_)) && is_symbolic_draw(node.drawn);
        Tensor::share(node)
    }

    /// Records an op. `wanted` is as in [`Op::infer`].
    #[track_caller]
    pub(crate) fn record(op: Op, operands: &[&Tensor], wanted: Option<Type>) -> Tensor {
        Tensor::record_node(op, operands, wanted, None)
    }

    /// Records the first operand with a gradient rule over the others.
    #[track_caller]
    pub(crate) fn record_with_rule(operands: &[&Tensor], rule: Arc<dyn GradientRule>) -> Tensor {
        Tensor::record_node(Op::Barrier, operands, None, Some(rule))
    }

    #[track_caller]
    pub(crate) fn record_node(
        op: Op,
        operands: &[&Tensor],
        wanted: Option<Type>,
        rule: Option<Arc<dyn GradientRule>>,
    ) -> Tensor {
        let location = here();
        let device = operands[0].device();
        let mut edges = Edges::new();
        for operand in operands {
            match operand.node() {
                Ok(node) => edges.push(node.clone()),
                Err(error) => return Tensor::failed(error, device),
            }
        }
        let fail = |kind| Tensor::failed(Error::located(op.name(), kind, location), device);
        if let Some(other) = edges.iter().find(|e| e.device != *device) {
            return fail(ErrorKind::Devices { left: device.to_string(), right: other.device.to_string() });
        }
        let mut types: SmallVec<[&Type; 3]> = SmallVec::new();
        edges.iter().for_each(|edge| types.push(&edge.ty));
        let ty = match op.infer(&types, wanted.as_ref().unwrap_or(types[0])) {
            Ok(ty) if !device.backend().target().dtypes.contains(&ty.dtype) => {
                return fail(no_dtype(ty.dtype, device));
            }
            Ok(ty) => ty,
            Err(kind) => return fail(kind),
        };
        drop(types);
        let mut node = Node::new(op, edges, Value::Pending, ty, device.clone(), location);
        node.rule = rule;
        if NO_GRAD.get() {
            node.stops = true;
            node.first = node.id;
            node.set_reach(Reach::Nothing);
        }
        Tensor::share(node)
    }

    /// A tensor with the given values, which are on the host.
    #[track_caller]
    pub(crate) fn upload(data: Data, shape: Shape, device: &Device) -> Tensor {
        let (dtype, len) = (data.dtype(), data.len());
        Tensor::uploaded(dtype, len, shape, device, || device.backend().upload(data))
    }

    /// A tensor of bytes: pixels, tokens. They travel as bytes and become elements of the placement's dtype (f32 unless it
    /// names one) on the device.
    ///
    /// ```
    /// use gradus_tensor::{DType, Device, Tensor};
    /// let pixels = Tensor::from_bytes(&[0, 128, 255], 3, &Device::cpu());
    /// assert_eq!((pixels / 255.0).to_vec::<f32>()?[2], 1.0);
    /// let tokens = Tensor::from_bytes(b"abc", 3, (&Device::cpu(), DType::I32));
    /// assert_eq!(tokens.to_vec::<i32>()?, [97, 98, 99]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn from_bytes(bytes: &[u8], shape: impl Into<Shape>, on: impl Into<Placement>) -> Tensor {
        let Placement { device, dtype } = on.into();
        let dtype = dtype.unwrap_or(DType::F32);
        Tensor::uploaded(dtype, bytes.len(), shape.into(), &device, || device.backend().upload_bytes(bytes, dtype))
    }

    /// A tensor of a typed host array, row-major, and of its dtype: what [`to_data`](Tensor::to_data) gives.
    #[track_caller]
    pub fn from_data(data: Data, shape: impl Into<Shape>, device: &Device) -> Tensor {
        Tensor::upload(data, shape.into(), device)
    }

    #[track_caller]
    fn uploaded(
        dtype: DType,
        len: usize,
        shape: Shape,
        device: &Device,
        upload: impl FnOnce() -> Result<Buffer, ErrorKind>,
    ) -> Tensor {
        let location = Location::caller();
        let fail = |kind| Tensor::failed(Error::located("upload", kind, location), device);
        if shape.checked_numel().is_none() {
            return fail(ErrorKind::TooLarge { shape });
        }
        if shape.numel() != len {
            return fail(ErrorKind::DataLength { len, shape });
        }
        if !device.backend().target().dtypes.contains(&dtype) {
            return fail(no_dtype(dtype, device));
        }
        match upload() {
            Ok(buffer) => {
                let (ty, value) = (Type { shape, dtype }, Value::Ready(buffer));
                let node = Node::new(Op::Input(0), Edges::new(), value, ty, device.clone(), location);
                Tensor::share(node)
            }
            Err(kind) => fail(kind),
        }
    }

    /// The extents, outermost first; `[]` for a single number and for a tensor that carries an error.
    pub fn shape(&self) -> &Shape {
        static EMPTY: LazyLock<Shape> = LazyLock::new(Shape::default);
        match &self.0 {
            Inner::Recorded(node) => &node.ty.shape,
            Inner::Failed(..) => &EMPTY,
        }
    }

    /// The extents as an array, for code that computes with them.
    ///
    /// # Errors
    /// If the tensor has another rank, or carries an error.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::zeros([4, 3], &Device::cpu());
    /// let [rows, columns] = x.dims()?;
    /// assert_eq!((rows, columns), (4, 3));
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn dims<const N: usize>(&self) -> Result<[usize; N]> {
        let shape = &self.node()?.ty.shape;
        match <[usize; N]>::try_from(&shape[..]) {
            Ok(dims) => Ok(dims),
            Err(_) => Err(Error::new("dims", ErrorKind::Rank { expected: format!("rank {N}"), shape: shape.clone() })),
        }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.shape().numel()
    }

    /// The dtype; f32 for a tensor that carries an error.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            Inner::Recorded(node) => node.ty.dtype,
            Inner::Failed(..) => DType::F32,
        }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        match &self.0 {
            Inner::Recorded(node) => &node.device,
            Inner::Failed(_, device) => device,
        }
    }

    /// The error that the tensor carries, if it does.
    pub fn error(&self) -> Option<&Error> {
        match &self.0 {
            Inner::Recorded(_) => None,
            Inner::Failed(error, _) => Some(error),
        }
    }

    /// Adds the name of the module that computed this tensor to the error that it carries, if it does.
    pub fn in_module(self, name: &str) -> Tensor {
        match &self.0 {
            Inner::Recorded(_) => self,
            Inner::Failed(error, device) => Tensor::failed(error.in_module(name), device),
        }
    }

    /// The tensor that `body` computes, or one that carries its error: for code that looks at dimensions.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// fn halves(x: &Tensor) -> Tensor {
    ///     Tensor::build(x.device(), || {
    ///         let [rows, columns] = x.dims()?;
    ///         Ok(x.reshape([rows, 2, columns / 2]))
    ///     })
    /// }
    /// assert_eq!(halves(&Tensor::zeros([3, 8], &Device::cpu())).shape()[..], [3, 2, 4]);
    /// ```
    pub fn build(device: &Device, body: impl FnOnce() -> Result<Tensor>) -> Tensor {
        body().unwrap_or_else(|error| Tensor::failed(error, device))
    }

    /// Computes the value now; it is there for every later use.
    ///
    /// # Errors
    /// The error that the tensor carries, or what the device could not do.
    pub fn eval(&self) -> Result<()> {
        evaluate::run(&[self.node()?.clone()], &[])
    }

    /// The elements, row-major.
    ///
    /// # Errors
    /// If `T` is not the tensor's dtype, the tensor carries an error, or the device could not compute it.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let location = Location::caller();
        into_elements(self.to_data()?, location)
    }

    /// The elements, row-major, once the device has them.
    ///
    /// # Errors
    /// As [`to_vec`](Tensor::to_vec).
    #[track_caller]
    pub fn to_vec_async<T: Element>(&self) -> impl Future<Output = Result<Vec<T>>> + Send + use<T> {
        let location = Location::caller();
        let data = self.realised().map(|buffer| self.device().backend().download(&buffer));
        async move { into_elements(data?.await?, location) }
    }

    /// The elements as a typed host array, whatever their dtype.
    ///
    /// # Errors
    /// If the tensor carries an error, or the device could not compute it.
    pub fn to_data(&self) -> Result<Data> {
        let buffer = self.realised()?;
        Ok(self.device().backend().read(&buffer)?)
    }

    /// The tensor's array on its device, computed if it was not.
    pub(crate) fn realised(&self) -> Result<Buffer> {
        let node = self.node()?;
        evaluate::run(std::slice::from_ref(node), &[])?;
        match &node.state().value {
            Value::Ready(buffer) => Ok(buffer.clone()),
            // A leaf that an update in place has overwritten while this handle was being made.
            _ => {
                let name = node.cell.as_ref().map(CellTag::name).unwrap_or_default();
                Err(Error::located(node.op.name(), ErrorKind::ParameterUpdated { name }, node.location))
            }
        }
    }

    /// The only element.
    ///
    /// # Errors
    /// If there is not exactly one element, and as [`to_vec`](Tensor::to_vec).
    #[track_caller]
    pub fn item<T: Element>(&self) -> Result<T> {
        let shape = &self.node()?.ty.shape;
        if shape.numel() != 1 {
            let expected = "a single element".to_string();
            return Err(Error::new("item", ErrorKind::Rank { expected, shape: shape.clone() }));
        }
        Ok(self.to_vec::<T>()?[0])
    }

    /// The same values, constant to `grad`.
    #[track_caller]
    pub fn detach(&self) -> Tensor {
        no_grad(|| Tensor::record(Op::Reshape, &[self], None))
    }

    /// The same values as a leaf for `grad`: the graphs behind what depends on it are kept when they are evaluated, as
    /// they are for parameters.
    #[track_caller]
    pub fn tracked(&self) -> Tensor {
        crate::Cell::parameter(self.clone()).tensor()
    }

    /// A copy on another device (the same tensor, if it is there already). The copy is a new leaf: gradients do not flow
    /// back through it.
    #[track_caller]
    pub fn to_device(&self, device: &Device) -> Tensor {
        if self.device() == device && self.error().is_none() {
            return self.clone();
        }
        match self.to_data() {
            Ok(data) => Tensor::upload(data, self.shape().clone(), device),
            Err(error) => Tensor::failed(error, device),
        }
    }
}

/// The first of an op's operands that carries an error, for the op to pass on.
pub(crate) fn first_failed<'a>(operands: impl IntoIterator<Item = &'a Tensor>) -> Option<Tensor> {
    operands.into_iter().find(|operand| operand.error().is_some()).cloned()
}

fn no_dtype(dtype: DType, device: &Device) -> ErrorKind {
    ErrorKind::NoDType { dtype, device: device.to_string() }
}

fn into_elements<T: Element>(data: Data, location: &'static Location<'static>) -> Result<Vec<T>> {
    let found = data.dtype();
    T::take(data).ok_or_else(|| {
        let expected = T::DTYPE.name();
        Error::located("to_vec", ErrorKind::DType { expected, found }, location)
    })
}

/// Computes several tensors in one run.
///
/// # Errors
/// The first error that one of them carries, or what the device could not do.
pub fn eval<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    let nodes = tensors.into_iter().map(|t| t.node().cloned()).collect::<Result<Vec<_>>>()?;
    evaluate::run(&nodes, &[])
}

impl Clone for Tensor {
    fn clone(&self) -> Tensor {
        match &self.0 {
            Inner::Recorded(node) => Tensor::of(node.clone()),
            Inner::Failed(error, device) => Tensor::failed(error.clone(), device),
        }
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        if let Inner::Recorded(node) = &self.0 {
            node.held.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
