//! The program's commands, one per file.

pub(crate) mod bench;
pub(crate) mod devices;
mod table;
pub(crate) mod tune;
