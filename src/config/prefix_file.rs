//! Files of IP prefixes, as allow-lists name them: one prefix a line, `#` begins a comment.

use std::path::Path;
use std::sync::Arc;

use crate::admission::allow_list::{Access, Entry, prefix};

use super::{Fault, SourceLines};

/// Faults told of one file; more say nothing new.
const MOST_FAULTS: usize = 20;

/// The prefixes of `text`, the content of `file`, of which all is said `access`.
///
/// # Errors
/// The first faults of the text.
pub fn read(file: &Path, text: &str, access: Access) -> Result<Vec<Entry>, Vec<Fault>> {
    let named: Arc<str> = file.display().to_string().into();
    let mut entries = Vec::new();
    let mut faults = Vec::new();
    let mut begins = 0;
    for (number, line) in (1..).zip(text.split('\n')) {
        let content = line.split('#').next().unwrap_or_default();
        let word = content.trim();
        if !word.is_empty() {
            match prefix(word) {
                Ok(prefix) => entries.push(Entry { prefix, access, file: Arc::clone(&named), line: number }),
                Err(fault) if faults.len() < MOST_FAULTS => {
                    let at = content.len() - content.trim_start().len();
                    faults.push(Fault {
                        file: file.to_owned(),
                        line: number as usize,
                        column: content.chars().take_while(|letter| letter.is_whitespace()).count() + 1,
                        message: fault.to_string(),
                        remedy: "one prefix a line; `#` begins a comment".to_owned(),
                        span: begins + at..begins + at + word.len(),
                        source: SourceLines::Shown,
                    });
                }
                Err(_) => break,
            }
        }
        begins += line.len() + 1;
    }
    if faults.is_empty() { Ok(entries) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_foreign_line_ends_are_no_prefixes() {
        let text = "# offices\n192.0.2.0/24   # Vienna\r\n\n\t2001:db8::/32\r\n#10.0.0.0/8\n198.51.100.7";
        let entries = read(Path::new("a.cidr"), text, Access::Allow).unwrap();
        let told: Vec<_> = entries.iter().map(|entry| (entry.prefix.to_string(), entry.line)).collect();
        assert_eq!(told, [("192.0.2.0/24".to_owned(), 2), ("2001:db8::/32".to_owned(), 4), ("198.51.100.7/32".to_owned(), 6)]);
    }

    #[test]
    fn a_fault_has_its_place_and_the_first_twenty_are_told() {
        let text = "192.0.2.0/24\n  192.0.2.300 # typo\n";
        let faults = read(Path::new("a.cidr"), text, Access::Deny).unwrap_err();
        let [fault] = faults.as_slice() else { panic!("{faults:?}") };
        assert_eq!((fault.line, fault.column, &text[fault.span.clone()]), (2, 3, "192.0.2.300"));
        let wrong = "no prefix\n".repeat(1000);
        assert_eq!(read(Path::new("a.cidr"), &wrong, Access::Deny).unwrap_err().len(), MOST_FAULTS);
    }
}
