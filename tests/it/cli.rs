//! The command line as a user meets it: stdout, stderr and exit code of the built program.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

#[test]
fn help_and_version_succeed_and_wrong_usage_exits_with_2() {
    let place = Place::new();
    assert_eq!(place.outgate(&["--version"]).stdout, format!("outgate {}\n", env!("CARGO_PKG_VERSION")));
    for verb in ["relay", "connector", "demo", "link", "ca", "agent", "check", "status"] {
        let help = place.outgate(&[verb, "--help"]);
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains("Usage: outgate"), "{help:?}");
    }
    for wrong in [&["serve"][..], &["check"], &["ca", "issue", "x", "--out", "y"], &[]] {
        let answer = place.outgate(wrong);
        assert_eq!((answer.code, answer.stdout.as_str()), (2, ""), "{answer:?}");
        assert!(answer.stderr.contains("Usage:"), "{answer:?}");
    }
}

#[test]
fn a_ca_issues_for_both_ends_and_overwrites_nothing() {
    let place = Place::new();
    place.ok(&["ca", "init", "ca", "--org", "example"]);
    let relay = place.ok(&["ca", "issue", "ca", "--relay", "dmz1", "--dns", "relay.example.com", "--out", "dmz1"]);
    assert!(relay.starts_with("outgate://example/relay/dmz1\n"), "{relay}");
    let connector = place.ok(&["ca", "issue", "ca", "--connector", "lan1", "--out", "lan1"]);
    assert!(connector.starts_with("outgate://example/connector/lan1\n"), "{connector}");

    for (file, mode) in [
        ("ca", 0o700),
        ("ca/ca.pem", 0o644),
        ("ca/ca-key.pem", 0o600),
        ("dmz1/relay-key.pem", 0o600),
        ("lan1/connector-key.pem", 0o600),
        ("lan1/connector.pem", 0o644),
    ] {
        let found = place.path(file).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(found & !mode, 0, "{file} is {found:o}");
    }
    assert_eq!(place.read("ca/ca.pem"), place.read("dmz1/ca.pem"));

    let key = place.read("ca/ca-key.pem");
    let again = place.outgate(&["ca", "init", "ca", "--org", "example"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("exists already") && again.stderr.contains("hint:"), "{again:?}");
    assert_eq!(place.read("ca/ca-key.pem"), key);

    let nothing = place.outgate(&["ca", "issue", "none", "--relay", "r", "--out", "r"]);
    assert_eq!(nothing.code, 1, "{nothing:?}");
    assert!(nothing.stderr.contains("hint: `outgate ca init"), "{nothing:?}");
}

#[test]
fn a_new_link_is_good_for_its_key_and_its_domain_only() {
    let place = Place::new();
    place.issuer();
    let link = place.link(&["--once", "--reason", "order 7"]);
    let token = link["token"].as_str().unwrap();
    assert_eq!(link["contact"], "xmpp:support@chat.example.com?message");
    place.write("link.txt", &format!("{token}\n"));

    let show = place.ok(&["link", "show", "--jwks", "issuer.jwks.json", "link.txt"]);
    for row in ["verdict  good", "queue    support", "uses     one session", "reason   order 7"] {
        assert!(show.contains(row), "{row}: {show}");
    }
    let elsewhere = place.outgate(&["link", "show", "--jwks", "issuer.jwks.json", "--audience", "other.example", "link.txt"]);
    assert_eq!(elsewhere.code, 1, "{elsewhere:?}");
    assert!(elsewhere.stdout.contains("verdict  link-audience"), "{elsewhere:?}");

    let foreign = place.ok(&["link", "keys", "--new", "foreign-key.pem"]);
    place.write("foreign.jwks.json", &foreign);
    let json = place.outgate(&["link", "show", "--json", "--jwks", "foreign.jwks.json", "link.txt"]);
    let json_text: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, json_text["verdict"].as_str()), (1, Some("link-unknown-key")));
}

