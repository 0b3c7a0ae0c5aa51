//! What a verb fails with, and how it is told.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

/// Why a verb failed.
#[derive(Debug)]
pub struct Failure {
    cause: String,
    hint: Option<String>,
    exit: u8,
}

impl Failure {
    /// Something failed while it ran: exit code 1.
    pub fn runtime(cause: impl Display) -> Self {
        Self { cause: cause.to_string(), hint: None, exit: 1 }
    }

    /// It was called in a wrong way: exit code 2.
    pub fn usage(cause: impl Display) -> Self {
        Self { cause: cause.to_string(), hint: None, exit: 2 }
    }

    /// Everything was told already: exit code 1.
    pub fn told() -> Self {
        Self { cause: String::new(), hint: None, exit: 1 }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// Tells it on stderr and answers the exit code.
    pub(super) fn report(self) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // Where stderr is gone, the exit code still tells.
        if !self.cause.is_empty() {
            drop(writeln!(stderr, "error: {}", self.cause));
        }
        if let Some(hint) = &self.hint {
            drop(writeln!(stderr, "hint: {hint}"));
        }
        ExitCode::from(self.exit)
    }
}

/// For the bodies of long-running roles: the whole chain of causes, outermost first.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::runtime(format!("{error:#}"))
    }
}

/// Tells what clap found (help and version are no errors) and answers the exit code.
pub(super) fn report_usage(usage: &clap::Error) -> ExitCode {
    drop(usage.print());
    u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
