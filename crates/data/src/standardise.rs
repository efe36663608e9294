use crate::statistics::mean_and_deviation;
use crate::{DataError, Table};

/// Shifts and scales every column to mean 0 and standard deviation 1, and back.
///
/// Fit it on the training rows only and use it for all, or the test rows leak into training.
///
/// ```
/// use gradus_data::{CsvOptions, Standardiser, Table};
///
/// let options = CsvOptions { has_header: false, ..CsvOptions::default() };
/// let table = Table::from_reader("1,7\n3,7\n".as_bytes(), "numbers", &options)?;
/// let standardiser = Standardiser::fit(&table);
/// let scaled = standardiser.transform(&table)?;
/// assert_eq!(scaled.row(0), [-1.0, 0.0]);
/// assert_eq!(standardiser.inverse(&scaled)?, table);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Standardiser {
    means: Vec<f64>,
    standard_deviations: Vec<f64>,
}

impl Standardiser {
    /// Measures each column's mean and population standard deviation (divided by n, as scikit-learn does).
    ///
    /// A constant column gets standard deviation 1, so that it becomes all 0. A column with NaN or infinity gets
    /// statistics that are not finite, and a table without rows gets means 0 and standard deviations 1.
    pub fn fit(table: &Table) -> Self {
        let (means, standard_deviations) =
            (0..table.columns()).map(|column| mean_and_deviation(|| table.column(column))).unzip();
        Self { means, standard_deviations }
    }

    /// The mean of each column.
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// The standard deviation of each column; 1 where the column is constant.
    pub fn standard_deviations(&self) -> &[f64] {
        &self.standard_deviations
    }

    /// The table with `(x - mean) / standard deviation` in place of every x.
    ///
    /// # Errors
    ///
    /// [`DataError::ColumnCount`] if the table has another number of columns than the one that was fitted.
    pub fn transform(&self, table: &Table) -> Result<Table, DataError> {
        self.check(table)?;
        Ok(table.map(|column, x| (x - self.means[column]) / self.standard_deviations[column]))
    }

    /// Undoes [`Standardiser::transform`].
    ///
    /// # Errors
    ///
    /// [`DataError::ColumnCount`] if the table has another number of columns than the one that was fitted.
    pub fn inverse(&self, table: &Table) -> Result<Table, DataError> {
        self.check(table)?;
        Ok(table.map(|column, x| x * self.standard_deviations[column] + self.means[column]))
    }

    fn check(&self, table: &Table) -> Result<(), DataError> {
        let (found, expected) = (table.columns(), self.means.len());
        if found == expected { Ok(()) } else { Err(DataError::ColumnCount { found, expected }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CsvOptions;

    fn table(text: &str) -> Table {
        let options = CsvOptions { has_header: false, ..CsvOptions::default() };
        Table::from_reader(text.as_bytes(), "t", &options).unwrap()
    }

    #[test]
    fn population_statistics() {
        let standardiser =
            Standardiser::fit(&table("2,1000000000.1\n4,1000000000.2\n4,1000000000.3\n10,1000000000.4\n"));
        assert_eq!(standardiser.means()[0], 5.0);
        assert_eq!(standardiser.standard_deviations()[0], 3.0);
        assert!((standardiser.means()[1] - 1000000000.25).abs() < 1e-6);
        assert!((standardiser.standard_deviations()[1] - 0.0125_f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn constant_column_becomes_zero() {
        // The plain mean of three times 0.1 is not 0.1.
        let constant = table("0.1\n0.1\n0.1\n");
        let standardiser = Standardiser::fit(&constant);
        assert_eq!((standardiser.means()[0], standardiser.standard_deviations()[0]), (0.1, 1.0));
        assert!(standardiser.transform(&constant).unwrap().column(0).all(|x| x == 0.0));
    }

    #[test]
    fn other_rows_use_the_fitted_statistics() {
        let standardiser = Standardiser::fit(&table("1,0\n3,10\n"));
        let scaled = standardiser.transform(&table("5,-5\n")).unwrap();
        assert_eq!(scaled.row(0), [3.0, -2.0]);
        assert_eq!(standardiser.inverse(&scaled).unwrap().row(0), [5.0, -5.0]);
        let error = standardiser.transform(&table("5\n")).unwrap_err();
        assert_eq!(error.to_string(), "the table has 1 columns, expected 2");
        assert!(standardiser.inverse(&table("5\n")).is_err());
    }

    #[test]
    fn no_rows() {
        let empty = table("1,2\n").select_rows(&[]);
        let standardiser = Standardiser::fit(&empty);
        assert_eq!(standardiser.means(), [0.0, 0.0]);
        assert_eq!(standardiser.transform(&empty).unwrap().rows(), 0);
    }
}
