//! Tables that are larger than memory.

use crate::csv_file::CsvFile;
#[cfg(feature = "parquet")]
use crate::parquet_file::ParquetFile;
use crate::{DataError, Dataset, Frame, FrameOptions};
use std::fmt;
use std::path::Path;

/// A table in a file, of which rows are read when they are asked for: for files that are larger than memory. Whatever rows are
/// read, they are those of the [`Frame`] that the whole file would be, with the same kinds of columns and the same
/// vocabularies.
///
/// Opening reads the file once, to check it, to tell the kinds of columns, and to remember where rows begin; of all this a few
/// megabytes are kept. The file must stay as it is afterwards.
///
/// ```
/// use gradus_data::{ColumnPlan, Dataset, FrameFile, FrameOptions, Loader, Shuffled, split_random};
/// use gradus_tensor::Key;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("penguins.csv");
/// std::fs::write(&path, "mass,island,species\n3700,Dream,Adelie\n5000,Biscoe,Gentoo\n,Dream,Adelie\n5400,Biscoe,Gentoo\n")?;
/// let file = FrameFile::open_csv(&path, &FrameOptions::default())?;
/// assert_eq!((file.rows(), file.select_rows(&[3, 0])?.numbers("mass")?), (4, &[5400.0, 3700.0][..]));
///
/// // Measured on the rows to train on, in pieces.
/// let mut parts = split_random(file.rows(), &[0.5, 0.5], Key::new(0))?;
/// parts.iter_mut().for_each(|part| part.sort());
/// let plan = ColumnPlan::of(&file.select_rows(&[])?.without(&["species"])?);
/// let fitted = plan.fit_pieces(|| file.pieces(&parts[0], 1000))?;
///
/// // Rows are read and turned into features by the loader's threads.
/// let data = file.map(move |row| {
///     Ok((fitted.transform(&row)?.get(0)?, row.categories("species")?.labels("species")?[0]))
/// });
/// let train = data.subset(parts.remove(0))?;
/// let sampler = Shuffled::new(train.len(), Key::new(1));
/// for batch in Loader::new(train, sampler, 32)?.workers(2).epoch(0) {
///     let (x, y) = batch?;
///     assert_eq!((x.shape(), y.rows()), (&[2, 4][..], 2));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FrameFile(Source);

enum Source {
    Csv(CsvFile),
    #[cfg(feature = "parquet")]
    Parquet(ParquetFile),
}

impl FrameFile {
    /// Opens a CSV file, that must not be compressed. Where rows begin takes 4 MiB at most: of a file with more than 262,144
    /// rows, only every second, fourth, … is remembered, and the rows between are found by reading on.
    ///
    /// [`CsvOptions::max_bytes`](crate::CsvOptions::max_bytes) does not bound the file, but the text that is read at once, and
    /// the different categories of all columns.
    ///
    /// # Errors
    /// As [`Frame::read`], and if it is compressed.
    pub fn open_csv(path: impl AsRef<Path>, options: &FrameOptions) -> Result<FrameFile, DataError> {
        CsvFile::open(path.as_ref(), options).map(|file| FrameFile(Source::Csv(file)))
    }

    /// With the feature `parquet`: opens a Parquet file, of columns as [`Frame::read_parquet`] reads them; of these `columns`
    /// alone, if they are given.
    ///
    /// A row is read with the whole row group that it is in. The last `groups` groups (one at least) are kept, so rows should
    /// be asked for group by group: rows at random cost a group each, where a file has more groups than are kept.
    ///
    /// # Errors
    /// As [`Frame::read_parquet`], but the file may be of any size; only a row group must unpack to 4 GiB at most.
    #[cfg(feature = "parquet")]
    pub fn open_parquet(
        path: impl AsRef<Path>,
        columns: Option<&[&str]>,
        groups: usize,
    ) -> Result<FrameFile, DataError> {
        ParquetFile::open(path.as_ref(), columns, groups).map(|file| FrameFile(Source::Parquet(file)))
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        match &self.0 {
            Source::Csv(file) => file.rows(),
            #[cfg(feature = "parquet")]
            Source::Parquet(file) => file.rows(),
        }
    }

    /// Some of the rows, in this order. Of none, a frame with the file's columns and vocabularies. Neighbours in the file are
    /// read fastest, in whatever order they are asked for.
    ///
    /// # Errors
    /// If there is no such row, the file cannot be read, or it is not what it was when it was opened.
    pub fn select_rows(&self, rows: &[usize]) -> Result<Frame, DataError> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.rows()) {
            return Err(DataError::NoRow { row, rows: self.rows() });
        }
        let is_ascending = rows.is_sorted();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| rows[i]);
        let ascending: Vec<usize> = order.iter().map(|&i| rows[i]).collect();
        let frame = match &self.0 {
            Source::Csv(file) => file.read_ascending(&ascending),
            #[cfg(feature = "parquet")]
            Source::Parquet(file) => file.read_ascending(&ascending),
        }?;
        if is_ascending {
            return Ok(frame);
        }
        let mut places = vec![0; rows.len()];
        order.into_iter().enumerate().for_each(|(place, i)| places[i] = place);
        frame.select_rows(&places)
    }

    /// Some of the rows, in this order, so many at a time: for [`ColumnPlan::fit_pieces`](crate::ColumnPlan::fit_pieces), or to
    /// predict all of a file.
    pub fn pieces<'a>(
        &'a self,
        rows: &'a [usize],
        size: usize,
    ) -> impl Iterator<Item = Result<Frame, DataError>> + use<'a> {
        rows.chunks(size.max(1)).map(|rows| self.select_rows(rows))
    }
}

impl fmt::Debug for FrameFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameFile").field("rows", &self.rows()).finish_non_exhaustive()
    }
}

/// The rows, each as a frame of its own.
impl Dataset for FrameFile {
    type Item = Frame;

    fn len(&self) -> usize {
        self.rows()
    }

    fn get(&self, index: usize) -> Result<Frame, DataError> {
        self.select_rows(&[index])
    }
}
