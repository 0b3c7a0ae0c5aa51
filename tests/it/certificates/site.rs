//! An issuing CA, a relay and connectors in one process, from configuration files in a folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outgate::authority::Authority;
use outgate::authority::service::Service;
use outgate::config::{AgentsConfig, ConnectorConfig, RelayConfig, Role};
use outgate::connector::{Connector, ConnectorSettings};
use outgate::net::certificates::{Issued, self_signed};
use outgate::net::inherited::Inherited;
use outgate::net::link_keys::SigningKey;
use outgate::net::wall_clock::unix_now;
use outgate::relay::Relay;
use outgate::relay::setup::settings_of;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Far above what anything here takes: a test that waits longer has failed.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// How often changes are looked for here.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A certificate's life below which it is renewed at once: what is left after a backdate of five minutes is less than a third.
pub(super) const DUE: Duration = Duration::from_secs(100);

const DOMAIN: &str = "chat.example";

/// The folder and what runs from it.
pub(super) struct Site {
    home: TempDir,
    pub(super) authority: Authority,
    pub(super) service: Option<Service>,
    pub(super) relay: Option<Relay>,
}

impl Site {
    /// Makes a CA and all files but the certificates of the tunnel.
    pub(super) fn new() -> Self {
        let home = tempfile::Builder::new().prefix("certificates").tempdir().unwrap();
        let authority = Authority::init(&home.path().join("ca"), "example", unix_now()).unwrap();
        for side in ["relay", "lan1", "lan2"] {
            std::fs::create_dir(home.path().join(side)).unwrap();
        }
        let site = Self { home, authority, service: None, relay: None };
        let (_, listener) = self_signed(DOMAIN, unix_now()).unwrap();
        for pair in ["relay/tls", "lan1/tls", "lan2/tls"] {
            site.write_pair(pair, &listener);
        }
        for name in ["lan1", "lan2"] {
            site.write(&format!("{name}/agents.toml"), "");
        }
        site
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn write_pair(&self, name: &str, issued: &Issued) {
        self.write(&format!("{name}.pem"), &issued.certificate);
        self.write(&format!("{name}-key.pem"), &issued.key);
    }

    /// The CA, opened once more, as a verb does it.
    pub(super) fn authority(&self) -> Authority {
        Authority::open(&self.path("ca")).unwrap()
    }

    /// Issues offline, for `life`.
    pub(super) fn issue(&self, role: Role, name: &str, life: Option<Duration>) -> Issued {
        let hosts = match role {
            Role::Relay => vec!["relay.example".to_owned()],
            Role::Connector => Vec::new(),
        };
        self.authority().with_life(life).issue(role, name, &hosts, unix_now()).unwrap().1
    }

    /// Puts certificates of the tunnel for `life` where the configuration files name them.
    pub(super) fn certify(&self, life: Option<Duration>) {
        let bundle = self.authority.bundle(unix_now()).unwrap();
        for (side, role, name) in [("relay", Role::Relay, "dmz1"), ("lan1", Role::Connector, "lan1"), ("lan2", Role::Connector, "lan2")] {
            self.write_pair(&format!("{side}/tunnel"), &self.issue(role, name, life));
            self.write(&format!("{side}/ca.pem"), &bundle);
        }
    }

    /// Writes `count` more certificates into the CA's ledger, all of them revoked.
    pub(super) fn add_revoked(&self, count: u32) {
        let mut issued = self.read("ca/issued.jsonl");
        let entry: Value = serde_json::from_str(issued.lines().next().unwrap()).unwrap();
        let mut revoked = String::new();
        for n in 0..count {
            let serial = format!("5a{n:038x}");
            let entry = json!({"serial": serial, "name": "outgate://example/connector/gone", "begin": entry["begin"], "end": entry["end"],
                "generation": 1, "by": "offline", "at": entry["at"]});
            issued += &format!("{entry}\n");
            revoked += &format!("{}\n", json!({"serial": serial, "at": entry["at"], "why": ""}));
        }
        self.write("ca/issued.jsonl", &issued);
        self.write("ca/revoked.jsonl", &revoked);
    }

    /// Serves the CA.
    pub(super) fn serve(&mut self) -> String {
        let service = Service::start(self.authority(), loopback()).unwrap();
        let url = format!("https://{}", service.address());
        self.service = Some(service);
        url
    }

    /// Starts the relay, to which `lan1` and `lan2` may come.
    pub(super) fn start_relay(&mut self) -> SocketAddr {
        let connector =
            |name: &str, queue: &str| format!("[[connector]]\nidentity = \"outgate://example/connector/{name}\"\nqueues = [\"{queue}\"]\n");
        let text = format!(
            "[listen]\nclient = [\"127.0.0.1:0\"]\ntunnel = \"127.0.0.1:0\"\nadmin = \"relay.sock\"\n\
             [tls]\ncertificate = \"tls.pem\"\nkey = \"tls-key.pem\"\n{TUNNEL_TLS}\
             [[domain]]\nname = \"{DOMAIN}\"\npublic_queue = \"hello\"\n[[domain.queue]]\nid = \"hello\"\n[[domain.queue]]\nid = \"other\"\n{}{}\
             [[issuer]]\niss = \"https://example\"\njwks = \"jwks.json\"\n",
            connector("lan1", "hello"),
            connector("lan2", "other")
        );
        let (key, _pem) = SigningKey::generate().unwrap();
        self.write("relay/jwks.json", &key.public_set().to_string());
        let config = RelayConfig::parse(&self.path("relay/relay.toml"), &text).unwrap();
        let mut settings = settings_of(&config, &mut Inherited::none()).unwrap();
        crate::setup::lift_limits(&mut settings);
        settings.look_every = LOOK_EVERY;
        let relay = Relay::start(settings).unwrap();
        let address = relay.tunnel_address().unwrap();
        self.relay = Some(relay);
        address
    }

    pub(super) fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }

