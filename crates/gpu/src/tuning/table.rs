//! What `gradus tune` found on an adapter, as JSON. A table is read as something that anybody may have written.

use super::Tuning;
use super::field::NotLegal;
use gradus_device::Description;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// The version of tables. It grows when kernels change so much that what was measured says nothing about them.
pub const VERSION: u32 = 1;

/// A table: where it was measured, and the fields that are faster with another value than the default.
///
/// ```
/// use gradus_gpu::Tuning;
/// use gradus_gpu::tuning::Table;
///
/// let text = r#"{
///     "version": 1, "gradus": "0.1.0", "adapter": "A GPU", "backend": "Vulkan", "driver": "7.1", "date": "2026-11-26",
///     "fields": {"busy": {"default": 65536, "chosen": 131072, "gain": 1.07}}
/// }"#;
/// let table = Table::parse(text)?;
/// assert_eq!(table.tuning(&Tuning::GPU)?, Tuning { busy: 131_072, ..Tuning::GPU });
/// # Ok::<(), gradus_gpu::tuning::TableError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// [`VERSION`] when it was written.
    pub version: u32,
    /// The version of gradus that measured.
    pub gradus: String,
    /// The adapter's name.
    pub adapter: String,
    /// wgpu's back end.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// The day on which it was measured, in UTC.
    pub date: String,
    /// What was chosen, by the names of [`Tuning::FIELDS`].
    pub fields: BTreeMap<String, Choice>,
}

/// The value of a field that is better than the default.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// What it is without a table.
    pub default: u64,
    /// What it was found to be best as.
    pub chosen: u64,
    /// How many times as fast the measured kernels became by it.
    pub gain: f64,
}

/// Why a table is of no use.
#[derive(Debug, Error)]
pub enum TableError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is longer than any table.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
    /// It is no JSON, or not a table's.
    #[error("it is no table: {0}")]
    Json(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("it is of version {found}, by gradus {gradus}, and this is version {VERSION}, gradus {}", env!("CARGO_PKG_VERSION"))]
    Version {
        /// The table's version.
        found: u32,
        /// The version of gradus that wrote it.
        gradus: String,
    },
    /// It was measured elsewhere.
    #[error("it was measured on {found}, and this is {expected}")]
    Elsewhere {
        /// Where it was measured.
        found: String,
        /// The adapter that is opened.
        expected: String,
    },
    /// It has a field that no tuning has.
    #[error("there is no field \"{0}\"")]
    NoField(String),
    /// A field has a value that it cannot have.
    #[error(transparent)]
    NotLegal(#[from] NotLegal),
}

/// An adapter's name, back end and driver.
fn named(adapter: &str, backend: &str, driver: &str) -> String {
    format!("{adapter} ({backend}, {driver})")
}

/// A driver and its version.
pub(super) fn driver(description: &Description) -> String {
    [&description.driver[..], &description.driver_info[..]].join(" ").trim().into()
}

impl Table {
    /// A table of what was measured today on an adapter.
    pub fn of(description: &Description, fields: BTreeMap<String, Choice>) -> Table {
        Table {
            version: VERSION,
            gradus: env!("CARGO_PKG_VERSION").into(),
            adapter: description.name.clone(),
            backend: description.backend.into(),
            driver: driver(description),
            date: today(),
            fields,
        }
    }

    /// Reads a table, and looks at every value of it.
    ///
    /// # Errors
    /// If it is none, of another version, or has a value that kernels cannot have.
    pub fn parse(text: &str) -> Result<Table, TableError> {
        let table: Table = serde_json::from_str(text)?;
        if table.version != VERSION || table.gradus != env!("CARGO_PKG_VERSION") {
            return Err(TableError::Version { found: table.version, gradus: table.gradus });
        }
        table.tuning(&Tuning::GPU)?;
        Ok(table)
    }

    /// Whether it was measured on this adapter with this driver.
    ///
    /// # Errors
    /// If it was not.
    pub fn check(&self, description: &Description) -> Result<(), TableError> {
        let found = named(&self.adapter, &self.backend, &self.driver);
        let expected = named(&description.name, description.backend, &driver(description));
        if found == expected { Ok(()) } else { Err(TableError::Elsewhere { found, expected }) }
    }

    /// A tuning with the values that were chosen.
    ///
    /// # Errors
    /// If one of them is none that kernels can have.
    pub fn tuning(&self, default: &Tuning) -> Result<Tuning, TableError> {
        let mut tuning = default.clone();
        for (name, choice) in &self.fields {
            let field = Tuning::field(name).ok_or_else(|| TableError::NoField(name.clone()))?;
            field.set(&mut tuning, choice.chosen)?;
        }
        Ok(tuning)
    }

    /// The table as text.
    pub fn to_json(&self) -> String {
        // Names, numbers and a map of them are all that there is.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// The day, in UTC, as in `2026-11-26`.
fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    date(now.as_secs() / 86_400)
}

/// The date of a day, counted from the beginning of 1970: Hinnant's algorithm, whose years begin in March.
fn date(day: u64) -> String {
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", 400 * era + year + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_dates() {
        assert_eq!(
            [0, 59, 11_016, 19_782, 20_783].map(date),
            ["1970-01-01", "1970-03-01", "2000-02-29", "2024-02-29", "2026-11-26"]
        );
    }
}
