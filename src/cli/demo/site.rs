//! The demo's site: certificates, keys, accounts and the two configuration files, in a folder that goes with the demo.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::cli::{Failure, files, load_config, unix_now};
use crate::config::{AgentsConfig, ConnectorConfig, RelayConfig, Role};
use crate::connector::{Connector, ConnectorSettings};
use crate::link::Claims;
use crate::link::token::Terms;
use crate::net::certificates::{Issued, TunnelCa, self_signed};
use crate::net::entropy;
use crate::net::inherited::Inherited;
use crate::net::link_keys::SigningKey;
use crate::proto::xmpp::sasl::ScramKeys;
use crate::relay::Relay;
use crate::relay::setup::settings_of;

use super::Args;

/// The customers' domain.
pub(super) const DOMAIN: &str = "localhost";

/// The agents' domain.
pub(super) const AGENTS_DOMAIN: &str = "agents.localhost";

/// The demo's own agent, whose queue is not told to anyone.
pub(super) const GUIDE: &str = "guide";

/// Who signs links here.
const ISSUER: &str = "https://localhost/demo";

/// How long a link of the demo is good.
const LINK_LIFE: u64 = 24 * 3600;

/// Rounds of PBKDF2 for accounts that live as long as the demo.
const ROUNDS: u32 = 4096;

/// Everybody here comes from one address, and may be a load test.
const NO_LIMITS: &str = "[limits]\nexempt = [\"127.0.0.0/8\", \"::1\"]\nlogins_per_link = 1000000\n\
    [limits.session]\nbytes_per_second = 1000000\nbytes_at_once = 1000000\nmessages_per_second = 1000000\nmessages_at_once = 1000000\n";

const NAMES: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];

/// An agent's account.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) password: String,
}

/// Everything made for one demo.
pub(super) struct Site {
    folder: TempDir,
    pub(super) ca_file: PathBuf,
    pub(super) ca_pem: String,
    pub(super) links: Vec<String>,
    pub(super) tour_link: String,
    pub(super) agents: Vec<Account>,
    pub(super) guide: Account,
    listen: SocketAddr,
    auto_accept: bool,
    has_limits: bool,
}

/// Where the two listeners are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) customers: SocketAddr,
    pub(super) agents: SocketAddr,
}

