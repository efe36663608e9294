//! Files that are not as they should be: valid ones of every format, changed at random, are read. Whatever comes of it, it is an
//! answer: no panic, no endless loop, no memory that only a header asks for.
//!
//! `GRADUS_FUZZ=100000` reads more of each; a failure names the format and the case, which `GRADUS_FUZZ_CASE` reads again alone.

use gradus_data::{
    Array, CharText, Cifar, CifarKind, ColumnPlan, CsvOptions, Dataset, FloatStorage, Frame, FrameFile, FrameOptions,
    ImageOptions, LoaderState, Preprocessor, Safetensors, Table, image_from_reader,
};

use gradus_tensor::{Device, Key, Tensor};
use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What each format is tried with in a run of all tests.
const CASES: u64 = 2000;
/// No file here is larger than a few kilobytes, so that no reading should take long or need much.
const LONGEST: Duration = Duration::from_secs(5);
const MOST_MEMORY: u64 = 256 << 20;

/// Random numbers of a case.
struct Random {
    key: Key,
    drawn: u64,
}

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.drawn += 1;
        (self.key.fold_in(self.drawn).value() % limit.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, b'0', b'9', b'"', b',', b'\n', b'{'][self.below(13)]
    }
}

/// Cut short, flipped bits, lengths that are huge, pieces left out, doubled or put in.
fn changed(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..1 + random.below(4) {
        let (at, len) = (random.below(bytes.len()), bytes.len());
        let end = (at + 1 + random.below(16)).min(len);
        match random.below(9) {
            _ if len == 0 => bytes.push(random.byte()),
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.byte(),
            3 | 4 => {
                let widths = [2, 4, 8];
                let value: u64 = match random.below(5) {
                    0 => u64::MAX,
                    1 => i64::MAX as u64,
                    2 => 1 << random.below(64),
                    3 => u32::MAX.into(),
                    _ => random.below(70_000) as u64,
                };
                let end = (at + widths[random.below(3)]).min(len);
                let ordered =
                    if random.below(2) == 0 { value.to_le_bytes() } else { value.rotate_right(32).to_be_bytes() };
                bytes[at..end].copy_from_slice(&ordered[..end - at]);
            }
            5 => drop(bytes.drain(at..end)),
            6 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(len);
                bytes.splice(to..to, piece);
            }
            7 => {
                let piece: Vec<u8> = (0..1 + random.below(8)).map(|_| random.byte()).collect();
                bytes.splice(at..at, piece);
            }
            _ => bytes[at..end].fill(random.byte()),
        }
    }
    bytes
}

/// About the most memory that the process has taken, where the system tells. Linux counts per core and sums up now and then, so
/// that this may fall by some pages.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Reads changed files. `read` says whether the file is one.
fn fuzz(format: &str, seeds: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) {
    for seed in seeds {
        assert!(read(seed), "{format}: what is changed later is valid");
    }
    let variable = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let cases = match variable("GRADUS_FUZZ_CASE") {
        Some(case) => case..case + 1,
        None => 0..variable("GRADUS_FUZZ").unwrap_or(CASES),
    };
    let (before, start, count) = (peak(), Instant::now(), cases.end - cases.start);
    let mut valid = 0;
    for case in cases {
        let mut random = Random { key: Key::new(case), drawn: 0 };
        let bytes = changed(seeds[random.below(seeds.len())].clone(), &mut random);
        let begin = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| read(&bytes))) {
            Ok(is_valid) => valid += u64::from(is_valid),
            Err(_) => panic!("{format}, case {case}: a panic on {} bytes {bytes:02x?}", bytes.len()),
        }
        assert!(begin.elapsed() < LONGEST, "{format}, case {case}: {:?}", begin.elapsed());
        let more = peak().saturating_sub(before);
        assert!(more < MOST_MEMORY, "{format}, case {case}: {more} more bytes");
    }
    println!("{format}: {count} cases in {:.1?}, {valid} of them valid", start.elapsed());
}

