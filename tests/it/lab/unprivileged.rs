//! No root is needed: where the tests themselves run as root, a whole conversation of the lab is held once more without.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::interop::{Kind, Needs};

/// Debian's user and group "nobody".
const NOBODY: u32 = 65534;

/// The conversation, as the test runner names it.
const CONVERSATION: &str = "lab::outgate::slixmpp_talks_through_the_firewall_and_through_every_cut";

#[test]
fn the_whole_lab_needs_no_root() {
    // Not root: then it has been shown by the conversation itself.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let needs = Needs::clients(&[Kind::Slixmpp]).program("setpriv").program("unshare").program("nsenter").program("ip").program("nft");
    if !needs.program("ss").user_namespaces().met("the_whole_lab_needs_no_root") {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let place = tempfile::Builder::new().prefix("nobody").tempdir().unwrap();
    let mut unprivileged = if may_run(&this) {
        chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        as_nobody()
    } else {
        without_capabilities()
    };
    let output = unprivileged.arg(&this).args(["--exact", CONVERSATION]).env("HOME", place.path()).env("TMPDIR", place.path()).output();
    let output = output.unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed") && !told.contains("SKIPPED"), "{told}");
}

/// Whether nobody may read what the conversation runs: a checkout in root's own folder is closed to him.
fn may_run(test: &Path) -> bool {
    let files = [test, Path::new(env!("CARGO_BIN_EXE_outgate")), Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers/lab.sh"))];
    files.iter().all(|file| as_nobody().args(["test", "-r"]).arg(file).status().is_ok_and(|status| status.success()))
}

fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned(), "--no-new-privs".to_owned()]);
    command
}

/// Root in name only, who may open his own files. The one capability that is left lets a user namespace map his number, which
/// for any other user needs none.
fn without_capabilities() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+setfcap", "--inh-caps=-all", "--no-new-privs"]);
    command
}
