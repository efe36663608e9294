//! Patterns of paths, as [`Module::parameters_matching`](crate::Module::parameters_matching) describes them.

use crate::Param;
use gradus_tensor::{Error, ErrorKind, Result};

/// Whether a path is what a pattern says, as [`Module::parameters_matching`](crate::Module::parameters_matching) describes it.
///
/// ```
/// use gradus_nn::path_matches;
/// assert!(path_matches("*.bias", "encoder.0.bias"));
/// assert!(path_matches("encoder.**", "encoder.0.bias"));
/// assert!(!path_matches("encoder.*", "encoder.0.bias"));
/// ```
pub fn path_matches(pattern: &str, path: &str) -> bool {
    Pattern::new(pattern).matches(path)
}

/// A pattern of names between dots.
pub(crate) struct Pattern<'a> {
    text: &'a str,
    names: Vec<&'a str>,
}

impl<'a> Pattern<'a> {
    pub(crate) fn new(text: &'a str) -> Pattern<'a> {
        let mut names: Vec<&str> = text.split('.').collect();
        if names.len() > 1 && names[0] == "*" {
            names[0] = "**";
        }
        // Several of these in a row say no more than one.
        names.dedup_by(|a, b| *a == "**" && *b == "**");
        Pattern { text, names }
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('.').collect();
        matches(
            &self.names,
            &path,
            |name| *name == "**",
            |pattern, name| {
                let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
                matches(&pattern, &name, |c| *c == '*', |p, c| *p == '?' || p == c)
            },
        )
    }

    /// The parameters that match.
    ///
    /// # Errors
    /// If none does.
    #[track_caller]
    pub(crate) fn select(&self, parameters: Vec<(String, Param)>) -> Result<Vec<(String, Param)>> {
        let matching: Vec<_> = parameters.into_iter().filter(|(path, _)| self.matches(path)).collect();
        if matching.is_empty() {
            let (argument, expected) = ("pattern", "one that a parameter's path matches");
            let kind = ErrorKind::Argument { argument, expected, found: format!("{:?}", self.text) };
            return Err(Error::new("freeze", kind));
        }
        Ok(matching)
    }
}

/// Whether items are what a pattern says, in which some elements stand for any number of items. In a time of at most both lengths'
/// product: of choices made, only the last can matter.
fn matches<P, T>(pattern: &[P], items: &[T], any: impl Fn(&P) -> bool, one: impl Fn(&P, &T) -> bool) -> bool {
    let (mut p, mut i) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while i < items.len() {
        match pattern.get(p) {
            Some(element) if any(element) => {
                last = Some((p, i));
                p += 1;
            }
            Some(element) if one(element, &items[i]) => (p, i) = (p + 1, i + 1),
            _ => match &mut last {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, i) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(any)
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_what_they_say() {
        let cases = [
            ("*.bias", "a.bias", true),
            ("*.bias", "a.b.c.bias", true),
            ("*.bias", "bias", true),
            ("*.bias", "bias.a", false),
            ("*.bias", "a.bias_hh", false),
            ("encoder.**", "encoder.layers.0.weight", true),
            ("encoder.**", "encoder", true),
            ("encoder.**", "encoders.x", false),
            ("encoder.**", "x.encoder.y", false),
            ("layers.*.weight", "layers.0.weight", true),
            ("layers.*.weight", "layers.0.norm.weight", false),
            ("layers.**.weight", "layers.0.norm.weight", true),
            ("**.norm?.*", "layers.3.norm1.bias", true),
            ("**.norm?.*", "norm2.weight", true),
            ("**.norm?.*", "norm.weight", false),
            ("*weight*", "weight_ih_l0", true),
            ("*weight*", "a.weight_ih_l0", false),
            ("weight_*_l?", "weight_hh_l1", true),
            ("weight_*_l?", "weight_hh_l10", false),
            ("**", "anything.at.all", true),
            ("a.**.**.b", "a.b", true),
            ("a.*.b", "a.b", false),
            ("**.a.**.a.b", "a.a.a.a.b", true),
            ("", "a", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let (pattern, path) = ("*a*".repeat(200) + "b", "a".repeat(5000));
        assert!(!Pattern::new(&pattern).matches(&path));
        let (pattern, path) = ("**.a.".repeat(200) + "b", "a.".repeat(3000) + "c");
        assert!(!Pattern::new(&pattern).matches(&path));
    }
}
