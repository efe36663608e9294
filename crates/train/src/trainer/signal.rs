//! Ctrl-C and the system's wish that a program ends.

use super::TrainError;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How often the program was asked to end.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// From now on Ctrl-C, SIGTERM and SIGHUP are noted. The second one ends the program at once.
pub(super) fn catch() -> Result<(), TrainError> {
    static CAUGHT: OnceLock<Result<(), String>> = OnceLock::new();
    let handler = || {
        if ASKED.fetch_add(1, Ordering::Relaxed) > 0 {
            std::process::exit(130);
        }
    };
    let caught = CAUGHT.get_or_init(|| ctrlc::set_handler(handler).map_err(|error| error.to_string()));
    caught.clone().map_err(TrainError::Signal)
}

/// Whether the program was asked to end.
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed) > 0
}
