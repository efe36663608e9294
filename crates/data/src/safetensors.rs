//! Safetensors files: tensors by name.

use crate::DataError;
use crate::elements::words_of;
use crate::layout::up_to;
use gradus_tensor::{DType, Data, Device, ErrorKind, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

/// No header is longer, says the format.
const LONGEST_HEADER: u64 = 100_000_000;
/// The name under which a header keeps what is no tensor.
const METADATA: &str = "__metadata__";

/// Tensors by name, as a [safetensors](https://github.com/huggingface/safetensors) file holds them.
///
/// | in the file | as a tensor |
/// | --- | --- |
/// | `BOOL`, `I32`, `U32`, `F32` | as they are |
/// | `F64` | f64, where the device has it |
/// | `F16` | f16, where the device has it, or f32 ([`SafetensorsOptions`]) |
/// | `BF16` | f32, which holds all its values |
/// | `I8`, `I16`, `I64` | i32, if all values fit |
/// | `U8`, `U16`, `U64` | u32, if all values fit |
///
/// Whatever else there is (8-bit floats, complex numbers), and a value that does not fit, is an error.
///
/// ```
/// use gradus_data::{FloatStorage, Safetensors};
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let mut model = Safetensors::default();
/// model.tensors.insert("weight".into(), Tensor::new([[1.0, 2.0], [3.0, 0.1]], &device));
/// model.tensors.insert("bias".into(), Tensor::new([0.5, -0.5], &device));
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.safetensors");
/// model.write(&path, FloatStorage::AsTheyAre)?;
///
/// let model = Safetensors::read(&path, &device)?;
/// assert_eq!(model.tensors["weight"].to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 0.1]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Safetensors {
    /// The tensors.
    pub tensors: BTreeMap<String, Tensor>,
    /// What else the file says: texts by name.
    pub metadata: BTreeMap<String, String>,
}

/// How a file is read.
///
/// ```
/// use gradus_data::{FloatStorage, Safetensors, SafetensorsOptions};
/// use gradus_tensor::{DType, Device, Tensor};
/// let device = Device::cpu();
/// let mut model = Safetensors::default();
/// model.tensors.insert("w".into(), Tensor::ones([2], (&device, DType::F16)));
/// let mut bytes = Vec::new();
/// model.to_writer(&mut bytes, FloatStorage::AsTheyAre)?;
/// assert_eq!(Safetensors::from_reader(&bytes[..], "w", &device)?.tensors["w"].dtype(), DType::F16);
/// let options = SafetensorsOptions { f16_as_f32: true };
/// assert_eq!(Safetensors::from_reader_with(&bytes[..], "w", &device, options)?.tensors["w"].dtype(), DType::F32);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SafetensorsOptions {
    /// Whether `F16` becomes f32: for a device without f16, or a model that computes in f32.
    pub f16_as_f32: bool,
}

/// How floats are stored. Bool and integers are stored as they are in any case.
///
/// ```
/// use gradus_data::{FloatStorage, Safetensors};
/// use gradus_tensor::{Device, Tensor};
/// let mut model = Safetensors::default();
/// model.tensors.insert("pi".into(), Tensor::new(3.14159, &Device::cpu()));
/// let mut bytes = Vec::new();
/// model.to_writer(&mut bytes, FloatStorage::BF16)?;
/// let read = Safetensors::from_reader(&bytes[..], "pi", &Device::cpu())?;
/// assert_eq!(read.tensors["pi"].item::<f32>().unwrap(), 3.140625);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatStorage {
    /// f16 as `F16`, f32 as `F32`, f64 as `F64`.
    #[default]
    AsTheyAre,
    /// As `F16`, rounded to the nearest, ties to even: 11 bits of precision, up to 65,504. What is larger is an error.
    F16,
    /// As `BF16`, rounded to the nearest, ties to even: 8 bits of precision, and f32's range.
    BF16,
}

impl Safetensors {
    /// Reads a file, tensor by tensor, onto a device.
    ///
    /// # Errors
    /// If it cannot be opened or read, is no safetensors file, is shorter or longer than it says, or holds what there is no
    /// tensor for on this device.
    pub fn read(path: impl AsRef<Path>, device: &Device) -> Result<Safetensors, DataError> {
        Safetensors::read_with(path, device, SafetensorsOptions::default())
    }

