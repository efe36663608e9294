//! The fields of a tuning by name: what each may be, and what is worth a try.

use super::Tuning;
use std::fmt;

/// Where a field makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// On all adapters.
    Always,
    /// Where workgroups cooperate.
    Together,
    /// Where they do not.
    Alone,
}

/// A field of [`Tuning`] that may differ from adapter to adapter. Switches count as 0 and 1.
///
/// ```
/// use gradus_gpu::Tuning;
///
/// let busy = Tuning::field("busy").unwrap();
/// let mut tuning = Tuning::GPU;
/// busy.set(&mut tuning, 1 << 14)?;
/// assert_eq!((tuning.busy, busy.get(&tuning)), (1 << 14, 1 << 14));
/// assert!(busy.set(&mut tuning, 1000).is_err(), "no power of two");
/// # Ok::<(), gradus_gpu::tuning::NotLegal>(())
/// ```
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// The families of kernels whose speed depends on it: `map`, `rows`, `product`, `attention`, `order`, `scatter`.
    pub families: &'static [&'static str],
    /// Where it makes a difference.
    pub applies: Applies,
    /// Values that are worth a try.
    pub candidates: &'static [u64],
    /// The least and the largest value that keep kernels legal on every adapter; both, and all between, powers of two.
    range: (u64, u64),
    get: fn(&Tuning) -> u64,
    set: fn(&mut Tuning, u64),
}

/// A value that a field cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLegal {
    field: &'static str,
    value: u64,
    range: (u64, u64),
}

impl fmt::Display for NotLegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotLegal { field, value, range } = self;
        match range {
            (0, 1) => write!(f, "{field} is {value}, not 0 or 1"),
            (low, high) => write!(f, "{field} is {value}, not a power of two from {low} to {high}"),
        }
    }
}

impl std::error::Error for NotLegal {}

impl Field {
    /// Its value in a tuning.
    pub fn get(&self, tuning: &Tuning) -> u64 {
        (self.get)(tuning)
    }

    /// Gives it a value.
    ///
    /// # Errors
    /// If kernels could not be made, or would not be right, with this value.
    pub fn set(&self, tuning: &mut Tuning, value: u64) -> Result<(), NotLegal> {
        let (low, high) = self.range;
        let is_switch = self.range == (0, 1);
        if !(low..=high).contains(&value) || !(is_switch || value.is_power_of_two()) {
            return Err(NotLegal { field: self.name, value, range: self.range });
        }
        (self.set)(tuning, value);
        Ok(())
    }

    /// Whether it makes a difference to kernels that are tuned like this.
    ///
    /// ```
    /// use gradus_gpu::Tuning;
    ///
    /// let tiles = Tuning::field("tiles").unwrap();
    /// assert!(tiles.applies_to(&Tuning::GPU) && !tiles.applies_to(&Tuning::SOFTWARE));
    /// ```
    pub fn applies_to(&self, tuning: &Tuning) -> bool {
        match self.applies {
            Applies::Always => true,
            Applies::Together => tuning.cooperates,
            Applies::Alone => !tuning.cooperates,
        }
    }
}

/// A number.
macro_rules! number {
    ($name:ident, $applies:ident, $families:expr, $low:expr, $high:expr, $candidates:expr) => {
        Field {
            name: stringify!($name),
            families: &$families,
            applies: Applies::$applies,
            candidates: &$candidates,
            range: ($low, $high),
            get: |tuning| tuning.$name as u64,
            set: |tuning, value| tuning.$name = value as _,
        }
    };
}

/// A switch.
macro_rules! switch {
    ($name:ident, $applies:ident, $families:expr) => {
        Field {
            name: stringify!($name),
            families: &$families,
            applies: Applies::$applies,
            candidates: &[0, 1],
            range: (0, 1),
            get: |tuning| tuning.$name.into(),
            set: |tuning, value| tuning.$name = value == 1,
        }
    };
}

impl Tuning {
    /// The fields that a table may change, those that concern one family alone first. Ranges hold on every adapter: workgroups of
    /// 256 are allowed everywhere, and no loop takes more steps than the longest segment, 32,768.
    pub const FIELDS: &[Field] = &[
        number!(tiles, Together, ["product"], 1, 1 << 16, [32, 64, 128, 256, 512]),
        number!(row_workgroup, Together, ["rows"], 32, 256, [64, 128, 256]),
        number!(attention_columns, Together, ["attention"], 8, 32, [8, 16, 32]),
        number!(counted_row, Always, ["order"], 16, 4096, [64, 128, 256, 512, 1024]),
        number!(scatter_looks, Always, ["scatter"], 1 << 10, 1 << 40, [1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26]),
        switch!(teams, Alone, ["rows", "product", "attention"]),
        number!(sort_segment, Alone, ["order"], 32, 4096, [32, 64, 128, 256, 1024]),
        number!(scan_segment, Always, ["order"], 32, 2048, [32, 64, 128, 256]),
        number!(row_share, Together, ["rows"], 1, 256, [4, 8, 16, 32]),
        number!(long_row, Always, ["rows"], 8, 4096, [16, 32, 64, 128]),
        number!(product_segment, Together, ["product"], 128, 8192, [128, 256, 512, 1024]),
        number!(abreast, Together, ["rows"], 1, 32, [4, 8, 16, 32]),
        number!(row_segment, Always, ["rows"], 256, 32768, [1024, 2048, 4096, 8192]),
        number!(large_product, Alone, ["product"], 1, 1 << 40, [1 << 20, 1 << 24, 1 << 28]),
        number!(very_large_product, Alone, ["product"], 1, 1 << 40, [1 << 26, 1 << 28, 1 << 30]),
        number!(segment, Always, ["rows", "product"], 128, 32768, [128, 256, 512, 1024]),
        number!(
            busy,
            Always,
            ["rows", "product", "order"],
            32,
            1 << 22,
            [32, 64, 128, 256, 512, 1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18]
        ),
        switch!(loads_pairs, Always, ["map", "product", "attention"]),
        number!(workgroup, Always, ["map", "rows", "order", "scatter"], 32, 256, [32, 64, 128, 256]),
    ];

    /// The field of a name.
    ///
    /// ```
    /// use gradus_gpu::Tuning;
    ///
    /// assert!(Tuning::field("workgroup").is_some() && Tuning::field("cooperates").is_none());
    /// ```
    pub fn field(name: &str) -> Option<&'static Field> {
        Tuning::FIELDS.iter().find(|field| field.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_candidates_are_legal() {
        for tuning in [Tuning::GPU, Tuning::SOFTWARE] {
            for field in Tuning::FIELDS {
                let default = field.get(&tuning);
                for value in field.candidates.iter().copied().chain([default]) {
                    let mut changed = tuning.clone();
                    field.set(&mut changed, value).unwrap();
                    assert_eq!((field.get(&changed), changed == tuning), (value, value == default), "{}", field.name);
                }
            }
        }
    }

    #[test]
    fn what_kernels_cannot_have_is_refused() {
        for field in Tuning::FIELDS {
            let mut tuning = Tuning::GPU;
            for value in [3, 1000, 1 << 41, u64::MAX] {
                let refused = field.set(&mut tuning, value).unwrap_err().to_string();
                assert!(refused.contains(field.name) && refused.contains(&value.to_string()), "{refused}");
            }
            assert_eq!(tuning, Tuning::GPU);
        }
    }
}
