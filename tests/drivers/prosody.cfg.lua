-- Prosody as the neutral server on which the drivers are tried. Every ENV_ name is set by the test that starts it.
pidfile = ENV_PROSODY_HOME .. "/prosody.pid"
data_path = ENV_PROSODY_HOME
certificates = ENV_PROSODY_HOME
log = { info = "*console" }
run_as_root = true

interfaces = { "127.0.0.1" }
c2s_ports = { tonumber(ENV_PROSODY_STARTTLS) }
c2s_direct_tls_ports = { tonumber(ENV_PROSODY_DIRECT) }
s2s_ports = {}
modules_disabled = { "s2s" }
modules_enabled = { "roster", "saslauth", "tls", "disco", "ping", "smacks", "carbons", "version", "private", "vcard_legacy", "pep", "blocklist" }

authentication = "internal_plain"
c2s_require_encryption = true
ssl = { certificate = ENV_PROSODY_HOME .. "/cert.pem", key = ENV_PROSODY_HOME .. "/key.pem" }
c2s_direct_tls_ssl = ssl

VirtualHost "desk.example"

VirtualHost "guest.example"
authentication = "anonymous"
-- Guests talk to the desk's accounts on the same server.
allow_anonymous_s2s = true
