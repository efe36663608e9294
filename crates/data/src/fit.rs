//! Measuring what a plan needs, on rows that pass by in pieces.

use crate::column_plan::{CategoryOptions, Impute, MissingCategory, NumberOptions, Options, Scale, text_of, texts};
use crate::frame::Cells;
use crate::preprocessor::{Encoding, Fitted, FittedCategories, FittedNumbers};
use crate::selection::Selection;
use crate::{DataError, Frame};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fits columns, in as many passes over the pieces as their statistics need.
pub(crate) fn fit<F: Borrow<Frame>, I: Iterator<Item = Result<F, DataError>>>(
    plan: &[(String, Options)],
    pieces: impl Fn() -> I,
) -> Result<Vec<Fitted>, DataError> {
    let mut columns: Vec<Column> = plan.iter().map(|(name, options)| Column::new(name, options)).collect();
    let mut is_first = true;
    while is_first || columns.iter().any(|column| column.needs_pass()) {
        let mut has_pieces = false;
        for piece in pieces() {
            let piece = piece?;
            columns.iter_mut().try_for_each(|column| column.look(piece.borrow()))?;
            has_pieces = true;
        }
        if !has_pieces {
            let (found, expected) = ("none".into(), "one at least, be it without rows");
            return Err(DataError::Argument { argument: "pieces to fit to", found, expected });
        }
        columns.iter_mut().try_for_each(Column::end_pass)?;
        is_first = false;
    }
    columns.into_iter().map(Column::finish).collect()
}

fn problem(column: &str, found: &'static str, expected: &'static str) -> DataError {
    DataError::ColumnKind { column: column.into(), found, expected }
}

enum Column<'a> {
    Numbers(Numbers<'a>),
    Categories(CategoriesSeen<'a>),
}

impl<'a> Column<'a> {
    fn new(name: &'a str, options: &'a Options) -> Column<'a> {
        match options {
            Options::Numbers(options) => Column::Numbers(Numbers::new(name, options)),
            Options::Categories(options) => Column::Categories(CategoriesSeen::new(name, options)),
        }
    }

    fn needs_pass(&self) -> bool {
        matches!(self, Column::Numbers(Numbers { stage: Stage::Fill(_) | Stage::Quartiles(_), .. }))
    }

    fn look(&mut self, piece: &Frame) -> Result<(), DataError> {
        match self {
            Column::Numbers(numbers) => numbers.look(piece.numbers(numbers.name)?),
            Column::Categories(categories) => categories.look(piece.column(categories.name)?),
        }
    }

    fn end_pass(&mut self) -> Result<(), DataError> {
        match self {
            Column::Numbers(numbers) => numbers.end_pass(),
            Column::Categories(categories) => {
                categories.is_counted = true;
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<Fitted, DataError> {
        match self {
            Column::Numbers(numbers) => numbers.finish().map(Fitted::Numbers),
            Column::Categories(categories) => categories.finish().map(Fitted::Categories),
        }
    }
}

/// Count, mean, sum of squared differences from it, and ends, by Welford's recurrence (1962).
#[derive(Clone, Copy)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
    least: f64,
    most: f64,
}

impl Moments {
    /// One more number, `times` over (Chan, Golub and LeVeque, 1979).
    fn add(&mut self, number: f64, times: u64) {
        if times == 0 {
            return;
        }
        let (before, all) = (self.count as f64, (self.count + times) as f64);
        let difference = number - self.mean;
        self.mean += difference * (times as f64 / all);
        self.squares += difference * difference * (before * times as f64 / all);
        self.count += times;
        (self.least, self.most) = (self.least.min(number), self.most.max(number));
    }

    /// The population standard deviation.
    fn deviation(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares / self.count as f64).sqrt() }
    }
}

struct Numbers<'a> {
    name: &'a str,
    options: &'a NumberOptions,
    moments: Moments,
    missing: u64,
    /// How often each number came, if it is asked for.
    counts: BTreeMap<Ordered, u64>,
    fill: Option<f64>,
    stage: Stage,
}

