//! Holds the floors: who may name whom, what pure files may not name, and how large files are.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test reads its own sources and prints a size report")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each top-level module (docs/architecture.md).
const FLOORS: [(&str, u8); 17] = [
    ("admission", 0),
    ("fingerprint", 0),
    ("im", 0),
    ("link", 0),
    ("names", 0),
    ("routing", 0),
    ("session", 0),
    ("config", 1),
    ("proto", 1),
    ("net", 2),
    ("store", 2),
    ("telemetry", 2),
    ("admin", 3),
    ("authority", 3),
    ("connector", 3),
    ("relay", 3),
    ("cli", 4),
];

/// Files above floor 1 that are pure all the same: the roles' own state.
const PURE_ROLE_FILES: [&str; 9] = [
    "src/relay/client.rs",
    "src/relay/client/",
    "src/connector/desk.rs",
    "src/connector/desk/",
    "src/connector/agent_leg.rs",
    "src/connector/bot.rs",
    "src/connector/dial_relay/pace.rs",
    "src/connector/dial_relay/preference.rs",
    "src/connector/dial_relay/race.rs",
];

/// What a pure file may not name.
const IMPURE: [&str; 15] = [
    "tokio::",
    "std::fs",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime::now",
    "async fn",
    ".await",
    "quinn::",
    "rustls::",
    "rusqlite::",
    "std::env",
];

/// Only adapters speak to these libraries.
const ADAPTER_ONLY: [&str; 5] = ["quinn::", "rustls::", "tokio_rustls::", "rusqlite::", "rcgen::"];

/// The relay never dials: nothing under it may name a way to.
const DIALING: [&str; 5] = ["net::dial", "TcpStream::connect", "UnixStream::connect", ".connect(", "Endpoint::client"];

struct Source {
    path: String,
    module: String,
    /// Production lines: comments of the code included, the test module at its foot left out.
    lines: Vec<String>,
}

#[test]
fn a_floor_names_only_the_floors_below_it() {
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let mut faults = Vec::new();
    for source in sources() {
        let Some(own) = floors.get(source.module.as_str()) else {
            assert!(source.module == "main" || source.module == "lib", "{} belongs to no floor", source.path);
            continue;
        };
        for (number, line) in code(&source) {
            for (module, floor) in &floors {
                let named = line.contains(&format!("crate::{module}::")) || line.contains(&format!("crate::{module};"));
                let rival = matches!((source.module.as_str(), *module), ("relay", "connector") | ("connector", "relay"));
                if named && (floor > own || rival) {
                    faults.push(format!("{}:{number}: {} names {module}", source.path, source.module));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn pure_files_name_no_socket_file_clock_or_task() {
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let pure = |source: &Source| {
        floors.get(source.module.as_str()).is_some_and(|floor| *floor <= 1)
            || PURE_ROLE_FILES.iter().any(|prefix| source.path.starts_with(prefix))
    };
    forbid(&IMPURE, pure);
}

#[test]
fn only_adapters_name_the_transport_and_store_libraries() {
    forbid(&ADAPTER_ONLY, |source| !["net", "store"].contains(&source.module.as_str()));
}

#[test]
fn nothing_under_the_relay_names_a_dialer() {
    forbid(&DIALING, |source| source.module == "relay");
}

#[test]
fn every_file_is_small_and_the_sizes_are_reported() {
    let mut sizes: Vec<(usize, String)> = sources().into_iter().map(|source| (source.lines.len(), source.path)).collect();
    sizes.sort();
    let at = |share: usize| sizes[(sizes.len() - 1) * share / 100].0;
    println!("files {}, lines: median {}, 90th percentile {}, largest {:?}", sizes.len(), at(50), at(90), sizes.last().unwrap());
    let long: Vec<_> = sizes.iter().filter(|(lines, _)| *lines > 800).collect();
    assert!(long.is_empty(), "over 800 production lines: {long:?}");
}

fn forbid(names: &[&str], applies: impl Fn(&Source) -> bool) {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| applies(source)) {
        for (number, line) in code(source) {
            if let Some(name) = names.iter().find(|name| mentions(line, name)) {
                faults.push(format!("{}:{number}: names {name}", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether `line` holds `name` as a whole word.
fn mentions(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let next = line[at + name.len()..].chars().next();
        let is_open = name.ends_with(|last: char| !last.is_alphanumeric());
        is_open || next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
    })
}

/// Lines that are code, with their numbers.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.lines.iter().enumerate().map(|(index, line)| (index + 1, line.as_str())).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(&root.join("src"), &mut found);
    assert!(found.len() > 10, "the sources are under src/");
    found.into_iter().filter(|path| !is_test(path)).map(|path| read(root, &path)).collect()
}

/// Whether the file holds tests alone: `tests.rs`, or anything in a folder `tests`.
fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn read(root: &Path, path: &Path) -> Source {
    let relative = path.strip_prefix(root).unwrap();
    let module = relative.components().nth(1).unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
    let lines = fs::read_to_string(path).unwrap().lines().take_while(|line| !line.starts_with("#[cfg(test)]")).map(str::to_owned).collect();
    Source { path: relative.to_str().unwrap().to_owned(), module, lines }
}
