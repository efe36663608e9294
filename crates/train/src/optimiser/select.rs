//! Choosing parameters by their paths.

use gradus_nn::path_matches;

/// Chooses parameters by their paths: a pattern such as `"*.bias"` or `"encoder.**"`, as
/// [`Module::parameters_matching`](gradus_nn::Module::parameters_matching) describes it, or a function of the path.
///
/// ```
/// use gradus_train::Select;
///
/// assert!("*.bias".selects("encoder.0.bias"));
/// assert!("encoder.**".selects("encoder.0.bias"));
/// assert!(!"*.bias".selects("encoder.bias.0"));
/// assert!((|path: &str| path.ends_with("bias")).selects("encoder.0.bias"));
/// ```
pub trait Select {
    /// Whether the parameter with this path is chosen.
    fn selects(&self, path: &str) -> bool;
}

impl Select for str {
    fn selects(&self, path: &str) -> bool {
        path_matches(self, path)
    }
}

impl Select for &str {
    fn selects(&self, path: &str) -> bool {
        path_matches(self, path)
    }
}

impl Select for String {
    fn selects(&self, path: &str) -> bool {
        path_matches(self, path)
    }
}

impl<F: Fn(&str) -> bool> Select for F {
    fn selects(&self, path: &str) -> bool {
        self(path)
    }
}
