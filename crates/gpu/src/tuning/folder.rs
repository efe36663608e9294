//! Where tables are kept: in the user's cache folder, a file for each adapter and version of its driver.

use super::Tuning;
use super::table::{Table, TableError, driver};
use gradus_device::Description;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The environment variable that names a table, or says `off`.
pub const TUNING: &str = "GRADUS_TUNING";

/// No table is as long as this.
const LONGEST: u64 = 1 << 16;

/// The file of an adapter's table: the one that `GRADUS_TUNING` names, else one in the user's cache folder. `None` if the
/// variable says `off`, or there is no such folder.
pub fn path_of(description: &Description) -> Option<PathBuf> {
    match std::env::var_os(TUNING).filter(|value| !value.is_empty()) {
        Some(value) if value == "off" => None,
        Some(path) => Some(path.into()),
        None => Some(cache_folder()?.join("gradus").join("tuning").join(file_name(description))),
    }
}

/// The tuning of the user's table for an adapter, if there is one.
///
/// # Errors
/// What is wrong with it, and which file it is.
pub fn of_user(description: &Description, default: &Tuning) -> Result<Option<Tuning>, (PathBuf, TableError)> {
    let Some(path) = path_of(description) else { return Ok(None) };
    let is_named = std::env::var_os(TUNING).is_some_and(|value| !value.is_empty());
    match read(&path).and_then(|table| table.check(description).and_then(|()| table.tuning(default))) {
        Ok(tuning) => Ok(Some(tuning)),
        Err(TableError::Read(error)) if error.kind() == io::ErrorKind::NotFound && !is_named => Ok(None),
        Err(error) => Err((path, error)),
    }
}

fn read(path: &Path) -> Result<Table, TableError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(TableError::TooLong(LONGEST));
    }
    let text = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Table::parse(&text)
}

/// Writes a table, all of it or none.
///
/// # Errors
/// If the folder cannot be made, or the file not be written.
pub fn write(table: &Table, path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    // In the same folder, because a file cannot be renamed from one file system to another.
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(temporary);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(table.to_json().as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// The folder for what programs can find out again.
fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        return set("LOCALAPPDATA");
    }
    let home = |below: &str| set("HOME").map(|home| home.join(below));
    if cfg!(target_os = "macos") {
        return home("Library/Caches");
    }
    set("XDG_CACHE_HOME").or_else(|| home(".cache"))
}

/// A name for a file: what tells adapters and drivers apart, in letters and digits.
fn file_name(description: &Description) -> String {
    let words = [&description.name[..], description.backend, &driver(description)].join(" ").to_lowercase();
    let words: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    // Some file systems have names of 255 bytes at most. What is in the table tells the rest.
    let name: String = words.join("-").chars().take(200).collect();
    format!("{name}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_device::Kind;

    #[test]
    fn each_driver_has_its_own_file() {
        let description = |driver_info: &str| Description {
            id: "gpu:0".into(),
            name: "NVIDIA H100 / 80GB".into(),
            driver: "NVIDIA".into(),
            driver_info: driver_info.into(),
            kind: Kind::Discrete,
            backend: "Vulkan",
            duplicate: false,
            vendor: 1,
            device: 2,
        };
        assert_eq!(file_name(&description("570.1")), "nvidia-h100-80gb-vulkan-nvidia-570-1.json");
        assert!(file_name(&description(&"../".repeat(500))).len() < 255);
    }
}
