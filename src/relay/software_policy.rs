//! What the relay holds of client software: `[clients]` of its configuration and `clients.toml`, and what clients have shown.
//!
//! A reload replaces it as a whole, for the customers who come from then on.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::clients::{parse, shipped};
use crate::config::relay::clients::Clients as Configured;
use crate::fingerprint::{Catalogue, Fingerprint, Ja4, Knowledge, LearnedCaps};

/// The reason's code of a hello that is not let in.
const DENIED: &str = "ja4-denied";

/// All that is held.
#[derive(Debug, Default)]
pub struct SoftwarePolicy {
    held: RwLock<Arc<Held>>,
    learned: Arc<LearnedCaps>,
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    catalogue: Arc<Catalogue>,
    denied: Vec<Ja4>,
}

impl SoftwarePolicy {
    /// Reads what `configured` names.
    ///
    /// # Errors
    /// A file cannot be read, or has faults; all of them are told.
    pub fn open(configured: &Configured) -> Result<Self, String> {
        Ok(Self { held: RwLock::new(Arc::new(read(configured)?)), learned: Arc::default() })
    }

    /// Takes up what was read; whether it differs from what was held.
    pub(super) fn put(&self, held: Held) -> bool {
        let mut now = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let differs = **now != held;
        *now = Arc::new(held);
        differs
    }

    /// What is known now.
    pub(super) fn knowledge(&self) -> Knowledge {
        Knowledge { catalogue: Arc::clone(&self.now().catalogue), learned: Arc::clone(&self.learned) }
    }

    /// Judges a hello, by its JA4 or by the one without what changes.
    pub(super) fn screen(&self, hello: &Fingerprint) -> Result<(), &'static str> {
        let denied = self.now().denied.iter().any(|denied| *denied == hello.ja4 || *denied == hello.stable);
        if denied { Err(DENIED) } else { Ok(()) }
    }

    fn now(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads what `configured` names: a file that it names must be there, the one beside it need not.
pub(super) fn read(configured: &Configured) -> Result<Held, String> {
    let own = match &configured.file {
        Some(file) => Some(load(file).map_err(|fault| format!("{}: {fault}", file.display()))?),
        None => match load(&configured.beside) {
            Ok(text) => Some(text),
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => None,
            Err(fault) => return Err(format!("{}: {fault}", configured.beside.display())),
        },
    };
    let catalogue = match own {
        Some(text) => {
            let file = configured.file.as_deref().unwrap_or(&configured.beside);
            let told = |faults: Vec<crate::config::Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            parse(file, &text).map_err(told)?.over(shipped())
        }
        None => shipped(),
    };
    Ok(Held { catalogue: Arc::new(catalogue), denied: configured.deny_ja4.clone() })
}

fn load(file: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(file)
}
