use std::fs::File;
use std::io::Read;
use std::path::Path;

use gradus_tensor::{DType, Placement, Tensor};

use crate::DataError;
use crate::read_csv::{CsvOptions, read_csv};

/// A table of numbers, row by row, with optional column names.
///
/// ```
/// use gradus_data::{CsvOptions, Table};
///
/// let text = "length,width,kind\n5.1,3.5,0\n6.2,2.9,1\n";
/// let table = Table::from_reader(text.as_bytes(), "flowers", &CsvOptions::default())?;
/// let (features, kinds) = table.split_column(2);
/// assert_eq!(features.row(1), [6.2, 2.9]);
/// assert_eq!(kinds, [0.0, 1.0]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    names: Option<Vec<String>>,
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Table {
    /// Reads a CSV file, compressed with gzip or not (told by its first bytes, not by its name).
    ///
    /// Every cell must be a number, quoted or padded with space or not; `NaN` and `inf` are numbers. Blank lines are
    /// skipped.
    ///
    /// # Errors
    ///
    /// [`DataError`] says which file, line and column is wrong, what was found and what was expected: a file that
    /// cannot be read, is empty or too large, text that is not UTF-8, rows of different lengths, cells that are
    /// missing or no number.
    ///
    /// ```no_run
    /// use gradus_data::{CsvOptions, Table};
    ///
    /// // The first line of this file, `569,30,malignant,benign`, holds no names.
    /// let options = CsvOptions { has_header: false, skip_lines: 1, ..CsvOptions::default() };
    /// let table = Table::read("breast_cancer.csv.gz", &options)?;
    /// assert_eq!((table.rows(), table.columns()), (569, 31));
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn read(path: impl AsRef<Path>, options: &CsvOptions) -> Result<Self, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        Self::from_reader(file, &path.display().to_string(), options)
    }

    /// Reads CSV text, compressed or not, as [`Table::read`] does; errors call it `name`.
    ///
    /// # Errors
    ///
    /// As for [`Table::read`].
    ///
    /// ```
    /// use gradus_data::{CsvOptions, Table};
    ///
    /// let options = CsvOptions { has_header: false, ..CsvOptions::default() };
    /// let table = Table::from_reader("1,2\n3,4\n".as_bytes(), "four numbers", &options)?;
    /// assert_eq!(table.column(0).collect::<Vec<_>>(), [1.0, 3.0]);
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn from_reader(reader: impl Read, name: &str, options: &CsvOptions) -> Result<Self, DataError> {
        read_csv(reader, name, options)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The columns' names, if the table has any.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// The table as a tensor `[rows, columns]`; f32 unless the placement names a float dtype.
    #[track_caller]
    pub fn to_tensor(&self, on: impl Into<Placement>) -> Tensor {
        let on = on.into();
        let dtype = on.dtype.unwrap_or(DType::F32);
        Tensor::from_vec(self.values.clone(), [self.rows, self.columns], (&on.device, dtype))
    }

    /// The numbers of one row.
    ///
    /// # Panics
    ///
    /// If there is no row `index`, as indexing a slice does.
    pub fn row(&self, index: usize) -> &[f64] {
        assert!(index < self.rows, "row {index} of a table with {} rows", self.rows);
        &self.values[index * self.columns..][..self.columns]
    }

    /// The numbers of one column.
    ///
    /// # Panics
    ///
    /// If there is no column `index`, as indexing a slice does.
    pub fn column(&self, index: usize) -> impl ExactSizeIterator<Item = f64> {
        assert!(index < self.columns, "column {index} of a table with {} columns", self.columns);
        self.values.iter().skip(index).step_by(self.columns).copied()
    }

    /// The table of these rows, in this order; a row may come several times.
    ///
    /// # Panics
    ///
    /// If an index is no row's, as indexing a slice does.
    ///
    /// ```
    /// # use gradus_data::{CsvOptions, Table};
    /// let table = Table::from_reader("x\n1\n2\n3\n".as_bytes(), "x", &CsvOptions::default())?;
    /// let chosen = table.select_rows(&[2, 0]);
    /// assert_eq!(chosen.column(0).collect::<Vec<_>>(), [3.0, 1.0]);
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn select_rows(&self, indices: &[usize]) -> Self {
        let values = indices.iter().flat_map(|&index| self.row(index)).copied().collect();
        Self { names: self.names.clone(), rows: indices.len(), columns: self.columns, values }
    }

    /// Two tables: the rows whose index `belongs_first`, and the others.
    ///
    /// ```
    /// # use gradus_data::{CsvOptions, Table};
    /// let table = Table::from_reader("x\n1\n2\n3\n4\n5\n".as_bytes(), "x", &CsvOptions::default())?;
    /// let (train, test) = table.split_by(|row| row % 5 != 4);
    /// assert_eq!((train.rows(), test.rows()), (4, 1));
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn split_by(&self, mut belongs_first: impl FnMut(usize) -> bool) -> (Self, Self) {
        let (first, second): (Vec<_>, Vec<_>) = (0..self.rows).partition(|&row| belongs_first(row));
        (self.select_rows(&first), self.select_rows(&second))
    }

    /// The table without one column, and that column: features and target.
    ///
    /// # Panics
    ///
    /// If there is no column `index`, as indexing a slice does.
    pub fn split_column(&self, index: usize) -> (Self, Vec<f64>) {
        let column = self.column(index).collect();
        let mut rest = self.clone();
        rest.columns -= 1;
        if let Some(names) = &mut rest.names {
            names.remove(index);
        }
        let mut position = 0..;
        rest.values.retain(|_| position.next().is_some_and(|i: usize| i % self.columns != index));
        (rest, column)
    }

    /// A table of `values`, row by row: as many as `rows * columns`.
    pub(crate) fn from_values(names: Option<Vec<String>>, rows: usize, columns: usize, values: Vec<f64>) -> Self {
        debug_assert_eq!(values.len(), rows * columns);
        Self { names, rows, columns, values }
    }

    /// The same table with every number replaced by `f(column, number)`.
    pub(crate) fn map(&self, f: impl Fn(usize, f64) -> f64) -> Self {
        let values = self.values.iter().enumerate().map(|(i, &value)| f(i % self.columns, value)).collect();
        Self { names: self.names.clone(), values, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str, has_header: bool) -> Table {
        let options = CsvOptions { has_header, ..CsvOptions::default() };
        Table::from_reader(text.as_bytes(), "t.csv", &options).unwrap()
    }

    #[test]
    fn splitting() {
        let whole = table("a,b,c\n1,2,3\n4,5,6\n7,8,9\n", true);
        let (rest, column) = whole.split_column(1);
        assert_eq!(column, [2.0, 5.0, 8.0]);
        assert_eq!(rest.names().unwrap(), ["a", "c"]);
        assert_eq!(rest.row(2), [7.0, 9.0]);

        let (even, odd) = whole.split_by(|row| row % 2 == 0);
        assert_eq!((even.row(1), odd.row(0)), (&[7.0, 8.0, 9.0][..], &[4.0, 5.0, 6.0][..]));
        assert_eq!(whole.select_rows(&[]).rows(), 0);

        let (none, _) = table("1\n2\n", false).split_column(0);
        assert_eq!((none.rows(), none.columns(), none.row(1).len()), (2, 0, 0));
    }
}
