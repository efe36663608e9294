//! Layers at work while a profile is made: what they record is noted to be theirs, by their paths.

use crate::Module;
use crate::module::Identity;
use crate::parts::{Parts, Turns};
use crate::summary::short_name;
use gradus_tensor::graph::Scope;
use std::cell::RefCell;

thread_local! {
    /// The outermost layer at work in this thread.
    static OUTERMOST: RefCell<Option<Outermost>> = const { RefCell::new(None) };
}

/// A model, or a part of one whose forward pass is called by itself.
struct Outermost {
    parts: Parts,
    turns: Turns,
    /// Its path in the whole model, as far as that is known; else its type, in brackets.
    path: String,
    is_known: bool,
}

impl Outermost {
    fn of(layer: &(impl Module + ?Sized)) -> Outermost {
        let parts = Parts::of(layer);
        // `Module::parameters`, which optimisers call, has named parameters by their paths in the whole model.
        let prefix = parts.parameters.iter().find_map(|(path, parameter)| {
            let name = parameter.cell().name();
            Some(name.strip_suffix(path)?.strip_suffix('.')?.to_string())
        });
        let is_known = prefix.is_some();
        let path = prefix.unwrap_or_else(|| format!("({})", short_name(layer.identity().type_name)));
        Outermost { parts, turns: Turns::default(), path, is_known }
    }

    /// The path of a layer; `None` if the walk does not show it, so that it is the affair of the layer that made it.
    fn path_of(&mut self, layer: Identity) -> Option<String> {
        let place = self.parts.place_of(layer, &mut self.turns)?;
        let (below, _) = &self.parts.paths[place];
        Some(match (&below[..], self.is_known) {
            ("", _) => self.path.clone(),
            (below, true) => format!("{}.{below}", self.path),
            (below, false) => below.to_string(),
        })
    }
}

/// A forward pass: until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    is_outermost: bool,
    _scope: Option<Scope>,
}

impl Pass {
    pub(crate) fn begin(layer: &(impl Module + ?Sized)) -> Pass {
        let is_outermost = OUTERMOST.with_borrow(Option::is_none);
        if is_outermost {
            let outermost = Outermost::of(layer);
            OUTERMOST.set(Some(outermost));
        }
        let path = OUTERMOST.with_borrow_mut(|outermost| outermost.as_mut()?.path_of(layer.identity()));
        Pass { is_outermost, _scope: path.map(|path| Scope::begin(&path)) }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_outermost {
            OUTERMOST.set(None);
        }
    }
}
