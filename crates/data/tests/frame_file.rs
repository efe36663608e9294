//! A CSV file is read row by row in memory that does not follow its length.

use gradus_data::{
    CategoryOptions, ColumnPlan, Dataset, Frame, FrameFile, FrameOptions, Impute, Loader, NumberOptions, Scale,
    Shuffled,
};
use gradus_tensor::Key;
use std::io::{BufWriter, Write};
use std::time::Instant;

/// What the process has taken at most, where the system tells.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Of sorted numbers.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// `GRADUS_ROWS=5000000` reads 200 MB; 40 MB otherwise.
#[test]
fn memory_does_not_follow_the_file() {
    const BOUND: u64 = 24 << 20;
    let rows = std::env::var("GRADUS_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.csv");
    let mut to = BufWriter::new(std::fs::File::create(&path).unwrap());
    writeln!(to, "row,x,city,note").unwrap();
    // Numbers that can be told from the row alone.
    let x = |row: usize| ((row * 7919) % 100_003) as f64 / 8.0;
    for row in 0..rows {
        let missing = row % 1000 == 0;
        let x = if missing { "NA".into() } else { x(row).to_string() };
        writeln!(to, "{row},{x},{},\"note, of {row}\"", ["Rome", "Oslo", "Bern"][row % 3]).unwrap();
    }
    to.flush().unwrap();
    let size = std::fs::metadata(&path).unwrap().len();

    let (before, start) = (peak(), Instant::now());
    let file = FrameFile::open_csv(&path, &FrameOptions::default()).unwrap();
    println!("{} MB: opened in {:.2?}", size >> 20, start.elapsed());
    assert_eq!(file.rows(), rows);

    let start = Instant::now();
    const SAMPLE: u64 = 2000;
    for row in (0..SAMPLE).map(|i| Key::new(i).value() as usize % rows) {
        let frame = file.get(row).unwrap();
        let number = frame.numbers("x").unwrap()[0];
        assert!(number == x(row) || (row % 1000 == 0 && number.is_nan()));
        assert_eq!(frame.numbers("row").unwrap(), [row as f64]);
        assert_eq!(frame.categories("city").unwrap().text(0), Some(["Rome", "Oslo", "Bern"][row % 3]));
        assert_eq!(frame.texts("note").unwrap()[0], Some(format!("note, of {row}")));
    }
    println!("a row in {:.1?}", start.elapsed() / SAMPLE as u32);

    // With quartiles in the making.
    let start = Instant::now();
    let some: Vec<usize> = (0..rows).step_by(10).collect();
    let plan = ColumnPlan::new().numbers(["x"], NumberOptions { scale: Scale::Robust, ..NumberOptions::default() });
    let fitted = plan.fit_pieces(|| file.pieces(&some, 4096)).unwrap();
    println!("quartiles of {} rows in {:.2?}", some.len(), start.elapsed());
    let mut expected: Vec<f64> = some.iter().filter(|&row| row % 1000 != 0).map(|&row| x(row)).collect();
    expected.sort_by(f64::total_cmp);
    let features = fitted.transform(&file.select_rows(&[0]).unwrap()).unwrap();
    assert!(features.row(0)[0].abs() < 1e-6, "a missing number is the median, which is shifted to 0");
    // What was missing stands at the median, and moves the quartiles by some places.
    let imputed = some.len() - expected.len();
    let median = quantile(&expected, 0.5);
    expected.extend(std::iter::repeat_n(median, imputed));
    expected.sort_by(f64::total_cmp);
    let features = fitted.transform(&file.select_rows(&[1]).unwrap()).unwrap();
    assert_eq!(features.row(0)[0], ((x(1) - median) / (quantile(&expected, 0.75) - quantile(&expected, 0.25))) as f32);

    // What follows has orders of all rows, which are the sampler's.
    let more = peak().saturating_sub(before);
    println!("{} kB more at most", more >> 10);
    assert!(more < BOUND, "{more} bytes for {size} of text");

    let start = Instant::now();
    let data = file.map(move |row| Ok(fitted.transform(&row)?.row(0).to_vec()));
    let loader = Loader::new(data, Shuffled::new(rows, Key::new(1)), 64).unwrap().workers(2);
    let batches = loader.epoch(0).take(50).map(Result::unwrap).map(|batch| batch.rows()).sum::<usize>();
    println!("{batches} rows by a loader in {:.2?}", start.elapsed());
}

/// What a file is fitted to is what its frame is fitted to, to the last bit.
#[test]
fn what_is_fitted_in_pieces_is_what_is_fitted_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.csv");
    let number = |key: u64| (Key::new(key).value() % 1_000_000) as f64 / 1000.0 - 300.0;
    let lines: String = (0..3000u64)
        .map(|i| {
            let [a, b, c] = [0, 1, 2].map(|column| Key::new(column).fold_in(i).value());
            let x = if a % 5 == 0 { "NA".into() } else { (number(a) / 100.0).exp2().to_string() };
            format!("{x},{},{},{}\n", b % 7, ["u", "v", "?"][c as usize % 3], c % 400)
        })
        .collect();
    std::fs::write(&path, format!("x,k,c,d\n{lines}")).unwrap();
    let whole = Frame::read(&path, &FrameOptions::default()).unwrap();
    let file = FrameFile::open_csv(&path, &FrameOptions::default()).unwrap();
    let rows: Vec<usize> = (0..3000).filter(|row| row % 4 != 0).collect();
    let train = whole.select_rows(&rows).unwrap();
    for impute in [Impute::Mean, Impute::Median, Impute::MostFrequent, Impute::Constant(1.5)] {
        for scale in [Scale::AsTheyAre, Scale::Standard, Scale::MinMax, Scale::Robust] {
            let plan = ColumnPlan::new()
                .numbers(["x", "d"], NumberOptions { impute, scale, indicator: true })
                .categories(["c", "k"], CategoryOptions::default());
            let fitted = plan.fit(&train).unwrap();
            for size in [1, 97, 5000] {
                assert_eq!(plan.fit_pieces(|| file.pieces(&rows, size)).unwrap(), fitted);
            }
        }
    }
}
