//! Safetensors files: bytes written by hand, what is written and read again, and whatever else bytes may be.

use gradus_data::{DataError, FloatStorage, Safetensors, SafetensorsOptions};
use gradus_tensor::{Cell, DType, Data, Device, Tensor};
use half::{bf16, f16};
use proptest::prelude::*;

/// A file with this header and these bytes.
fn file(header: &str, bytes: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), bytes].concat()
}

fn read(bytes: &[u8]) -> Result<Safetensors, DataError> {
    Safetensors::from_reader(bytes, "file", &Device::cpu())
}

fn one(dtype: &str, shape: &str, bytes: &[u8]) -> Result<Tensor, DataError> {
    let header = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{}]}}}}"#, bytes.len());
    read(&file(&header, bytes)).map(|mut read| read.tensors.remove("t").unwrap())
}

fn model<const N: usize>(tensors: [(&str, Tensor); N]) -> Safetensors {
    let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
    Safetensors { tensors, ..Safetensors::default() }
}

fn written(tensor: Tensor, floats: FloatStorage) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    model([("t", tensor)]).to_writer(&mut bytes, floats).map(|()| bytes)
}

#[test]
fn bytes_written_by_hand() {
    let header = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11]},
        "a":{"shape":[3],"data_offsets":[0,3],"dtype":"BOOL"},
        "none":{"dtype":"I64","shape":[0,4],"data_offsets":[11,11]}, "s":{"dtype":"U8","shape":[],"data_offsets":[11,12]}}  "#;
    let read = read(&file(header, &[1, 0, 1, 0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0, 200])).unwrap();
    assert_eq!(read.tensors.keys().collect::<Vec<_>>(), ["a", "b", "none", "s"]);
    assert_eq!(read.tensors["a"].to_vec::<bool>().unwrap(), [true, false, true]);
    assert_eq!(read.tensors["b"].to_vec::<f32>().unwrap(), [1.0, -2.5]);
    assert_eq!(read.tensors["b"].shape()[..], [2, 1]);
    assert_eq!(
        (read.tensors["none"].shape().to_vec(), read.tensors["none"].to_vec::<i32>().unwrap()),
        (vec![0, 4], vec![])
    );
    assert_eq!(read.tensors["s"].item::<u32>().unwrap(), 200);
    assert_eq!(read.metadata.into_iter().collect::<Vec<_>>(), [("format".to_string(), "pt".to_string())]);

    // And the other way round.
    let expected = r#"{"__metadata__":{"by":"hand"},"b":{"data_offsets":[8,11],"dtype":"BOOL","shape":[3]},"w":{"data_offsets":[0,8],"dtype":"F32","shape":[1,2]}}"#;
    let device = Device::cpu();
    let mut model =
        model([("b", Tensor::new([true, false, true], &device)), ("w", Tensor::new([[1.0, -2.5]], &device))]);
    model.metadata.insert("by".into(), "hand".into());
    let mut bytes = Vec::new();
    model.to_writer(&mut bytes, FloatStorage::AsTheyAre).unwrap();
    let padded = format!("{expected:<width$}", width = expected.len().next_multiple_of(8));
    assert_eq!(bytes, file(&padded, &[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0, 1, 0, 1]));
}

#[test]
fn every_dtype_becomes_one_that_holds_it() {
    let is = |dtype: &str, bytes: &[u8], expected: Data| {
        let got = one(dtype, "[2]", bytes).unwrap().to_data().unwrap();
        assert_eq!(got, expected, "{dtype}");
    };
    is("BOOL", &[0, 1], Data::Bool(vec![false, true]));
    is("I8", &[0x80, 3], Data::I32(vec![-128, 3]));
    is("U8", &[0x80, 3], Data::U32(vec![128, 3]));
    is("I16", &[0, 0x80, 3, 0], Data::I32(vec![-32768, 3]));
    is("U16", &[0, 0x80, 3, 0], Data::U32(vec![32768, 3]));
    is("I32", &[0, 0, 0, 0x80, 3, 0, 0, 0], Data::I32(vec![i32::MIN, 3]));
    is("U32", &[0, 0, 0, 0x80, 3, 0, 0, 0], Data::U32(vec![1 << 31, 3]));
    let eight = |values: [i64; 2]| values.map(i64::to_le_bytes).concat();
    is("I64", &eight([i32::MIN.into(), i32::MAX.into()]), Data::I32(vec![i32::MIN, i32::MAX]));
    is("U64", &eight([0, u32::MAX.into()]), Data::U32(vec![0, u32::MAX]));
    is("F16", &[0x00, 0x3c, 0x01, 0x00], Data::F16(vec![f16::ONE, f16::from_bits(1)]));
    is("BF16", &[0x80, 0xff, 0x49, 0x40], Data::F32(vec![f32::NEG_INFINITY, 3.140625]));
    is("F64", &[1.5f64, -1e300].map(f64::to_le_bytes).concat(), Data::F64(vec![1.5, -1e300]));

    let fails = |dtype: &str, bytes: &[u8], message: &str| {
        let error = one(dtype, "[2]", bytes).unwrap_err().to_string();
        assert_eq!(error, format!("file: tensor `t` {message}"));
    };
    fails("I64", &eight([5, 1 << 31]), "has the element 2147483648, expected an integer that i32 holds");
    fails("I64", &eight([i64::MIN, 0]), "has the element -9223372036854775808, expected an integer that i32 holds");
    fails("U64", &eight([-1, 0]), "has the element 18446744073709551615, expected an integer that u32 holds");
    fails("BOOL", &[1, 2], "has the element 2, expected a bool, 0 or 1");
    fails("F8_E4M3", &[0, 0], "is stored as F8_E4M3, which no tensor has or converts to");
    fails("C64", &[0; 16], "is stored as C64, which no tensor has or converts to");
}

