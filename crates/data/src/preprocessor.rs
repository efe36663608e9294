//! From a frame to a matrix of features, by what was measured on the rows to train on.

use crate::column_plan::{Encode, Unseen, texts};
use crate::elements::Elements;
use crate::error::shortened;
use crate::{Array, DataError, Dataset, Frame};
use gradus_tensor::{Placement, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a [`ColumnPlan`](crate::ColumnPlan) measured: turns frames into matrices of f32, the same features in the same order
/// whatever rows there are.
///
/// ```
/// use gradus_data::{ColumnPlan, Frame, FrameOptions, Preprocessor};
/// let text = "age,city\n30,Rome\n50,Oslo\n";
/// let frame = Frame::from_reader(text.as_bytes(), "people.csv", &FrameOptions::default())?;
/// let fitted = ColumnPlan::of(&frame).fit(&frame)?;
/// let saved = fitted.to_json();
///
/// let fitted = Preprocessor::from_json(&saved, "saved")?;
/// let features = fitted.transform(&frame)?;
/// assert_eq!(features.names(), ["age", "city=Oslo", "city=Rome", "city is missing"]);
/// assert_eq!(features.row(1), [1.0, 1.0, 0.0, 0.0]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessor {
    columns: Vec<Fitted>,
    names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fitted {
    Numbers(FittedNumbers),
    Categories(FittedCategories),
}

/// x, or `fill` where it is missing, becomes (x − shift) / scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FittedNumbers {
    pub(crate) column: String,
    pub(crate) fill: Option<f64>,
    pub(crate) indicator: bool,
    pub(crate) shift: f64,
    pub(crate) scale: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FittedCategories {
    pub(crate) column: String,
    pub(crate) vocabulary: Vec<String>,
    pub(crate) encode: Encode,
    pub(crate) unseen: Unseen,
    pub(crate) missing: Encoding,
}

/// What a missing category becomes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    Refuse,
    /// Number `vocabulary.len()`.
    OwnCategory,
    /// This number.
    Category(usize),
}

/// The text that a preprocessor is saved as.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<C> {
    format: String,
    version: u32,
    columns: C,
}

const FORMAT: &str = "gradus preprocessor";
const VERSION: u32 = 1;

impl FittedCategories {
    /// How many numbers a category may have.
    fn numbers(&self) -> usize {
        self.vocabulary.len() + usize::from(self.missing == Encoding::OwnCategory)
    }
}

impl Fitted {
    fn column(&self) -> &str {
        match self {
            Fitted::Numbers(numbers) => &numbers.column,
            Fitted::Categories(categories) => &categories.column,
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Fitted::Numbers(FittedNumbers { column, indicator, .. }) => {
                let missing = indicator.then(|| format!("{column} is missing"));
                std::iter::once(column.clone()).chain(missing).collect()
            }
            Fitted::Categories(FittedCategories { column, encode: Encode::Ordinal, .. }) => vec![column.clone()],
            Fitted::Categories(FittedCategories { column, vocabulary, missing, .. }) => {
                let missing = (*missing == Encoding::OwnCategory).then(|| format!("{column} is missing"));
                vocabulary.iter().map(|category| format!("{column}={category}")).chain(missing).collect()
            }
        }
    }

