//! What is known of client software: the TLS libraries it is built on, the capabilities that are its, and what is thought of its
//! versions. `clients.toml` holds it.
//!
//! Whatever clients say of themselves is their word. The TLS hello is no word but a habit of the library, and says otherwise where a
//! program poses as another; it is evidence, not proof. So what is known here refuses, degrades and flags, and grants nothing.

use std::collections::HashMap;

use super::ja4::{Fingerprint, Ja4};
use super::version::VersionRange;
use super::{ClientSoftware, Confidence, Denial, Features, SoftwareSource};

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// By the hashes of a JA4.
    libraries: HashMap<String, Library>,
    software: Vec<Software>,
    /// By the hash of the capabilities: which of `software`, and its version.
    caps: HashMap<String, (String, String)>,
    rules: Vec<Rule>,
}

/// Which library says hello in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The JA4 of a hello, better the stable one; what is before its hashes changes with server name and ALPN, and is not looked at.
    pub ja4: Ja4,
    /// The library.
    pub name: String,
    /// The software, where no other says hello so; else empty.
    pub software: String,
}

/// Software that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Software {
    /// Its name.
    pub name: String,
    /// The TLS libraries that it is built on; empty where they are not known.
    pub libraries: Vec<String>,
    /// Hashes of its capabilities (XEP-0115), each with the version that shows it.
    pub caps: Vec<(String, String)>,
}

/// What is thought of versions of a software.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The software's name, letter case aside.
    pub name: String,
    /// Its versions; `None` for every one, also one that is not known.
    pub versions: Option<VersionRange>,
    /// What is thought of them.
    pub opinion: Opinion,
}

/// What is thought of a client's software.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It is welcome.
    Allow,
    /// It is, and lacks something.
    Degrade(Features),
    /// It is not; the sentence is for the customer, empty for the usual one.
    Refuse(String),
}

/// Why a client goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason's code.
    pub reason: &'static str,
    /// What the customer reads.
    pub sentence: String,
}

impl Catalogue {
    /// From its rows. Of several that speak of the same the first counts.
    pub fn new(libraries: Vec<Library>, software: Vec<Software>, rules: Vec<Rule>) -> Self {
        let mut all = Self { software, rules, ..Self::default() };
        for library in libraries {
            all.libraries.entry(library.ja4.hashes().to_owned()).or_insert(library);
        }
        for software in &all.software {
            for (hash, version) in &software.caps {
                all.caps.entry(hash.clone()).or_insert_with(|| (software.name.clone(), version.clone()));
            }
        }
        all
    }

    /// These rows, and behind them those of `below`.
    #[must_use]
    pub fn over(mut self, below: Self) -> Self {
        for (hashes, library) in below.libraries {
            self.libraries.entry(hashes).or_insert(library);
        }
        for (hash, claimed) in below.caps {
            self.caps.entry(hash).or_insert(claimed);
        }
        self.software.extend(below.software);
        self.rules.extend(below.rules);
        self
    }

    /// Rules, for status.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Known software.
    pub fn software(&self) -> &[Software] {
        &self.software
    }

    /// Known hellos.
    pub fn libraries(&self) -> impl Iterator<Item = &Library> {
        self.libraries.values()
    }

    /// Whose capabilities have this hash.
    pub fn caps(&self, hash: &str) -> Option<ClientSoftware> {
        let (name, version) = self.caps.get(hash)?;
        Some(ClientSoftware {
            name: name.clone(),
            version: version.clone(),
            source: SoftwareSource::Caps,
            confidence: Confidence::Inferred,
            ..ClientSoftware::unknown()
        })
    }

    /// Puts what the client says beside what its hello tells: names who says nothing, flags who is contradicted.
    pub fn weigh(&self, said: ClientSoftware, hello: Option<&Fingerprint>) -> ClientSoftware {
        let Some(hello) = hello else { return said };
        let mut known = ClientSoftware { ja4: Some(hello.ja4), ..said };
        let named = [hello.stable, hello.ja4].into_iter().find_map(|ja4| self.libraries.get(ja4.hashes()));
        let Some(library) = named else { return known };
        known.library.clone_from(&library.name);
        if known.name.is_empty() && !library.software.is_empty() {
            known.name.clone_from(&library.software);
            (known.source, known.confidence) = (SoftwareSource::Ja4, Confidence::Inferred);
        }
        let own = self.software.iter().find(|software| same_name(&software.name, &known.name));
        let others = own.filter(|own| !own.libraries.is_empty() && !own.libraries.contains(&library.name));
        known.is_contradicted |= others.is_some();
        known
    }

    /// Judges software as it was weighed: what a rule says it lacks goes with it, or the refusal of a rule or of a connector.
    ///
    /// # Errors
    /// It is not let in.
    pub fn judge(&self, software: ClientSoftware, denied: &[Denial]) -> Result<ClientSoftware, Refusal> {
        if let Some(denial) = denied.iter().find(|denial| denial.refuses(&software)) {
            return Err(Refusal { reason: "client-denied", sentence: denial.sentence().to_owned() });
        }
        match self.opinion(&software) {
            Opinion::Allow => Ok(ClientSoftware { lacks: Features::NONE, ..software }),
            Opinion::Degrade(lacks) => Ok(ClientSoftware { lacks: *lacks, ..software }),
            Opinion::Refuse(sentence) => {
                let denial = Denial { software: String::new(), version: None, text: sentence.clone() };
                Err(Refusal { reason: "client-refused", sentence: denial.sentence().to_owned() })
            }
        }
    }

    fn opinion(&self, software: &ClientSoftware) -> &Opinion {
        let speaks = |rule: &&Rule| {
            let of_version = rule.versions.as_ref().is_none_or(|versions| versions.holds(&software.version));
            of_version && same_name(&rule.name, &software.name)
        };
        self.rules.iter().find(speaks).map_or(&Opinion::Allow, |rule| &rule.opinion)
    }
}

fn same_name(one: &str, other: &str) -> bool {
    !one.is_empty() && one.to_lowercase() == other.to_lowercase()
}

#[cfg(test)]
mod tests;
