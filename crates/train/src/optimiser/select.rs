//! Choosing parameters by their paths.

/// Chooses parameters by their paths: a pattern such as `"*.bias"` or `"encoder.*"`, in which `*` stands for any text, dots
/// included, and `?` for one character, or a function of the path.
///
/// ```
/// use gradus_train::Select;
///
/// assert!("*.bias".selects("encoder.0.bias"));
/// assert!("encoder.*".selects("encoder.0.bias"));
/// assert!(!"*.bias".selects("encoder.bias.0"));
/// assert!((|path: &str| path.ends_with("bias")).selects("encoder.0.bias"));
/// ```
pub trait Select {
    /// Whether the parameter with this path is chosen.
    fn selects(&self, path: &str) -> bool;
}

impl Select for str {
    fn selects(&self, path: &str) -> bool {
        matches(self, path)
    }
}

impl Select for &str {
    fn selects(&self, path: &str) -> bool {
        matches(self, path)
    }
}

impl Select for String {
    fn selects(&self, path: &str) -> bool {
        matches(self, path)
    }
}

impl<F: Fn(&str) -> bool> Select for F {
    fn selects(&self, path: &str) -> bool {
        self(path)
    }
}

/// Whether the whole path fits the pattern; in time of at most the product of the lengths.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<char>, Vec<char>) = (pattern.chars().collect(), path.chars().collect());
    let (mut at, mut position) = (0, 0);
    // Where to go on if what follows the last star does not fit: one character more is the star's.
    let mut star: Option<(usize, usize)> = None;
    while position < path.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(&c) if c == '?' || c == path[position] => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else {
                    return false;
                };
                star = Some((star_at, taken + 1));
                (at, position) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let fits = ["", "*", "**", "a.weight", "*.weight", "a.*", "a*t", "?.weight", "*.w*", "**.weight"];
        let fit: Vec<bool> = fits.iter().map(|pattern| matches(pattern, "a.weight")).collect();
        assert_eq!(fit, [false, true, true, true, true, true, true, true, true, true]);
        for pattern in ["weight", "*.bias", "a", "a.weight.", "?weight", "*.weight?", "A.weight"] {
            assert!(!matches(pattern, "a.weight"), "{pattern}");
        }
        assert!(matches("", "") && matches("*", "") && !matches("?", ""));
        assert!(matches("*ä?", "größe.ääö"));
        // Not exponential.
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
        assert!(!matches(&("*a".repeat(50) + "b"), &"a".repeat(5000)));
    }
}
