//! Faults of configuration files, shown as compilers show theirs.

use std::io::IsTerminal as _;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Failure, files, output};
use crate::config::{Fault, SourceLines};

/// Reads `file` and parses it with `parse`; tells every fault.
///
/// # Errors
/// The file cannot be read, or has faults, which are told already.
pub fn load_config<T>(file: &Path, parse: impl FnOnce(&Path, &str) -> Result<T, Vec<Fault>>) -> Result<T, Failure> {
    let text = files::read_text(file)?;
    parse(file, &text).map_err(|faults| {
        tell(&faults, &text);
        Failure::told()
    })
}

/// Tells all `faults` of `text` on stderr, and their number.
pub(super) fn tell(faults: &[Fault], text: &str) {
    for fault in faults {
        output::note(render(fault, text));
    }
    if let Some(first) = faults.first() {
        let plural = if faults.len() == 1 { "fault" } else { "faults" };
        output::note(format!("{}: {} {plural}", first.file.display(), faults.len()));
    }
}

fn render(fault: &Fault, text: &str) -> String {
    let place = format!("{}:{}:{}", fault.file.display(), fault.line, fault.column);
    let quoted = text.is_char_boundary(fault.span.start) && text.is_char_boundary(fault.span.end);
    if fault.source == SourceLines::Hidden || !quoted || text.is_empty() {
        return format!("error: {}\n --> {place}\n  = help: {}", fault.message, fault.remedy);
    }
    let path = fault.file.display().to_string();
    let snippet = Snippet::source(text).path(path).annotation(AnnotationKind::Primary.span(fault.span.clone()));
    let report: [Group<'_>; 1] =
        [Level::ERROR.primary_title(fault.message.as_str()).element(snippet).element(Level::HELP.message(fault.remedy.as_str()))];
    let renderer =
        if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&report)
}
