//! Allow-lists as they stand in files, read again while the process runs.

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::admission::allow_list::{Access, AllowList};
use crate::config::relay::access::AccessRules;
use crate::config::{Fault, prefix_file};
use crate::net::shutdown::Stop;

/// What the name of a file in a folder ends with, if it counts.
const EXTENSION: &str = "cidr";

/// Longest file.
const MAX_FILE: u64 = 32 << 20;

/// Most prefixes of one list.
const MAX_PREFIXES: usize = 1_000_000;

/// Why a list cannot be had from its files.
#[derive(Debug, thiserror::Error)]
pub enum AllowFileError {
    /// A file or folder cannot be read.
    #[error("{}: {fault}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        fault: io::Error,
    },
    /// A file holds what is no prefix.
    #[error("{}", told(.0))]
    Faults(Vec<Fault>),
    /// There are more prefixes than anybody means to name.
    #[error("over {MAX_PREFIXES} prefixes; name larger ones")]
    TooMany,
}

fn told(faults: &[Fault]) -> String {
    let first = faults.first().map(ToString::to_string).unwrap_or_default();
    match faults.len() {
        0 | 1 => first,
        more => format!("{first}, and {} more", more - 1),
    }
}

/// One listener's allow-list, made of its rules and their files.
#[derive(Debug)]
pub struct AllowFiles {
    now: Mutex<Made>,
    lists: watch::Sender<Lists>,
}

/// What is in force.
#[derive(Clone, Debug)]
struct Lists {
    clients: Arc<AllowList>,
    proxies: Arc<AllowList>,
}

/// A list that is not in force yet.
#[derive(Debug)]
pub struct Prepared {
    made_of: Made,
    lists: Lists,
}

/// What a list was made of.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    rules: AccessRules,
    texts: Vec<Text>,
}

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
struct Text {
    access: Access,
    file: PathBuf,
    text: String,
}

impl AllowFiles {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn open(rules: AccessRules) -> Result<Self, AllowFileError> {
        let texts = texts_of(&rules)?;
        let lists = lists_of(&rules, &texts)?;
        Ok(Self { now: Mutex::new(Made { rules, texts }), lists: watch::Sender::new(lists) })
    }

    /// A list that lets everybody in.
    pub fn open_to_all() -> Self {
        let now = Mutex::new(Made { rules: AccessRules::default(), texts: Vec::new() });
        let lists = Lists { clients: Arc::new(AllowList::open()), proxies: Arc::new(AllowList::new(Vec::new(), Access::Deny)) };
        Self { now, lists: watch::Sender::new(lists) }
    }

    /// Reads the files again; tells whether the list has changed. What cannot be used changes nothing. It waits for the disk.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn reload(&self) -> Result<bool, AllowFileError> {
        let rules = self.now.lock().unwrap_or_else(PoisonError::into_inner).rules.clone();
        Ok(self.put(self.prepare(rules)?))
    }

    /// Reads the files that `rules` name, without putting anything in force. It waits for the disk.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn prepare(&self, rules: AccessRules) -> Result<Prepared, AllowFileError> {
        let texts = texts_of(&rules)?;
        let lists = lists_of(&rules, &texts)?;
        Ok(Prepared { made_of: Made { rules, texts }, lists })
    }

    /// Puts a list in force; tells whether it differs from the one before.
    pub fn put(&self, prepared: Prepared) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == prepared.made_of {
            return false;
        }
        *now = prepared.made_of;
        self.lists.send_replace(prepared.lists);
        true
    }

    /// The list in force.
    pub fn list(&self) -> Arc<AllowList> {
        Arc::clone(&self.lists.borrow().clients)
    }

    /// The list in force, and the word when another is.
    pub fn watched(&self) -> Watched {
        Watched(self.lists.subscribe())
    }
}

/// A list in force, as those see it who ask it.
#[derive(Clone, Debug)]
pub struct Watched(watch::Receiver<Lists>);

impl Watched {
    /// Whether `address` may connect now.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.0.borrow().clients.allows(address)
    }

    /// Whether `address` is a proxy that must tell, and is believed, whose connection it passes on.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.0.borrow().proxies.allows(address)
    }

    /// Waits until `address` may not connect any more, which may be never.
    pub async fn denied(&mut self, address: IpAddr) {
        if self.0.wait_for(|lists| !lists.clients.allows(address)).await.is_err() {
            // Nobody is left who could change the list.
            std::future::pending::<()>().await;
        }
    }
}

/// Looks at the files of all `lists` every so often until `stop`. A file that cannot be used is told once, and the list before it stands.
pub async fn watch(
    lists: Vec<(&'static str, Arc<AllowFiles>)>,
    every: Duration,
    mut stop: Stop,
    taken: impl Fn(&'static str, usize) + Send,
) {
    let mut told: Vec<String> = vec![String::new(); lists.len()];
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.requested() => return,
        }
        for ((listener, files), told) in lists.iter().zip(&mut told) {
            let reading = Arc::clone(files);
            let outcome = match tokio::task::spawn_blocking(move || reading.reload()).await {
                Ok(outcome) => outcome.map_err(|fault| fault.to_string()),
                Err(panic) => Err(panic.to_string()),
            };
            match outcome {
                Ok(true) => {
                    let prefixes = files.list().len();
                    tracing::info!(listener, prefixes, "a changed allow-list is in force");
                    taken(listener, prefixes);
                }
                Ok(false) => told.clear(),
                Err(fault) => {
                    if fault != *told {
                        tracing::warn!(listener, fault, "an allow-list is not read again; the one before stands");
                        *told = fault;
                    }
                }
            }
        }
    }
}