    /// Starts a connector that dials `relay` and asks the CA at `ca`, if any.
    pub(super) async fn start_connector(&self, name: &str, relay: SocketAddr, ca: Option<&str>) -> Connector {
        let queue = if name == "lan1" { "hello" } else { "other" };
        let ca = ca.map_or_else(String::new, |url| format!("[ca]\nurl = \"{url}\"\npoll = \"200ms\"\n"));
        let text = format!(
            "name = \"{name}\"\nadmin = \"admin.sock\"\n[[relay]]\naddress = \"{relay}\"\nserver_name = \"relay.example\"\n{TUNNEL_TLS}{ca}\
             [store]\npath = \"store.sqlite\"\n[agents]\nlisten = \"127.0.0.1:0\"\ndomain = \"agents.example\"\naccounts = \"agents.toml\"\n\
             [agents.tls]\ncertificate = \"tls.pem\"\nkey = \"tls-key.pem\"\n\
             [[domain]]\nname = \"{DOMAIN}\"\n[[queue]]\nid = \"{queue}\"\ndomain = \"{DOMAIN}\"\npublic = true\n"
        );
        let file = self.path(name).join("connector.toml");
        let config = ConnectorConfig::parse(&file, &text).unwrap();
        let accounts = AgentsConfig::parse(&self.path(name).join("agents.toml"), "").unwrap();
        let mut settings = ConnectorSettings::from_config(&config, &accounts, &mut Inherited::none()).unwrap();
        settings.look_every = LOOK_EVERY;
        Connector::start(settings).await.unwrap()
    }

    /// Waits until the relay's tunnel of a connector is (not) attached; answers how many carriers it has had.
    pub(super) async fn attached(&self, name: &str, wanted: bool) -> u64 {
        let identity = format!("outgate://example/connector/{name}");
        let mut carriers = 0;
        until(&format!("{name} attached: {wanted}"), async || {
            let status = self.relay().status().await;
            let tunnel = status.tunnels.iter().find(|tunnel| tunnel.identity == identity);
            carriers = tunnel.map_or(0, |tunnel| tunnel.attached);
            tunnel.is_some_and(|tunnel| tunnel.is_attached) == wanted
        })
        .await;
        carriers
    }

    /// What the relay tells of its certificate `name`: days left, and a fault.
    pub(super) async fn relay_certificate(&self, name: &str) -> Option<(i64, Option<String>)> {
        let status = self.relay().status().await;
        status.certificates.into_iter().find(|one| one.name == name).map(|one| (one.days_left, one.fault))
    }

    /// Stops what runs.
    pub(super) async fn stop(self, connectors: impl IntoIterator<Item = Connector>) {
        for connector in connectors {
            connector.shutdown().await;
        }
        if let Some(relay) = self.relay {
            relay.stop().await;
        }
        if let Some(service) = self.service {
            service.stop().await;
        }
    }
}

const TUNNEL_TLS: &str = "[tunnel_tls]\ncertificate = \"tunnel.pem\"\nkey = \"tunnel-key.pem\"\nca = \"ca.pem\"\n";

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Waits until `reached`.
pub(super) async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, waited).await.is_ok(), "waited in vain: {what}");
}

/// Days left of a connector's tunnel certificate.
pub(super) async fn days_left(connector: &Connector) -> Option<i64> {
    let status: Value = connector.status().await?;
    status["certificates"].as_array()?.iter().find(|one| one["name"] == "tunnel")?["days_left"].as_i64()
}

/// The mode of a file.
pub(super) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