    /// [`read`](Safetensors::read) with options.
    ///
    /// # Errors
    /// As [`read`](Safetensors::read).
    pub fn read_with(
        path: impl AsRef<Path>,
        device: &Device,
        options: SafetensorsOptions,
    ) -> Result<Safetensors, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        Safetensors::from_reader_with(BufReader::new(file), &path.display().to_string(), device, options)
    }

    /// The same from any source of bytes; errors call it `name`.
    ///
    /// # Errors
    /// As [`read`](Safetensors::read).
    pub fn from_reader(from: impl Read, name: &str, device: &Device) -> Result<Safetensors, DataError> {
        Safetensors::from_reader_with(from, name, device, SafetensorsOptions::default())
    }

    /// [`from_reader`](Safetensors::from_reader) with options.
    ///
    /// # Errors
    /// As [`read`](Safetensors::read).
    pub fn from_reader_with(
        mut from: impl Read,
        name: &str,
        device: &Device,
        options: SafetensorsOptions,
    ) -> Result<Safetensors, DataError> {
        let wrong = |found: String| DataError::NotSafetensors { name: name.into(), found };
        // Vectors grow with what is there, so a header that lies costs nothing.
        let mut next =
            |bytes: u64| up_to(&mut from, bytes).map_err(|e| DataError::Read { name: name.into(), source: e });
        let length = next(8)?;
        let Ok(length) = <[u8; 8]>::try_from(&length[..]).map(u64::from_le_bytes) else {
            return Err(wrong(format!("{} bytes, expected 8 with the header's length first", length.len())));
        };
        if length > LONGEST_HEADER {
            return Err(wrong(format!("a header of {length} bytes, expected at most {LONGEST_HEADER}")));
        }
        let header = next(length)?;
        if header.len() as u64 != length {
            return Err(wrong(format!("{} bytes of a header of {length}", header.len())));
        }
        if let Some(twice) = duplicate(&header).map_err(|error| wrong(format!("a header with {error}")))? {
            return Err(wrong(format!("two entries named `{twice}`")));
        }
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| wrong(format!("a header with {error}")))?;

        let mut tensors = BTreeMap::new();
        // Arrays follow each other without gaps: the header was checked for it.
        for tensor in header.offset_keys() {
            let Some(TensorInfo { dtype, shape, data_offsets: (start, end) }) = header.info(&tensor) else { continue };
            let expected = end - start;
            let bytes = next(expected as u64)?;
            if bytes.len() != expected {
                return Err(wrong(format!("{} bytes of tensor `{tensor}`, expected {expected}", bytes.len())));
            }
            let data = decode(&bytes, *dtype, options).map_err(|problem| problem.of(name, &tensor))?;
            let array = Tensor::from_data(data, &shape[..], device);
            match array.error().cloned() {
                Some(source) if matches!(source.kind(), ErrorKind::NoDType { dtype: DType::F16, .. }) => {
                    return Err(DataError::NoF16 { name: name.into(), tensor, device: device.to_string() });
                }
                Some(source) => return Err(DataError::Tensor { tensor, source }),
                None => drop(tensors.insert(tensor, array)),
            }
        }
        if !next(1)?.is_empty() {
            return Err(wrong("more bytes than its header says".into()));
        }
        let metadata = header.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect();
        Ok(Safetensors { tensors, metadata })
    }

    /// Writes a file. The path holds what it held before, or all of the new file, also if the program or the machine stops on
    /// the way: it is written under another name in the same folder, and renamed once it is on the disk.
    ///
    /// # Errors
    /// If a tensor has no value or does not fit its storage, or the file cannot be written; then the path is as it was.
    pub fn write(&self, path: impl AsRef<Path>, floats: FloatStorage) -> Result<(), DataError> {
        let path = path.as_ref();
        let failed = |source| DataError::Write { name: path.display().to_string(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".safetensors-");
        // The rights that a new file has, not those of one that others must not see.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(failed)?;
        let mut buffered = BufWriter::new(file.as_file());
        self.write_to(&mut buffered, floats, &path.display().to_string())?;
        buffered.flush().map_err(failed)?;
        drop(buffered);
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        // A renaming is on the disk once its folder is.
        #[cfg(unix)]
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(())
    }

    /// Writes the bytes of a file; equal tensors give equal bytes.
    ///
    /// # Errors
    /// If a tensor has no value or does not fit its storage, or the bytes cannot be written.
    pub fn to_writer(&self, mut to: impl Write, floats: FloatStorage) -> Result<(), DataError> {
        self.write_to(&mut to, floats, "safetensors")
    }

    fn write_to(&self, to: &mut impl Write, floats: FloatStorage, name: &str) -> Result<(), DataError> {
        // All in one run; what fails is said below, by name.
        let _ = gradus_tensor::eval(self.tensors.values());
        let mut stored: Vec<(Dtype, &String, &Tensor)> = Vec::with_capacity(self.tensors.len());
        for (tensor, array) in &self.tensors {
            if tensor == METADATA {
                return Err(DataError::TensorName { tensor: tensor.clone() });
            }
            let data_type = floats.of(array);
            stored.push((data_type, tensor, array));
        }
        // Wide elements first, so that all are aligned.
        stored.sort_by_key(|(dtype, tensor, _)| (std::cmp::Reverse(dtype.bitsize()), *tensor));
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            header.insert(METADATA.into(), serde_json::json!(self.metadata));
        }
        let mut end = 0;
        for (dtype, tensor, array) in &stored {
            let start = end;
            end += array.numel() * dtype.bitsize() / 8;
            let info = TensorInfo { dtype: *dtype, shape: array.shape().to_vec(), data_offsets: (start, end) };
            header.insert((*tensor).clone(), serde_json::json!(info));
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        if header.len() as u64 > LONGEST_HEADER {
            let found = format!("a header of {} bytes, expected at most {LONGEST_HEADER}", header.len());
            return Err(DataError::NotSafetensors { name: name.into(), found });
        }
        let mut put = |bytes: &[u8]| to.write_all(bytes).map_err(|e| DataError::Write { name: name.into(), source: e });
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        for (_, tensor, array) in stored {
            let data = array.to_data().map_err(|source| DataError::Tensor { tensor: tensor.clone(), source })?;
            put(&encode(&data, floats).map_err(|problem| problem.of(name, tensor))?)?;
        }
        Ok(())
    }
}