/// A parameter of f16 takes back what was written of it; who wants f32 says so.
#[test]
fn f16_stays_f16_unless_f32_is_asked_for() {
    let device = Device::cpu();
    let halves = [1.0, -2.5, 2f32.powi(-24), f32::INFINITY].map(f16::from_f32);
    let weight = Cell::parameter(Tensor::from_vec(halves.to_vec(), [4], &device));
    let bytes = written(weight.tensor(), FloatStorage::AsTheyAre).unwrap();
    weight.set(read(&bytes).unwrap().tensors["t"].clone()).unwrap();
    assert_eq!(weight.tensor().to_vec::<f16>().unwrap(), halves);
    let options = SafetensorsOptions { f16_as_f32: true };
    let wide =
        Safetensors::from_reader_with(&bytes[..], "file", &device, options).unwrap().tensors.remove("t").unwrap();
    assert_eq!(wide.to_vec::<f32>().unwrap(), halves.map(f32::from));
    // The option is about f16 alone.
    let bytes = written(Tensor::from_vec(vec![0.5f64], [1], &device), FloatStorage::AsTheyAre).unwrap();
    let read = Safetensors::from_reader_with(&bytes[..], "file", &device, options).unwrap();
    assert_eq!(read.tensors["t"].dtype(), DType::F64);
}

#[test]
fn floats_of_sixteen_bits_are_the_nearest_ones() {
    let device = Device::cpu();
    let halves = |tensor: Tensor, storage: FloatStorage| -> Vec<u16> {
        let bytes = written(tensor, storage).unwrap();
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[start..].as_chunks().0.iter().map(|&word| u16::from_le_bytes(word)).collect()
    };
    // Ties to even, what is just above and below them, denormals, the largest, and what is no number.
    let values =
        [1.0 + 2f64.powi(-11), 1.0 + 3.0 * 2f64.powi(-11), 65519.0, -2f64.powi(-25), -2f64.powi(-25) * 1.5, -0.0];
    let tensor = |values: &[f64]| Tensor::from_vec(values.to_vec(), [values.len()], &device);
    assert_eq!(halves(tensor(&values), FloatStorage::F16), [0x3c00, 0x3c02, 0x7bff, 0x8000, 0x8001, 0x8000]);
    // One that f32 would round to a tie first.
    let near_ties = [1.0 + 2f64.powi(-11) + 2f64.powi(-40), 1.0 + 3.0 * 2f64.powi(-11) - 2f64.powi(-40)];
    assert_eq!(halves(tensor(&near_ties), FloatStorage::F16), [0x3c01, 0x3c01]);
    let near_ties =
        [1.0 + 2f64.powi(-8) + 2f64.powi(-40), -1.0 - 2f64.powi(-8), 1.0 + 3.0 * 2f64.powi(-8) - 2f64.powi(-50)];
    assert_eq!(halves(tensor(&near_ties), FloatStorage::BF16), [0x3f81, 0xbf80, 0x3f81]);
    assert_eq!(halves(tensor(&[f64::INFINITY, f64::NEG_INFINITY]), FloatStorage::F16), [0x7c00, 0xfc00]);
    assert!(f16::from_bits(halves(tensor(&[f64::NAN]), FloatStorage::F16)[0]).is_nan());
    let ints = written(Tensor::new([1, 2], &device), FloatStorage::F16).unwrap();
    assert_eq!(read(&ints).unwrap().tensors["t"].to_vec::<i32>().unwrap(), [1, 2]);

    let fails = |value: f64, storage: FloatStorage, message: &str| {
        let error = written(tensor(&[1.0, value]), storage).unwrap_err().to_string();
        assert_eq!(error, format!("safetensors: tensor `t` has the element {message}"));
    };
    fails(65520.0, FloatStorage::F16, "65520, expected a float that F16 holds");
    fails(-1e39, FloatStorage::BF16, "-1000000000000000000000000000000000000000, expected a float that BF16 holds");
}

