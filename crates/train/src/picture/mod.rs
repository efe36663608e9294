//! Pictures of results, as SVG files for a report or a README: curves and scatter plots ([`Chart`]), bars ([`BarChart`]),
//! confusion matrices ([`ConfusionHeatMap`]) and small images with captions ([`ImageGrid`]).
//!
//! The SVG is written here and not by the plotters crate: that one rounds coordinates to whole units, which makes
//! smooth curves wobble, and cannot ask for crisp edges, without which a scaled image shows seams between its pixels.

mod axis;
mod bar_chart;
mod chart;
mod heat_map;
mod image_grid;
mod svg;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

pub use bar_chart::BarChart;
pub use chart::{Chart, Panel};
pub use heat_map::ConfusionHeatMap;
pub use image_grid::ImageGrid;

/// Why a picture could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file, or its folder, could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The picture's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// An image has more or fewer pixels than the grid's images.
    #[error("image {index} has {found} pixels, expected {width} × {height}")]
    PixelCount {
        /// Which image of the grid, from 0.
        index: usize,
        /// How many pixels it has.
        found: usize,
        /// The width that all images have.
        width: usize,
        /// The height that all images have.
        height: usize,
    },
}

/// Writes a file whole or not at all: a reader never sees half a picture. Creates the folder if it is missing.
fn save(path: &Path, svg: &str) -> Result<(), PictureError> {
    replace_file(path, svg.as_bytes()).map_err(|source| PictureError::Write { path: path.to_path_buf(), source })
}

/// Gives a path this content, all of it or none.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    static TEMPORARY_FILES: AtomicU64 = AtomicU64::new(0);

    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    // In the same folder, because a file cannot be renamed from one file system to another.
    let mut temporary_name = OsString::from(".");
    temporary_name.push(name);
    let number = TEMPORARY_FILES.fetch_add(1, Ordering::Relaxed);
    temporary_name.push(format!(".{}-{number}.tmp", process::id()));
    let temporary = folder.join(temporary_name);

    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn files_are_replaced_and_folders_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/picture.svg");
        save(&path, "first").unwrap();
        save(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(names(path.parent().unwrap()), ["picture.svg"]);
    }

    #[test]
    fn errors_name_the_path_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let occupied = folder.path().join("occupied");
        fs::create_dir_all(occupied.join("full")).unwrap();
        let error = save(&occupied, "x").unwrap_err();
        assert!(error.to_string().contains("occupied"), "{error}");
        assert_eq!(names(folder.path()), ["occupied"]);
        assert!(save(Path::new("/"), "x").is_err());
        assert!(save(Path::new(""), "x").is_err());
    }
}
