//! Results on stdout.

use std::fmt::Display;
use std::io::Write as _;

use super::Failure;

/// Writes one line. A reader that went away (`| head`) ends the verb without a panic.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| Failure::runtime(format!("cannot write to stdout: {error}")))
}

/// Writes one line on stderr: what is not the result.
pub(super) fn note(text: impl Display) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}
