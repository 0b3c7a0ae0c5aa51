//! A company: its tunnel CA, the keys that sign its links, and the roles that run on files made from these.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use outgate::config::{AgentsConfig, ConnectorConfig, RelayConfig, Role};
use outgate::connector::{Connector, ConnectorSettings};
use outgate::link::token::{Claims, Terms};
use outgate::net::certificates::{Issued, TunnelCa, load, load_authorities, self_signed};
use outgate::net::inherited::Inherited;
use outgate::net::link_keys::SigningKey;
use outgate::net::quic::Credentials;
use outgate::relay::Relay;
use outgate::relay::settings::{ConfigFile, RelaySettings};
use outgate::relay::setup::settings_of;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use crate::relay::customer::Customer;

pub(crate) const DOMAIN: &str = "localhost";
pub(crate) const ISSUER: &str = "https://example.com";

pub(crate) struct Company {
    home: TempDir,
    ca: TunnelCa,
    roots: Arc<rustls::RootCertStore>,
    pub(crate) key: SigningKey,
    now: u64,
}

impl Company {
    #[expect(clippy::disallowed_methods, reason = "certificates and links are judged by the clock")]
    pub(crate) fn new() -> Self {
        let home = tempfile::Builder::new().prefix("trust").tempdir().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let (ca, own) = TunnelCa::create("example", now).unwrap();
        let (customers_ca, customers) = self_signed(DOMAIN, now).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(customers_ca.as_bytes()).unwrap()).unwrap();
        let (key, _) = SigningKey::generate().unwrap();
        let company = Self { home, ca, roots: Arc::new(roots), key, now };
        company.write("ca.pem", &own.certificate);
        company.write_pair("customers", &customers);
        company.trust(&company.key);
        company.write("agents.toml", "");
        company
    }

    /// Puts the key's public half into the issuer's file.
    pub(crate) fn trust(&self, key: &SigningKey) {
        self.write("issuer.jwks.json", &key.public_set().to_string());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn write_pair(&self, name: &str, issued: &Issued) {
        self.write(&format!("{name}.pem"), &issued.certificate);
        self.write(&format!("{name}-key.pem"), &issued.key);
    }

    /// A role's certificate, by name.
    pub(crate) fn credentials(&self, role: Role, name: &str) -> Credentials {
        let (_, issued) = self.ca.issue(role, name, &[DOMAIN.to_owned()], self.now).unwrap();
        self.write_pair(name, &issued);
        let own = load(&self.path(&format!("{name}.pem")), &self.path(&format!("{name}-key.pem"))).unwrap();
        Credentials { chain: own.chain, key: own.key, authorities: load_authorities(&self.path("ca.pem")).unwrap() }
    }

    /// A relay without keys of its own, that grants each connector these queues; "hello" is public.
    pub(crate) fn relay(&self, name: &str, grants: &[(&str, &[&str])]) -> Relay {
        self.relay_with(name, grants, "")
    }

    /// The same, with more sections in a file that can be read again.
    pub(crate) fn relay_with(&self, name: &str, grants: &[(&str, &[&str])], sections: &str) -> Relay {
        let mut settings = self.relay_settings(name, grants, sections);
        crate::setup::lift_limits(&mut settings);
        Relay::start(settings).unwrap()
    }

    /// The same, held to the limits that its sections tell, or to those of the shipped file.
    pub(crate) fn limited_relay(&self, name: &str, grants: &[(&str, &[&str])], sections: &str) -> Relay {
        Relay::start(self.relay_settings(name, grants, sections)).unwrap()
    }

    fn relay_settings(&self, name: &str, grants: &[(&str, &[&str])], sections: &str) -> RelaySettings {
        self.credentials(Role::Relay, name);
        let mut text = format!(
            "[listen]\nclient = [\"127.0.0.1:0\"]\ntunnel = \"127.0.0.1:0\"\nadmin = \"{name}.sock\"\n\
             [tls]\ncertificate = \"customers.pem\"\nkey = \"customers-key.pem\"\n\
             [tunnel_tls]\ncertificate = \"{name}.pem\"\nkey = \"{name}-key.pem\"\nca = \"ca.pem\"\n\
             [[domain]]\nname = \"{DOMAIN}\"\n"
        );
        if grants.iter().any(|(_, queues)| queues.contains(&"hello")) {
            text.push_str("public_queue = \"hello\"\n");
        }
        for queue in grants.iter().flat_map(|(_, queues)| *queues) {
            text.push_str(&format!("[[domain.queue]]\nid = \"{queue}\"\n"));
        }
        for (connector, queues) in grants {
            text.push_str(&format!("[[connector]]\nidentity = \"outgate://example/connector/{connector}\"\nqueues = {queues:?}\n"));
            text.push_str(&format!("label = \"{}\"\n", label_of(connector)));
        }
        text.push_str(sections);
        let path = self.path(&format!("{name}.toml"));
        self.write(&format!("{name}.toml"), &text);
        let running = RelayConfig::parse(&path, &text).unwrap();
        let mut settings = settings_of(&running, &mut Inherited::none()).unwrap();
        let read = move || RelayConfig::parse(&path, &std::fs::read_to_string(&path).unwrap()).map_err(|faults| faults[0].to_string());
        settings.file = Some(ConfigFile { running, read: Box::new(read) });
        settings
    }

    /// A connector's settings: it dials `relays`, and serves `queues` with a bot that greets with the connector's name.
    pub(crate) fn connector_settings(&self, name: &str, relays: &[SocketAddr], queues: &[&str]) -> ConnectorSettings {
        self.credentials(Role::Connector, name);
        let label = label_of(name);
        let mut text = format!(
            "name = \"{name}\"\nlabel = \"{label}\"\nadmin = \"{name}.sock\"\n\
             [tunnel_tls]\ncertificate = \"{name}.pem\"\nkey = \"{name}-key.pem\"\nca = \"ca.pem\"\n\
             [store]\npath = \"{name}.sqlite\"\n[agents]\nlisten = \"127.0.0.1:0\"\ndomain = \"agents.{DOMAIN}\"\naccounts = \"agents.toml\"\n\
             [agents.tls]\ncertificate = \"customers.pem\"\nkey = \"customers-key.pem\"\n\
             [[domain]]\nname = \"{DOMAIN}\"\n[[issuer]]\niss = \"{ISSUER}\"\njwks = \"issuer.jwks.json\"\n\
             [[deny]]\nsoftware = \"Chatty\"\n"
        );
        for relay in relays {
            text.push_str(&format!("[[relay]]\naddress = \"{relay}\"\nserver_name = \"{DOMAIN}\"\n"));
        }
        for queue in queues {
            let public = *queue == "hello";
            text.push_str(&format!("[[queue]]\nid = \"{queue}\"\ndomain = \"{DOMAIN}\"\npublic = {public}\n"));
            if *queue != "unread" {
                text.push_str(&format!("[queue.bot]\ngreeting = \"This is {name}.\"\n"));
            }
        }
        let path = self.path(&format!("{name}.toml"));
        let config = ConnectorConfig::parse(&path, &text).unwrap();
        let accounts = AgentsConfig::parse(&self.path("agents.toml"), "").unwrap();
        ConnectorSettings::from_config(&config, &accounts, &mut Inherited::none()).unwrap()
    }

    pub(crate) async fn connector(&self, name: &str, relays: &[SocketAddr], queues: &[&str]) -> Connector {
        Connector::start(self.connector_settings(name, relays, queues)).await.unwrap()
    }

    pub(crate) async fn customer(&self, relay: &Relay) -> Customer {
        self.customer_from([127, 0, 0, 1], relay).await
    }

    /// A customer with another address of this host.
    pub(crate) async fn customer_from(&self, source: [u8; 4], relay: &Relay) -> Customer {
        self.customer_at(source, relay.client_addresses()[0]).await
    }

    /// The same, through what listens at `address`.
    pub(crate) async fn customer_at(&self, source: [u8; 4], address: SocketAddr) -> Customer {
        let customer = Customer::connect_from(source.into(), address, DOMAIN, Arc::clone(&self.roots)).await;
        customer.direct_tls().await
    }

    /// A customer who has not begun with TLS.
    pub(crate) async fn plain_customer(&self, relay: &Relay) -> Customer {
        Customer::connect(relay.client_addresses()[0], DOMAIN, Arc::clone(&self.roots)).await
    }

    pub(crate) fn claims(&self, queue: &str) -> Claims {
        Claims {
            iss: ISSUER.to_owned(),
            aud: vec![DOMAIN.to_owned()],
            exp: self.now + 3600,
            nbf: None,
            jti: uuid::Uuid::now_v7().to_string(),
            sub: None,
            outgate: Terms { queue: queue.to_owned(), ..Terms::default() },
        }
    }

    pub(crate) fn link(&self, queue: &str) -> String {
        self.key.mint(&self.claims(queue)).unwrap()
    }

    /// Asks a role on its admin socket.
    pub(crate) async fn ask(&self, name: &str, request: &str) -> Value {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::UnixStream::connect(self.path(&format!("{name}.sock"))).await.unwrap();
        socket.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Waits until the status of a role is as wanted.
    pub(crate) async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.ask(name, "{\"get\":\"status\"}").await;
            if wanted(&status) {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited for {what} in vain: {status:#}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// The label of a connector's codes: the number in its name.
fn label_of(name: &str) -> &str {
    name.trim_start_matches(|letter: char| !letter.is_ascii_digit())
}

/// Whether every tunnel of a connector is attached and holds its policy.
pub(crate) fn all_pushed(status: &Value) -> bool {
    status["tunnels"].as_array().unwrap().iter().all(|tunnel| tunnel["attached"] == true && tunnel["policy_current"] == true)
}
