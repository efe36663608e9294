//! What gradus does not have yet. A kind that works must be taken from this list, or the test fails.

/// Schema (or file, if no schema fits it), kind (`*` is a whole file), and what is missing.
const NOT_YET: &[(&str, &str, &str)] = &[];

/// Why a kind is not served, if it is listed.
pub(crate) fn reason(schema: &str, kind: &str) -> Option<&'static str> {
    NOT_YET.iter().find(|(s, k, _)| (*s, *k) == (schema, kind)).map(|(_, _, reason)| *reason)
}
