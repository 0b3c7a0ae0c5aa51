//! A typed reader over a spanned TOML table that keeps every fault it meets.
//!
//! Order of use: take each key once (`required`, `or`, `optional`, `list`, `table`, `tables`),
//! then `finish`, which reports the keys that nobody took. A read that fails has recorded why and
//! answers `None` or the default, so that reading goes on; [`Document::read`] gives the value only
//! if nothing was recorded.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{FromValue, Wrong};
use super::{Fault, SourceLines};

/// One file being read.
#[derive(Debug)]
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    source: SourceLines,
    faults: RefCell<Vec<Fault>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, source: SourceLines::Shown, faults: RefCell::default() }
    }

    /// A file whose lines no error may quote.
    pub(super) fn with_secrets(file: &'a Path, text: &'a str) -> Self {
        Self { source: SourceLines::Hidden, ..Self::new(file, text) }
    }

    /// Reads the whole file with `read`; all faults, in the file's order, if there is one.
    pub(super) fn read<T>(self, read: impl FnOnce(&Table<'_>) -> Option<T>) -> Result<T, Vec<Fault>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            self.fault(span, format!("not TOML: {}", error.message()), "correct this line's syntax (https://toml.io)");
        }
        let root = Table { document: &self, table: table.get_ref(), span: 0..0, name: String::new(), taken: RefCell::default() };
        let value = read(&root);
        let mut faults = self.faults.take();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        match value {
            Some(value) if faults.is_empty() => Ok(value),
            Some(_) | None => Err(faults),
        }
    }

    fn fault(&self, span: Range<usize>, message: String, remedy: impl Into<String>) {
        let (line, column) = self.position(span.start);
        self.faults.borrow_mut().push(Fault {
            file: self.file.to_owned(),
            line,
            column,
            message,
            remedy: remedy.into(),
            span,
            source: self.source,
        });
    }

    /// Line and column of a byte, both from 1.
    fn position(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before.get(line_start..).map_or(0, |line| line.chars().count()) + 1)
    }
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Table<'d> {
    document: &'d Document<'d>,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    name: String,
    taken: RefCell<Vec<&'static str>>,
}

impl<'d> Table<'d> {
    /// The value of `key`, which must be there; `example` is what an admin could write.
    pub(super) fn required<T: FromValue>(&self, key: &'static str, example: &str) -> Option<T> {
        match self.take(key) {
            Some(value) => self.convert(key, value, example),
            None => {
                self.missing(key, &format!("add `{key} = {example}`"));
                None
            }
        }
    }

    /// The value of `key` or `default`.
    pub(super) fn or<T: FromValue>(&self, key: &'static str, default: T, example: &str) -> T {
        self.optional(key, example).unwrap_or(default)
    }

    /// The value of `key`, if it is there.
    pub(super) fn optional<T: FromValue>(&self, key: &'static str, example: &str) -> Option<T> {
        let value = self.take(key)?;
        self.convert(key, value, example)
    }

