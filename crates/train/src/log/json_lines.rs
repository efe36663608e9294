//! A log of one JSON object a line.

use super::{Log, LogError, now};
use serde_json::{Map, Number, Value};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Writes a line for each call: `{"step":3,"time":1764000000.5,"loss":0.25}`. Numbers that JSON does not have are the texts
/// `"nan"`, `"inf"` and `"-inf"`.
///
/// ```
/// use gradus_train::log::{JsonLines, Log, read_json_lines};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("run.jsonl");
/// JsonLines::open(&path)?.scalars(3, &[("loss", 0.25)])?;
/// let lines = read_json_lines(&path)?;
/// assert_eq!((lines[0].step, &lines[0].scalars[..]), (3, &[("loss".to_string(), 0.25)][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens a log to go on with, or a new one; a missing folder is created. What a killed run left of its last line is taken
    /// off.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<JsonLines, LogError> {
        let path = path.as_ref().to_path_buf();
        let file = open(&path).map_err(|source| LogError::Io { path: path.clone(), source })?;
        Ok(JsonLines { path, file })
    }

    fn write(&mut self, object: Map<String, Value>) -> Result<(), LogError> {
        let line = Value::Object(object).to_string() + "\n";
        // One write for a line: there is no moment at which half of it is in a buffer of this process.
        self.file.write_all(line.as_bytes()).map_err(|source| LogError::Io { path: self.path.clone(), source })
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    // Backwards in blocks to the last end of a line.
    let (mut whole, mut block) = (end, [0_u8; 4096]);
    while whole > 0 {
        let size = whole.min(block.len() as u64) as usize;
        file.seek(SeekFrom::Start(whole - size as u64))?;
        file.read_exact(&mut block[..size])?;
        if let Some(place) = block[..size].iter().rposition(|&byte| byte == b'\n') {
            whole = whole - size as u64 + place as u64 + 1;
            break;
        }
        whole -= size as u64;
    }
    if whole < end {
        file.set_len(whole)?;
    }
    Ok(file)
}

fn json(number: f64) -> Value {
    let text = || match number {
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        _ => "nan",
    };
    Number::from_f64(number).map_or_else(|| Value::from(text()), Value::Number)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "inf" => Some(f64::INFINITY),
            "-inf" => Some(f64::NEG_INFINITY),
            "nan" => Some(f64::NAN),
            _ => None,
        },
        _ => None,
    }
}

impl Log for JsonLines {
    fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<(), LogError> {
        let mut object = Map::new();
        object.insert("step".into(), step.into());
        object.insert("time".into(), json(now()));
        object.extend(scalars.iter().map(|&(name, value)| (name.to_string(), json(value))));
        self.write(object)
    }

    fn text(&mut self, step: u64, name: &str, text: &str) -> Result<(), LogError> {
        let mut object = Map::new();
        object.insert("step".into(), step.into());
        object.insert("time".into(), json(now()));
        object.insert(name.into(), text.into());
        self.write(object)
    }
}

/// A line of a [`JsonLines`] log.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The step.
    pub step: u64,
    /// When it was written, in seconds since 1970.
    pub time: f64,
    /// Its numbers by name, in the order of names.
    pub scalars: Vec<(String, f64)>,
    /// Its texts by name.
    pub texts: Vec<(String, String)>,
}

/// The lines of a log. A last line without its end, as a killed run leaves it, is left out.
///
/// # Errors
/// [`LogError::Io`], or [`LogError::Damaged`] at a line that is no object with a step.
pub fn read_json_lines(path: impl AsRef<Path>) -> Result<Vec<Line>, LogError> {
    let path = path.as_ref();
    let text = fs::read(path).map_err(|source| LogError::Io { path: path.to_path_buf(), source })?;
    let (mut lines, mut at) = (Vec::new(), 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        if line.ends_with(b"\n") {
            let damaged = |reason: String| LogError::Damaged { path: path.to_path_buf(), at, reason };
            lines.push(parse(line).map_err(damaged)?);
        }
        at += line.len() as u64;
    }
    Ok(lines)
}

fn parse(line: &[u8]) -> Result<Line, String> {
    let object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let step = object.get("step").and_then(Value::as_u64).ok_or("no step")?;
    let time = object.get("time").and_then(number).ok_or("no time")?;
    let (mut scalars, mut texts) = (Vec::new(), Vec::new());
    for (name, value) in object.into_iter().filter(|(name, _)| name != "step" && name != "time") {
        match (number(&value), value) {
            (Some(value), _) => scalars.push((name, value)),
            (None, Value::String(text)) => texts.push((name, text)),
            (None, value) => return Err(format!("{name} is {value}, expected a number or a text")),
        }
    }
    Ok(Line { step, time, scalars, texts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_on_where_a_killed_run_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run.jsonl");
        let mut log = JsonLines::open(&path).unwrap();
        log.scalars(0, &[("loss", 1.5), ("a \"name\"\n", f64::NAN), ("b", f64::NEG_INFINITY)]).unwrap();
        log.text(1, "note", &"long ".repeat(2000)).unwrap();
        drop(log);
        let whole = fs::read(&path).unwrap();
        let second = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        // Cut anywhere in the second line.
        for cut in (second..whole.len()).step_by(997).chain([second, whole.len() - 1]) {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read_json_lines(&path).unwrap().len(), 1);
            JsonLines::open(&path).unwrap().scalars(7, &[("loss", 0.5)]).unwrap();
            let lines = read_json_lines(&path).unwrap();
            assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), [0, 7]);
            assert_eq!(lines[1].scalars, [("loss".to_string(), 0.5)]);
            let first: Vec<(&str, f64)> = lines[0].scalars.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            assert_eq!((first[1], first[2]), (("b", f64::NEG_INFINITY), ("loss", 1.5)));
            assert!(first[0].1.is_nan());
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(read_json_lines(&path).unwrap()[1].texts[0].1.len(), 10_000);
    }

    #[test]
    fn damage_is_an_error_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let good = "{\"step\":1,\"time\":2.0}\n";
        for bad in
            ["{}\n", "[1]\n", "\n", "{\"step\":-1,\"time\":0}\n", "{\"step\":1,\"time\":0,\"x\":[]}\n", "\u{0}\u{0}\n"]
        {
            fs::write(&path, format!("{good}{bad}")).unwrap();
            let error = read_json_lines(&path).unwrap_err();
            assert!(matches!(error, LogError::Damaged { at: 22, .. }), "{bad:?}: {error}");
        }
        fs::write(&path, "").unwrap();
        assert!(read_json_lines(&path).unwrap().is_empty());
        assert!(matches!(read_json_lines(folder.path()), Err(LogError::Io { .. })));
        assert!(JsonLines::open(folder.path()).is_err());
    }
}
