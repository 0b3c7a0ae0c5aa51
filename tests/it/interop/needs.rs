//! What a test needs from the machine. Without it the test is skipped, loudly, and with CI=true it fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Kind;

/// A list of things that tests/setup installs; gathers those that are not there.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    lacks: Vec<String>,
}

impl Needs {
    /// The clients' programs and libraries, Python for the drivers themselves, and tmux for the ones with a screen.
    pub(crate) fn clients(kinds: &[Kind]) -> Self {
        let mut needs = Self::default().file(&drivers_home().join("venv/installed"), "slixmpp in target/drivers/venv");
        for kind in kinds {
            needs = match kind {
                Kind::Slixmpp => needs,
                Kind::Profanity => needs.program("profanity").program("tmux").program("openssl"),
                Kind::Finch => needs.program("finch").program("tmux").user_namespaces(),
                Kind::XmppJs => needs.program("node").file(&drivers_home().join("npm/installed"), "@xmpp/client in target/drivers/npm"),
            };
        }
        needs
    }

    /// The JWT libraries with which docs/links.md mints links.
    pub(crate) fn jwt_libraries() -> Self {
        let needs = Self::default().file(&drivers_home().join("venv/jwt-installed"), "PyJWT in target/drivers/venv");
        needs.file(&drivers_home().join("npm/jwt-installed"), "jose in target/drivers/npm")
    }

    pub(crate) fn program(mut self, name: &str) -> Self {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        if !path.split(':').any(|folder| Path::new(folder).join(name).is_file()) {
            self.lacks.push(name.to_owned());
        }
        self
    }

    /// A user may have network and mount namespaces of his own.
    pub(crate) fn user_namespaces(mut self) -> Self {
        let made = Command::new("unshare").args(["-Urnm", "true"]).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            self.lacks.push("user namespaces (unshare -Urnm)".to_owned());
        }
        self
    }

    /// Whether the test can run. Where it cannot, says so past the test runner's capture.
    pub(crate) fn met(self, test: &str) -> bool {
        if self.lacks.is_empty() {
            return true;
        }
        let lacks = self.lacks.join(", ");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "SKIPPED: {test} lacks {lacks}; in CI that is a failure");
        eprintln!("SKIPPED: {test} lacks {lacks}");
        false
    }

    /// A file with this name for who lacks it.
    pub(crate) fn file(mut self, path: &Path, name: &str) -> Self {
        if !path.exists() {
            self.lacks.push(format!("{name} (run tests/setup)"));
        }
        self
    }
}

/// Where tests/setup puts the client libraries.
pub(crate) fn drivers_home() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("drivers")
}
