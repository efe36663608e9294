//! Reading numbers and tensors from JSON.

use anyhow::{Context, Result, ensure};
use gradus::{DType, Device, Tensor};
use serde_json::{Map, Value};
use std::path::Path;

/// A file.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// A field that must be there.
pub(crate) fn field<'a>(object: &'a Value, key: &str) -> Result<&'a Value> {
    object.get(key).with_context(|| format!("no field {key:?}"))
}

/// A text field.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str> {
    field(object, key)?.as_str().with_context(|| format!("{key:?} is no text"))
}

/// A field that holds a list.
pub(crate) fn list<'a>(object: &'a Value, key: &str) -> Result<&'a [Value]> {
    Ok(field(object, key)?.as_array().with_context(|| format!("{key:?} is no list"))?)
}

/// A field that holds named values.
pub(crate) fn entries<'a>(object: &'a Value, key: &str) -> Result<&'a Map<String, Value>> {
    field(object, key)?.as_object().with_context(|| format!("{key:?} is no object"))
}

/// A number; `"inf"`, `"-inf"` and `"nan"` are numbers.
pub(crate) fn number(value: &Value) -> Result<f64> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        _ => value.as_f64(),
    };
    number.with_context(|| format!("{value} is no number"))
}

/// The numbers of a number, of nested lists or of `{"shape": …, "data": …}`, with their shape.
pub(crate) fn array(value: &Value) -> Result<(Vec<f64>, Vec<usize>)> {
    if let Some(data) = value.get("data") {
        let shape = numbers(field(value, "shape")?)?.into_iter().map(|extent| extent as usize).collect();
        return Ok((numbers(data)?, shape));
    }
    let Some(rows) = value.as_array() else {
        return Ok((vec![number(value)?], Vec::new()));
    };
    let mut data = Vec::new();
    let mut inner: Option<Vec<usize>> = None;
    for row in rows {
        let (row, shape) = array(row)?;
        ensure!(inner.as_ref().is_none_or(|first| *first == shape), "rows of different shapes");
        inner = Some(shape);
        data.extend(row);
    }
    let shape = std::iter::once(rows.len()).chain(inner.unwrap_or_default()).collect();
    Ok((data, shape))
}

/// The numbers of an [`array`].
pub(crate) fn numbers(value: &Value) -> Result<Vec<f64>> {
    Ok(array(value)?.0)
}

/// An [`array`] as a tensor.
pub(crate) fn tensor(value: &Value, (device, dtype): (&Device, DType)) -> Result<Tensor> {
    let (data, shape) = array(value)?;
    // Rounded on the CPU: a GPU has no f64.
    Ok(Tensor::from_vec(data, shape, (&Device::cpu(), dtype)).to_device(device))
}

/// The elements of a float tensor.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_device(&Device::cpu()).to_dtype(DType::F64).to_vec()?)
}