#[test]
fn files_are_replaced_whole_or_not_at_all() {
    let (device, folder) = (Device::cpu(), tempfile::tempdir().unwrap());
    let path = folder.path().join("model.safetensors");
    let first = model([("w", Tensor::new([1.0, 2.0], &device))]);
    first.write(&path, FloatStorage::default()).unwrap();
    let before = std::fs::read(&path).unwrap();
    // What cannot be written leaves the old file, and nothing beside it.
    let broken = model([("a", Tensor::ones([3], &device)), ("b", Tensor::ones([2], &device).reshape([3]))]);
    let error = broken.write(&path, FloatStorage::default()).unwrap_err();
    assert!(matches!(&error, DataError::Tensor { tensor, .. } if tensor == "b"), "{error}");
    let error = model([("w", Tensor::new(1e9, &device))]).write(&path, FloatStorage::F16).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{}: tensor `w` has the element 1000000000, expected a float that F16 holds", path.display())
    );
    let reserved = model([("__metadata__", Tensor::ones([1], &device))]);
    let error = reserved.write(&path, FloatStorage::default()).unwrap_err().to_string();
    assert_eq!(error, "no tensor of a safetensors file may be named `__metadata__`");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    model([("w", Tensor::new([3.0], &device))]).write(&path, FloatStorage::default()).unwrap();
    assert_eq!(Safetensors::read(&path, &device).unwrap().tensors["w"].to_vec::<f32>().unwrap(), [3.0]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(folder.path().join("other"), "").unwrap();
        let rights = |name| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(rights("model.safetensors"), rights("other"));
    }
    let nowhere = folder.path().join("missing").join("model.safetensors");
    assert!(matches!(first.write(&nowhere, FloatStorage::default()), Err(DataError::Write { .. })));
    assert!(matches!(Safetensors::read(&nowhere, &device), Err(DataError::Open { .. })));
}

#[test]
fn what_is_wrong_is_said() {
    let says = |bytes: &[u8], message: &str| {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, DataError::NotSafetensors { .. }), "{error}");
        assert!(error.to_string().contains(message), "expected {message}, found {error}");
    };
    says(&[], "found 0 bytes, expected 8");
    says(&u64::MAX.to_le_bytes(), "a header of 18446744073709551615 bytes, expected at most 100000000");
    says(&99_999_999u64.to_le_bytes(), "0 bytes of a header of 99999999");
    says(&file("", &[]), "a header with EOF");
    says(&file("[]", &[]), "a header with invalid type: sequence, expected tensors by name");
    says(&file("{\"a\":", &[]), "a header with EOF");
    says(&file("{} {}", &[]), "a header with");
    says(&file("{}", &[0]), "more bytes than its header says");
    says(&[&2u64.to_le_bytes()[..], &[0xff, 0xff]].concat(), "a header with");
    let entry = |name: &str, shape: &str, start: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"U8","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let with = |entries: &[String], bytes: &[u8]| file(&format!("{{{}}}", entries.join(",")), bytes);
    says(&with(&[entry("a", "[2]", 0, 2)], &[1]), "1 bytes of tensor `a`, expected 2");
    says(&with(&[entry("a", "[2]", 0, 2)], &[1, 2, 3]), "more bytes than its header says");
    says(&with(&[entry("a", "[3]", 0, 2)], &[1, 2]), "a header with invalid shape, data type, or offset for tensor");
    says(&with(&[entry("a", "[1]", 0, 1), entry("a", "[1]", 0, 1)], &[1]), "two entries named `a`");
    says(&with(&[entry("a", "[1]", 0, 1), entry("b", "[1]", 0, 1)], &[1]), "a header with invalid offset for tensor `");
    says(&with(&[entry("a", "[1]", 1, 2)], &[0, 1]), "a header with invalid offset for tensor `a`");
    says(&with(&[entry("a", "[1]", 2, 1)], &[0, 1]), "a header with invalid offset for tensor `a`");
    // Claims of memory that nobody has.
    let most = (1u64 << 60) - 1;
    says(&with(&[entry("a", &format!("[{most}]"), 0, most)], &[0]), "1 bytes of tensor `a`");
    says(&with(&[entry("a", "[4294967296,4294967296]", 0, 0)], &[]), "a header with overflow");
    let rest: Vec<String> =
        (0..16).map(|i| entry(&i.to_string(), &format!("[{most}]"), i * most, (i + 1) * most)).collect();
    says(&with(&rest, &[0]), "1 bytes of tensor `0`");
    says(&file(&"[".repeat(100_000), &[]), "a header with");
    // No elements, of a shape that no tensor has.
    let error = read(&with(&[entry("a", "[0,4294967296,4294967296]", 0, 0)], &[])).unwrap_err();
    assert!(matches!(&error, DataError::Tensor { tensor, .. } if tensor == "a"), "{error}");
}

