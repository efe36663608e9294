//! A seeded fuzzer of random graphs: every way of running a graph must agree with the reference within the bounds that
//! this carries along, by a plan that is valid, and leave alone the inputs that were not donated. A failure is shrunk and
//! printed with its seed. And a test of the fuzzer itself: faults planted in plans must be caught.
//!
//! `GRADUS_FUZZ=100000` tries so many graphs in every way instead of 2000 on the CPU and 100 on a GPU,
//! `GRADUS_FUZZ_SEED=n` only this seed, `GRADUS_FUZZ_SEED=n..m` those from n to before m, and
//! `GRADUS_FUZZ_WAY="software, unfused"` only in this way, as failures and results name it.

#[path = "support/devices.rs"]
mod devices;
#[path = "support/generator.rs"]
mod generator;
#[path = "support/mutations.rs"]
mod mutations;
#[path = "support/rewritings.rs"]
mod rewritings;
#[path = "support/shrink.rs"]
mod shrink;
#[allow(dead_code)]
mod support;
#[path = "support/validity.rs"]
mod validity;

use devices::{Tested, cpu, tunings, with_subgroups};
use generator::Generator;
use gradus_cpu::reference::Array;
use gradus_ir::op::Op;
use gradus_ir::{Backend, Buffer, DType, Data, Error, Graph, Node, Number, Plan, Result, Target, plan, plan_unfused};
use mutations::{MUTATIONS, Plant, changed};
use shrink::{Listing, shrink};
use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use support::{Case, Mismatch, Rng, tiled};

type Planner = fn(&Graph, &Target) -> Plan;

/// A way to run a graph: a backend, and how the plan for it is made.
struct Way {
    name: String,
    on: Tested,
    plan: Planner,
    target: Target,
    /// How many graphs to try, if nothing else is asked for.
    graphs: u64,
}

fn ways() -> Vec<Way> {
    let plans: [(&str, Planner, bool); 3] =
        [("", plan, false), (", unfused", plan_unfused, false), (", with narrow limits", plan, true)];
    let way = |on: Tested, (suffix, plan, narrow): (&str, Planner, bool)| {
        let own = on.backend.target().clone();
        Way {
            name: format!("{}{suffix}", on.name),
            plan,
            // As little as a kernel can do with, so that it is met often.
            target: if narrow { Target { bindings: 5, longest_row: 6, ..own } } else { own },
            graphs: if on.thorough { 2000 } else { 100 },
            on,
        }
    };
    let ways = tunings().into_iter().flat_map(|on| plans.map(|plan| way(Tested { ..on }, plan)));
    ways.chain(with_subgroups().map(|on| way(on, plans[0]))).collect()
}

impl Way {
    /// A random graph with its data, of the dtypes that the backend has.
    fn generate(&self, seed: u64) -> Case {
        Generator::generate(seed, &self.on.backend.target().dtypes)
    }

    /// What is wrong with a case, if anything is.
    fn failure(&self, case: &Case, expected: &Result<Vec<Array>>) -> Option<String> {
        let planned = catch_unwind(AssertUnwindSafe(|| (self.plan)(&case.graph, &self.target)));
        match planned {
            Ok(plan) => {
                let valid = validity::check(&plan, &case.graph);
                valid.err().or_else(|| failure(self.on.backend, plan, case, expected))
            }
            Err(panic) => Some(words(&panic)),
        }
    }
}

/// What is wrong when a backend runs a case by this plan, if anything is.
fn failure(backend: &dyn Backend, plan: Plan, case: &Case, expected: &Result<Vec<Array>>) -> Option<String> {
    let run = || {
        let mut inputs = case.upload(backend)?;
        let outputs = backend.compile(plan)?.run(&mut inputs, &case.scalars);
        let got = outputs.and_then(|outputs| outputs.iter().map(|output| backend.read(output)).collect());
        let wrong = difference(expected, &got);
        Ok(if wrong.is_some() { wrong } else { lost_input(backend, case, &inputs, got.is_err())? })
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(wrong)) => wrong,
        Ok(Err(error)) => Some(Error::to_string(&error)),
        Err(panic) => Some(words(&panic)),
    }
}

