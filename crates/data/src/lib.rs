//! Data sources, data sets and batches.

mod error;
mod read_csv;
mod standardise;
mod table;

pub use error::DataError;
pub use read_csv::CsvOptions;
pub use standardise::Standardiser;
pub use table::Table;