impl FloatStorage {
    /// How a tensor is stored.
    fn of(self, tensor: &Tensor) -> Dtype {
        match (tensor.dtype(), self) {
            (DType::Bool, _) => Dtype::BOOL,
            (DType::I32, _) => Dtype::I32,
            (DType::U32, _) => Dtype::U32,
            (DType::F16 | DType::F32 | DType::F64, FloatStorage::F16) => Dtype::F16,
            (DType::F16 | DType::F32 | DType::F64, FloatStorage::BF16) => Dtype::BF16,
            (DType::F16, FloatStorage::AsTheyAre) => Dtype::F16,
            (DType::F32, FloatStorage::AsTheyAre) => Dtype::F32,
            (DType::F64, FloatStorage::AsTheyAre) => Dtype::F64,
        }
    }
}

/// Why elements cannot be converted.
enum Problem {
    /// There is no tensor of this kind.
    Kind(Dtype),
    /// This element is none of that.
    Value(String, &'static str),
}

impl Problem {
    fn of(self, name: &str, tensor: &str) -> DataError {
        let (name, tensor) = (name.to_string(), tensor.to_string());
        match self {
            Problem::Kind(dtype) => DataError::TensorDType { name, tensor, dtype: dtype.to_string() },
            Problem::Value(found, expected) => DataError::TensorValue { name, tensor, found, expected },
        }
    }
}

/// The elements of an array in a file.
fn decode(bytes: &[u8], dtype: Dtype, options: SafetensorsOptions) -> Result<Data, Problem> {
    Ok(match dtype {
        Dtype::BOOL => match bytes.iter().find(|&&byte| byte > 1) {
            Some(byte) => return Err(Problem::Value(byte.to_string(), "a bool, 0 or 1")),
            None => Data::Bool(bytes.iter().map(|&byte| byte == 1).collect()),
        },
        Dtype::I8 => Data::I32(words_of(bytes, |w| i8::from_le_bytes(w).into())),
        Dtype::I16 => Data::I32(words_of(bytes, |w| i16::from_le_bytes(w).into())),
        Dtype::I32 => Data::I32(words_of(bytes, i32::from_le_bytes)),
        Dtype::I64 => Data::I32(narrowed(words_of(bytes, i64::from_le_bytes), "an integer that i32 holds")?),
        Dtype::U8 => Data::U32(words_of(bytes, |w| u8::from_le_bytes(w).into())),
        Dtype::U16 => Data::U32(words_of(bytes, |w| u16::from_le_bytes(w).into())),
        Dtype::U32 => Data::U32(words_of(bytes, u32::from_le_bytes)),
        Dtype::U64 => Data::U32(narrowed(words_of(bytes, u64::from_le_bytes), "an integer that u32 holds")?),
        Dtype::F16 if !options.f16_as_f32 => Data::F16(words_of(bytes, f16::from_le_bytes)),
        Dtype::F16 => Data::F32(words_of(bytes, |w| f16::from_le_bytes(w).to_f32())),
        Dtype::BF16 => Data::F32(words_of(bytes, |w| bf16::from_le_bytes(w).to_f32())),
        Dtype::F32 => Data::F32(words_of(bytes, f32::from_le_bytes)),
        Dtype::F64 => Data::F64(words_of(bytes, f64::from_le_bytes)),
        other => return Err(Problem::Kind(other)),
    })
}

fn narrowed<T: Copy + fmt::Display, U: TryFrom<T>>(values: Vec<T>, expected: &'static str) -> Result<Vec<U>, Problem> {
    let narrow = |value: T| U::try_from(value).map_err(|_| Problem::Value(value.to_string(), expected));
    values.into_iter().map(narrow).collect()
}

/// The bytes of an array in a file.
fn encode(data: &Data, floats: FloatStorage) -> Result<Vec<u8>, Problem> {
    Ok(match (data, floats) {
        (Data::Bool(values), _) => values.iter().map(|&value| value as u8).collect(),
        (Data::I32(values), _) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (Data::U32(values), _) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (Data::F16(values), FloatStorage::BF16) => shortened(values, f16::to_f32, floats)?,
        (Data::F16(values), _) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (Data::F32(values), FloatStorage::AsTheyAre) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (Data::F64(values), FloatStorage::AsTheyAre) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (Data::F32(values), storage) => shortened(values, |value| value, storage)?,
        (Data::F64(values), storage) => shortened(values, to_odd, storage)?,
    })
}

/// Floats of 16 bits. A number that becomes infinite does not fit.
fn shortened<T: Copy + fmt::Display>(
    values: &[T],
    single: impl Fn(T) -> f32,
    storage: FloatStorage,
) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for &found in values {
        let value = single(found);
        let (short, is_infinite, expected) = match storage {
            FloatStorage::F16 => {
                let short = f16::from_f32(value);
                (short.to_le_bytes(), short.is_infinite(), "a float that F16 holds")
            }
            _ => {
                let short = bf16::from_f32(value);
                (short.to_le_bytes(), short.is_infinite(), "a float that BF16 holds")
            }
        };
        if is_infinite && value.is_finite() {
            return Err(Problem::Value(found.to_string(), expected));
        }
        bytes.extend(short);
    }
    Ok(bytes)
}

/// An f64 as an f32 that rounds to 16 bits as it does itself: where f32 does not hold it, the neighbour with an odd last
/// bit, which is never half-way between two shorter floats. (Boldo and Melquiond: "When double rounding is odd", 2005.)
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if value.is_nan() || f64::from(nearest) == value {
        return nearest;
    }
    // Bits count from zero away, whatever the sign.
    let is_away = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(is_away)) | 1)
}

/// A name that the header has twice, which the format forbids; parsers keep the last.
fn duplicate(header: &[u8]) -> Result<Option<String>, serde_json::Error> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("tensors by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
            let (mut seen, mut twice) = (BTreeSet::new(), None);
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                if let Some(name) = seen.replace(name) {
                    twice.get_or_insert(name);
                }
            }
            Ok(twice)
        }
    }
    serde_json::Deserializer::from_slice(header).deserialize_map(Names)
}
