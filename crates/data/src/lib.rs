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

pub mod augment;

mod array;
mod array_file;
mod byte_text;
mod char_text;
mod cifar;
mod column_plan;
mod dataset;
mod elements;
mod error;
mod frame;
#[cfg(feature = "parquet")]
mod frame_arrow;
mod gzip;
mod idx;
mod images;
mod layout;
mod loader;
mod npy;
mod preprocessor;
mod read_csv;
mod read_frame;
mod row_file;
mod safetensors;
mod sampler;
mod split;
mod stack;
mod standardise;
mod statistics;
mod table;
mod tensor_dataset;
#[cfg(feature = "tokenizers")]
mod tokeniser;
mod windows;

pub use array::Array;
pub use array_file::ArrayFile;
pub use byte_text::ByteText;
pub use char_text::CharText;
pub use cifar::{Cifar, CifarFile, CifarKind};
pub use column_plan::{CategoryOptions, ColumnPlan, Encode, Impute, MissingCategory, NumberOptions, Scale, Unseen};
pub use dataset::{Chain, Dataset, InMemory, Map, Subset, Zip};
pub use elements::Elements;
pub use error::DataError;
pub use frame::{Categories, Cells, Column, Frame};
pub use images::{Channels, ImageFolder, ImageOptions, ImageSize, image_from_reader, read_image};
pub use loader::{Epoch, Loader, LoaderState};
pub use preprocessor::{Features, Preprocessor};
pub use read_csv::CsvOptions;
pub use read_frame::{ColumnKind, FrameOptions};
pub use safetensors::{FloatStorage, Safetensors, SafetensorsOptions};
pub use sampler::{ClassBalanced, InOrder, Sampler, Shuffled, Weighted};
pub use split::{
    Fold, Parts, k_fold, k_fold_grouped, k_fold_stratified, split_by_time, split_grouped, split_random,
    split_stratified,
};
pub use stack::Stack;
pub use standardise::Standardiser;
pub use table::Table;
pub use tensor_dataset::{Batches, TensorDataset};
#[cfg(feature = "tokenizers")]
pub use tokeniser::Tokeniser;
pub use windows::Windows;
