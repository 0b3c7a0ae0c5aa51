//! Secrets come from a file, the terminal or stdin, never from arguments: those every process of
//! the host can read.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{Failure, files, output};

/// Longest input line that is taken for a secret.
const MAX_LINE: u64 = 16 << 10;

/// A new password: the first line of `file`, or typed twice, or the first line of stdin.
pub(super) fn new_password(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let password = if let Some(file) = file {
        first_line(&Zeroizing::new(files::read_text(file)?))
    } else if std::io::stdin().is_terminal() {
        let password = typed("Password: ")?;
        if *typed("Again: ")? != *password {
            return Err(Failure::runtime("the two passwords differ"));
        }
        password
    } else {
        line_of_stdin()?
    };
    check(&password)?;
    Ok(password)
}

/// What stands in `file`, or on stdin for `-`.
pub(super) fn text_of(file: &Path) -> Result<Zeroizing<String>, Failure> {
    if file == Path::new("-") {
        return line_of_stdin();
    }
    Ok(Zeroizing::new(files::read_text(file)?))
}

/// SCRAM compares passwords after SASLprep (RFC 4013). Printable ASCII is what it leaves as it is.
fn check(password: &str) -> Result<(), Failure> {
    if !(8..=256).contains(&password.len()) {
        return Err(Failure::runtime("a password has 8 to 256 characters"));
    }
    if !password.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(Failure::runtime("the password holds other than printable ASCII characters")
            .hint("IM clients differ in how they send them; choose a longer one of ASCII letters"));
    }
    Ok(())
}

fn typed(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let failed = |error| Failure::runtime(format!("cannot hide what is typed: {error}"));
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(failed)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    output::note(prompt);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(failed)?;
    let line = line_of_stdin();
    tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(failed)?;
    line
}

fn line_of_stdin() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().take(MAX_LINE).read_line(&mut line).map_err(|error| Failure::runtime(format!("cannot read stdin: {error}")))?;
    Ok(first_line(&line))
}

fn first_line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
}
