//! Search for hyperparameters: at random, and by successive halving.

use crate::Better;
use crate::picture::replace_file;
use gradus_tensor::Key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// From what a hyperparameter is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Range {
    Uniform(f64, f64),
    LogUniform(f64, f64),
    Integer(i64, i64),
    Choice(Vec<String>),
}

/// The hyperparameters that there are, and what each is drawn from.
///
/// ```
/// use gradus_train::SearchSpace;
/// let space = SearchSpace::new()
///     .log_uniform("rate", 1e-4, 1e-1)
///     .uniform("dropout", 0.0, 0.5)
///     .integer("hidden", 16, 256)
///     .choice("optimiser", ["adam", "sgd"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchSpace(BTreeMap<String, Range>);

impl SearchSpace {
    /// No hyperparameters yet.
    pub fn new() -> SearchSpace {
        SearchSpace::default()
    }

    fn with(mut self, name: impl Into<String>, range: Range) -> SearchSpace {
        self.0.insert(name.into(), range);
        self
    }

    /// A number from `low` up to `high`, each as likely.
    pub fn uniform(self, name: impl Into<String>, low: f64, high: f64) -> SearchSpace {
        self.with(name, Range::Uniform(low, high))
    }

    /// A number from `low` up to `high`, both above 0, each order of magnitude as likely: for learning rates.
    pub fn log_uniform(self, name: impl Into<String>, low: f64, high: f64) -> SearchSpace {
        self.with(name, Range::LogUniform(low, high))
    }

    /// A whole number from `low` to `high`, both included.
    pub fn integer(self, name: impl Into<String>, low: i64, high: i64) -> SearchSpace {
        self.with(name, Range::Integer(low, high))
    }

    /// One of some names.
    pub fn choice<S: Into<String>>(self, name: impl Into<String>, choices: impl IntoIterator<Item = S>) -> SearchSpace {
        self.with(name, Range::Choice(choices.into_iter().map(Into::into).collect()))
    }

    /// What is wrong with it.
    fn problem(&self) -> Option<String> {
        let wrong = |range: &Range| match range {
            Range::Uniform(low, high) => !(low.is_finite() && high.is_finite() && low <= high),
            Range::LogUniform(low, high) => !(*low > 0.0 && high.is_finite() && low <= high),
            Range::Integer(low, high) => low > high,
            Range::Choice(choices) => choices.is_empty(),
        };
        let (name, range) = self.0.iter().find(|(_, range)| wrong(range))?;
        Some(format!("`{name}` is drawn from {range:?}, in which there is nothing"))
    }

    /// What trial number `trial` has, which depends on the key and its number alone.
    fn draw(&self, key: Key, trial: u64) -> BTreeMap<String, Drawn> {
        let key = key.fold_in(trial);
        let draw = |(position, (name, range)): (usize, (&String, &Range))| {
            let fraction = (key.fold_in(position as u64).value() >> 11) as f64 / (1u64 << 53) as f64;
            let between = |low: f64, high: f64| low + (high - low) * fraction;
            let drawn = match range {
                Range::Uniform(low, high) => Drawn::Number(between(*low, *high)),
                Range::LogUniform(low, high) => Drawn::Number(between(low.ln(), high.ln()).exp().clamp(*low, *high)),
                Range::Integer(low, high) => {
                    let count = (i128::from(*high) - i128::from(*low) + 1) as f64;
                    Drawn::Integer(low.saturating_add((count * fraction) as i64).min(*high))
                }
                Range::Choice(choices) => {
                    let at = (choices.len() as f64 * fraction) as usize;
                    Drawn::Choice(choices[at.min(choices.len() - 1)].clone())
                }
            };
            (name.clone(), drawn)
        };
        self.0.iter().enumerate().map(draw).collect()
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Drawn {
    Integer(i64),
    Number(f64),
    Choice(String),
}

/// One choice of hyperparameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    number: u64,
    drawn: BTreeMap<String, Drawn>,
}

impl Trial {
    /// Its number, from 0: a seed of its own.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A hyperparameter that is a number.
    ///
    /// # Errors
    /// If the space has no number of this name.
    pub fn value(&self, name: &str) -> Result<f64, StudyError> {
        match self.drawn.get(name) {
            Some(Drawn::Number(value)) => Ok(*value),
            Some(Drawn::Integer(value)) => Ok(*value as f64),
            _ => Err(StudyError::Space(format!("the space has no number `{name}`"))),
        }
    }

