//! Watching layers at work: which one computed what, for a [`Summary`](crate::Summary) or a profile.
//!
//! A layer's forward pass begins with [`watch`] and ends with [`Watched::output`]. While nobody watches, that is a look at a
//! variable of the thread and at one of the process. What a layer did is then read off the recorded graph: nodes have ascending numbers, so those of a
//! forward pass lie between two of them.

use crate::Module;
use crate::module::Identity;
use crate::profiled::Pass;
use gradus_tensor::Tensor;
use gradus_tensor::graph::{is_profiled, next_id};
use std::cell::{Cell, RefCell};

/// One forward pass of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) layer: Identity,
    /// The ids of the nodes that it recorded: from `since` to before `until`.
    pub(crate) since: u64,
    pub(crate) until: u64,
    pub(crate) output: Option<Tensor>,
}

thread_local! {
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

/// Begins a layer's forward pass. Layers of your own appear in a summary with what they give, and in a
/// [profile](gradus_tensor::Device::profile) with their time, if they do so too:
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, Module, summary, watch};
/// use gradus_tensor::{Device, Tensor};
///
/// #[derive(Module)]
/// struct Gated {
///     value: Linear,
///     gate: Linear,
/// }
///
/// impl Layer for Gated {
///     fn forward(&self, x: &Tensor) -> Tensor {
///         watch(self).output(self.value.forward(x) * self.gate.forward(x).sigmoid())
///     }
/// }
///
/// let init = Init::new(0, &Device::cpu());
/// let model = Gated { value: Linear::new(8, 4, &init), gate: Linear::new(8, 4, &init) };
/// assert_eq!(summary(&model, [1, 8])?.multiply_adds, 2 * 8 * 4);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub fn watch(layer: &(impl Module + ?Sized)) -> Watched {
    let pass = if is_profiled() { Some(Pass::begin(layer)) } else { None };
    if !IS_WATCHED.get() {
        return Watched { call: None, _pass: pass };
    }
    let call = Call { layer: layer.identity(), since: next_id(), until: u64::MAX, output: None };
    let place = CALLS.with_borrow_mut(|calls| {
        calls.push(call);
        calls.len() - 1
    });
    Watched { call: Some(place), _pass: pass }
}

/// A forward pass that [`watch`] began. It ends with its output, or when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Watched {
    call: Option<usize>,
    _pass: Option<Pass>,
}

impl Watched {
    /// Ends it with its output, which is given back.
    pub fn output(self, y: Tensor) -> Tensor {
        if let Some(place) = self.call
            && y.error().is_none()
        {
            CALLS.with_borrow_mut(|calls| {
                if let Some(call) = calls.get_mut(place) {
                    call.output = Some(y.clone());
                }
            });
        }
        y
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(place) = self.call {
            CALLS.with_borrow_mut(|calls| {
                if let Some(call) = calls.get_mut(place) {
                    call.until = next_id();
                }
            });
        }
    }
}

/// What `body` gives, and the forward passes in it, in the order in which they began. Those within another watched body belong to it
/// alone.
pub(crate) fn watched<R>(body: impl FnOnce() -> R) -> (R, Vec<Call>) {
    struct Restore(bool, Vec<Call>);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_WATCHED.set(self.0);
            CALLS.replace(std::mem::take(&mut self.1));
        }
    }
    let restore = Restore(IS_WATCHED.replace(true), CALLS.take());
    let result = body();
    let calls = CALLS.take();
    drop(restore);
    (result, calls)
}
