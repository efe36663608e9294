//! NumPy's files: arrays (`.npy`), and archives of them (`.npz`).

use crate::elements::{ByteOrder, Kind, Stored};
use crate::gzip::unpacked;
use crate::layout::{Layout, MAX_BYTES, up_to};
use crate::{Array, DataError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

pub(crate) const FORMAT: &str = "an npy file";
const ARCHIVE: &str = "an npz file";
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// A header is a line of text with a few numbers; NumPy itself trusts none of more than 10,000 bytes.
const LONGEST_HEADER: usize = 1 << 16;
/// NumPy's most axes.
const MOST_AXES: usize = 64;

impl Array {
    /// Reads NumPy's `.npy` file, format versions 1.0 to 3.0
    /// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>), gzip or not, of booleans, integers and
    /// floats of 16 to 64 bits, in either byte order; Fortran's order becomes row-major. Integers become i32 or, without a sign,
    /// u32 (all but u8, which stays), if all fit. Pickled objects, texts, complex numbers, dates and records are errors.
    ///
    /// # Errors
    /// If it cannot be opened or read, is no such file, is shorter or longer than it says, or larger than 4 GiB.
    pub fn read_npy(path: impl AsRef<Path>) -> Result<Array, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        Array::from_npy(file, &path.display().to_string())
    }

    /// Reads what starts as an npy file does, or as gzip does; errors call it `name`.
    ///
    /// # Errors
    /// As [`read_npy`](Array::read_npy).
    ///
    /// ```
    /// use gradus_data::{Array, Elements};
    /// let header = b"\x93NUMPY\x01\0\x37\0{'descr': '<i2', 'fortran_order': False, 'shape': (2,)}";
    /// let array = Array::from_npy(&[&header[..], &[1, 0, 255, 255]].concat()[..], "two.npy")?;
    /// assert_eq!((array.shape(), array.elements()), (&[2][..], &Elements::I32(vec![1, -1])));
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn from_npy(from: impl Read, name: &str) -> Result<Array, DataError> {
        let mut from = unpacked(from).map_err(|source| DataError::Read { name: name.into(), source })?;
        header(&mut from, name)?.0.read(from, name)
    }

    /// Reads all arrays of NumPy's `.npz` file, a zip archive of npy files that are stored or deflated, by their names without
    /// `.npy`.
    ///
    /// # Errors
    /// As [`read_npy`](Array::read_npy), the 4 GiB being those of all arrays together; and if the archive is broken, encrypted,
    /// packed in another way or holds another file.
    ///
    /// ```no_run
    /// use gradus_data::Array;
    /// let arrays = Array::read_npz("mnist.npz")?;
    /// println!("{:?}", arrays["x_train"].shape());
    /// # Ok::<(), gradus_data::DataError>(())
    /// ```
    pub fn read_npz(path: impl AsRef<Path>) -> Result<BTreeMap<String, Array>, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        Array::from_npz(BufReader::new(file), &path.display().to_string())
    }

    /// Reads an npz file; errors call it `name`.
    ///
    /// # Errors
    /// As [`read_npz`](Array::read_npz).
    pub fn from_npz(from: impl Read + Seek, name: &str) -> Result<BTreeMap<String, Array>, DataError> {
        let wrong = |found: String| DataError::Malformed { name: name.into(), format: ARCHIVE, found };
        let mut archive = zip::ZipArchive::new(from).map_err(|error| wrong(error.to_string()))?;
        let mut arrays = BTreeMap::new();
        let mut left = MAX_BYTES;
        for index in 0..archive.len() {
            let file = archive.by_index(index).map_err(|error| wrong(format!("file {index}: {error}")))?;
            let file_name = file.name().map_err(|error| wrong(format!("file {index}: {error}")))?;
            let Some(key) = file_name.strip_suffix(".npy").map(String::from) else {
                return Err(wrong(format!("`{}`, expected only .npy files", crate::error::shortened(&file_name))));
            };
            drop(file_name);
            let within = format!("{name}, `{key}`");
            let mut file = file.take(left + 1);
            let array = header(&mut file, &within)?.0.read(&mut file, &within)?;
            if file.limit() == 0 {
                return Err(wrong(format!("more than {MAX_BYTES} bytes of arrays")));
            }
            left = file.limit() - 1;
            if arrays.insert(key.clone(), array).is_some() {
                return Err(wrong(format!("two arrays named `{key}`")));
            }
        }
        Ok(arrays)
    }
}

