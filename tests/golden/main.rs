//! Golden numbers: what other libraries computed, against what gradus computes, on every device.
//!
//! Every JSON file of a folder is read and every case in it is run, dispatched by the file's keys and the case's kind.
//! The folder is `GRADUS_GOLDEN` (a relative path means from the workspace's root), by default `tests/golden`.

mod activations;
mod case;
mod datasets;
#[path = "../support/devices.rs"]
mod devices;
mod json;
mod layers;
mod losses;
mod metrics;
mod not_yet;
mod optimizers;
mod regression;
mod schedules;

use anyhow::{Context, Result, bail, ensure};
use case::Case;
use devices::{devices, has, is_cpu};
use gradus::{DType, Device};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const DEFAULT_FOLDER: &str = "tests/golden";

/// A kind of file: its name, the key that tells it, what runs it, and where.
struct Schema {
    name: &'static str,
    recognises: fn(&Value) -> bool,
    cases: fn(&Value, &Device) -> Result<Vec<Case>>,
    needs: Needs,
}

/// What the cases of a schema need of a device.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    /// Nothing is computed on a device, so that one is enough.
    Nothing,
    F32,
    /// Coefficients to more digits than f32 has.
    F64,
}

impl Needs {
    fn are_met(self, device: &Device) -> bool {
        match self {
            Needs::Nothing => is_cpu(device),
            Needs::F32 => has(device, DType::F32),
            Needs::F64 => has(device, DType::F64),
        }
    }
}

const SCHEMAS: &[Schema] = &[
    Schema {
        name: "activations",
        recognises: |file| file["elementwise"].is_object(),
        cases: activations::cases,
        needs: Needs::F32,
    },
    Schema {
        name: "losses",
        recognises: |file| file["cases"][0]["loss"].is_string(),
        cases: losses::cases,
        needs: Needs::F32,
    },
    Schema {
        name: "layers",
        recognises: |file| file["cases"][0]["layer"].is_string(),
        cases: layers::cases,
        needs: Needs::F32,
    },
    Schema {
        name: "optimizers",
        recognises: |file| file["runs"].is_array(),
        cases: optimizers::cases,
        needs: Needs::F32,
    },
    Schema {
        name: "lr_schedules",
        recognises: |file| file["schedules"].is_array(),
        cases: schedules::cases,
        needs: Needs::Nothing,
    },
    Schema { name: "datasets", recognises: datasets::recognises, cases: datasets::cases, needs: Needs::Nothing },
    Schema {
        name: "regression",
        recognises: |file| file["standardise"].is_string(),
        cases: regression::cases,
        needs: Needs::F64,
    },
    Schema {
        name: "metrics",
        recognises: |file| file["metrics"].is_object(),
        cases: metrics::cases,
        needs: Needs::Nothing,
    },
];

#[test]
fn golden() {
    let mut failures = Vec::new();
    for device in devices() {
        println!("\non {device}\n{:<28} {:<42} {:>5} {:>6}", "file", "kind", "cases", "passed");
        for path in files(&folder()).unwrap_or_else(|error| panic!("{error:#}")) {
            let file = path.file_stem().unwrap_or_default().to_string_lossy();
            let wrong = match run(&path, &file, &device) {
                Ok(Some((schema, cases))) => judge(&file, schema, cases),
                Ok(None) => vec![],
                Err(error) => vec![format!("{file}: {error:#}")],
            };
            failures.extend(wrong.into_iter().map(|failure| format!("on {device}: {failure}")));
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

/// The cases of a file, run on a device that can, and the name of its schema; a file of no known schema is one case that
/// fails.
fn run<'a>(path: &Path, file: &'a str, device: &Device) -> Result<Option<(&'a str, Vec<Case>)>> {
    let json = json::read(path)?;
    match SCHEMAS.iter().find(|schema| (schema.recognises)(&json)) {
        Some(schema) if schema.needs.are_met(device) => {
            let cases = (schema.cases)(&json, device)?;
            ensure!(!cases.is_empty(), "no cases");
            Ok(Some((schema.name, cases)))
        }
        None if Needs::Nothing.are_met(device) => {
            Ok(Some((file, vec![Case::new("*", || bail!("no schema fits this file"))])))
        }
        _ => Ok(None),
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
