//! Floats in JSON, which has no NaN and no infinities: they are texts there.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Float {
    Finite(f64),
    Text(String),
}

impl From<f64> for Float {
    fn from(value: f64) -> Float {
        if value.is_finite() { Float::Finite(value) } else { Float::Text(value.to_string()) }
    }
}

impl TryFrom<Float> for f64 {
    type Error = std::num::ParseFloatError;

    fn try_from(float: Float) -> Result<f64, Self::Error> {
        match float {
            Float::Finite(value) => Ok(value),
            Float::Text(text) => text.parse(),
        }
    }
}

/// A number.
pub(super) mod single {
    use super::Float;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        Float::from(*value).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Float::deserialize(from)?.try_into().map_err(D::Error::custom)
    }
}

/// Numbers at steps.
pub(super) mod by_step {
    use super::Float;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(values: &[(u64, f64)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|(step, value)| (step, Float::from(*value))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u64, f64)>, D::Error> {
        let values = Vec::<(u64, Float)>::deserialize(from)?;
        values.into_iter().map(|(step, value)| Ok((step, value.try_into().map_err(D::Error::custom)?))).collect()
    }
}

/// A number that may be missing.
pub(super) mod optional {
    use super::Float;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        value.map(Float::from).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        let float = Option::<Float>::deserialize(from)?;
        float.map(|float| float.try_into().map_err(D::Error::custom)).transpose()
    }
}

/// Numbers with names.
pub(super) mod named {
    use super::Float;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(values: &[(String, f64)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|(name, value)| (name, Float::from(*value))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, f64)>, D::Error> {
        let values = Vec::<(String, Float)>::deserialize(from)?;
        values.into_iter().map(|(name, value)| Ok((name, value.try_into().map_err(D::Error::custom)?))).collect()
    }
}
