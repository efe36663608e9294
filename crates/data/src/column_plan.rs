//! What is to become of a frame's columns, and measuring what that takes.

use crate::frame::Cells;
use crate::preprocessor::{Encoding, Fitted, FittedCategories, FittedNumbers};
use crate::statistics::{mean_and_deviation, most_frequent, quantile};
use crate::{DataError, Frame, Preprocessor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands in for a missing number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Impute {
    /// Nothing: a missing number is an error, when fitting and later.
    Refuse,
    /// The mean of the others.
    Mean,
    /// The median of the others.
    #[default]
    Median,
    /// The number that comes most often, of several the least.
    MostFrequent,
    /// This number.
    Constant(f64),
}

/// How numbers are shifted and scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Not at all.
    AsTheyAre,
    /// To mean 0 and (population) standard deviation 1.
    #[default]
    Standard,
    /// To 0 … 1.
    MinMax,
    /// To median 0 and interquartile range 1, so that a few outliers change little.
    Robust,
}

/// What becomes of numbers: first missing ones are imputed, then all are scaled by statistics of the imputed column. A column
/// whose scale is 0 is only shifted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NumberOptions {
    /// What stands in for a missing number; the median by default.
    pub impute: Impute,
    /// Whether a further feature, `NAME is missing`, is 1 where the number was missing and 0 elsewhere.
    pub indicator: bool,
    /// How they are scaled; to mean 0 and standard deviation 1 by default.
    pub scale: Scale,
}

/// How categories become features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encode {
    /// A feature for each, `NAME=CATEGORY`, that is 1 in its rows and 0 elsewhere.
    #[default]
    OneHot,
    /// One feature, the category's number in the vocabulary.
    Ordinal,
}

/// What becomes of a category that was not there when fitting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unseen {
    /// It is an error that names it and its row.
    #[default]
    Refuse,
    /// All one-hot features are 0; the ordinal one is −1.
    Ignore,
}

/// What becomes of a missing category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingCategory {
    /// It is an error, when fitting and later.
    Refuse,
    /// It is a category of its own, the last, whether there were any when fitting or not: `NAME is missing`.
    #[default]
    OwnCategory,
    /// It becomes the category that comes most often, of several the first.
    MostFrequent,
}

/// What becomes of categories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CategoryOptions {
    /// How they become features; one-hot by default.
    pub encode: Encode,
    /// What becomes of one that was not there when fitting; an error by default.
    pub unseen: Unseen,
    /// What becomes of a missing one; a category of its own by default.
    pub missing: MissingCategory,
}

/// Which columns of a frame become features, and how. Features come in the order in which their columns are named here; columns
/// that are not named are left out.
///
/// ```
/// use gradus_data::{CategoryOptions, ColumnPlan, Frame, FrameOptions, NumberOptions, Unseen};
/// let text = "mass,island\n3000,Biscoe\n,Dream\n5000,Biscoe\n";
/// let train = Frame::from_reader(text.as_bytes(), "train.csv", &FrameOptions::default())?;
/// let plan = ColumnPlan::new()
///     .numbers(["mass"], NumberOptions { indicator: true, ..NumberOptions::default() })
///     .categories(["island"], CategoryOptions { unseen: Unseen::Ignore, ..CategoryOptions::default() });
/// let fitted = plan.fit(&train)?;
/// let names = ["mass", "mass is missing", "island=Biscoe", "island=Dream", "island is missing"];
/// assert_eq!(fitted.names(), names);
///
/// let test = Frame::from_reader("mass,island\n4000,Torgersen\n".as_bytes(), "test.csv", &FrameOptions::default())?;
/// assert_eq!(fitted.transform(&test)?.row(0), [0.0; 5]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnPlan {
    columns: Vec<(String, Options)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Options {
    Numbers(NumberOptions),
    Categories(CategoryOptions),
}

impl ColumnPlan {
    /// A plan for no column.
    pub fn new() -> ColumnPlan {
        ColumnPlan::default()
    }

    /// A plan for all columns of numbers and of categories, with the default options; texts are left out.
    pub fn of(frame: &Frame) -> ColumnPlan {
        let mut plan = ColumnPlan::new();
        for column in frame.columns() {
            plan = match column.cells {
                Cells::Numbers(_) => plan.numbers([&column.name], NumberOptions::default()),
                Cells::Categories(_) => plan.categories([&column.name], CategoryOptions::default()),
                Cells::Texts(_) => plan,
            };
        }
        plan
    }

    /// Columns of numbers, and what becomes of them.
    pub fn numbers<S: AsRef<str>>(self, names: impl IntoIterator<Item = S>, options: NumberOptions) -> ColumnPlan {
        self.with(names, Options::Numbers(options))
    }

    /// Columns that hold categories, and what becomes of them. Numbers may be categories too (`1`, `2`, `3`), and texts.
    pub fn categories<S: AsRef<str>>(self, names: impl IntoIterator<Item = S>, options: CategoryOptions) -> ColumnPlan {
        self.with(names, Options::Categories(options))
    }

