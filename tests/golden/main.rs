//! Golden numbers: what other libraries computed, against what gradus computes.
//!
//! Every JSON file of a folder is read and every case in it is run, dispatched by the file's keys and the case's kind.
//! The folder is `GRADUS_GOLDEN` (a relative path means from the workspace's root), by default `tests/golden`.

mod activations;
mod case;
mod datasets;
mod json;
mod layers;
mod losses;
mod metrics;
mod not_yet;
mod optimizers;
mod regression;

use anyhow::{Context, Result, bail, ensure};
use case::Case;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const DEFAULT_FOLDER: &str = "tests/golden";

/// A kind of file: its name, the key that tells it, and what runs it.
struct Schema {
    name: &'static str,
    recognises: fn(&Value) -> bool,
    cases: fn(&Value) -> Result<Vec<Case>>,
}

const SCHEMAS: &[Schema] = &[
    Schema { name: "activations", recognises: |file| file["elementwise"].is_object(), cases: activations::cases },
    Schema { name: "losses", recognises: |file| file["cases"][0]["loss"].is_string(), cases: losses::cases },
    Schema { name: "layers", recognises: |file| file["cases"][0]["layer"].is_string(), cases: layers::cases },
    Schema { name: "optimizers", recognises: |file| file["runs"].is_array(), cases: optimizers::cases },
    Schema { name: "datasets", recognises: datasets::recognises, cases: datasets::cases },
    Schema { name: "regression", recognises: |file| file["standardise"].is_string(), cases: regression::cases },
    Schema { name: "metrics", recognises: |file| file["metrics"].is_object(), cases: metrics::cases },
];

#[test]
fn golden() {
    let mut failures = Vec::new();
    println!("{:<28} {:<42} {:>5} {:>6}", "file", "kind", "cases", "passed");
    for path in files(&folder()).unwrap_or_else(|error| panic!("{error:#}")) {
        let file = path.file_stem().unwrap_or_default().to_string_lossy();
        match run(&path, &file) {
            Ok((schema, cases)) => failures.extend(judge(&file, schema, cases)),
            Err(error) => failures.push(format!("{file}: {error:#}")),
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

/// The cases of a file, run, and the name of its schema; a file of no known schema is one case that fails.
fn run<'a>(path: &Path, file: &'a str) -> Result<(&'a str, Vec<Case>)> {
    let json = json::read(path)?;
    match SCHEMAS.iter().find(|schema| (schema.recognises)(&json)) {
        Some(schema) => {
            let cases = (schema.cases)(&json)?;
            ensure!(!cases.is_empty(), "no cases");
            Ok((schema.name, cases))
        }
        None => Ok((file, vec![Case::new("*", || bail!("no schema fits this file"))])),
    }
}

/// Prints a line for each kind, and says what is wrong.
fn judge(file: &str, schema: &str, cases: Vec<Case>) -> Vec<String> {
    let mut kinds: BTreeMap<String, Vec<(usize, Result<()>)>> = BTreeMap::new();
    for (index, Case { kind, outcome }) in cases.into_iter().enumerate() {
        kinds.entry(kind).or_default().push((index, outcome));
    }
    let mut failures = Vec::new();
    for (kind, outcomes) in kinds {
        let count = outcomes.len();
        let errors: Vec<_> = outcomes.into_iter().filter_map(|(i, outcome)| Some((i, outcome.err()?))).collect();
        let not_yet = not_yet::reason(schema, &kind);
        let note = not_yet.map_or(String::new(), |reason| format!("  not yet: {reason}"));
        println!("{file:<28} {kind:<42} {count:>5} {:>6}{note}", count - errors.len());
        match not_yet {
            None => failures.extend(errors.iter().map(|(i, error)| format!("{file}, {kind}, case {i}: {error:#}"))),
            Some(_) if errors.is_empty() => {
                failures.push(format!("{file}, {kind}: it works; remove it from the list in not_yet.rs"));
            }
            Some(_) => {}
        }
    }
    failures
}

/// The folder with the files.
fn folder() -> PathBuf {
    Path::new(ROOT).join(std::env::var_os("GRADUS_GOLDEN").unwrap_or(DEFAULT_FOLDER.into()))
}

/// The JSON files of a folder, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let missing = || format!("no golden numbers in {} (GRADUS_GOLDEN names the folder)", folder.display());
    let entries = std::fs::read_dir(folder).with_context(missing)?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    ensure!(!files.is_empty(), missing());
    Ok(files)
}
