//! The log: one line an event on standard error, as text for people or as JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::LogFormat;

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The configuration's level is none.
    #[error("{0:?} is no log level: use error, warn, info, debug or trace")]
    Level(String),
    /// The process has a log already.
    #[error("the log was set up before")]
    Twice,
}

/// Sets up the log of this process. `level` is one word, or directives such as `info,outgate::relay=debug`.
pub fn init(format: LogFormat, level: &str) -> Result<(), LogError> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    set.map_err(|_| LogError::Twice)
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let mut filter = EnvFilter::default();
    for word in level.split(',') {
        let directive: Directive = word.trim().parse().map_err(|_| LogError::Level(level.to_owned()))?;
        filter = filter.add_directive(directive);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken_and_nonsense_is_named() {
        assert!(filter("info").is_ok());
        assert!(filter("warn,outgate::relay=debug").is_ok());
        let fault = filter("outgate=loud").map(|_| ()).unwrap_err();
        assert!(fault.to_string().contains("loud"), "{fault}");
    }
}
