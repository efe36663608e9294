//! What is to become of a frame's columns.

use crate::frame::Cells;
use crate::{DataError, Frame, Preprocessor};
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;

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
pub(crate) enum Options {
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
        self.fit_pieces(|| std::iter::once(Ok(train)))
    }

    /// Measures the same on rows that come in pieces, with the same result to the last bit, however they are cut: for files
    /// that are larger than memory ([`FrameFile::pieces`](crate::FrameFile::pieces)). `pieces` gives all of them again at each
    /// call.
    ///
    /// One pass finds means, deviations, ends and categories; medians and quartiles, which are exact too, need some three
    /// more. Memory is that of a piece, up to 2.4 MB for each column with quantiles in the making, and the different values of
    /// columns that hold categories or whose most frequent number is asked for.
    ///
    /// # Errors
    /// As [`fit`](ColumnPlan::fit); if a piece cannot be read, pieces have columns of different kinds or categories of
    /// different vocabularies, there is none, or a later pass has other rows.
    ///
    /// ```
    /// use gradus_data::{ColumnPlan, Frame, FrameOptions};
    /// let text = "mass\n3000\n5000\nNA\n4500\n";
    /// let frame = Frame::from_reader(text.as_bytes(), "all.csv", &FrameOptions::default())?;
    /// let plan = ColumnPlan::of(&frame);
    /// let pieces = || [[0, 1], [2, 3]].iter().map(|rows| frame.select_rows(rows));
    /// assert_eq!(plan.fit_pieces(pieces)?, plan.fit(&frame)?);
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn fit_pieces<F: Borrow<Frame>, I: Iterator<Item = Result<F, DataError>>>(
        &self,
        pieces: impl Fn() -> I,
    ) -> Result<Preprocessor, DataError> {
        Preprocessor::new(crate::fit::fit(&self.columns, pieces)?)
    }
}

/// A number as a category; 0 and −0 are one.
pub(crate) fn text_of(number: f64) -> String {
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
