//! Errors with a place: which op, on which line of the caller, in which module.

use gradus_ir::Error as ErrorKind;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

/// What went wrong, in which op, and where it was recorded. Cloning shares it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    op: &'static str,
    at: Option<&'static Location<'static>>,
    module: String,
}

impl Error {
    /// An error of `op`, recorded by the caller.
    #[track_caller]
    pub fn new(op: &'static str, kind: ErrorKind) -> Error {
        Error::located(op, kind, Location::caller())
    }

    /// An error of `op`, recorded at a line.
    pub fn located(op: &'static str, kind: ErrorKind, at: &'static Location<'static>) -> Error {
        Error(Arc::new(Inner { kind, op, at: Some(at), module: String::new() }))
    }

    /// What went wrong, to match on.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The op that failed.
    pub fn op(&self) -> &'static str {
        self.0.op
    }

    /// The line that recorded the op.
    pub fn location(&self) -> Option<&'static Location<'static>> {
        self.0.at
    }

    /// The same error, seen from a module one level up: its path grows to the left.
    pub fn in_module(&self, name: &str) -> Error {
        let inner = (*self.0).clone();
        let module = if inner.module.is_empty() { name.to_string() } else { format!("{name}.{}", inner.module) };
        Error(Arc::new(Inner { module, ..inner }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op)?;
        if let Some(at) = self.0.at {
            write!(f, " at {}:{}", at.file(), at.line())?;
        }
        if !self.0.module.is_empty() {
            write!(f, " in module {}", self.0.module)?;
        }
        write!(f, ": {}", self.0.kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<ErrorKind> for Error {
    #[track_caller]
    fn from(kind: ErrorKind) -> Error {
        Error::new("gradus", kind)
    }
}

/// A result with [`struct@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