/// Tensors of every dtype that the CPU has.
fn tensors() -> impl Strategy<Value = Vec<(String, Data)>> {
    let data = prop_oneof![
        proptest::collection::vec(any::<bool>(), 0..9).prop_map(Data::Bool),
        proptest::collection::vec(any::<i32>(), 0..9).prop_map(Data::I32),
        proptest::collection::vec(any::<u32>(), 0..9).prop_map(Data::U32),
        proptest::collection::vec(
            any::<u16>()
                .prop_filter_map("a number", |bits| { Some(f16::from_bits(bits)).filter(|half| !half.is_nan()) }),
            0..9
        )
        .prop_map(Data::F16),
        proptest::collection::vec(any::<f32>(), 0..9).prop_map(Data::F32),
        proptest::collection::vec(any::<f64>(), 0..9).prop_map(Data::F64),
    ];
    proptest::collection::vec((any::<String>(), data), 0..5)
}

proptest! {
    #[test]
    fn what_is_written_reads_back(tensors in tensors(), metadata: std::collections::BTreeMap<String, String>) {
        let device = Device::cpu();
        let named = tensors.into_iter().map(|(name, data)| (name, Tensor::from_data(data.clone(), [1, data.len()], &device)));
        let model = Safetensors { tensors: named.collect(), metadata };
        let mut bytes = Vec::new();
        model.to_writer(&mut bytes, FloatStorage::AsTheyAre).unwrap();
        let again = read(&bytes).unwrap();
        prop_assert_eq!(&again.metadata, &model.metadata);
        prop_assert_eq!(again.tensors.keys().collect::<Vec<_>>(), model.tensors.keys().collect::<Vec<_>>());
        for (name, tensor) in &model.tensors {
            prop_assert_eq!(again.tensors[name].shape(), tensor.shape());
            prop_assert_eq!(again.tensors[name].to_data().unwrap(), tensor.to_data().unwrap());
        }
        let mut twice = Vec::new();
        again.to_writer(&mut twice, FloatStorage::AsTheyAre).unwrap();
        prop_assert_eq!(bytes, twice);
    }

    /// The stored number is one of the two around the value, and the other one is not nearer.
    #[test]
    fn nothing_is_nearer(value in prop_oneof![-70_000.0..70_000.0f64, -1e-4..1e-4f64, any::<f64>()], storage: bool) {
        let storage = if storage { FloatStorage::F16 } else { FloatStorage::BF16 };
        let Ok(bytes) = written(Tensor::from_vec(vec![value], [1], &Device::cpu()), storage) else { return Ok(()) };
        let word = u16::from_le_bytes(*bytes.last_chunk().unwrap());
        let of = |word: u16| match storage {
            FloatStorage::F16 => f16::from_bits(word).to_f64(),
            _ => bf16::from_bits(word).to_f64(),
        };
        let distance = |word: u16| (of(word) - value).abs();
        for other in [word.wrapping_add(1), word.wrapping_sub(1)].into_iter().filter(|&other| of(other).is_finite()) {
            prop_assert!(distance(word) <= distance(other), "{value} became {}", of(word));
            prop_assert!(distance(word) < distance(other) || word % 2 == 0, "{value} became {}", of(word));
        }
    }

    #[test]
    fn any_bytes_give_tensors_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = read(&bytes) {
            prop_assert!(error.to_string().contains("file"), "{error}");
        }
    }

    /// Headers that are nearly right reach deeper than random bytes.
    #[test]
    fn any_header_gives_tensors_or_an_error(
        entries in proptest::collection::vec(("[ab]", "BOOL|U8|I16|I64|F16|F32|F4|F8_E4M3|C64", proptest::collection::vec(prop_oneof![0u64..4, any::<u64>()], 0..4), prop_oneof![0u64..9, any::<u64>()], prop_oneof![0u64..17, any::<u64>()]), 0..4),
        bytes in proptest::collection::vec(0u8..4, 0..40),
        cut in 0usize..1000,
    ) {
        let entry = |(name, dtype, shape, start, end)| {
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
        };
        let entries: Vec<String> = entries.into_iter().map(entry).collect();
        let mut bytes = file(&format!("{{{}}}", entries.join(",")), &bytes);
        bytes.truncate(bytes.len().min(cut + 8));
        if let Err(error) = read(&bytes) {
            prop_assert!(error.to_string().contains("file") || matches!(error, DataError::Tensor { .. }), "{error}");
        }
    }
}
