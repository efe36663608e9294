//! Logs of training: JSON lines, and event files for TensorBoard.

mod json_lines;
mod record;
mod tensorboard;

pub use json_lines::{JsonLines, Line, read_json_lines};
pub use tensorboard::{Event, TensorBoard, Value, read_events};

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Takes the numbers of a training run. Each call is on its way to the file when it returns, as a whole: a run that is killed
/// leaves a file that can be read, up to the last call.
pub trait Log: Send {
    /// Some named numbers at a step.
    ///
    /// # Errors
    /// [`LogError::Io`] if the file cannot be written.
    fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<(), LogError>;

    /// How the values of something are distributed at a step, where the log can show that.
    ///
    /// # Errors
    /// [`LogError::Io`] if the file cannot be written.
    fn histogram(&mut self, _step: u64, _name: &str, _values: &[f64]) -> Result<(), LogError> {
        Ok(())
    }

    /// A text at a step, where the log can show that.
    ///
    /// # Errors
    /// [`LogError::Io`] if the file cannot be written.
    fn text(&mut self, _step: u64, _name: &str, _text: &str) -> Result<(), LogError> {
        Ok(())
    }
}

/// Why a log cannot be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file cannot be opened, read or written.
    #[error("cannot use the log {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The file is damaged before its end.
    #[error("the log {} is damaged at byte {at}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the record or line begins.
        at: u64,
        /// What is wrong there.
        reason: String,
    },
}

/// Several logs are one.
impl Log for Vec<Box<dyn Log>> {
    fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<(), LogError> {
        self.iter_mut().try_for_each(|log| log.scalars(step, scalars))
    }

    fn histogram(&mut self, step: u64, name: &str, values: &[f64]) -> Result<(), LogError> {
        self.iter_mut().try_for_each(|log| log.histogram(step, name, values))
    }

    fn text(&mut self, step: u64, name: &str, text: &str) -> Result<(), LogError> {
        self.iter_mut().try_for_each(|log| log.text(step, name, text))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}
