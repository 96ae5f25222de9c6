//! The modules of a crate, and which of them each one uses, as its sources say. Tests may use what they like, and are
//! left out.

#![allow(clippy::disallowed_methods, reason = "reads the sources")]
#![allow(unreachable_pub, reason = "a test program exports nothing: `pub` is for its other modules")]

use std::fs;
use std::path::Path;

/// A module of a crate.
pub struct Module {
    /// Its names from the root of the crate; none for the root itself.
    pub path: Vec<String>,
    /// The paths that it names, from the root of the crate: those of modules and of what is in them.
    pub uses: Vec<Vec<String>>,
}

/// All modules below a directory of sources.
pub fn modules(src: &Path) -> Vec<Module> {
    let (mut modules, mut dirs) = (Vec::new(), vec![src.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of sources") {
            let file = entry.expect("an entry").path();
            if file.is_dir() {
                dirs.push(file);
                continue;
            }
            if file.extension().is_none_or(|extension| extension != "rs") || file.ends_with("tests.rs") {
                continue;
            }
            let below = file.strip_prefix(src).expect("below the sources").with_extension("");
            let mut path: Vec<String> = below.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            if matches!(path.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                path.pop();
            }
            let source = fs::read_to_string(&file).expect("a source file can be read");
            let uses = used_by(&source, &path);
            modules.push(Module { path, uses });
        }
    }
    modules
}

/// The paths that a source names after `crate::`, `super::` and `self::`, in a module of this path.
pub fn used_by(source: &str, module: &[String]) -> Vec<Vec<String>> {
    let is_of_tests = |at: &usize| source[*at..].lines().nth(1).is_some_and(|line| line.contains("mod tests"));
    let end = source.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(is_of_tests);
    let code = &source[..end.unwrap_or(source.len())];
    let code: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let (mut used, mut read) = (Vec::new(), 0);
    for (at, _) in code.match_indices("::") {
        let start = code[..at].rfind(|c: char| !is_of_name(c)).map_or(0, |before| before + 1);
        // A path is read once, from its first word on; `pub(in crate::a)` uses nothing.
        if start < read || code[..start].ends_with("(in ") {
            continue;
        }
        let base = match &code[start..at] {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().saturating_sub(1)].to_vec(),
            _ => continue,
        };
        let mut rest = code[at + 2..].trim_start();
        tree(&mut rest, base, &mut used);
        read = code.len() - rest.len();
    }
    used
}

/// Reads one tree of a `use`, and leaves what comes after it.
fn tree(rest: &mut &str, mut path: Vec<String>, used: &mut Vec<Vec<String>>) {
    if let Some(list) = rest.strip_prefix('{') {
        *rest = list.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            tree(rest, path.clone(), used);
            *rest = rest.trim_start_matches(|c: char| c != ',' && c != '}').trim_start_matches(',').trim_start();
        }
        *rest = rest.strip_prefix('}').unwrap_or(rest);
        return;
    }
    let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    match word {
        "super" => _ = path.pop(),
        "self" => {}
        word => path.push(word.to_owned()),
    }
    match after.strip_prefix("::") {
        Some(deeper) => {
            *rest = deeper.trim_start();
            tree(rest, path, used);
        }
        None => used.push(path),
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