impl Site {
    /// Makes all files but the connector's, which names the relay's port.
    pub(super) fn make(args: &Args) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("outgate-demo-").tempdir().map_err(Failure::runtime)?;
        let now = unix_now();
        let (customers_ca, customers) = self_signed(DOMAIN, now).map_err(Failure::runtime)?;
        let (agents_ca, agents_listener) = self_signed(AGENTS_DOMAIN, now).map_err(Failure::runtime)?;
        let ca_pem = format!("{customers_ca}{agents_ca}");
        let (key, _pem) = SigningKey::generate().map_err(Failure::runtime)?;
        let mint = |queue: &str| mint(&key, queue, now);
        let agents: Vec<Account> = (0..args.agents as usize).map(account).collect();
        let guide = Account { name: GUIDE.to_owned(), password: password() };
        let site = Self {
            ca_file: folder.path().join("ca.pem"),
            ca_pem,
            links: (0..args.links).map(|_| mint("support")).collect::<Result<_, _>>()?,
            tour_link: mint("tour")?,
            agents,
            guide,
            listen: args.listen,
            auto_accept: args.auto_accept,
            has_limits: args.limits,
            folder,
        };
        site.write("ca.pem", &site.ca_pem)?;
        site.write_pair("customers", &customers)?;
        site.write_pair("agents-listener", &agents_listener)?;
        site.write_tunnel_certificates(now)?;
        site.write("issuer.jwks.json", &key.public_set().to_string())?;
        site.write("agents.toml", &site.agents_toml(args.capacity))?;
        site.write("relay.toml", &site.relay_toml())?;
        Ok(site)
    }

    /// Starts both roles from the files.
    pub(super) async fn start(&self) -> Result<(Relay, Connector), Failure> {
        let path = self.path("relay.toml");
        let config = load_config(&path, RelayConfig::parse)?;
        let relay = Relay::start(settings_of(&config, &mut Inherited::none())?)?;
        let tunnel = relay.tunnel_address().ok_or_else(|| Failure::runtime("the relay has no tunnel address"))?;
        self.write("connector.toml", &self.connector_toml(tunnel))?;
        let config = load_config(&self.path("connector.toml"), ConnectorConfig::parse)?;
        let accounts = load_config(&self.path("agents.toml"), AgentsConfig::parse)?;
        let settings = ConnectorSettings::from_config(&config, &accounts, &mut Inherited::none()).map_err(Failure::runtime)?;
        let connector = Connector::start(settings).await.map_err(Failure::runtime)?;
        Ok((relay, connector))
    }

    /// Where the roles listen.
    pub(super) fn addresses(&self, relay: &Relay, connector: &Connector) -> Result<Addresses, Failure> {
        let customers = relay.client_addresses().first().copied().ok_or_else(|| Failure::runtime("the relay listens nowhere"))?;
        Ok(Addresses { customers, agents: connector.agents_addr() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        // Keys are among them, and nobody else needs the rest.
        files::create(&self.path(name), text, files::Readers::Owner)
    }

    fn write_pair(&self, name: &str, issued: &Issued) -> Result<(), Failure> {
        self.write(&format!("{name}.pem"), &issued.certificate)?;
        self.write(&format!("{name}-key.pem"), &issued.key)
    }

    fn write_tunnel_certificates(&self, now: u64) -> Result<(), Failure> {
        let (ca, own) = TunnelCa::create("demo", now).map_err(Failure::runtime)?;
        self.write("tunnel-ca.pem", &own.certificate)?;
        let (_, relay) = ca.issue(Role::Relay, "relay1", &[DOMAIN.to_owned()], now).map_err(Failure::runtime)?;
        self.write_pair("tunnel-relay", &relay)?;
        let (_, connector) = ca.issue(Role::Connector, "lan1", &[], now).map_err(Failure::runtime)?;
        self.write_pair("tunnel-connector", &connector)
    }

    fn agents_toml(&self, capacity: u32) -> String {
        let account = |account: &Account, queues: &str, capacity: u32| {
            let keys = ScramKeys::derive(&account.password, &entropy::sixteen(), ROUNDS).to_text();
            let (name, display) = (&account.name, capitalised(&account.name));
            format!(
                "[[agent]]\nname = \"{name}\"\ndisplay = \"{display}\"\npassword = \"{keys}\"\nqueues = [{queues}]\ncapacity = {capacity}\n\n"
            )
        };
        let mut text: String = self.agents.iter().map(|agent| account(agent, "\"hello\", \"support\"", capacity)).collect();
        text.push_str(&account(&self.guide, "\"tour\"", 1));
        text
    }

    fn relay_toml(&self) -> String {
        let queue = |id: &str| format!("[[domain.queue]]\nid = \"{id}\"\n");
        format!(
            "[listen]\nclient = [\"{}\"]\ntunnel = \"127.0.0.1:0\"\nadmin = \"relay.sock\"\n\
             [tls]\ncertificate = \"customers.pem\"\nkey = \"customers-key.pem\"\n\
             [tunnel_tls]\ncertificate = \"tunnel-relay.pem\"\nkey = \"tunnel-relay-key.pem\"\nca = \"tunnel-ca.pem\"\n\
             [[domain]]\nname = \"{DOMAIN}\"\npublic_queue = \"hello\"\n{}{}{}\
             [[connector]]\nidentity = \"outgate://demo/connector/lan1\"\nqueues = [\"hello\", \"support\", \"tour\"]\n\
             [[issuer]]\niss = \"{ISSUER}\"\njwks = \"issuer.jwks.json\"\n{}",
            self.listen,
            queue("hello"),
            queue("support"),
            queue("tour"),
            if self.has_limits { "" } else { NO_LIMITS }
        )
    }

    fn connector_toml(&self, tunnel: SocketAddr) -> String {
        let agents = SocketAddr::new(self.listen.ip(), 0);
        let auto_accept = self.auto_accept;
        let queue =
            |id: &str, name: &str, more: &str| format!("[[queue]]\nid = \"{id}\"\ndomain = \"{DOMAIN}\"\nname = \"{name}\"\n{more}\n");
        let bot = "[queue.bot]\nname = \"Robin\"\ngreeting = \"Hello, I am Robin, a bot. Ask me about our opening hours, or write \\\"human\\\" to talk with a person.\"\n\
            [[queue.bot.rule]]\nmatch = \"opening hours\"\nreply = \"We are here from 9 to 17, Monday to Friday.\"\n";
        format!(
            "name = \"lan1\"\nadmin = \"connector.sock\"\n\
             [[relay]]\naddress = \"{tunnel}\"\nserver_name = \"{DOMAIN}\"\n\
             [tunnel_tls]\ncertificate = \"tunnel-connector.pem\"\nkey = \"tunnel-connector-key.pem\"\nca = \"tunnel-ca.pem\"\n\
             [store]\npath = \"store.sqlite\"\nkeep_free_mib = 16\nkeep_free_percent = 1\n\
             [limits]\nopens_per_second = 10000\nopens_at_once = 100000\n\
             [agents]\nlisten = \"{agents}\"\ndomain = \"{AGENTS_DOMAIN}\"\naccounts = \"agents.toml\"\n\
             [agents.tls]\ncertificate = \"agents-listener.pem\"\nkey = \"agents-listener-key.pem\"\n\
             [[domain]]\nname = \"{DOMAIN}\"\n{}{}{}\
             [[issuer]]\niss = \"{ISSUER}\"\njwks = \"issuer.jwks.json\"\n",
            queue("hello", "Hello", &format!("public = true\nauto_accept = {auto_accept}\n{bot}")),
            queue("support", "Support", &format!("auto_accept = {auto_accept}\n")),
            queue("tour", "Tour", bot),
        )
    }
}

fn mint(key: &SigningKey, queue: &str, now: u64) -> Result<String, Failure> {
    let terms = Terms { queue: queue.to_owned(), skills: Vec::new(), lang: None, reason: None, once: false, max_sessions: None };
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: vec![DOMAIN.to_owned()],
        exp: now + LINK_LIFE,
        nbf: None,
        jti: password(),
        sub: None,
        outgate: terms,
    };
    key.mint(&claims).map_err(Failure::runtime)
}

fn account(index: usize) -> Account {
    let name = NAMES.get(index).map_or_else(|| format!("agent{}", index + 1), |name| (*name).to_owned());
    Account { name, password: password() }
}

/// 64 random bits in hexadecimal: an account of the demo lives as long as it.
fn password() -> String {
    let [a, b, c, d, e, f, g, h, ..] = entropy::sixteen();
    [a, b, c, d, e, f, g, h].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn capitalised(name: &str) -> String {
    let mut characters = name.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