/// What passes are for.
enum Stage {
    Moments,
    /// The median of what is there.
    Fill(Selection),
    /// Quartiles of the imputed column.
    Quartiles(Selection),
    /// Shift and scale.
    Done(f64, f64),
}

/// A float that is not NaN, in order.
#[derive(Clone, Copy)]
struct Ordered(f64);

impl PartialEq for Ordered {
    fn eq(&self, other: &Ordered) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Ordered) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Ordered) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl<'a> Numbers<'a> {
    fn new(name: &'a str, options: &'a NumberOptions) -> Numbers<'a> {
        let moments = Moments { count: 0, mean: 0.0, squares: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY };
        Numbers { name, options, moments, missing: 0, counts: BTreeMap::new(), fill: None, stage: Stage::Moments }
    }

    fn look(&mut self, numbers: &[f64]) -> Result<(), DataError> {
        let present = numbers.iter().copied().filter(|number| !number.is_nan());
        match &mut self.stage {
            Stage::Moments => {
                for number in present {
                    if number.is_infinite() {
                        return Err(problem(self.name, "an infinite number", "finite ones to measure"));
                    }
                    self.moments.add(number, 1);
                    if self.options.impute == Impute::MostFrequent {
                        *self.counts.entry(Ordered(number + 0.0)).or_default() += 1;
                    }
                }
                self.missing += numbers.iter().filter(|number| number.is_nan()).count() as u64;
            }
            Stage::Fill(selection) | Stage::Quartiles(selection) => {
                present.for_each(|number| selection.push(number, 1));
            }
            Stage::Done(..) => {}
        }
        Ok(())
    }

    fn end_pass(&mut self) -> Result<(), DataError> {
        match &mut self.stage {
            Stage::Moments => {
                let Moments { count, mean, least, most, .. } = self.moments;
                if count == 0 && !matches!(self.options.impute, Impute::Refuse | Impute::Constant(_)) {
                    return Err(problem(self.name, "no number", "some to impute from"));
                }
                self.fill = match self.options.impute {
                    Impute::Refuse if self.missing > 0 => {
                        return Err(problem(self.name, "missing numbers", "a number in each row"));
                    }
                    Impute::Refuse => None,
                    Impute::Constant(number) => Some(number),
                    Impute::Mean => Some(mean),
                    // The last of equals is what `max_by_key` gives.
                    Impute::MostFrequent => self.counts.iter().rev().max_by_key(|(_, count)| **count).map(|(n, _)| n.0),
                    Impute::Median => {
                        self.stage = Stage::Fill(Selection::new(&[0.5], count, least, most));
                        None
                    }
                };
            }
            Stage::Fill(selection) => selection.end_pass()?,
            Stage::Quartiles(selection) => {
                if let Some(fill) = self.fill {
                    selection.push(fill, self.missing);
                }
                selection.end_pass()?;
            }
            Stage::Done(..) => {}
        }
        self.go_on();
        Ok(())
    }

    /// From stage to stage, as far as no pass is needed.
    fn go_on(&mut self) {
        if let Stage::Fill(selection) = &self.stage {
            if !selection.is_done() {
                return;
            }
            self.fill = selection.quantiles().first().copied();
            self.stage = Stage::Moments;
        }
        if let Stage::Moments = &self.stage {
            if let Some(fill) = self.fill {
                self.moments.add(fill, self.missing);
            }
            let Moments { count, mean, least, most, .. } = self.moments;
            self.stage = match self.options.scale {
                Scale::AsTheyAre => Stage::Done(0.0, 1.0),
                Scale::Standard => Stage::Done(mean, self.moments.deviation()),
                _ if count == 0 => Stage::Done(0.0, 1.0),
                Scale::MinMax => Stage::Done(least, most - least),
                Scale::Robust => Stage::Quartiles(Selection::new(&[0.25, 0.5, 0.75], count, least, most)),
            };
        }
        if let Stage::Quartiles(selection) = &self.stage
            && selection.is_done()
            && let [low, middle, high] = selection.quantiles()[..]
        {
            self.stage = Stage::Done(middle, high - low);
        }
    }

    fn finish(self) -> Result<FittedNumbers, DataError> {
        let Stage::Done(shift, scale) = self.stage else {
            return Err(problem(self.name, "numbers that were not measured", "passes until they are"));
        };
        let scale = if scale == 0.0 { 1.0 } else { scale };
        if ![shift, scale, self.fill.unwrap_or(0.0)].iter().all(|number| number.is_finite()) {
            return Err(problem(self.name, "numbers too large to measure", "finite statistics"));
        }
        let (column, indicator) = (self.name.into(), self.options.indicator);
        Ok(FittedNumbers { column, fill: self.fill, indicator, shift, scale })
    }
}