/// What an npy file starts with, and how many bytes that is.
pub(crate) fn header(mut from: impl Read, name: &str) -> Result<(Layout, u64), DataError> {
    let not_npy = |found: String| DataError::Malformed { name: name.into(), format: FORMAT, found };
    let mut next =
        |bytes: usize| up_to(&mut from, bytes as u64).map_err(|source| DataError::Read { name: name.into(), source });
    let start = next(8)?;
    let Some(&[major, _]) = start.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk()) else {
        return Err(not_npy(format!("the first bytes {start:02x?}, expected 93 4e 55 4d 50 59 and a version")));
    };
    let width = match major {
        1 => 2,
        2 | 3 => 4,
        other => return Err(not_npy(format!("version {other}, expected 1, 2 or 3"))),
    };
    let bytes = next(width)?;
    let length = bytes.iter().rev().fold(0, |length: usize, &byte| length << 8 | byte as usize);
    if bytes.len() < width || length > LONGEST_HEADER {
        return Err(not_npy(format!("a header of {length} bytes, expected at most {LONGEST_HEADER}")));
    }
    let text = next(length)?;
    if text.len() < length {
        return Err(not_npy(format!("{} bytes of a header of {length}", text.len())));
    }
    let parsed = Header::parse(&text).map_err(|problem| not_npy(format!("a header with {problem}")))?;
    let stored = stored(&parsed.descr).ok_or_else(|| {
        let expected = "bool, or integers or floats of at most 64 bits";
        not_npy(format!("elements of type {:?}, expected {expected}", crate::error::shortened(&parsed.descr)))
    })?;
    let layout = Layout { format: FORMAT, shape: parsed.shape, stored, columns_first: parsed.fortran_order };
    Ok((layout, (8 + width + length) as u64))
}

/// The meaning of a type's description, such as `<f4`.
fn stored(descr: &str) -> Option<Stored> {
    let (order, kind) = descr.split_at_checked(1)?;
    let kind = match kind {
        "b1" => Kind::Bool,
        "u1" => Kind::U8,
        "u2" => Kind::U16,
        "u4" => Kind::U32,
        "u8" => Kind::U64,
        "i1" => Kind::I8,
        "i2" => Kind::I16,
        "i4" => Kind::I32,
        "i8" => Kind::I64,
        "f2" => Kind::F16,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        _ => return None,
    };
    let order = match order {
        "<" => ByteOrder::Little,
        ">" => ByteOrder::Big,
        // NumPy writes what has one byte, and so no order, this way.
        "|" if matches!(kind, Kind::Bool | Kind::U8 | Kind::I8) => ByteOrder::Little,
        _ => return None,
    };
    Some(Stored { kind, order })
}

/// The dictionary of a header, a literal of Python with these three keys.
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &[u8]) -> Result<Header, String> {
        let mut literal = Literal { rest: text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        literal.expect(b'{')?;
        while !literal.takes(b'}') {
            let key = literal.text()?;
            literal.expect(b':')?;
            let is_new = match &key[..] {
                "descr" => descr.replace(literal.text()?).is_none(),
                "fortran_order" => fortran_order.replace(literal.boolean()?).is_none(),
                "shape" => shape.replace(literal.extents()?).is_none(),
                other => return Err(format!("a key {:?}", crate::error::shortened(other))),
            };
            if !is_new {
                return Err(format!("two keys {key:?}"));
            }
            if !literal.takes(b',') {
                literal.expect(b'}')?;
                break;
            }
        }
        literal.skip_space();
        if !literal.rest.is_empty() {
            return Err("more than a dictionary".into());
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Header { descr, fortran_order, shape }),
            _ => Err("a key missing, expected `descr`, `fortran_order` and `shape`".into()),
        }
    }
}

/// What is left of a literal.
struct Literal<'a> {
    rest: &'a [u8],
}