    /// A hyperparameter that is a whole number.
    ///
    /// # Errors
    /// If the space has no whole number of this name.
    pub fn integer(&self, name: &str) -> Result<i64, StudyError> {
        match self.drawn.get(name) {
            Some(Drawn::Integer(value)) => Ok(*value),
            _ => Err(StudyError::Space(format!("the space has no whole number `{name}`"))),
        }
    }

    /// A hyperparameter that is one of some names.
    ///
    /// # Errors
    /// If the space has no choice of this name.
    pub fn choice(&self, name: &str) -> Result<&str, StudyError> {
        match self.drawn.get(name) {
            Some(Drawn::Choice(choice)) => Ok(choice),
            _ => Err(StudyError::Space(format!("the space has no choice `{name}`"))),
        }
    }
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "trial {}", self.number)?;
        self.drawn.iter().try_for_each(|(name, drawn)| match drawn {
            Drawn::Integer(value) => write!(f, "  {name} {value}"),
            Drawn::Number(value) => write!(f, "  {name} {value:.4e}"),
            Drawn::Choice(choice) => write!(f, "  {name} {choice}"),
        })
    }
}

/// What a trial may fail with.
pub type TrialError = Box<dyn Error + Send + Sync>;

/// Why a study stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// Its file could not be read or written.
    #[error("cannot use the study {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no study, or another one.
    #[error("the study {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is nothing to search.
    #[error("{0}")]
    Space(String),
    /// A trial failed.
    #[error("{trial}: {source}")]
    Trial {
        /// Its hyperparameters.
        trial: String,
        /// What it said.
        source: TrialError,
    },
}

/// What is kept in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Saved {
    format: u32,
    seed: u64,
    better: Better,
    space: SearchSpace,
    /// By number of the trial: budgets and results; a result that is no number is a text.
    results: BTreeMap<u64, Vec<(u64, String)>>,
}

/// A search for hyperparameters whose results are kept in a file: started again after it was stopped, it goes on with the
/// trials that are left. Trials depend on the seed alone.
///
/// ```
/// use gradus_train::{Better, SearchSpace, Study};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("study.json");
/// let space = SearchSpace::new().uniform("x", -1.0, 1.0).choice("sign", ["plus", "minus"]);
/// let mut study = Study::open(&path, space, 7, Better::Lower)?;
/// let (trial, least) = study.random(30, |trial| {
///     let sign = if trial.choice("sign")? == "plus" { 1.0 } else { -1.0 };
///     Ok((sign * trial.value("x")? - 0.5).powi(2))
/// })?;
/// assert!(least < 0.01 && (trial.value("x")?.abs() - 0.5).abs() < 0.1);
/// assert!(study.results().count() == 30 && study.results().all(|(_, _, result)| result >= least));
/// # Ok::<(), gradus_train::StudyError>(())
/// ```
pub struct Study {
    path: PathBuf,
    saved: Saved,
}

const FORMAT: u32 = 1;

