//! What gradus does not have yet, as far as there are golden numbers for it.
//!
//! A kind that is not listed must work; a listed one that works fails the test until it is taken from the list.

/// File (by its schema, or by name where no schema fits), kinds (`*` is all of a file), and what is missing.
const NOT_YET: &[(&str, &str, &str)] = &[
    ("regression", "digits_mlp64_bar", "a bar, no number to match; tests/training.rs trains on digits"),
    ("regression", "influence_functions_iris_binary_C1", "no influence functions"),
    (
        "metrics",
        "binary/roc_auc binary/average_precision binary/log_loss binary/f1 binary/mcc",
        "the file does not hold the probabilities",
    ),
    ("dp_accounting", "*", "no differential privacy"),
    ("per_sample_gradients", "*", "no private training: nothing clips them, adds noise, or audits"),
    ("interpretability", "*", "no attributions"),
    ("confident_learning", "*", "no confident learning"),
    ("label_noise_digits", "*", "no confident learning"),
    ("data_quality", "*", "no checks of data"),
];

/// What is missing for a kind, if it is listed.
pub(crate) fn reason(file: &str, kind: &str) -> Option<&'static str> {
    let listed = |&&(f, kinds, _): &&(&str, &str, &str)| f == file && kinds.split_whitespace().any(|k| k == kind);
    NOT_YET.iter().find(listed).map(|&(_, _, reason)| reason)
}
