//! The kinds of columns, told in one pass over cells that are not kept.

#[cfg(feature = "parquet")]
use crate::frame::Cells;
use crate::read_csv::number;
use crate::read_frame::Vocabulary;
use crate::{ColumnKind, DataError};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a column of a file holds.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Numbers,
    Texts,
    Categories(Arc<Vocabulary>),
}

#[cfg(feature = "parquet")]
impl Kind {
    /// No cell.
    pub(crate) fn no_cells(&self) -> Cells {
        match self {
            Kind::Numbers => Cells::Numbers(Vec::new()),
            Kind::Texts => Cells::Texts(Vec::new()),
            Kind::Categories(vocabulary) => Cells::Categories(vocabulary.categories(Vec::new())),
        }
    }

    /// The cells of some of a file's rows as those of the whole file; `None` if they cannot be.
    pub(crate) fn cells(&self, cells: Cells) -> Option<Cells> {
        Some(match (self, cells) {
            (Kind::Numbers, cells @ Cells::Numbers(_)) | (Kind::Texts, cells @ Cells::Texts(_)) => cells,
            (Kind::Texts, Cells::Categories(categories)) => {
                Cells::Texts((0..categories.codes().len()).map(|row| categories.text(row).map(String::from)).collect())
            }
            (Kind::Categories(known), Cells::Categories(categories)) => {
                let codes: Option<Vec<u32>> = categories.vocabulary().iter().map(|text| known.number(text)).collect();
                let codes = codes?;
                let code = |code: &Option<u32>| code.map(|code| codes[code as usize]);
                Cells::Categories(known.categories(categories.codes().iter().map(code).collect()))
            }
            (Kind::Categories(known), Cells::Texts(texts)) => {
                let code = |text: Option<String>| match text {
                    Some(text) => known.number(&text).map(Some),
                    None => Some(None),
                };
                Cells::Categories(known.categories(texts.into_iter().map(code).collect::<Option<_>>()?))
            }
            _ => return None,
        })
    }
}

/// A column whose cells pass by. It ends as the kind that a [`Builder`](crate::read_frame::Builder) would make of the same cells.
pub(crate) struct Settling {
    name: String,
    seen: Seen,
}

enum Seen {
    /// The kind is given, or cannot change any more; cells must be of it.
    Settled(Kind),
    /// Different texts, however many.
    Category(BTreeSet<String>),
    /// All of them if they are few, and whether all are numbers.
    Any { texts: Option<BTreeSet<String>>, are_numbers: bool },
}

impl Settling {
    /// # Errors
    /// If the categories that are given are not all different.
    pub(crate) fn new(name: String, kind: Option<&ColumnKind>) -> Result<Settling, DataError> {
        let seen = match kind {
            None => Seen::Any { texts: Some(BTreeSet::new()), are_numbers: true },
            Some(ColumnKind::Number) => Seen::Settled(Kind::Numbers),
            Some(ColumnKind::Text) => Seen::Settled(Kind::Texts),
            Some(ColumnKind::Category) => Seen::Category(BTreeSet::new()),
            Some(ColumnKind::Categories(texts)) => {
                Seen::Settled(Kind::Categories(Arc::new(Vocabulary::new(texts.clone())?)))
            }
        };
        Ok(Settling { name, seen })
    }

    /// A column of texts, be they numbers too: categories if there are few.
    #[cfg(feature = "parquet")]
    pub(crate) fn of_texts(name: String) -> Settling {
        Settling { name, seen: Seen::Any { texts: Some(BTreeSet::new()), are_numbers: false } }
    }

    /// Looks at a cell, and tells how many bytes are kept of it.
    ///
    /// # Errors
    /// If it is not of the kind that is given.
    pub(crate) fn look(
        &mut self,
        text: Option<&str>,
        most_categories: usize,
        (name, line, index): (&str, u64, usize),
    ) -> Result<usize, DataError> {
        let Some(text) = text else { return Ok(0) };
        match &mut self.seen {
            Seen::Settled(Kind::Texts) => Ok(0),
            Seen::Settled(Kind::Numbers) => number(text, name, line, index, || Some(self.name.clone())).map(|_| 0),
            Seen::Settled(Kind::Categories(known)) => known.read(text, name, line, index, &self.name).map(|_| 0),
            Seen::Category(texts) => Ok(keep(texts, text)),
            Seen::Any { texts, are_numbers } => {
                *are_numbers = *are_numbers && text.parse::<f64>().is_ok();
                let mut kept = texts.as_mut().map_or(0, |texts| keep(texts, text));
                if texts.as_ref().is_some_and(|texts| texts.len() > most_categories) {
                    (*texts, kept) = (None, 0);
                }
                if texts.is_none() && !*are_numbers {
                    self.seen = Seen::Settled(Kind::Texts);
                }
                Ok(kept)
            }
        }
    }

    /// The column's name and kind.
    pub(crate) fn settle(self) -> Result<(String, Kind), DataError> {
        let known = |texts: BTreeSet<String>| {
            Ok::<_, DataError>(Kind::Categories(Arc::new(Vocabulary::new(texts.into_iter().collect())?)))
        };
        let kind = match self.seen {
            Seen::Settled(kind) => kind,
            Seen::Category(texts) => known(texts)?,
            Seen::Any { are_numbers: true, .. } => Kind::Numbers,
            Seen::Any { texts: Some(texts), .. } => known(texts)?,
            Seen::Any { texts: None, .. } => Kind::Texts,
        };
        Ok((self.name, kind))
    }
}

/// What a text in a set takes beside its letters.
const BESIDE: usize = 64;

fn keep(texts: &mut BTreeSet<String>, text: &str) -> usize {
    if texts.contains(text) {
        return 0;
    }
    texts.insert(text.to_string());
    text.len() + BESIDE
}
