//! `clients.toml`: what is known and thought of client software.

use std::path::Path;

use super::Fault;
use super::reader::{Document, Table};
use crate::fingerprint::catalogue::{Catalogue, Library, Opinion, Rule, Software};
use crate::fingerprint::version::VersionRange;
use crate::fingerprint::{Features, Ja4, MAX_SOFTWARE_BYTES};

/// What is built in.
const SHIPPED: &str = include_str!("../../config/clients.toml");

/// Sections of one kind that are read, far more than there is software.
const MOST: usize = 4096;

/// Largest sentence for a customer, in bytes.
const MAX_TEXT_BYTES: usize = 255;

/// What is built in; a test reads it.
pub fn shipped() -> Catalogue {
    parse(Path::new("clients.toml"), SHIPPED).unwrap_or_default()
}

/// Reads `text`, the content of `file`.
///
/// # Errors
/// All faults of the text, in its order.
pub fn parse(file: &Path, text: &str) -> Result<Catalogue, Vec<Fault>> {
    Document::new(file, text).read(|root| {
        let rules = sections(root, "client", rule);
        let software = sections(root, "software", software);
        let libraries = sections(root, "tls", library);
        root.finish();
        Some(Catalogue::new(libraries, software, rules))
    })
}

fn sections<T>(root: &Table<'_>, key: &'static str, read: impl Fn(&Table<'_>) -> Option<T>) -> Vec<T> {
    let tables = root.tables(key);
    if let Some(table) = tables.get(MOST) {
        table.fault("name", format!("more than {MOST} sections `[[{key}]]`"), "leave out what no customer runs");
    }
    tables.iter().take(MOST).filter_map(read).collect()
}

fn rule(table: &Table<'_>) -> Option<Rule> {
    let name: Option<String> = table.required("name", "\"Profanity\"");
    let versions: Option<VersionRange> = table.optional("version", "\">=0.9, <0.13.1\"");
    let verdict: Option<String> = table.required("verdict", "\"degrade\"");
    let lacks: Option<Vec<String>> = table.list("lacks", "\"corrections\"");
    let text: Option<String> = table.optional("text", "\"Please update.\"");
    table.finish();
    check_line(table, "name", name.as_deref(), MAX_SOFTWARE_BYTES);
    check_line(table, "text", text.as_deref(), MAX_TEXT_BYTES);
    let verdict = verdict?;
    if verdict != "degrade" && lacks.is_some() {
        table.fault("lacks", format!("`lacks` says nothing with `verdict = \"{verdict}\"`"), "write `verdict = \"degrade\"`");
    }
    if verdict != "refuse" && text.is_some() {
        table.fault("text", format!("nobody reads the `text` of `verdict = \"{verdict}\"`"), "write `verdict = \"refuse\"`");
    }
    let opinion = match verdict.as_str() {
        "allow" => Opinion::Allow,
        "refuse" => Opinion::Refuse(text.unwrap_or_default()),
        "degrade" => Opinion::Degrade(features(table, lacks.as_deref())?),
        other => {
            table.fault("verdict", format!("`verdict = \"{other}\"` is none"), "write \"allow\", \"degrade\" or \"refuse\"");
            return None;
        }
    };
    Some(Rule { name: name?, versions, opinion })
}

fn features(table: &Table<'_>, lacks: Option<&[String]>) -> Option<Features> {
    let known = Features::names().join("\", \"");
    let named = lacks.filter(|lacks| !lacks.is_empty()).and_then(|lacks| Features::named(lacks.iter().map(String::as_str)));
    if named.is_none() {
        table.fault("lacks", "`lacks` does not say what is missing".to_owned(), format!("name some of: \"{known}\""));
    }
    named
}

fn software(table: &Table<'_>) -> Option<Software> {
    let name: Option<String> = table.required("name", "\"Profanity\"");
    let libraries = table.list("libraries", "\"OpenSSL\"").unwrap_or_default();
    let caps = table.tables("caps").iter().filter_map(capabilities).collect();
    table.finish();
    check_line(table, "name", name.as_deref(), MAX_SOFTWARE_BYTES);
    Some(Software { name: name?, libraries, caps })
}

fn capabilities(table: &Table<'_>) -> Option<(String, String)> {
    let ver: Option<String> = table.required("ver", "\"aHGBcRlWCk0moSumGUB9gYUpEU4=\"");
    let version: Option<String> = table.required("version", "\"0.13.1\"");
    table.finish();
    check_line(table, "version", version.as_deref(), MAX_SOFTWARE_BYTES);
    Some((ver?, version?))
}

fn library(table: &Table<'_>) -> Option<Library> {
    let ja4: Option<Ja4> = table.required("ja4", "\"t13d310900_e8f1e7e78f70_c9e58cc61e36\"");
    let name: Option<String> = table.required("library", "\"OpenSSL\"");
    let software: Option<String> = table.optional("software", "\"Node.js\"");
    table.finish();
    check_line(table, "library", name.as_deref(), MAX_SOFTWARE_BYTES);
    check_line(table, "software", software.as_deref(), MAX_SOFTWARE_BYTES);
    Some(Library { ja4: ja4?, name: name?, software: software.unwrap_or_default() })
}

/// Reports what cannot be shown on a line.
fn check_line(table: &Table<'_>, key: &str, text: Option<&str>, most: usize) {
    let Some(text) = text else { return };
    if text.len() > most {
        table.fault(key, format!("`{key}` has more than {most} bytes"), "write a shorter one");
    }
    if text.chars().any(|letter| letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
        table.fault(key, format!("`{key}` has control characters"), "write one line of plain text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(Path::new("clients.toml"), text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_built_in_can_be_read() {
        let read = parse(Path::new("clients.toml"), SHIPPED).unwrap();
        assert!(!read.rules().is_empty() && !read.software().is_empty() && read.libraries().next().is_some());
        assert_eq!(read, shipped());
    }

    #[test]
    fn the_example_in_the_comment_is_right() {
        let example: String = SHIPPED
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .skip_while(|line| *line != "[[client]]")
            .fold(String::new(), |text, line| text + line + "\n");
        assert!(matches!(&parse(Path::new("x"), &example).unwrap().rules()[0].opinion, Opinion::Refuse(text) if text.contains("loses")));
    }

    #[test]
    fn every_fault_is_told_with_its_place_and_a_remedy() {
        let told = faults(
            "[[client]]\nname = \"X\"\nversion = \"new\"\nverdict = \"allow\"\nlacks = [\"typing\"]\n\
             [[client]]\nname = \"Y\"\nverdict = \"degrade\"\nlacks = [\"speed\"]\n\
             [[client]]\nname = \"Z\\u0007\"\nverdict = \"ban\"\n\
             [[client]]\nname = \"A\"\nverdict = \"allow\"\ntext = \"hello\"\n\
             [[tls]]\nja4 = \"t13\"\nlibrary = \"OpenSSL\"\n[[software]]\nnmae = \"B\"\ncaps = [{ ver = \"x\" }]\n",
        );
        let said = [
            "clients.toml:3:11",
            "`lacks` says nothing",
            "name some of: \"typing\"",
            "control characters",
            "write \"allow\", \"degrade\"",
            "nobody reads",
            "JA4",
            "`software.name` is missing",
            "did you mean `name`",
            "`software.caps.version` is missing",
        ];
        assert_eq!(told.len(), said.len(), "{told:#?}");
        for said in said {
            assert!(told.iter().any(|told| told.contains(said)), "{said}: {told:#?}");
        }
    }
}
