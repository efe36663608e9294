//! Whatever bytes a CSV file holds, reading it gives a table or an error, and a table that was written reads back.

use gradus_data::{CsvOptions, DataError, Table};
use proptest::prelude::*;

fn read(bytes: &[u8], has_header: bool) -> Result<Table, DataError> {
    let options = CsvOptions { has_header, max_bytes: 1 << 20, ..CsvOptions::default() };
    Table::from_reader(bytes, "fuzzed.csv", &options)
}

proptest! {
    #[test]
    fn any_bytes_give_a_table_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400), header: bool) {
        if let Err(error) = read(&bytes, header) {
            prop_assert!(error.to_string().contains("fuzzed.csv"), "{error}");
        }
    }

    /// Bytes that look like CSV, or like gzip, reach deeper than random ones.
    #[test]
    fn any_csv_like_text_gives_a_table_or_an_error(text in "[0-9.,;\"\r\n eE+naif-]{0,300}", gzip: bool, header: bool) {
        let mut bytes = text.into_bytes();
        if gzip {
            bytes.splice(0..0, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        }
        if let Err(error) = read(&bytes, header) {
            prop_assert!(error.to_string().contains("fuzzed.csv"), "{error}");
        }
    }

    #[test]
    fn what_is_written_reads_back(rows in proptest::collection::vec(proptest::array::uniform3(any::<f64>()), 1..20)) {
        let text: String = rows.iter().map(|[a, b, c]| format!("{a:?},{b:?},{c:?}\n")).collect();
        let table = read(text.as_bytes(), false).expect("Rust's floats are numbers");
        for (i, row) in rows.iter().enumerate() {
            let same = table.row(i).iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
            prop_assert!(same, "{:?} became {:?}", row, table.row(i));
        }
    }
}
