//! Data sets: what the table reader makes of CSV text equals the raw numbers.

use crate::case::{Case, Check, Tolerance};
use crate::{DEFAULT_FOLDER, ROOT, folder, json};
use anyhow::{Context, Result, bail, ensure};
use gradus::Device;
use gradus::data::{CsvOptions, Table};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

pub(crate) fn recognises(file: &Value) -> bool {
    file.as_object().is_some_and(|sets| sets.values().any(|set| set["X"] != Value::Null && set["shape"].is_array()))
}

pub(crate) fn cases(file: &Value, _: &Device) -> Result<Vec<Case>> {
    let sets = file.as_object().context("no object")?.iter().filter(|(_, set)| set.is_object());
    Ok(sets.map(|(name, set)| Case::new(name, || check(name, set))).collect())
}

/// Features and target as one table, by way of CSV text. The data sets lie beside the other files, or in the default
/// folder.
pub(crate) fn table(name: &str) -> Result<Table> {
    let beside = folder().join("datasets.json");
    let path = if beside.exists() { beside } else { Path::new(ROOT).join(DEFAULT_FOLDER).join("datasets.json") };
    let file = json::read(&path)?;
    through_text(&rows(json::field(&file, name)?)?)
}

/// The files of the examples, and how many lines of theirs hold no numbers.
const SHIPPED: &[(&str, &str, usize)] =
    &[("breast_cancer", "breast-cancer-wdbc.csv.gz", 1), ("digits", "digits-8x8.csv.gz", 0)];

fn check(name: &str, set: &Value) -> Result<()> {
    let rows = rows(set)?;
    let table = match SHIPPED.iter().find(|(shipped, ..)| *shipped == name) {
        Some(&(_, file, skip_lines)) => {
            let options = CsvOptions { has_header: false, skip_lines, ..CsvOptions::default() };
            Table::read(Path::new(ROOT).join("examples/data").join(file), &options)?
        }
        None => through_text(&rows)?,
    };
    ensure!(table.rows() == rows.len(), "{} rows in place of {}", table.rows(), rows.len());
    let mut check = Check::default();
    for (i, row) in rows.iter().enumerate() {
        check.close(&format!("row {i}"), table.row(i), row, Tolerance::EXACT);
    }
    check.finish()
}

fn through_text(rows: &[Vec<f64>]) -> Result<Table> {
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().map(f64::to_string).collect();
        writeln!(text, "{}", cells.join(","))?;
    }
    let options = CsvOptions { has_header: false, ..CsvOptions::default() };
    Ok(Table::from_reader(text.as_bytes(), "golden numbers", &options)?)
}

/// Rows of features, each with its target at the end.
fn rows(set: &Value) -> Result<Vec<Vec<f64>>> {
    let shape = json::numbers(json::field(set, "shape")?)?;
    let [count, columns] = shape[..] else { bail!("a table has two axes") };
    let (features, targets) = (values(json::field(set, "X")?)?, values(json::field(set, "y")?)?);
    let complete = features.len() as f64 == count * columns && targets.len() as f64 == count;
    ensure!(complete, "{} features and {} targets for {shape:?}", features.len(), targets.len());
    let rows = features.chunks(columns as usize).zip(targets);
    Ok(rows.map(|(features, target)| features.iter().copied().chain([target]).collect()).collect())
}

/// Numbers in a list, or as text with one character of base 17 each.
fn values(list: &Value) -> Result<Vec<f64>> {
    let Some(text) = list.as_str() else { return json::numbers(list) };
    let digit = |c: char| c.to_digit(17).map(f64::from).with_context(|| format!("{c:?} is no digit"));
    text.chars().map(digit).collect()
}