impl Literal<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.takes(byte) { Ok(()) } else { Err(format!("{}, expected `{}`", self.found(), byte as char)) }
    }

    fn found(&self) -> String {
        match &self.rest[..self.rest.len().min(20)] {
            [] => "its end".into(),
            start => format!("`{}`", String::from_utf8_lossy(start)),
        }
    }

    /// A text without escapes: names of types and keys have none.
    fn text(&mut self) -> Result<String, String> {
        let quote = if self.takes(b'\'') {
            b'\''
        } else if self.takes(b'"') {
            b'"'
        } else {
            return Err(format!("{}, expected a text in quotes", self.found()));
        };
        let end = self.rest.iter().position(|&byte| byte == quote).ok_or("a text without an end")?;
        let text = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.skip_space();
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(format!("{}, expected True or False", self.found()))
    }

    fn extents(&mut self) -> Result<Vec<usize>, String> {
        let mut extents = Vec::new();
        self.expect(b'(')?;
        while !self.takes(b')') {
            let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = str::from_utf8(&self.rest[..digits]).ok().and_then(|digits| digits.parse().ok());
            extents.push(number.ok_or_else(|| format!("{}, expected an extent", self.found()))?);
            self.rest = &self.rest[digits..];
            // Python 2 wrote long integers with an L.
            self.takes(b'L');
            if extents.len() > MOST_AXES {
                return Err(format!("more than {MOST_AXES} axes"));
            }
            if !self.takes(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Elements;
    use gradus_tensor::f16;
    use std::io::{Cursor, Write};

    /// As NumPy writes it: padded with spaces to a multiple of 64, and a newline.
    fn file(version: u8, descr: &str, fortran_order: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': {fortran_order}, 'shape': {shape}, }}");
        let width = if version == 1 { 2 } else { 4 };
        while !(8 + width + text.len() + 1).is_multiple_of(64) {
            text.push(' ');
        }
        text.push('\n');
        let length = (text.len() as u32).to_le_bytes();
        [&b"\x93NUMPY"[..], &[version, 0], &length[..width], text.as_bytes(), bytes].concat()
    }

    fn read(bytes: &[u8]) -> Result<Array, String> {
        Array::from_npy(bytes, "a.npy").map_err(|error| error.to_string())
    }

    #[test]
    fn every_type_in_either_order() {
        let numbers = [-2i64, 0, 101];
        let signed: [(&str, Vec<Vec<u8>>); 4] = [
            ("i1", numbers.iter().map(|&n| (n as i8).to_le_bytes().into()).collect()),
            ("i2", numbers.iter().map(|&n| (n as i16).to_le_bytes().into()).collect()),
            ("i4", numbers.iter().map(|&n| (n as i32).to_le_bytes().into()).collect()),
            ("i8", numbers.iter().map(|&n| n.to_le_bytes().into()).collect()),
        ];
        let unsigned: [(&str, Vec<Vec<u8>>); 3] = [
            ("u2", [7u16, 60_000].iter().map(|n| n.to_le_bytes().into()).collect()),
            ("u4", [7u32, 60_000].iter().map(|n| n.to_le_bytes().into()).collect()),
            ("u8", [7u64, 60_000].iter().map(|n| n.to_le_bytes().into()).collect()),
        ];
        let floats = [-1.5f32, f32::INFINITY];
        let halves = floats.map(f16::from_f32);
        let all = [
            (signed.to_vec(), Elements::I32(vec![-2, 0, 101])),
            (unsigned.to_vec(), Elements::U32(vec![7, 60_000])),
            (vec![("f2", halves.iter().map(|n| n.to_le_bytes().into()).collect())], Elements::F16(halves.to_vec())),
            (vec![("f4", floats.iter().map(|n| n.to_le_bytes().into()).collect())], Elements::F32(floats.to_vec())),
            (vec![("f8", [0.1f64].iter().map(|n| n.to_le_bytes().into()).collect())], Elements::F64(vec![0.1])),
        ];
        for (kinds, expected) in all {
            for (kind, words) in kinds {
                for order in ["<", ">"] {
                    let ordered = |mut word: Vec<u8>| {
                        if order == ">" {
                            word.reverse();
                        }
                        word
                    };
                    let bytes: Vec<u8> = words.iter().cloned().flat_map(ordered).collect();
                    for version in 1..=3 {
                        let shape = format!("({}, 1)", words.len());
                        let array = read(&file(version, &format!("{order}{kind}"), "False", &shape, &bytes)).unwrap();
                        assert_eq!(array, Array::new([words.len(), 1], expected.clone()).unwrap(), "{order}{kind}");
                    }
                }
            }
        }
        let bools = read(&file(1, "|b1", "False", "(2L,)", &[1, 0])).unwrap();
        assert_eq!(bools.elements(), &Elements::Bool(vec![true, false]));
        assert_eq!(read(&file(1, "|u1", "False", "()", &[9])).unwrap(), Array::new([], vec![9u8]).unwrap());
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        // a[i, j, k] = 100 i + 10 j + k, of extents [2, 3, 2], first axis fastest.
        let mut bytes = Vec::new();
        for k in 0..2 {
            for j in 0..3 {
                bytes.extend((0..2).map(|i| 100 * i + 10 * j + k));
            }
        }
        let array = read(&file(1, "|u1", "True", "(2, 3, 2)", &bytes)).unwrap();
        let expected = vec![0u8, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121];
        assert_eq!(array, Array::new([2, 3, 2], expected).unwrap());
        assert_eq!(read(&file(1, "|u1", "True", "(0, 3)", &[])).unwrap().shape(), [0, 3]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let says = |bytes: &[u8], what: &str| {
            let error = read(bytes).unwrap_err();
            assert!(error.starts_with("a.npy is not an npy file") && error.contains(what), "{error}");
        };
        says(b"\x93NUM", "the first bytes");
        says(&file(9, "|u1", "False", "(1,)", &[1]), "version 9");
        says(&file(1, "|u1", "False", "(1,)", &[1])[..50], "40 bytes of a header of 118");
        says(&file(1, "|O", "False", "(1,)", &[1]), "elements of type \"|O\"");
        says(&file(1, "<U7", "False", "(1,)", &[1]), "\"<U7\"");
        says(&file(1, "|i4", "False", "(1,)", &[0; 4]), "\"|i4\"");
        says(&file(1, "|b1", "False", "(1,)", &[2]), "the element 2, expected booleans of 0 and 1");
        says(&file(1, "<i8", "False", "(1,)", &(1i64 << 40).to_le_bytes()), "the element 1099511627776");
        says(&file(1, "<f4", "False", "(2, 2)", &[0; 15]), "15 bytes of elements, expected 16");
        says(&file(1, "<f4", "False", "(2, 2)", &[0; 17]), "more than 16 bytes");
        says(&file(1, "<f4", "False", "(9223372036854775807, 9)", &[]), "which take more than");
        says(&file(1, "<f4", "False", "(0, 9223372036854775807)", &[]), "which take more than");
        says(&file(1, "<f4", "False", "(99999999999999999999999,)", &[]), "expected an extent");
        says(&file(1, "<f4", "False", "(-1,)", &[]), "expected an extent");
        says(&file(1, "<f4", "Maybe", "(1,)", &[]), "expected True or False");
        says(&file(1, "|u1', 'descr': '|u1", "False", "(1,)", &[1]), "two keys \"descr\"");
        says(b"\x93NUMPY\x01\0\x02\0{}", "a key missing");
        says(b"\x93NUMPY\x02\0\xff\xff\xff\xff", "a header of 4294967295 bytes");
    }

    #[test]
    fn archives() {
        let archive = |method| {
            let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
            let options = zip::write::SimpleFileOptions::default().compression_method(method);
            for (name, value) in [("x", 1), ("arr_0", 2)] {
                writer.start_file(format!("{name}.npy"), options).unwrap();
                writer.write_all(&file(1, "|u1", "False", "(1,)", &[value])).unwrap();
            }
            writer.finish().unwrap().into_inner()
        };
        for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
            let bytes = archive(method);
            let arrays = Array::from_npz(Cursor::new(&bytes), "a.npz").unwrap();
            assert_eq!(arrays.keys().collect::<Vec<_>>(), ["arr_0", "x"]);
            assert_eq!(arrays["arr_0"].elements(), &Elements::U8(vec![2]));
            let error = Array::from_npz(Cursor::new(&bytes[..bytes.len() - 30]), "a.npz").unwrap_err().to_string();
            assert!(error.starts_with("a.npz is not an npz file"), "{error}");
        }
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file("notes.txt", zip::write::SimpleFileOptions::default()).unwrap();
        let bytes = writer.finish().unwrap().into_inner();
        let error = Array::from_npz(Cursor::new(bytes), "a.npz").unwrap_err().to_string();
        assert!(error.contains("`notes.txt`, expected only .npy files"), "{error}");
    }
}
