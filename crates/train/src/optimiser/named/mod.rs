//! The known optimisers, as chains. Each is a struct of its settings; all have the methods of `common_settings!`.

mod adam;
mod adaptive;
mod free;
mod matrix;
mod sgd;
mod sign;

pub use adam::{AdaBelief, Adam, AdamW, Adamax, Lamb, NAdam, RAdam, Yogi};
pub use adaptive::{Adadelta, Adafactor, Adagrad, RmsProp};
pub use free::ScheduleFreeAdamW;
pub use matrix::Muon;
pub use sgd::{Lars, Sgd};
pub use sign::{Lion, Rprop};

use super::{
    AdaptiveClip, AddDecayedWeights, ClipByNorm, ClipByValue, Group, Lookahead, Optimiser, ScaleByLearningRate,
    Transform,
};
use crate::Schedule;
use gradus_nn::Param;
use std::fmt;
use std::sync::Arc;

type Chain = Vec<Box<dyn Transform>>;
type Chooser = Arc<dyn Fn(&str, &Param) -> bool + Send + Sync>;

/// What all named optimisers can be told.
#[derive(Clone)]
struct Common<R> {
    learning_rate: f64,
    schedule: Option<Schedule>,
    weight_decay: Option<Schedule>,
    clip_norm: Option<f64>,
    clip_value: Option<f64>,
    clip_adaptively: Option<f64>,
    lookahead: Option<(u64, f64)>,
    groups: Vec<(Chooser, R)>,
}

impl<R> Common<R> {
    fn new(learning_rate: f64) -> Common<R> {
        Common {
            learning_rate,
            schedule: None,
            weight_decay: None,
            clip_norm: None,
            clip_value: None,
            clip_adaptively: None,
            lookahead: None,
            groups: Vec::new(),
        }
    }

    fn clipping(&self) -> Chain {
        let norm = self.clip_norm.map(|limit| Box::new(ClipByNorm { limit }) as Box<dyn Transform>);
        let value = self.clip_value.map(|limit| Box::new(ClipByValue { limit }) as Box<dyn Transform>);
        let adaptive = self.clip_adaptively.map(|limit| AdaptiveClip { limit, epsilon: 1e-3 });
        let adaptive = adaptive.map(|clip| Box::new(clip) as Box<dyn Transform>);
        norm.into_iter().chain(value).chain(adaptive).collect()
    }

    /// The decay of weights as a link, if there is any.
    fn decay(&self) -> Option<Box<dyn Transform>> {
        self.weight_decay.clone().map(|rate| Box::new(AddDecayedWeights { rate }) as Box<dyn Transform>)
    }

    /// A chain whose decay is a penalty: `links` see it as part of the gradient.
    fn coupled(&self, links: Chain) -> Chain {
        self.decay().into_iter().chain(links).chain([scale()]).collect()
    }

    /// A chain whose decay is apart from the gradient.
    fn decoupled(&self, links: Chain) -> Chain {
        links.into_iter().chain(self.decay()).chain([scale()]).collect()
    }
}

fn scale() -> Box<dyn Transform> {
    Box::new(ScaleByLearningRate)
}

impl<R> fmt::Debug for Common<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("learning_rate", &self.learning_rate)
            .field("schedule", &self.schedule)
            .field("weight_decay", &self.weight_decay)
            .field("clip_norm", &self.clip_norm)
            .field("clip_value", &self.clip_value)
            .field("clip_adaptively", &self.clip_adaptively)
            .field("lookahead", &self.lookahead)
            .field("groups", &self.groups.len())
            .finish()
    }
}

/// A named optimiser: settings that make a chain.
trait Rule: Clone {
    fn common(&self) -> &Common<Self>;

    fn common_mut(&mut self) -> &mut Common<Self>;

    /// The chain of one group, without what is common to all.
    fn chain(&self) -> Chain;

    /// The groups of the chosen parameters.
    fn groups(&self, before: &dyn Fn() -> Chain, chosen: Chooser) -> Vec<Group> {
        vec![self.wrap(before(), self.chain(), chosen)]
    }