#[test]
fn a_link_is_read_from_stdin_and_never_from_an_argument() {
    let place = Place::new();
    place.issuer();
    let token = place.link(&[])["token"].as_str().unwrap().to_owned();
    let page = format!("https://chat.example.com/l/{token}\n");
    let shown = place.outgate_with(&["link", "show", "-"], &page);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.contains("verdict  not checked"), "{shown:?}");

    let argument = place.outgate(&["link", "show", &token]);
    assert_eq!(argument.code, 2, "{argument:?}");
    assert!(argument.stderr.contains("a link is a secret"), "{argument:?}");
    assert!(!argument.stderr.contains(&token), "{argument:?}");

    let cut = place.outgate_with(&["link", "show"], &token[..token.len() / 2]);
    assert_eq!(cut.code, 1, "{cut:?}");
    assert!(cut.stderr.contains("link-malformed"), "{cut:?}");
}

#[test]
fn link_keys_publishes_the_public_half_and_keeps_the_file() {
    let place = Place::new();
    let set: Value = serde_json::from_str(&place.ok(&["link", "keys", "--new", "key.pem"])).unwrap();
    let key = &set["keys"][0];
    assert_eq!((key["kty"].as_str(), key["alg"].as_str()), (Some("OKP"), Some("EdDSA")));
    assert!(key["kid"].is_string() && key.get("d").is_none(), "{key}");
    assert_eq!(place.path("key.pem").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again: Value = serde_json::from_str(&place.ok(&["link", "keys", "--key", "key.pem"])).unwrap();
    assert_eq!(again, set);
    assert_eq!(place.outgate(&["link", "keys", "--new", "key.pem"]).code, 1);
}

#[test]
fn accounts_are_added_and_changed_and_comments_stay() {
    let place = Place::new();
    place.write("agents.toml", include_str!("../../config/agents.toml"));
    let agent = |args: &[&str], input: &str| {
        let mut all = vec!["agent", "--file", "agents.toml"];
        all.extend(args);
        place.outgate_with(&all, input)
    };
    let added = agent(&["add", "alice", "--queue", "support", "--display", "Alice"], "correct horse\n");
    assert_eq!(added.code, 0, "{added:?}");
    let edited = place.read("agents.toml").replace("capacity = 4\n\n", "").trim_end().to_owned();
    place.write("agents.toml", &format!("{edited} # Mondays 2\n\n# the night shift\n"));
    place.write("bob.txt", "battery staple\n");
    let bob = agent(&["add", "bob", "--capacity", "2", "--password-file", "bob.txt"], "");
    assert_eq!(bob.code, 0, "{bob:?}");

    let before = place.read("agents.toml");
    assert!(before.starts_with(include_str!("../../config/agents.toml").trim_end()), "{before}");
    assert!(before.contains("capacity = 4 # Mondays 2\n"), "{before}");
    assert!(before.find("# the night shift").unwrap() < before.find("name = \"bob\"").unwrap(), "{before}");
    assert!(!before.contains("correct horse") && !before.contains("battery staple"));

    let mode = |mode| std::fs::set_permissions(place.path("agents.toml"), std::fs::Permissions::from_mode(mode));
    mode(0o640).unwrap();
    assert_eq!(agent(&["passwd", "alice"], "a new password\n").code, 0);
    assert_eq!(place.path("agents.toml").metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let after = place.read("agents.toml");
    let other = |text: &str| text.lines().filter(|line| !line.contains("SCRAM-SHA-256$")).map(String::from).collect::<Vec<_>>();
    assert_eq!(other(&before), other(&after));
    assert_ne!(before, after);
    let accounts = outgate::config::AgentsConfig::parse(Path::new("agents.toml"), &after).unwrap();
    let keys = accounts.agents[0].password.keys().unwrap();
    assert!(keys.verify("a new password") && !keys.verify("correct horse"));

    let list: Value = serde_json::from_str(&agent(&["list", "--json"], "").stdout).unwrap();
    assert_eq!(
        list,
        serde_json::json!([
            {"name": "alice", "display": "Alice", "queues": ["support"], "capacity": 4},
            {"name": "bob", "display": "bob", "queues": [], "capacity": 2},
        ])
    );
    assert_eq!(agent(&["list"], "").stdout.lines().count(), 2);
}

#[test]
fn accounts_that_cannot_be_are_refused_and_the_file_is_left_alone() {
    let place = Place::new();
    place.write("agents.toml", "");
    for (name, password, reason) in [
        ("alice", "short\n", "8 to 256 characters"),
        ("alice", "", "8 to 256 characters"),
        ("alice", "p\u{e4}ssw\u{f6}rter\n", "printable ASCII"),
        ("Alice", "correct horse\n", "cannot stand in an address"),
    ] {
        let answer = place.outgate_with(&["agent", "--file", "agents.toml", "add", name], password);
        assert_eq!(answer.code, 1, "{answer:?}");
        assert!(answer.stderr.contains(reason), "{answer:?}");
        assert_eq!(place.read("agents.toml"), "");
    }
    let unknown = place.outgate(&["agent", "--file", "agents.toml", "passwd", "bob"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("hint: `outgate agent add bob`"), "{unknown:?}");
}

#[test]
fn check_passes_the_shipped_files_and_names_every_fault_of_a_wrong_one() {
    let place = Place::new();
    for (name, text) in [
        ("relay.toml", include_str!("../../config/relay.toml")),
        ("connector.toml", include_str!("../../config/connector.toml")),
        ("agents.toml", include_str!("../../config/agents.toml")),
    ] {
        place.write(name, text);
        assert!(place.ok(&["check", "--alone", name]).contains("no fault"));
    }

    let wrong = include_str!("../../config/relay.toml")
        .replace("key = \"tls/", "kye = \"tls/")
        .replace("# tunnel = \"[::]:7443\"", "tunnel = 7443");
    place.write("relay.toml", &wrong);
    let answer = place.outgate(&["check", "relay.toml"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (1, ""), "{answer:?}");
    for text in ["did you mean `key`?", "write `tunnel = \"[::]:7443\"`", "relay.toml:13:10", "relay.toml: 3 faults"] {
        assert!(answer.stderr.contains(text), "{text}: {}", answer.stderr);
    }
    assert!(!answer.stderr.contains('\u{1b}'), "colour without a terminal");

    let json = place.outgate(&["check", "--json", "relay.toml"]);
    let json_text: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, json_text["faults"].as_array().unwrap().len()), (1, 3));
    assert_eq!(json_text["faults"][0]["line"], 13);

    assert_eq!(place.outgate(&["check", "none.toml"]).code, 1);
}

/// A wrong file: which, what is changed in the shipped one, and for each fault where it stands (text, its line's beginning) and the remedy.
struct Wrong {
    file: &'static str,
    changes: &'static [(&'static str, &'static str)],
    faults: &'static [(&'static str, &'static str)],
}

const WRONG_FILES: [Wrong; 11] = [
    Wrong {
        file: "relay.toml",
        changes: &[("key = \"tls/", "kye = \"tls/"), ("# tunnel = \"[::]:7443\"", "tunnel = 7443")],
        faults: &[("7443", "write `tunnel = \"[::]:7443\"`"), ("[tls]", "add `key = "), ("kye", "did you mean `key`?")],
    },
    Wrong {
        file: "relay.toml",
        changes: &[("# client = [\"[::]:5222\"]", "client = [\"localhost\"]"), ("# leeway = \"30s\"", "leeway = \"30\"")],
        faults: &[("\"localhost\"", "write, for example, \"[::]:5222\""), ("\"30\"", "write, for example, \"30s\"")],
    },
    Wrong {
        file: "relay.toml",
        changes: &[("public_queue = \"hello\"", "public_queue = \"helo\"")],
        faults: &[("\"helo\"", "name one of: hello, support")],
    },
    Wrong {
        file: "relay.toml",
        changes: &[("identity = \"outgate://example/connector/lan1\"", "identity = \"lan1\"")],
        faults: &[("\"lan1\"", "write, for example, \"outgate://example/connector/lan1\"")],
    },
    Wrong {
        file: "relay.toml",
        changes: &[("[limits]", "[limit]"), ("public_queue = \"hello\"", "public_queue = 7")],
        faults: &[("7\n", "write `public_queue = \"hello\"`"), ("limit]", "did you mean `limits`?")],
    },
    Wrong {
        file: "connector.toml",
        changes: &[("address = \"relay.example.com:7443\"", "address = \"relay.example.com\"")],
        faults: &[("\"relay.example.com\"\n", "\"relay.example.com:7443\"")],
    },
    Wrong {
        file: "connector.toml",
        changes: &[("id = \"support\"\ndomain = \"chat.example.com\"", "id = \"support\"\ndomain = \"chat.example.org\"")],
        faults: &[("\"chat.example.org\"", "add `[[domain]]`")],
    },
    Wrong {
        file: "connector.toml",
        changes: &[("iss = \"https://example.com\"", "iss = true"), ("name = \"Hello\"", "name = 1")],
        faults: &[("1\n# Whether", "write `name = "), ("true\njwks", "write `iss = ")],
    },
    Wrong {
        file: "connector.toml",
        changes: &[("id = \"support\"", "id = \"hello\"")],
        faults: &[("\"hello\"\ndomain = \"chat.example.com\"\nname = \"Support\"", "rename or remove one of the two")],
    },
    Wrong {
        file: "agents.toml",
        changes: &[("# Only keys", "[[agent]]\nname = \"Alice Smith\"\npassword = \"hunter2hunter2\"\ncapacity = \"four\"\n#")],
        faults: &[
            ("\"Alice Smith\"", "use lower-case letters"),
            ("\"hunter2hunter2\"", "run `outgate agent passwd"),
            ("\"four\"", "write `capacity = "),
        ],
    },
    Wrong {
        file: "relay.toml",
        changes: &[("name = \"chat.example.com\"", "name = \"chat.example.com"), ("# leeway = \"30s\"", "leeway = 30")],
        faults: &[("\n# Customers without", "correct this line's syntax"), ("30\n", "write `leeway = \"30s\"`")],
    },
];

#[test]
fn each_of_eleven_wrong_files_names_file_line_column_and_remedy_of_all_its_faults_at_once() {
    for wrong in WRONG_FILES {
        let place = Place::new();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(wrong.file);
        let mut text = std::fs::read_to_string(shipped).unwrap();
        for (from, to) in wrong.changes {
            assert_eq!(text.matches(from).count(), 1, "{from:?} stands once in {}", wrong.file);
            text = text.replace(from, to);
        }
        place.write(wrong.file, &text);
        let json = place.outgate(&["check", "--json", wrong.file]);
        let told: Value = serde_json::from_str(&json.stdout).unwrap();
        let told = told["faults"].as_array().unwrap();
        assert_eq!((json.code, told.len()), (1, wrong.faults.len()), "{told:#?}");
        let words = place.outgate(&["check", wrong.file]);
        assert_eq!((words.code, words.stdout.as_str()), (1, ""), "{words:?}");
        for (fault, (at, remedy)) in told.iter().zip(wrong.faults) {
            let at = text.find(at).unwrap_or_else(|| panic!("{at:?} stands in {text}"));
            let line = text[..at].matches('\n').count() + 1;
            let column = text[..at].chars().rev().take_while(|letter| *letter != '\n').count() + 1;
            assert_eq!(fault["file"], wrong.file);
            assert_eq!((&fault["line"], &fault["column"]), (&line.into(), &column.into()), "{fault}");
            assert!(!remedy.is_empty() && fault["remedy"].as_str().unwrap().contains(remedy), "{fault}");
            for text in [&format!("{}:{line}:{column}", wrong.file), fault["remedy"].as_str().unwrap()] {
                assert!(words.stderr.contains(text), "{text}: {}", words.stderr);
            }
        }
    }
}

#[test]
fn check_never_prints_what_stands_in_the_accounts_file() {
    let place = Place::new();
    place.write("agents.toml", "[[agent]]\nname = \"alice\"\npassword = \"hunter2hunter2\"\ncapacity = = 3\n");
    let answer = place.outgate(&["check", "agents.toml"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("agents.toml:3:12"), "{answer:?}");
    assert!(answer.stderr.contains("outgate agent passwd alice"), "{answer:?}");
    assert!(!answer.stderr.contains("hunter2"), "{answer:?}");
}

#[test]
fn check_looks_at_the_files_that_a_configuration_names() {
    let place = Place::new();
    place.issuer();
    place.ok(&["ca", "init", "ca", "--org", "example"]);
    place.ok(&["ca", "issue", "ca", "--relay", "dmz1", "--out", "tunnel"]);
    // Any certificate with its key does for a listener here.
    std::fs::create_dir(place.path("tls")).unwrap();
    for (from, to) in [("relay.pem", "chat.example.com.pem"), ("relay-key.pem", "chat.example.com-key.pem")] {
        std::fs::copy(place.path("tunnel").join(from), place.path("tls").join(to)).unwrap();
    }
    place.write("relay.toml", include_str!("../../config/relay.toml"));
    assert!(place.ok(&["check", "relay.toml"]).contains("no fault (relay)"));

    std::fs::copy(place.path("ca/ca-key.pem"), place.path("tunnel/relay-key.pem")).unwrap();
    std::fs::remove_file(place.path("issuer.jwks.json")).unwrap();
    let answer = place.outgate(&["check", "relay.toml"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    for text in ["does not belong to the certificate", "issuer.jwks.json"] {
        assert!(answer.stderr.contains(text), "{text}: {answer:?}");
    }
}

#[test]
fn status_asks_over_the_admin_socket() {
    let place = Place::new();
    let socket = place.path("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        for answer in [r#"{"role":"relay","tunnels":[{"epoch":3}]}"#, r#"{"error":"not now"}"#, "oops"] {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            assert_eq!(line, "{\"get\":\"status\"}\n");
            writeln!(&stream, "{answer}").unwrap();
        }
    });
    let status = place.ok(&["status", "--socket", "admin.sock", "--json"]);
    assert_eq!(status, "{\"role\":\"relay\",\"tunnels\":[{\"epoch\":3}]}\n");
    for cause in ["not now", "gave no answer"] {
        let answer = place.outgate(&["status", "--socket", "admin.sock"]);
        assert_eq!((answer.code, answer.stdout.as_str()), (1, ""), "{answer:?}");
        assert!(answer.stderr.contains(cause), "{answer:?}");
    }
    server.join().unwrap();
    let nobody = place.outgate(&["status", "--socket", "admin.sock"]);
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.stderr.contains("hint: is it running"), "{nobody:?}");
}

/// A folder of a test's own, in which it runs the program.
struct Place {
    folder: TempDir,
}

#[derive(Debug)]
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn outgate(&self, args: &[&str]) -> Answer {
        self.outgate_with(args, "")
    }

    /// Runs the program with `input` on stdin.
    fn outgate_with(&self, args: &[&str], input: &str) -> Answer {
        let mut child = Command::new(Path::new(env!("CARGO_BIN_EXE_outgate")))
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that does not read its input may be gone already.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        Answer {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs the program, which must succeed, and gives its stdout.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let answer = self.outgate(args);
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.stdout
    }

    /// Makes issuer-key.pem and issuer.jwks.json.
    fn issuer(&self) {
        let set = self.ok(&["link", "keys", "--new", "issuer-key.pem"]);
        self.write("issuer.jwks.json", &set);
    }

    /// Signs a link to the queue `support` of `chat.example.com`.
    fn link(&self, more: &[&str]) -> Value {
        let mut args = vec!["link", "new", "--json", "--issuer", "https://example.com"];
        args.extend(["--key", "issuer-key.pem", "--audience", "chat.example.com", "--queue", "support"]);
        args.extend(more);
        serde_json::from_str(&self.ok(&args)).unwrap()
    }
}