struct CategoriesSeen<'a> {
    name: &'a str,
    options: &'a CategoryOptions,
    kind: Option<&'static str>,
    /// How often each text came.
    texts: BTreeMap<String, u64>,
    /// Which numbers came, where these are categories.
    numbers: BTreeMap<Ordered, ()>,
    /// What the frames say that there may be.
    vocabulary: Option<Arc<[String]>>,
    has_missing: bool,
    is_counted: bool,
}

impl<'a> CategoriesSeen<'a> {
    fn new(name: &'a str, options: &'a CategoryOptions) -> CategoriesSeen<'a> {
        let (texts, numbers) = (BTreeMap::new(), BTreeMap::new());
        let (kind, vocabulary) = (None, None);
        CategoriesSeen { name, options, kind, texts, numbers, vocabulary, has_missing: false, is_counted: false }
    }

    fn look(&mut self, cells: &Cells) -> Result<(), DataError> {
        if self.is_counted {
            return Ok(());
        }
        if *self.kind.get_or_insert(cells.kind()) != cells.kind() {
            return Err(problem(self.name, "cells of several kinds", "all pieces alike"));
        }
        match cells {
            Cells::Categories(categories) => {
                let vocabulary = self.vocabulary.get_or_insert_with(|| categories.shared_vocabulary());
                if vocabulary[..] != *categories.vocabulary() {
                    return Err(problem(self.name, "categories of several vocabularies", "one for all pieces"));
                }
            }
            Cells::Numbers(numbers) => {
                let present = numbers.iter().filter(|number| !number.is_nan());
                self.numbers.extend(present.map(|number| (Ordered(number + 0.0), ())));
            }
            Cells::Texts(_) => {}
        }
        for text in texts(cells) {
            match text {
                None => self.has_missing = true,
                Some(text) => match self.texts.get_mut(&*text) {
                    Some(count) => *count += 1,
                    None => drop(self.texts.insert(text.into_owned(), 1)),
                },
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<FittedCategories, DataError> {
        let vocabulary: Vec<String> = match (self.vocabulary, self.kind) {
            // Also what does not occur in these rows: who gave a vocabulary meant it.
            (Some(vocabulary), _) => vocabulary.to_vec(),
            (None, Some("numbers")) => self.numbers.keys().map(|number| text_of(number.0)).collect(),
            (None, _) => self.texts.keys().cloned().collect(),
        };
        let missing = match self.options.missing {
            MissingCategory::Refuse if self.has_missing => {
                return Err(problem(self.name, "rows without a category", "a category in each"));
            }
            MissingCategory::Refuse => Encoding::Refuse,
            MissingCategory::OwnCategory => Encoding::OwnCategory,
            MissingCategory::MostFrequent => {
                let count = |text: &String| self.texts.get(text).copied().unwrap_or(0);
                let most = (0..vocabulary.len()).rev().max_by_key(|&i| count(&vocabulary[i]));
                Encoding::Category(most.ok_or_else(|| problem(self.name, "no category", "some to impute from"))?)
            }
        };
        let CategoryOptions { encode, unseen, .. } = *self.options;
        Ok(FittedCategories { column: self.name.into(), vocabulary, encode, unseen, missing })
    }
}