    /// The values of the array `key`, if it is there. Wrong elements are reported, each by itself.
    pub(super) fn list<T: FromValue>(&self, key: &'static str, example: &str) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_kind(key, value, "an array", &format!("[{example}]"));
            return None;
        };
        // All are looked at before one that is wrong makes the whole unknown: what is left of it would be judged as too short.
        let items: Vec<_> = array.iter().map(|item| self.convert(key, item, example)).collect();
        items.into_iter().collect()
    }

    /// As [`Table::list`], each value with its line in the file, from 1.
    pub(super) fn list_with_lines<T: FromValue>(&self, key: &'static str, example: &str) -> Option<Vec<(u32, T)>> {
        let values = self.list(key, example)?;
        let spans = self.table.get(key)?.get_ref().as_array()?.iter().map(Spanned::span);
        let line = |span: Range<usize>| u32::try_from(self.document.position(span.start).0).unwrap_or(u32::MAX);
        Some(spans.map(line).zip(values).collect())
    }

    /// The file that is read, as it was named.
    pub(super) fn file(&self) -> &Path {
        self.document.file
    }

    /// The table `key`, if it is there.
    pub(super) fn table(&self, key: &'static str) -> Option<Self> {
        let value = self.take(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_kind(key, value, "a table", "…");
        }
        Some(self.child(key, table?, value.span()))
    }

    /// The table `key`, which must be there.
    pub(super) fn required_table(&self, key: &'static str) -> Option<Self> {
        if !self.table.contains_key(key) {
            self.taken.borrow_mut().push(key);
            self.missing(key, &format!("add a section `[{}]`", self.path(key)));
            return None;
        }
        self.table(key)
    }

    /// The array of tables `[[key]]`; empty if it is not there.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.document.fault(
                value.span(),
                format!("`{key}` is {}, expected an array of tables", kind(value)),
                format!("write `[[{}]]` above each one", self.path(key)),
            );
            return Vec::new();
        };
        array.iter().filter_map(|item| self.array_item(key, item)).collect()
    }

    /// Whether `key` is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reports each table of `tables` whose string `key` an earlier one has already.
    pub(super) fn distinct(&self, tables: &[Table<'_>], key: &str) {
        let mut seen: Vec<&str> = Vec::new();
        for table in tables {
            let Some(value) = table.table.get(key) else { continue };
            let Some(text) = value.get_ref().as_str() else { continue };
            if seen.contains(&text) {
                let message = format!("`{key} = \"{text}\"` is given twice");
                self.document.fault(value.span(), message, "rename or remove one of the two");
            }
            seen.push(text);
        }
    }

    /// Reports the value of `key` (or this table, where it is absent) as faulty.
    pub(super) fn fault(&self, key: &str, message: String, remedy: impl Into<String>) {
        let span = self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span);
        self.document.fault(span, message, remedy);
    }

    /// Reports every key that was not taken.
    pub(super) fn finish(&self) {
        let taken = self.taken.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if taken.contains(&name) {
                continue;
            }
            let remedy = match nearest(name, &taken) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("remove it; known here: {}", taken.join(", ")),
            };
            self.document.fault(key.span(), format!("unknown key `{}`", self.path(name)), remedy);
        }
    }

    fn take(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.taken.borrow_mut().push(key);
        self.table.get(key)
    }

    fn convert<T: FromValue>(&self, key: &str, value: &Spanned<DeValue<'_>>, example: &str) -> Option<T> {
        match T::from_value(value.get_ref(), self.document.file) {
            Ok(converted) => Some(converted),
            Err(Wrong::Kind) => {
                self.wrong_kind(key, value, T::EXPECTED, example);
                None
            }
            Err(Wrong::Value(why)) => {
                let message = format!("`{}`: {why}; expected {}", self.path(key), T::EXPECTED);
                self.document.fault(value.span(), message, format!("write, for example, {example}"));
                None
            }
        }
    }

    fn array_item(&self, key: &str, item: &'d Spanned<DeValue<'d>>) -> Option<Self> {
        let table = item.get_ref().as_table();
        if table.is_none() {
            self.wrong_kind(key, item, "a table", "…");
        }
        Some(self.child(key, table?, item.span()))
    }

    fn child(&self, key: &str, table: &'d DeTable<'d>, span: Range<usize>) -> Self {
        Self { document: self.document, table, span, name: self.path(key), taken: RefCell::default() }
    }

    fn wrong_kind(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str, example: &str) {
        let message = format!("`{}` is {}, expected {expected}", self.path(key), kind(value));
        self.document.fault(value.span(), message, format!("write `{key} = {example}`"));
    }

    fn missing(&self, key: &str, remedy: &str) {
        let message = format!("`{}` is missing", self.path(key));
        self.document.fault(self.span.clone(), message, remedy);
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

fn kind(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The known key that `name` is most likely meant to be.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, best) = known.iter().map(|candidate| (edit_distance(name, candidate), *candidate)).min()?;
    (distance <= best.len() / 3 + 1).then_some(best)
}

/// Levenshtein's distance; keys longer than 64 characters are near to nothing.
fn edit_distance(left: &str, right: &str) -> usize {
    if left.len() > 64 {
        return usize::MAX;
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut current = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = *cell;
            current = substituted.min(diagonal + 1).min(current + 1);
            *cell = current;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_changes() {
        for (left, right, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("key", "key", 0), ("kye", "key", 2)] {
            assert_eq!(edit_distance(left, right), distance, "{left} {right}");
        }
    }

    #[test]
    fn a_far_key_has_no_suggestion() {
        assert_eq!(nearest("certificat", &["certificate", "key"]), Some("certificate"));
        assert_eq!(nearest("colour", &["certificate", "key"]), None);
    }
}