/// How a run differs from what is expected of it: numbers, or an index that is out of range.
fn difference(expected: &Result<Vec<Array>>, got: &Result<Vec<Data>>) -> Option<String> {
    match (expected, got) {
        (Ok(expected), Ok(got)) => Mismatch::find(expected, got).map(|mismatch| mismatch.to_string()),
        (Err(Error::Index { .. }), Err(Error::Index { .. })) => None,
        (_, Err(error)) => Some(format!("error: {error}")),
        (Err(error), Ok(_)) => Some(format!("not seen: {error}")),
    }
}

/// An input that does not hold any more what it held, although it was not donated or the run has failed.
fn lost_input(backend: &dyn Backend, case: &Case, inputs: &[Option<Buffer>], failed: bool) -> Result<Option<String>> {
    for (slot, (buffer, data)) in inputs.iter().zip(&case.inputs).enumerate() {
        if case.graph.donated[slot] && !failed {
            continue;
        }
        let bits = |data: &Data| -> Vec<u64> {
            (0..data.len()).filter_map(|i| data.get(i)).map(|number| number.to_f64().to_bits()).collect()
        };
        let left = buffer.as_ref().map(|buffer| backend.read(buffer)).transpose()?;
        if left.is_none_or(|left| bits(&left) != bits(data)) {
            return Ok(Some(format!("input {slot} was overwritten")));
        }
    }
    Ok(None)
}

/// What a panic says.
fn words(panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("?"))
}

/// What a variable of the environment is set to, read by `parse`.
fn setting<T>(name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    std::env::var(name).ok().map(|value| parse(&value).unwrap_or_else(|| panic!("{name}={value} cannot be read")))
}

/// A seed, `3`, or a range of them, `3..7`.
fn seeds(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((first, end)) => Some(first.parse().ok()?..end.parse().ok()?),
        None => text.parse().ok().map(|seed: u64| seed..seed + 1),
    }
}

#[test]
fn random_graphs_agree_with_the_reference() {
    let asked = setting("GRADUS_FUZZ_WAY", |name| Some(name.to_string()));
    let mut ways = ways();
    ways.retain(|way| asked.as_ref().is_none_or(|name| *name == way.name));
    assert!(!ways.is_empty(), "GRADUS_FUZZ_WAY names no way to run graphs here");
    let (only, count) = (setting("GRADUS_FUZZ_SEED", seeds), setting("GRADUS_FUZZ", |count| count.parse().ok()));
    for way in &ways {
        let Way { name, on, plan, target, graphs } = way;
        let seeds = only.clone().unwrap_or(0..count.unwrap_or(*graphs));
        let (mut elements, mut decided) = (0, 0);
        for seed in seeds {
            let case = way.generate(seed);
            let expected = case.reference(on.tolerance);
            let known = expected.as_ref().unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", Listing(&case)));
            let errors = known.iter().flat_map(|array| &array.errors);
            decided += errors.filter(|error| error.is_finite()).count();
            elements += known.iter().map(|array| array.values.len()).sum::<usize>();
            if way.failure(&case, &expected).is_some() {
                let fails = |case: &Case| way.failure(case, &Ok(case.reference(on.tolerance).ok()?));
                let case = shrink(case, |case| fails(case).is_some());
                let what = fails(&case).unwrap_or_default();
                let plan = catch_unwind(AssertUnwindSafe(|| plan(&case.graph, target).to_string()));
                panic!("seed {seed} on {name}: {what}\n{}\n{}", Listing(&case), plan.unwrap_or_else(|p| words(&p)));
            }
        }
        let share = decided as f64 / elements as f64;
        println!("{name}: {elements} elements, {:.0}% with a finite bound", share * 100.0);
        assert!(share > 0.5 || only.is_some(), "most comparisons say nothing");
    }
}

/// What faults are planted in: a case with its plan, numbers for the slots as in an earlier run, and what is expected.
struct Subject {
    seed: u64,
    earlier: Case,
    case: Case,
    plan: Plan,
    expected: Result<Vec<Array>>,
}