    /// What is wrong with what was read.
    fn problem(&self) -> Option<&'static str> {
        match self {
            Fitted::Numbers(FittedNumbers { fill, shift, scale, .. }) => {
                let finite = shift.is_finite() && scale.is_finite() && fill.is_none_or(f64::is_finite);
                (!finite || *scale <= 0.0).then_some("numbers that are not finite, or no scale above 0")
            }
            Fitted::Categories(FittedCategories { vocabulary, missing, .. }) => {
                let different = vocabulary.iter().collect::<BTreeSet<_>>().len() == vocabulary.len();
                let known = !matches!(missing, Encoding::Category(number) if *number >= vocabulary.len());
                (!different || !known).then_some("a category twice, or one that is not in the vocabulary")
            }
        }
    }

    /// Writes the column's features, from feature `first` on, into rows of `width`.
    fn write(&self, frame: &Frame, values: &mut [f32], first: usize, width: usize) -> Result<(), DataError> {
        let rows = values.chunks_exact_mut(width).map(|row| &mut row[first..]);
        match self {
            Fitted::Numbers(FittedNumbers { column, fill, indicator, shift, scale }) => {
                for (row, &number) in rows.zip(frame.numbers(column)?) {
                    let is_missing = number.is_nan();
                    let number = match (is_missing, fill) {
                        (false, _) => number,
                        (true, Some(fill)) => *fill,
                        (true, None) => {
                            let (column, found) = (column.clone(), "missing numbers");
                            return Err(DataError::ColumnKind { column, found, expected: "a number in each row" });
                        }
                    };
                    row[0] = ((number - shift) / scale) as f32;
                    if *indicator {
                        row[1] = is_missing.into();
                    }
                }
            }
            Fitted::Categories(fitted) => {
                let FittedCategories { column, vocabulary, encode, unseen, missing } = fitted;
                let numbers: BTreeMap<&str, usize> = vocabulary.iter().enumerate().map(|(i, c)| (&c[..], i)).collect();
                for (index, (row, text)) in rows.zip(texts(frame.column(column)?)).enumerate() {
                    let number = match (text, missing) {
                        (Some(text), _) => match (numbers.get(&*text), unseen) {
                            (Some(&number), _) => Some(number),
                            (None, Unseen::Ignore) => None,
                            (None, Unseen::Refuse) => {
                                let (found, known) = (shortened(&text), vocabulary.clone());
                                return Err(DataError::UnseenCategory {
                                    column: column.clone(),
                                    row: index,
                                    found,
                                    known,
                                });
                            }
                        },
                        (None, Encoding::OwnCategory) => Some(vocabulary.len()),
                        (None, Encoding::Category(number)) => Some(*number),
                        (None, Encoding::Refuse) => {
                            let (column, found) = (column.clone(), "rows without a category");
                            return Err(DataError::ColumnKind { column, found, expected: "a category in each" });
                        }
                    };
                    match encode {
                        Encode::Ordinal => row[0] = number.map_or(-1.0, |number| number as f32),
                        Encode::OneHot => {
                            row[..fitted.numbers()].fill(0.0);
                            if let Some(number) = number {
                                row[number] = 1.0;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Preprocessor {
    pub(crate) fn new(columns: Vec<Fitted>) -> Result<Preprocessor, DataError> {
        let mut seen = BTreeSet::new();
        if let Some(twice) = columns.iter().find(|column| !seen.insert(column.column())) {
            return Err(DataError::DuplicateColumn { name: "the plan".into(), column: twice.column().into() });
        }
        let names = columns.iter().flat_map(Fitted::names).collect();
        Ok(Preprocessor { columns, names })
    }

    /// The names of the features, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The features of a frame's rows. Columns are found by name; others are not looked at.
    ///
    /// # Errors
    /// If a column is missing or of another kind, a value is missing that must not be, or a category is refused.
    pub fn transform(&self, frame: &Frame) -> Result<Features, DataError> {
        let (rows, width) = (frame.rows(), self.names.len());
        let mut values = vec![0.0; rows * width];
        let mut first = 0;
        for column in &self.columns {
            let features = column.names().len();
            // A column may have no feature: no category was seen.
            if features > 0 {
                column.write(frame, &mut values, first, width)?;
            }
            first += features;
        }
        Ok(Features { names: self.names.clone(), rows, values })
    }

    /// The preprocessor as JSON.
    pub fn to_json(&self) -> String {
        let saved = Saved { format: FORMAT.into(), version: VERSION, columns: &self.columns };
        serde_json::to_string_pretty(&saved).expect("texts and finite numbers are JSON")
    }

    /// Reads what [`to_json`](Preprocessor::to_json) wrote; errors call it `name`.
    ///
    /// # Errors
    /// If it is no such text, is of a later version, or says what no preprocessor measures.
    pub fn from_json(text: &str, name: &str) -> Result<Preprocessor, DataError> {
        let wrong = |found: String| DataError::Malformed { name: name.into(), format: "a preprocessor", found };
        let saved: Saved<Vec<Fitted>> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if saved.format != FORMAT || saved.version != VERSION {
            let found = format!("format {:?}, version {}", shortened(&saved.format), saved.version);
            return Err(wrong(format!("{found}, expected {FORMAT:?}, version {VERSION}")));
        }
        for column in &saved.columns {
            if let Some(problem) = column.problem() {
                return Err(wrong(format!("column `{}` with {problem}", shortened(column.column()))));
            }
        }
        Preprocessor::new(saved.columns)
    }
}

/// A matrix of features, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    names: Vec<String>,
    rows: usize,
    values: Vec<f32>,
}

impl Features {
    /// The names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values of a row.
    ///
    /// # Panics
    ///
    /// If there is no row `index`, as indexing a slice does.
    pub fn row(&self, index: usize) -> &[f32] {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        let width = self.names.len();
        &self.values[index * width..(index + 1) * width]
    }

    /// The matrix as a tensor, `[rows, features]`; f32 unless the placement names a dtype.
    #[track_caller]
    pub fn to_tensor(&self, on: impl Into<Placement>) -> Tensor {
        Tensor::from_vec(self.values.clone(), [self.rows, self.names.len()], on)
    }
}

/// The rows.
impl Dataset for Features {
    type Item = Array;

    fn len(&self) -> usize {
        self.rows
    }

    fn get(&self, index: usize) -> Result<Array, DataError> {
        if index >= self.rows {
            return Err(DataError::NoRow { row: index, rows: self.rows });
        }
        Ok(Array::counted(vec![self.names.len()], Elements::F32(self.row(index).to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CategoryOptions, ColumnPlan, FrameOptions, Impute, MissingCategory, NumberOptions, Scale};

    fn frame(text: &str) -> Frame {
        Frame::from_reader(text.as_bytes(), "t.csv", &FrameOptions::default()).unwrap()
    }

    fn column(impute: Impute, scale: Scale, text: &str) -> Result<Vec<f32>, DataError> {
        let frame = frame(text);
        let options = NumberOptions { impute, scale, indicator: false };
        Ok(ColumnPlan::new().numbers(["x"], options).fit(&frame)?.transform(&frame)?.values().to_vec())
    }

    /// By hand: of 1, 2, 2, 7 the mean is 3, the median and mode 2, the quartiles 1.75 and 3.25.
    #[test]
    fn imputing_and_scaling() {
        let text = "x\n2\n1\nNA\n7\n2\n";
        let imputed = |impute| column(impute, Scale::AsTheyAre, text).unwrap()[2];
        let fills = [Impute::Mean, Impute::Median, Impute::MostFrequent, Impute::Constant(-1.0)].map(imputed);
        assert_eq!(fills, [3.0, 2.0, 2.0, -1.0]);
        assert!(column(Impute::Refuse, Scale::AsTheyAre, text).is_err());

        // 2, 1, 3, 7, 2: mean 3, variance 22 / 5, least 1, range 6.
        let close = |found: Vec<f32>, expected: [f64; 5]| {
            assert!(found.iter().zip(expected).all(|(f, e)| (*f as f64 - e).abs() < 1e-6), "{found:?} {expected:?}");
        };
        let deviation = 4.4f64.sqrt();
        close(
            column(Impute::Mean, Scale::Standard, text).unwrap(),
            [-1.0, -2.0, 0.0, 4.0, -1.0].map(|x| x / deviation),
        );
        close(column(Impute::Mean, Scale::MinMax, text).unwrap(), [1.0, 0.0, 2.0, 6.0, 1.0].map(|x| x / 6.0));
        // With the median: 1, 2, 2, 2, 7, whose quartiles are both 2; with the mean 1, 2, 2, 3, 7: 2 and 3.
        close(column(Impute::Median, Scale::Robust, text).unwrap(), [0.0, -1.0, 0.0, 5.0, 0.0]);
        close(column(Impute::Mean, Scale::Robust, text).unwrap(), [0.0, -1.0, 1.0, 5.0, 0.0]);
        for scale in [Scale::Standard, Scale::MinMax, Scale::Robust] {
            assert_eq!(column(Impute::Mean, scale, "x\n0.1\n0.1\n0.1\n").unwrap(), [0.0; 3]);
        }
        let nothing = column(Impute::Mean, Scale::Standard, "x,y\nNA,1\n").unwrap_err().to_string();
        assert_eq!(nothing, "column `x` holds no number, expected some to impute from");
        assert!(column(Impute::Mean, Scale::Standard, "x\n1\ninf\n").is_err());
        assert!(column(Impute::Mean, Scale::Standard, "x\n1e308\n-1e308\n").is_err());
        assert!(column(Impute::Constant(f64::NAN), Scale::AsTheyAre, "x\n1\n").is_err());
    }

    #[test]
    fn only_what_was_fitted_counts() {
        let (train, test) = (frame("x,c\n0,a\n2,b\n"), frame("c,x,more\nb,1000,1\na,NA,2\n"));
        let fitted = ColumnPlan::of(&train).fit(&train).unwrap();
        let features = fitted.transform(&test).unwrap();
        assert_eq!((features.row(0), features.row(1)), (&[999.0, 0.0, 1.0, 0.0][..], &[0.0, 1.0, 0.0, 0.0][..]));
        assert!(fitted.transform(&frame("x\n1\n")).is_err());
        assert!(fitted.transform(&frame("x,c\nlots,a\n")).is_err());
        assert_eq!(features.get(1).unwrap().shape(), [4]);
        assert!(features.get(2).is_err());
    }

    #[test]
    fn categories_seen_unseen_and_missing() {
        let train = frame("class,size\n3,L\n10,S\n3,?\n2,S\n");
        let of = |encode, unseen, missing| {
            let options = CategoryOptions { encode, unseen, missing };
            ColumnPlan::new().categories(["class", "size"], options).fit(&train)
        };
        let fitted = of(Encode::Ordinal, Unseen::Ignore, MissingCategory::MostFrequent).unwrap();
        // Numbers are sorted as numbers, texts as texts.
        let ordinal = fitted.transform(&frame("class,size\n2,?\n10,XL\n7,L\n?,S\n")).unwrap();
        assert_eq!(ordinal.values(), [0.0, 1.0, 2.0, -1.0, -1.0, 0.0, 1.0, 1.0]);
        let fitted = of(Encode::OneHot, Unseen::Refuse, MissingCategory::OwnCategory).unwrap();
        let names = ["class=2", "class=3", "class=10", "class is missing", "size=L", "size=S", "size is missing"];
        assert_eq!(fitted.names(), names);
        assert_eq!(fitted.transform(&train).unwrap().row(2), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        let error = fitted.transform(&frame("class,size\n2,S\n2,M\n")).unwrap_err().to_string();
        assert_eq!(error, "column `size`, row 1 (from 0): found the category `M`, expected one of L, S");
        assert!(of(Encode::OneHot, Unseen::Ignore, MissingCategory::Refuse).is_err());
        let twice = ColumnPlan::new().categories(["size", "size"], CategoryOptions::default()).fit(&train);
        assert!(matches!(twice, Err(DataError::DuplicateColumn { .. })));
    }

    #[test]
    fn what_was_saved_is_what_is_read() {
        let train = frame("x,c\n0.1,a\n2,b\nNA,?\n");
        for missing in [MissingCategory::OwnCategory, MissingCategory::MostFrequent] {
            let options = NumberOptions { indicator: true, ..NumberOptions::default() };
            let categories = CategoryOptions { missing, ..CategoryOptions::default() };
            let fitted = ColumnPlan::new().numbers(["x"], options).categories(["c"], categories).fit(&train).unwrap();
            let text = fitted.to_json();
            assert_eq!(Preprocessor::from_json(&text, "it").unwrap(), fitted);
            let says = |from: &str, to: &str, what: &str| {
                assert!(text.contains(from), "{text}");
                let error = Preprocessor::from_json(&text.replace(from, to), "it").unwrap_err().to_string();
                assert!(error.starts_with("it") && error.contains(what), "{error}");
            };
            says("\"version\": 1", "\"version\": 2", "version 2");
            says("gradus preprocessor", "another", "format \"another\"");
            says("\"scale\": 0.", "\"scale\": -0.", "no scale above 0");
            says("\"shift\": ", "\"shift\": 1e999", "it is not a preprocessor");
            says("\"b\"", "\"a\"", "a category twice");
            says("\"indicator\"", "\"surprise\"", "unknown field");
            if missing == MissingCategory::MostFrequent {
                says("\"category\": 0", "\"category\": 2", "not in the vocabulary");
            }
            for end in 0..text.len() {
                assert!(Preprocessor::from_json(&text[..end], "it").is_err());
            }
        }
    }
}