fn texts_of(rules: &AccessRules) -> Result<Vec<Text>, AllowFileError> {
    let mut texts = Vec::new();
    for (access, path) in &rules.files {
        for file in files_at(path)? {
            let text = read(&file).map_err(|fault| AllowFileError::Unreadable { file: file.clone(), fault })?;
            texts.push(Text { access: *access, file, text });
        }
    }
    Ok(texts)
}

/// A file itself; of a folder its lists, by name.
fn files_at(path: &Path) -> Result<Vec<PathBuf>, AllowFileError> {
    let unreadable = |fault| AllowFileError::Unreadable { file: path.to_owned(), fault };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == EXTENSION) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
    }
    Ok(text)
}

fn lists_of(rules: &AccessRules, texts: &[Text]) -> Result<Lists, AllowFileError> {
    let mut entries = rules.entries.clone();
    let mut faults = Vec::new();
    for Text { access, file, text } in texts {
        match prefix_file::read(file, text, *access) {
            Ok(read) => entries.extend(read),
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(AllowFileError::Faults(faults));
    }
    if entries.len() > MAX_PREFIXES {
        return Err(AllowFileError::TooMany);
    }
    let clients = Arc::new(AllowList::new(entries, rules.otherwise()));
    Ok(Lists { clients, proxies: Arc::new(AllowList::new(rules.proxies.clone(), Access::Deny)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: &[(Access, &Path)]) -> AccessRules {
        let files: Vec<_> = files.iter().map(|(access, path)| (*access, path.to_path_buf())).collect();
        AccessRules { is_closed: files.iter().any(|(access, _)| *access == Access::Allow), files, ..AccessRules::default() }
    }

    #[test]
    fn a_folder_stands_for_its_lists_and_a_change_is_taken_up_whole_or_not() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        write("b.cidr", "192.0.2.0/24\n");
        write("a.cidr", "192.0.2.128/25\n2001:db8::/32\n");
        write("README", "no list\n");
        write("denied", "192.0.2.200\n");
        let files = AllowFiles::open(rules(&[(Access::Allow, home.path()), (Access::Deny, &home.path().join("denied"))])).unwrap();
        let judge = |address: &str| {
            let list = files.list();
            let verdict = list.judge(address.parse().unwrap());
            (verdict.access, verdict.entry.map(|entry| format!("{}:{}", entry.file.rsplit('/').next().unwrap_or_default(), entry.line)))
        };
        assert_eq!(judge("192.0.2.1"), (Access::Allow, Some("b.cidr:1".into())));
        assert_eq!(judge("192.0.2.129"), (Access::Allow, Some("a.cidr:1".into())));
        assert_eq!(judge("192.0.2.200"), (Access::Deny, Some("denied:1".into())));
        assert_eq!(judge("198.51.100.1"), (Access::Deny, None));
        assert!(!files.reload().unwrap());

        write("b.cidr", "198.51.100.0/24\n192.0.2.1/24\n");
        let fault = files.reload().unwrap_err().to_string();
        assert!(fault.contains("b.cidr:2:1: 192.0.2.1/24 has bits"), "{fault}");
        assert_eq!(judge("198.51.100.1").0, Access::Deny, "what is wrong in one line changes nothing");

        write("b.cidr", "198.51.100.0/24\n");
        assert!(files.reload().unwrap());
        assert_eq!(judge("198.51.100.1").0, Access::Allow);
        assert_eq!(judge("192.0.2.1").0, Access::Deny);

        std::fs::remove_file(home.path().join("denied")).unwrap();
        assert!(files.reload().unwrap_err().to_string().contains("denied: No such file"));
        assert_eq!(judge("192.0.2.200").0, Access::Deny, "a list that is gone still counts");
    }

    #[test]
    fn files_that_allow_and_are_empty_let_nobody_in() {
        let home = tempfile::tempdir().unwrap();
        let files = AllowFiles::open(rules(&[(Access::Allow, home.path())])).unwrap();
        assert!(!files.list().allows("192.0.2.1".parse().unwrap()));
        assert!(AllowFiles::open_to_all().list().allows("192.0.2.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn whoever_watches_is_told_when_an_address_is_denied() {
        let home = tempfile::tempdir().unwrap();
        let denied = home.path().join("denied");
        std::fs::write(&denied, "").unwrap();
        let files = AllowFiles::open(rules(&[(Access::Deny, &denied)])).unwrap();
        let mut watched = files.watched();
        let address = "192.0.2.7".parse().unwrap();
        assert!(watched.allows(address));
        std::fs::write(&denied, "192.0.2.8\n").unwrap();
        files.reload().unwrap();
        let still = tokio::time::timeout(Duration::from_millis(50), watched.denied(address)).await;
        assert!(still.is_err());
        std::fs::write(&denied, "192.0.2.0/28\n").unwrap();
        files.reload().unwrap();
        tokio::time::timeout(Duration::from_secs(5), watched.denied(address)).await.unwrap();
    }
}