    /// A chain between what comes before and after it, as a group.
    fn wrap(&self, before: Chain, chain: Chain, chosen: Chooser) -> Group {
        let common = self.common();
        let lookahead = common.lookahead.map(|(every, share)| Lookahead::new(every, share));
        let lookahead = lookahead.map(|link| Box::new(link) as Box<dyn Transform>);
        let chain = before.into_iter().chain(chain).chain(lookahead).collect();
        let group = Group::chosen(common.learning_rate, chain, move |path, parameter| chosen(path, parameter));
        match &common.schedule {
            Some(schedule) => group.schedule(schedule.clone()),
            None => group,
        }
    }

    /// The settings of a group before it changes them: what concerns all gradients together stays outside.
    fn for_group(&self) -> Self {
        let mut rule = self.clone();
        let common = rule.common_mut();
        (common.clip_norm, common.clip_value, common.clip_adaptively) = (None, None, None);
        common.groups.clear();
        rule
    }

    #[track_caller]
    fn build(&self, parameters: Vec<(String, Param)>) -> Optimiser {
        let common = self.common();
        let mut groups = Vec::new();
        for (chosen, rule) in &common.groups {
            groups.extend(rule.groups(&|| rule.common().clipping(), chosen.clone()));
        }
        groups.extend(self.groups(&Vec::new, Arc::new(|_, _| true)));
        Optimiser::with_groups(parameters, common.clipping(), groups)
    }
}

/// The methods that all named optimisers have.
macro_rules! settings {
    ($($name:ident: $decay:literal;)*) => {
        $(
        impl $name {
            /// Sets the learning rate, for a group for instance.
            pub fn learning_rate(mut self, learning_rate: f64) -> $name {
                self.common.learning_rate = learning_rate;
                self
            }

            /// Multiplies the learning rate by a schedule of the steps.
            pub fn schedule(mut self, schedule: impl Into<Schedule>) -> $name {
                self.common.schedule = Some(schedule.into());
                self
            }

            #[doc = $decay]
            pub fn weight_decay(mut self, rate: impl Into<Schedule>) -> $name {
                let rate = rate.into();
                self.common.weight_decay = (!rate.is(0.0)).then_some(rate);
                self
            }

            /// Limits the norm of all gradients together (of the group's, if told to a group).
            pub fn clip_norm(mut self, limit: f64) -> $name {
                self.common.clip_norm = Some(limit);
                self
            }

            /// Limits every element of the gradients.
            pub fn clip_value(mut self, limit: f64) -> $name {
                self.common.clip_value = Some(limit);
                self
            }

            /// Limits the norm of each unit's gradient to this share of its weights' (see [`AdaptiveClip`](crate::AdaptiveClip)).
            pub fn clip_adaptively(mut self, limit: f64) -> $name {
                self.common.clip_adaptively = Some(limit);
                self
            }

            /// Lets slow weights follow by `share` every so many steps (see [`Lookahead`](crate::Lookahead)).
            pub fn lookahead(mut self, every: u64, share: f64) -> $name {
                self.common.lookahead = Some((every, share));
                self
            }

            /// Changes settings for the parameters whose paths are selected (see [`Select`]). What is set before holds for the
            /// group too, except for clipping, which looks at all gradients together. The first group that has a parameter
            /// counts.
            pub fn group(
                mut self,
                paths: impl Select + Send + Sync + 'static,
                change: impl FnOnce($name) -> $name,
            ) -> $name {
                let rule = change(self.for_group());
                self.common.groups.push((Arc::new(move |path: &str, _: &Param| paths.selects(path)), rule));
                self
            }

            /// The optimiser of a model's parameters.
            #[track_caller]
            pub fn of(&self, model: &(impl Module + ?Sized)) -> Optimiser {
                self.build(model.parameters())
            }

            /// The optimiser of some parameters, given with their paths.
            #[track_caller]
            pub fn of_parameters(&self, parameters: Vec<(String, Param)>) -> Optimiser {
                self.build(parameters)
            }
        }
        )*
    };
}
use settings;

/// The same, for those whose chain is their `links`.
macro_rules! common_settings {
    ($($name:ident: $decay:literal;)*) => {
        $(
        impl Rule for $name {
            fn common(&self) -> &Common<$name> {
                &self.common
            }

            fn common_mut(&mut self) -> &mut Common<$name> {
                &mut self.common
            }

            fn chain(&self) -> Chain {
                self.links()
            }
        }
        )*

        super::settings! { $($name: $decay;)* }
    };
}
use common_settings;