impl Subject {
    /// `None` if the case fails without a fault: an index that is out of range may be in what a plan can do without.
    fn new(seed: u64, earlier: Case, on: &Tested) -> Option<Subject> {
        let scalars = earlier.scalars.iter().map(|&number| changed(number)).collect();
        let case = Case { scalars, ..earlier.clone() };
        let plan = plan(&case.graph, on.backend.target());
        let expected = case.reference(on.tolerance);
        let sound = failure(on.backend, plan.clone(), &case, &expected).is_none();
        sound.then_some(Subject { seed, earlier, case, plan, expected })
    }

    /// The plan with one fault of a kind, if there is a place for it.
    fn mutant(&self, plant: &Plant, target: &Target) -> Option<Plan> {
        let mut rng = Rng(self.seed);
        match plant {
            Plant::Graphs(_) | Plant::Plans(_) if self.expected.is_err() => None,
            Plant::Checks(_) if self.expected.is_ok() => None,
            Plant::Plans(mutants) | Plant::Checks(mutants) => {
                let mut mutants = mutants(&self.earlier, &self.plan);
                (!mutants.is_empty()).then(|| mutants.swap_remove(rng.below(mutants.len())))
            }
            Plant::Graphs(mutants) => {
                let mutants = mutants(&self.earlier);
                (!mutants.is_empty()).then(|| plan(&mutants[rng.below(mutants.len())], target))
            }
        }
    }
}

/// The same case with an index that is out of range, if there is one to be changed.
fn with_a_bad_index(mut case: Case) -> Option<Case> {
    let nodes = case.graph.nodes();
    let (slot, extent) = nodes.iter().find_map(|node| match (&node.op, &node.operands[..]) {
        (Op::Gather(axis) | Op::Scatter(_, axis), &[x, index, ..]) => match nodes[index] {
            Node { op: Op::Input(slot), .. } if !case.inputs[slot].is_empty() => Some((slot, nodes[x].ty.shape[*axis])),
            _ => None,
        },
        _ => None,
    })?;
    let data = &case.inputs[slot];
    let mut numbers: Vec<Number> = (0..data.len()).filter_map(|i| data.get(i)).collect();
    numbers[data.len() / 2] = Number::from(extent);
    case.inputs[slot] = tiled(&numbers, data.dtype(), numbers.len());
    Some(case)
}

/// Runs what may panic without a word, also in threads of a pool: they have no name, and hand their panics on.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() && std::thread::current().name().is_some() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let result = work();
    QUIET.set(false);
    result
}

/// Plants each kind of fault in the plans of random graphs. Not every fault shows (operands may be equal, a value may
/// not matter), but each kind must be caught, by what runs give or by the check of plans, and most faults.
#[test]
fn planted_faults_are_caught() {
    let on = cpu();
    let generated = (0..1000).map(|seed| (seed, Generator::generate(seed, &DType::ALL)));
    let both = generated.flat_map(|(seed, case)| [Some(case.clone()), with_a_bad_index(case)].map(|case| (seed, case)));
    let subjects: Vec<Subject> = both.filter_map(|(seed, case)| Subject::new(seed, case?, &on)).collect();
    let (mut all_planted, mut all_caught, mut missed) = (0, 0, Vec::<&str>::new());
    println!("{:50} {:>7} {:>8} {:>9} {:>6}", "kind of fault", "planted", "by a run", "by checks", "caught");
    for (name, plant) in MUTATIONS {
        let (mut planted, mut by_run, mut by_check, mut caught) = (0, 0, 0, 0);
        for subject in &subjects {
            let Some(mutant) = subject.mutant(plant, on.backend.target()) else {
                continue;
            };
            let Subject { case, expected, .. } = subject;
            let invalid = validity::check(&mutant, &case.graph).is_err();
            let wrong = quietly(|| failure(on.backend, mutant, case, expected).is_some());
            planted += 1;
            by_run += wrong as usize;
            by_check += invalid as usize;
            caught += (wrong || invalid) as usize;
        }
        println!("{name:50} {planted:7} {by_run:8} {by_check:9} {caught:6}");
        missed.extend((caught == 0).then_some(name));
        (all_planted, all_caught) = (all_planted + planted, all_caught + caught);
    }
    assert!(missed.is_empty(), "never caught: {missed:?}");
    assert!(2 * all_caught > all_planted, "{all_caught} of {all_planted} planted faults were caught");
}
