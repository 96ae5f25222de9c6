//! Checks the layers of the core: each module only uses modules on lower floors, so that no two modules depend on each
//! other. A file and the directory of the same name count as one module. Tests are exempt.
//!
//! The list below is the map. A new module goes to the lowest floor above everything that it uses.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use imports::{Module, modules, used_by};

/// The floors from the bottom to the top, each with its subject.
const FLOORS: &[(&str, &[&str])] = &[
    ("basic terms", &["credentials", "handover", "peer", "secured", "share", "status", "tables", "time"]),
    ("text and its escapes", &["grammar", "text"]),
    ("small formats", &["date", "error", "fields", "input", "listing", "media_types"]),
    ("rules: decisions and their reasons", &["reason"]),
    ("the rules of a site", &["rules"]),
    ("configuration, the parts of a head", &["config", "response_head"]),
    ("the codec, and readers of single fields", &["coding", "handler_error", "media_type", "range", "timer", "wire"]),
    ("the request", &["conditional", "request"]),
    ("the memory of an exchange, and paths", &["buffers", "entry", "page", "path"]),
    ("the steps for a driver", &["script_path", "step"]),
    ("what an embedder decides and observes", &["observer", "policy"]),
    ("the arguments of every call", &["context"]),
    ("an exchange, and the response under construction", &["exchange"]),
    ("tasks: what produces a response", &["cgi", "files", "handler_task", "head_writer"]),
    ("the choice of the task", &["task"]),
    ("the state machine that a driver uses", &["connection"]),
    ("conveniences for embedders", &["assets", "handler", "interop"]),
];

#[test]
fn each_module_only_uses_lower_floors() {
    let floor_of: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, (_, modules))| modules.iter().map(move |module| (*module, floor)))
        .collect();
    let mut wrong = Vec::new();
    for (module, used, place) in arrows() {
        let (Some(&here), Some(&there)) = (floor_of.get(module.as_str()), floor_of.get(used.as_str())) else {
            wrong.push(format!("{place}: {module} or {used} is on no floor"));
            continue;
        };
        if there >= here {
            wrong.push(format!("{place}: {module} ({}) uses {used} ({})", FLOORS[here].0, FLOORS[there].0));
        }
    }
    assert!(wrong.is_empty(), "a module uses another one on the same or a higher floor:\n{}", wrong.join("\n"));
}

#[test]
fn each_module_is_on_one_floor() {
    let mut listed: Vec<&str> = FLOORS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    listed.sort_unstable();
    let there: BTreeSet<String> =
        modules(&root()).into_iter().filter_map(|module| module.path.into_iter().next()).collect();
    assert_eq!(listed, Vec::from_iter(&there));
}

#[test]
fn all_forms_of_imports_are_recognized() {
    let source = "use crate::{a::B, c};\n//! crate::no\n    use crate::d::{E, f::{G, self}, H};\nlet x = crate::g::h(); // crate::no\n\
                  pub(in crate::no) fn f() {}\nuse super::{n::O, super::p};\nuse other::crate_::no;\n\
                  #[cfg(test)]\nmod tests {\n use crate::no;\n}\n";
    let used = used_by(source, &["k".to_owned(), "l".to_owned()]);
    let used: Vec<String> = used.iter().map(|path| path.join("::")).collect();
    assert_eq!(used, ["a::B", "c", "d::E", "d::f::G", "d::f", "d::H", "g::h", "k::n::O", "p"]);
}

/// All imports: a module, the module that it uses, and the submodule with the import.
fn arrows() -> Vec<(String, String, String)> {
    let mut arrows = Vec::new();
    for Module { path, uses } in modules(&root()) {
        let Some(module) = path.first() else { continue };
        let others = uses.into_iter().filter_map(|used| used.into_iter().next()).filter(|used| used != module);
        arrows.extend(others.map(|used| (module.clone(), used, path.join("::"))));
    }
    assert!(arrows.len() > 100, "too few imports were found: {}", arrows.len());
    arrows
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
