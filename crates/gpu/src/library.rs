//! The hand-written function libraries, item by item: a kernel gets what it calls and no more.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The functions, structs and constants of the libraries.
pub(crate) struct Library {
    items: Vec<Item>,
    by_name: HashMap<&'static str, usize>,
}

struct Item {
    text: &'static str,
    /// The library's items that the text mentions.
    needs: Vec<usize>,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| Library::new(gradus_shaders::LIBRARIES));

/// The items that `text` needs, with the items that these need, in the libraries' order.
pub(crate) fn needed_by(text: &str) -> impl Iterator<Item = &'static str> {
    let library = &*LIBRARY;
    let mut needed = vec![false; library.items.len()];
    let mut open: Vec<usize> = library.mentioned(text).collect();
    while let Some(item) = open.pop() {
        if !std::mem::replace(&mut needed[item], true) {
            open.extend(&library.items[item].needs);
        }
    }
    library.items.iter().zip(needed).filter(|(_, needed)| *needed).map(|(item, _)| item.text)
}

impl Library {
    fn new(files: &[&'static str]) -> Library {
        let mut library = Library { items: Vec::new(), by_name: HashMap::new() };
        for (name, text) in files.iter().flat_map(|file| items(file)) {
            let earlier = library.by_name.insert(name, library.items.len());
            debug_assert!(earlier.is_none(), "two library items are called {name}");
            library.items.push(Item { text, needs: Vec::new() });
        }
        let count = library.items.len();
        for i in 0..count {
            let needs = library.mentioned(library.items[i].text).filter(|&other| other != i).collect();
            library.items[i].needs = needs;
        }
        library
    }

    fn mentioned(&self, text: &str) -> impl Iterator<Item = usize> {
        words(text).filter_map(|word| self.by_name.get(word).copied())
    }
}

/// The identifiers and keywords of a text, comments left out.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
}

/// The top-level items of a file, by name: from a line that starts with a keyword to the one before the next such line,
/// without the comments that follow.
fn items(file: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut starts = Vec::new();
    let mut at = 0;
    for line in file.split_inclusive('\n') {
        let mut words = words(line).filter(|word| !word.is_empty());
        if let (Some("fn" | "const" | "struct" | "alias"), Some(name)) = (words.next(), words.next())
            && !line.starts_with([' ', '/'])
        {
            starts.push((at, name));
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([file.len()]);
    starts.iter().zip(ends).map(|(&(start, name), end)| (name, without_trailing_comments(&file[start..end]))).collect()
}

fn without_trailing_comments(text: &str) -> &str {
    let mut text = text.trim_end();
    while let Some((before, last)) = text.rsplit_once('\n')
        && last.starts_with("//")
    {
        text = before.trim_end();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_end_before_the_next_one_and_its_comment() {
        let file = "// A file; about {things}.\n\nconst A = 1u;\n// Twice; with a mark.\nfn twice(x: u32) -> u32 {\n    return 2u * x; // A\n}\n";
        let found = items(file);
        assert_eq!(found[0], ("A", "const A = 1u;"));
        assert_eq!(found[1].1, "fn twice(x: u32) -> u32 {\n    return 2u * x; // A\n}");
    }

    #[test]
    fn an_item_brings_what_it_needs() {
        let text: Vec<&str> = needed_by("philox_word(key, i)").collect();
        assert!(text.iter().any(|item| item.starts_with("fn philox_word")));
        assert!(text.iter().any(|item| item.starts_with("fn philox_block")));
        assert!(!text.iter().any(|item| item.starts_with("fn erf")));
    }
}