/// Counts that are as they say.
fn is_whole(array: &Array) -> bool {
    assert_eq!(array.shape().iter().product::<usize>(), array.elements().len());
    for row in [0, array.rows().saturating_sub(1)] {
        assert_eq!(array.get(row).is_ok(), row < array.rows());
    }
    true
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn npy(descr: &str, fortran: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    [&b"\x93NUMPY\x01\0"[..], &(text.len() as u16).to_le_bytes(), text.as_bytes(), bytes].concat()
}

#[test]
fn csv() {
    let text = b"a,\"b, c\",d\n1,\"x \"\"y\"\"\",2026-01-01\n-2.5e3,,NA\n\n3,z,\xc3\xbc\n".to_vec();
    let numbers = b"a,b\n1,2\n3,4.5\nnan,-inf\n".to_vec();
    let limits = CsvOptions { max_bytes: 1 << 20, ..CsvOptions::default() };
    let options = FrameOptions { csv: limits.clone(), ..FrameOptions::default() };
    fuzz("CSV, mixed", &[text.clone(), gzip(&text), numbers.clone()], |bytes| {
        let Ok(frame) = Frame::from_reader(bytes, "it", &options) else { return false };
        assert!(frame.columns().iter().all(|column| column.cells.len() == frame.rows()));
        if let Ok(fitted) = ColumnPlan::of(&frame).fit(&frame) {
            let features = fitted.transform(&frame).unwrap();
            assert_eq!(features.values().len(), frame.rows() * fitted.names().len());
            assert_eq!(Preprocessor::from_json(&fitted.to_json(), "it").unwrap(), fitted);
        }
        true
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.csv");
    fuzz("CSV, by rows", &[text, numbers.clone()], |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let (file, whole) = (FrameFile::open_csv(&path, &options), Frame::from_reader(bytes, "it", &options));
        let is_packed = bytes.starts_with(&[0x1f, 0x8b]);
        assert!(file.is_ok() == whole.is_ok() || is_packed && file.is_err(), "{:?} {:?}", file.err(), whole.err());
        let (Ok(file), Ok(whole)) = (file, whole) else { return false };
        assert_eq!(file.rows(), whole.rows());
        for row in (0..file.rows()).rev() {
            // As text: NaN is not equal to itself.
            assert_eq!(format!("{:?}", file.get(row).unwrap()), format!("{:?}", whole.select_rows(&[row]).unwrap()));
        }
        true
    });
    fuzz("CSV, numbers", &[numbers.clone(), gzip(&numbers)], |bytes| {
        Table::from_reader(bytes, "it", &limits).is_ok_and(|table| table.row(table.rows() - 1).len() == table.columns())
    });
}

#[test]
fn idx() {
    let words: Vec<u8> = (0..12i16).flat_map(|n| n.to_be_bytes()).collect();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2][..], &[7; 12]].concat();
    let numbers = [&[0, 0, 0x0b, 2, 0, 0, 0, 3, 0, 0, 0, 4][..], &words].concat();
    fuzz("IDX", &[gzip(&images), images, numbers], |bytes| Array::from_idx(bytes, "it").is_ok_and(|a| is_whole(&a)));
}