    fn with<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>, options: Options) -> ColumnPlan {
        self.columns.extend(names.into_iter().map(|name| (name.as_ref().to_string(), options)));
        self
    }

    /// Measures what the plan needs, on rows to train on and no others: what is learnt from test rows makes tests too good.
    ///
    /// # Errors
    /// If a column is missing, named twice or of another kind; if a value is missing that must not be, or there is none to impute
    /// from; if a column's statistics are not finite.
    pub fn fit(&self, train: &Frame) -> Result<Preprocessor, DataError> {
        let columns = self.columns.iter().map(|(name, options)| match options {
            Options::Numbers(options) => fit_numbers(name, train.numbers(name)?, options).map(Fitted::Numbers),
            Options::Categories(options) => fit_categories(name, train.column(name)?, options).map(Fitted::Categories),
        });
        Preprocessor::new(columns.collect::<Result<_, _>>()?)
    }
}

fn problem(column: &str, found: &'static str, expected: &'static str) -> DataError {
    DataError::ColumnKind { column: column.into(), found, expected }
}

fn fit_numbers(name: &str, numbers: &[f64], options: &NumberOptions) -> Result<FittedNumbers, DataError> {
    let mut present: Vec<f64> = numbers.iter().copied().filter(|number| !number.is_nan()).collect();
    let missing = numbers.len() - present.len();
    if present.iter().any(|number| number.is_infinite()) {
        return Err(problem(name, "an infinite number", "finite ones to measure"));
    }
    let of_others = |found: f64| {
        if present.is_empty() { Err(problem(name, "no number", "some to impute from")) } else { Ok(Some(found)) }
    };
    let fill = match options.impute {
        Impute::Refuse if missing > 0 => return Err(problem(name, "missing numbers", "a number in each row")),
        Impute::Refuse => None,
        Impute::Mean => of_others(mean_and_deviation(|| present.iter().copied()).0)?,
        Impute::Median => of_others(quantile(&mut present.clone(), 0.5))?,
        Impute::MostFrequent => of_others(most_frequent(&mut present.clone()))?,
        Impute::Constant(number) => Some(number),
    };
    present.extend(std::iter::repeat_n(fill.unwrap_or(0.0), missing));
    let (shift, scale) = match options.scale {
        Scale::AsTheyAre => (0.0, 1.0),
        Scale::Standard => mean_and_deviation(|| present.iter().copied()),
        _ if present.is_empty() => (0.0, 1.0),
        Scale::MinMax => {
            let least = present.iter().copied().fold(f64::INFINITY, f64::min);
            (least, present.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least)
        }
        Scale::Robust => {
            let [low, middle, high] = [0.25, 0.5, 0.75].map(|share| quantile(&mut present, share));
            (middle, high - low)
        }
    };
    let scale = if scale == 0.0 { 1.0 } else { scale };
    if ![shift, scale, fill.unwrap_or(0.0)].iter().all(|number| number.is_finite()) {
        return Err(problem(name, "numbers too large to measure", "finite statistics"));
    }
    Ok(FittedNumbers { column: name.into(), fill, indicator: options.indicator, shift, scale })
}

fn fit_categories(name: &str, cells: &Cells, options: &CategoryOptions) -> Result<FittedCategories, DataError> {
    let texts = texts(cells);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    texts.iter().flatten().for_each(|text| *counts.entry(text).or_default() += 1);
    let has_missing = texts.iter().any(Option::is_none);
    let vocabulary: Vec<String> = match cells {
        // Also what does not occur in these rows: who gave a vocabulary meant it.
        Cells::Categories(categories) => categories.vocabulary().to_vec(),
        Cells::Numbers(numbers) => {
            let mut sorted: Vec<f64> = numbers.iter().copied().filter(|number| !number.is_nan()).collect();
            sorted.sort_by(f64::total_cmp);
            let mut texts: Vec<String> = sorted.into_iter().map(text_of).collect();
            texts.dedup();
            texts
        }
        Cells::Texts(_) => counts.keys().map(|text| text.to_string()).collect(),
    };
    let missing = match options.missing {
        MissingCategory::Refuse if has_missing => {
            return Err(problem(name, "rows without a category", "a category in each"));
        }
        MissingCategory::Refuse => Encoding::Refuse,
        MissingCategory::OwnCategory => Encoding::OwnCategory,
        MissingCategory::MostFrequent => {
            let count = |text: &String| counts.get(&text[..]).copied().unwrap_or(0);
            let most = (0..vocabulary.len()).rev().max_by_key(|&i| count(&vocabulary[i]));
            Encoding::Category(most.ok_or_else(|| problem(name, "no category", "some to impute from"))?)
        }
    };
    Ok(FittedCategories { column: name.into(), vocabulary, encode: options.encode, unseen: options.unseen, missing })
}

/// A number as a category; 0 and −0 are one.
fn text_of(number: f64) -> String {
    (number + 0.0).to_string()
}

/// Cells as texts, to be told apart.
pub(crate) fn texts(cells: &Cells) -> Vec<Option<std::borrow::Cow<'_, str>>> {
    match cells {
        Cells::Numbers(numbers) => {
            numbers.iter().map(|&number| (!number.is_nan()).then(|| text_of(number).into())).collect()
        }
        Cells::Categories(categories) => (0..cells.len()).map(|row| categories.text(row).map(Into::into)).collect(),
        Cells::Texts(texts) => texts.iter().map(|text| text.as_deref().map(Into::into)).collect(),
    }
}
