//! The parts of a model, and which of them forward passes belong to.

use crate::module::Identity;
use crate::watch::{Call, watched};
use crate::{Mode, Module, Param, Visitor, Walk};
use std::collections::HashMap;

/// How many forward passes of a layer there were.
pub(crate) type Turns = HashMap<Identity, usize>;

/// The parts of a model.
#[derive(Default)]
pub(crate) struct Parts {
    /// Paths and types, in the order of a walk; the model itself is the first.
    pub(crate) paths: Vec<(String, &'static str)>,
    /// The places of an object in this list: several, if it is shared, or of no size.
    places: HashMap<Identity, Vec<usize>>,
    /// With the paths of all places where they are used.
    pub(crate) parameters: Vec<(String, Param)>,
    modes: Vec<Mode>,
}

impl Parts {
    pub(crate) fn of(model: &(impl Module + ?Sized)) -> Parts {
        let mut parts = Parts::default();
        parts.part("", model.identity());
        model.visit(&mut Walk::new(&mut parts));
        parts
    }

    /// What `body` gives and the forward passes in it, with all parts behaving as in use; then they behave as before.
    pub(crate) fn watched_in_use<R>(&self, body: impl FnOnce() -> R) -> (R, Vec<Call>) {
        struct Restore<'a>(&'a [Mode], Vec<bool>);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.iter().zip(&self.1).for_each(|(mode, &training)| mode.set_training(training));
            }
        }
        let _restore = Restore(&self.modes, self.modes.iter().map(Mode::is_training).collect());
        self.modes.iter().for_each(|mode| mode.set_training(false));
        watched(body)
    }

    /// The place of each forward pass in the list of paths. That of a layer that a walk does not show (one that was made on the way)
    /// is the model's.
    pub(crate) fn places_of(&self, calls: &[Call]) -> Vec<usize> {
        let mut turns = Turns::default();
        calls.iter().map(|call| self.place_of(call.layer, &mut turns).unwrap_or(0)).collect()
    }

    /// The place of the next forward pass of a layer in the list of paths: of several that look the same, each in turn.
    pub(crate) fn place_of(&self, layer: Identity, turns: &mut Turns) -> Option<usize> {
        let places = self.places.get(&layer)?;
        let turn = turns.entry(layer).or_default();
        *turn += 1;
        Some(places[(*turn - 1) % places.len()])
    }
}

impl Visitor for Parts {
    fn part(&mut self, path: &str, part: Identity) {
        self.places.entry(part).or_default().push(self.paths.len());
        self.paths.push((path.to_string(), part.type_name));
    }

    fn parameter(&mut self, path: &str, parameter: &Param) {
        self.parameters.push((path.to_string(), parameter.clone()));
    }

    fn mode(&mut self, mode: &Mode) {
        self.modes.push(mode.clone());
    }
}