#[test]
fn npy_and_npz() {
    let floats: Vec<u8> = (0..6).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let seeds = [
        npy("<f4", "False", "(2, 3)", &floats),
        npy(">i8", "True", "(1, 3)", &[0; 24]),
        npy("|b1", "False", "()", &[1]),
        gzip(&npy("<f2", "True", "(3, 2, 2)", &floats)),
    ];
    fuzz("npy", &seeds, |bytes| Array::from_npy(bytes, "it").is_ok_and(|array| is_whole(&array)));

    let archive = |method| {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in [("x.npy", &seeds[0]), ("y.npy", &seeds[1])] {
            writer.start_file(name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    };
    let archives = [archive(zip::CompressionMethod::Stored), archive(zip::CompressionMethod::Deflated)];
    fuzz("npz", &archives, |bytes| {
        Array::from_npz(Cursor::new(bytes), "it").is_ok_and(|arrays| arrays.values().all(is_whole))
    });
}

#[test]
fn cifar() {
    let record = |labels: &[u8]| [labels, &[100; 3072]].concat();
    for (kind, labels) in [(CifarKind::Ten, &[3][..]), (CifarKind::Hundred, &[3, 77])] {
        let two = [record(labels), record(labels)].concat();
        fuzz(&format!("CIFAR, {kind:?}"), &[gzip(&two), two], |bytes| {
            let Ok(all) = Cifar::from_reader(kind, bytes, "it") else { return false };
            assert_eq!(all.images().rows(), all.labels().len());
            is_whole(all.images())
        });
    }
}

#[test]
fn images() {
    let picture = image::RgbImage::from_fn(12, 9, |x, y| image::Rgb([20 * x as u8, 25 * y as u8, 7]));
    let grey = image::GrayImage::from_fn(5, 4, |x, y| image::Luma([50 * x as u8 + y as u8]));
    let written = |picture: image::DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let seeds = [
        written(picture.clone().into(), image::ImageFormat::Png),
        written(picture.into(), image::ImageFormat::Jpeg),
        written(grey.into(), image::ImageFormat::Png),
    ];
    let options = ImageOptions { longest_side: 2048, max_bytes: 64 << 20, ..ImageOptions::default() };
    fuzz("images", &seeds, |bytes| {
        image_from_reader(Cursor::new(bytes), "it", &options)
            .is_ok_and(|image| image.shape()[0] == 3 && is_whole(&image))
    });
}

#[test]
fn safetensors() {
    let device = Device::cpu();
    let mut model = Safetensors::default();
    model.tensors.insert("weight".into(), Tensor::new([[1.0, 2.0], [3.0, 0.1]], &device));
    model.tensors.insert("labels".into(), Tensor::new([1, 2, 3], &device));
    model.metadata.insert("format".into(), "pt".into());
    let mut bytes = Vec::new();
    model.to_writer(&mut bytes, FloatStorage::AsTheyAre).unwrap();
    fuzz("safetensors", &[bytes], |bytes| Safetensors::from_reader(bytes, "it", &device).is_ok());
}

#[test]
fn texts_and_saved_states() {
    let text = "To be, or not to be: “that” is the question.\n".as_bytes().to_vec();
    fuzz("text", &[gzip(&text), text], |bytes| CharText::from_reader(bytes, "it").is_ok_and(|text| !text.is_empty()));

    let frame = Frame::from_reader("x,c\n1,a\n2,b\n,\n".as_bytes(), "it", &FrameOptions::default()).unwrap();
    let saved = ColumnPlan::of(&frame).fit(&frame).unwrap().to_json().into_bytes();
    fuzz("preprocessor", &[saved], |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let Ok(fitted) = Preprocessor::from_json(text, "it") else { return false };
        // Whatever it says, it makes what it names.
        if let Ok(features) = fitted.transform(&frame) {
            assert_eq!(features.values().len(), frame.rows() * fitted.names().len());
        }
        assert_eq!(Preprocessor::from_json(&fitted.to_json(), "it").unwrap(), fitted);
        true
    });

    let state = LoaderState { epoch: 3, batch: 2, batch_size: 4, items: 10 };
    let loader = gradus_data::Loader::new(gradus_data::InMemory::new(0..10), gradus_data::InOrder::new(10), 4).unwrap();
    fuzz("loader's state", &[serde_json::to_vec(&state).unwrap()], |bytes| {
        let Ok(state) = serde_json::from_slice::<LoaderState>(bytes) else { return false };
        loader.resume(&state).is_ok_and(|epoch| epoch.len() <= 3)
    });
}
