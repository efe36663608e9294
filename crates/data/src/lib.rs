//! Data sources, data sets and batches; tensors in files.
//!
//! ```
//! use gradus_data::{CsvOptions, Standardiser, Table};
//!
//! let text = "height,weight\n1.8,80\n1.6,55\n1.7,62\n";
//! let table = Table::from_reader(text.as_bytes(), "people.csv", &CsvOptions::default())?;
//! let standard = Standardiser::fit(&table).transform(&table)?;
//! assert_eq!((standard.rows(), standard.columns()), (3, 2));
//! # Ok::<(), gradus_data::DataError>(())
//! ```

mod char_text;
mod dataset;
mod error;
mod gzip;
mod idx;
mod read_csv;
mod safetensors;
mod standardise;
mod table;

pub use char_text::CharText;
pub use dataset::{Batches, TensorDataset};
pub use error::DataError;
pub use idx::IdxArray;
pub use read_csv::CsvOptions;
pub use safetensors::{FloatStorage, Safetensors, SafetensorsOptions};
pub use standardise::Standardiser;
pub use table::Table;
