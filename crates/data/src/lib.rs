//! Data: files, data sets, splits, batches, and random changes of them.
//!
//! | what | by |
//! | --- | --- |
//! | numbers by name, with missing values and categories | [`Frame`] (CSV; Parquet and Arrow with the feature `parquet`); [`Table`] of numbers alone |
//! | the same, larger than memory | [`FrameFile`]: CSV, and Parquet with the feature `parquet` |
//! | a matrix of features from these | [`ColumnPlan`], [`Preprocessor`] |
//! | arrays | [`Array`] (IDX, npy, npz), [`ArrayFile`] where they are larger than memory, [`Safetensors`] |
//! | images | [`ImageFolder`], [`read_image`], [`Cifar`] |
//! | texts | [`CharText`], [`ByteText`], [`Windows`]; `Tokeniser` with the feature `tokenizers` |
//! | one's own | [`Dataset`] |
//! | what is for training, and what not | [`split_random`], [`split_stratified`], [`split_grouped`], [`split_by_time`], [`k_fold`] |
//! | the order of items | [`Shuffled`], [`ClassBalanced`], [`Weighted`], [`InOrder`] |
//! | batches | [`Loader`], with threads; [`TensorDataset`] for what is on the device already |
//! | more data than there is | [`augment`] |
//!
//! Whatever a file holds, reading it ends with data or with a [`DataError`] that says what is wrong, and where; memory follows
//! what is there, not what a header claims.
//!
//! ```
//! use gradus_data::{ColumnPlan, Dataset, Frame, FrameOptions, InMemory, Loader, Shuffled, split_stratified};
//! use gradus_tensor::{Device, Key};
//!
//! let text = "mass,island,species\n3700,Dream,Adelie\n5000,Biscoe,Gentoo\n,Dream,Adelie\n5400,Biscoe,Gentoo\n";
//! let frame = Frame::from_reader(text.as_bytes(), "penguins.csv", &FrameOptions::default())?;
//! let labels = frame.categories("species")?.labels("species")?;
//! let frame = frame.without(&["species"])?;
//!
//! let parts = split_stratified(&labels, &[0.5, 0.5], Key::new(0))?;
//! let train = frame.select_rows(&parts[0])?;
//! // What is measured is measured on the rows to train on.
//! let features = ColumnPlan::of(&train).fit(&train)?.transform(&train)?;
//! let data = features.zip(InMemory::new(parts[0].iter().map(|&row| labels[row])))?;
//! let sampler = Shuffled::new(data.len(), Key::new(1));
//! for batch in Loader::new(data, sampler, 32)?.workers(2).epoch(0) {
//!     let (x, y) = batch?;
//!     let (x, y) = (x.to_tensor(&Device::cpu()), y.to_tensor(&Device::cpu()));
//!     assert_eq!((x.shape()[0], y.shape()[0]), (2, 2));
//! }
//! # Ok::<(), gradus_data::DataError>(())
//! ```

pub mod augment;

mod array;
mod array_file;
mod byte_text;
mod char_text;
mod cifar;
mod column_plan;
mod csv_file;
mod dataset;
mod elements;
mod error;
mod fit;
mod frame;
#[cfg(feature = "parquet")]
mod frame_arrow;
mod frame_file;
mod gzip;
mod idx;
mod images;
mod layout;
mod loader;
mod npy;
#[cfg(feature = "parquet")]
mod parquet_file;
mod preprocessor;
mod read_csv;
mod read_frame;
mod row_file;
mod safetensors;
mod sampler;
mod selection;
mod settle;
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
pub use frame_file::FrameFile;
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