impl Study {
    /// A study in a file, which is made with the first result. One that is there goes on.
    ///
    /// # Errors
    /// If nothing can be drawn from the space, or the file cannot be read, is no study, or one of another space, seed or aim.
    pub fn open(path: impl AsRef<Path>, space: SearchSpace, seed: u64, better: Better) -> Result<Study, StudyError> {
        if let Some(problem) = space.problem() {
            return Err(StudyError::Space(problem));
        }
        let path = path.as_ref().to_path_buf();
        let wrong = |problem: String| StudyError::File { path: path.clone(), problem };
        let new = Saved { format: FORMAT, seed, better, space, results: BTreeMap::new() };
        let saved = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => new,
            Err(source) => return Err(StudyError::Io { path, source }),
            Ok(text) => {
                let old: Saved = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
                if old.results.values().flatten().any(|(_, result)| result.parse::<f64>().is_err()) {
                    return Err(wrong("a result that is no number".into()));
                }
                if (Saved { results: BTreeMap::new(), ..old.clone() }) != new {
                    return Err(wrong("it is one of another space, seed or aim: take another file".into()));
                }
                old
            }
        };
        Ok(Study { path, saved })
    }

    /// The trial of a number.
    pub fn trial(&self, number: u64) -> Trial {
        Trial { number, drawn: self.saved.space.draw(Key::new(self.saved.seed), number) }
    }

    /// What was found so far, also in runs before this one: trials by number, each with its budgets (1 in
    /// [`random`](Study::random)) and results.
    pub fn results(&self) -> impl Iterator<Item = (Trial, u64, f64)> {
        let results =
            self.saved.results.iter().flat_map(|(&number, all)| all.iter().map(move |result| (number, result)));
        results.filter_map(|(number, (budget, value))| Some((self.trial(number), *budget, value.parse().ok()?)))
    }

    /// Looks at trials 0 to `trials` − 1, and gives the best with its result. NaN is never the best.
    ///
    /// (Bergstra and Bengio: "Random search for hyper-parameter optimization", 2012.)
    ///
    /// # Errors
    /// If a trial fails, or the file cannot be written; what was found is kept.
    pub fn random(
        &mut self,
        trials: u64,
        mut objective: impl FnMut(&Trial) -> Result<f64, TrialError>,
    ) -> Result<(Trial, f64), StudyError> {
        self.halving(trials, 1, 1, u64::MAX, |trial, _| objective(trial))
    }

    /// Successive halving: all trials get the least budget (epochs, say), the best `1/share` of them `share` times as much, and
    /// so on up to the most. Gives the best of the last round. `objective` gets the whole budget, and may go on from a
    /// checkpoint of the round before.
    ///
    /// (Jamieson and Talwalkar: "Non-stochastic best arm identification and hyperparameter optimization", 2016.)
    ///
    /// ```
    /// use gradus_train::{Better, SearchSpace, Study};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("study.json");
    /// let mut study = Study::open(&path, SearchSpace::new().uniform("x", 0.0, 1.0), 1, Better::Higher)?;
    /// let mut spent = 0;
    /// let (best, _) = study.halving(27, 1, 27, 3, |trial, budget| {
    ///     spent += budget;
    ///     Ok(trial.value("x")?)
    /// })?;
    /// assert_eq!(spent, 27 * 1 + 9 * 3 + 3 * 9 + 1 * 27);
    /// assert!(best.value("x")? > 0.9);
    /// # Ok::<(), gradus_train::StudyError>(())
    /// ```
    ///
    /// # Errors
    /// As [`random`](Study::random).
    pub fn halving(
        &mut self,
        trials: u64,
        least: u64,
        most: u64,
        share: u64,
        mut objective: impl FnMut(&Trial, u64) -> Result<f64, TrialError>,
    ) -> Result<(Trial, f64), StudyError> {
        if trials == 0 || least == 0 || share < 2 {
            return Err(StudyError::Space(format!(
                "{trials} trials from a budget of {least} on, of which 1/{share} go on"
            )));
        }
        let mut left: Vec<u64> = (0..trials).collect();
        let mut budget = least;
        loop {
            let mut results = Vec::with_capacity(left.len());
            for number in left {
                results.push((number, self.result(number, budget, &mut objective)?));
            }
            // Of equals the earlier one.
            results.sort_by(|&(_, a), &(_, b)| match (a.is_nan(), b.is_nan(), self.saved.better) {
                (false, false, Better::Lower) => a.total_cmp(&b),
                (false, false, Better::Higher) => b.total_cmp(&a),
                (a, b, _) => a.cmp(&b),
            });
            let (best, value) = results[0];
            budget = budget.saturating_mul(share);
            if budget > most || results.len() == 1 {
                return Ok((self.trial(best), value));
            }
            results.truncate((results.len() as u64).div_ceil(share) as usize);
            left = results.into_iter().map(|(number, _)| number).collect();
        }
    }

    /// What a trial gives for a budget: from the file, or now.
    fn result(
        &mut self,
        number: u64,
        budget: u64,
        objective: &mut dyn FnMut(&Trial, u64) -> Result<f64, TrialError>,
    ) -> Result<f64, StudyError> {
        let known = self.saved.results.get(&number).and_then(|all| all.iter().find(|(of, _)| *of == budget));
        if let Some(value) = known.and_then(|(_, value)| value.parse().ok()) {
            return Ok(value);
        }
        let trial = self.trial(number);
        let value =
            objective(&trial, budget).map_err(|source| StudyError::Trial { trial: trial.to_string(), source })?;
        self.saved.results.entry(number).or_default().push((budget, value.to_string()));
        let failed = |source| StudyError::Io { path: self.path.clone(), source };
        let json = serde_json::to_vec_pretty(&self.saved).map_err(|error| failed(error.into()))?;
        replace_file(&self.path, &json).map_err(failed)?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> SearchSpace {
        SearchSpace::new().log_uniform("rate", 1e-4, 1e-1).integer("hidden", -2, 2).choice("kind", ["a", "b", "c"])
    }

    #[test]
    fn every_part_of_a_space_is_drawn() {
        let study = Study::open("nowhere/study.json", space(), 3, Better::Lower).unwrap();
        let trials: Vec<Trial> = (0..300).map(|number| study.trial(number)).collect();
        let rates: Vec<f64> = trials.iter().map(|trial| trial.value("rate").unwrap()).collect();
        assert!(rates.iter().all(|rate| (1e-4..=1e-1).contains(rate)));
        // A third of them in each order of magnitude.
        for low in [1e-4, 1e-3, 1e-2] {
            let count = rates.iter().filter(|&&rate| rate >= low && rate < 10.0 * low).count();
            assert!((70..=130).contains(&count), "{count} from {low}");
        }
        for hidden in -2..=2 {
            assert!(trials.iter().filter(|trial| trial.integer("hidden").unwrap() == hidden).count() > 30);
        }
        for kind in ["a", "b", "c"] {
            assert!(trials.iter().filter(|trial| trial.choice("kind").unwrap() == kind).count() > 60);
        }
        assert_eq!(study.trial(5), study.trial(5));
        let whole =
            Study::open("nowhere/study.json", SearchSpace::new().integer("n", i64::MIN, i64::MAX), 0, Better::Lower);
        whole.unwrap().trial(1).integer("n").unwrap();
        assert!(study.trial(0).value("rates").is_err());
    }

    #[test]
    fn a_study_goes_on_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("study.json");
        let objective = |trial: &Trial, budget: u64| match trial.number() % 4 {
            3 => f64::NAN,
            _ => trial.value("rate").unwrap() / budget as f64,
        };
        let run = |path: &Path, fails_after: usize| {
            let mut study = Study::open(path, space(), 3, Better::Lower)?;
            let mut calls = 0;
            let best = study.halving(16, 1, 8, 2, |trial, budget| {
                calls += 1;
                if calls > fails_after { Err("stopped".into()) } else { Ok(objective(trial, budget)) }
            });
            best.map(|best| (best, calls))
        };
        let (whole, calls) = run(&folder.path().join("whole.json"), usize::MAX).unwrap();
        assert_eq!(calls, 16 + 8 + 4 + 2);
        assert!(matches!(run(&path, 5).unwrap_err(), StudyError::Trial { .. }));
        assert!(run(&path, 13).is_err());
        let (best, calls) = run(&path, usize::MAX).unwrap();
        assert_eq!((best, calls), (whole.clone(), 30 - 5 - 13));
        assert!(!whole.1.is_nan() && whole.0.number() % 4 != 3);
        assert_eq!(run(&path, 0).unwrap().1, 0);

        assert!(matches!(Study::open(&path, space(), 4, Better::Lower), Err(StudyError::File { .. })));
        for text in ["", "{}", "[1]"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Study::open(&path, space(), 3, Better::Lower), Err(StudyError::File { .. })));
        }
        let empty = SearchSpace::new().uniform("x", 1.0, 0.0);
        assert!(matches!(Study::open(&path, empty, 3, Better::Lower), Err(StudyError::Space(_))));
    }
}
