//! The load generator's XMPP client: as little work per stanza as possible, so that the systems are measured and not it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a client logs in.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    Anonymous,
    Plain { user: String, password: String },
}

pub(crate) struct Reader {
    io: ReadHalf<TlsStream<TcpStream>>,
    buffer: Vec<u8>,
}

pub(crate) struct Writer {
    io: WriteHalf<TlsStream<TcpStream>>,
}

/// One stanza as the generator needs it.
pub(crate) enum Stanza {
    Message {
        from: String,
        body: String,
    },
    /// A question that must be answered for the other side to be content.
    Question {
        from: Option<String>,
        to: Option<String>,
        id: String,
    },
    Other,
}

pub(crate) async fn login(
    connector: &TlsConnector,
    port: u16,
    domain: &str,
    credentials: &Credentials,
    resource: &str,
) -> Result<(Reader, Writer), String> {
    let deadline = Duration::from_secs(60);
    tokio::time::timeout(deadline, negotiate(connector, port, domain, credentials, resource))
        .await
        .map_err(|_| "login took over 60 s".to_owned())?
}

async fn negotiate(
    connector: &TlsConnector,
    port: u16,
    domain: &str,
    credentials: &Credentials,
    resource: &str,
) -> Result<(Reader, Writer), String> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let name = ServerName::try_from(domain.to_owned()).map_err(|e| e.to_string())?;
    let tls = connector.connect(name, tcp).await.map_err(|e| e.to_string())?;
    let (read, write) = split(tls);
    let (mut reader, mut writer) = (Reader { io: read, buffer: Vec::new() }, Writer { io: write });
    let header = format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>"
    );
    writer.write(&header).await?;
    reader.until("</stream:features>").await?;
    let auth = match credentials {
        Credentials::Anonymous => "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>".to_owned(),
        Credentials::Plain { user, password } => {
            let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
            format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>")
        }
    };
    writer.write(&auth).await?;
    reader.until("<success").await?;
    writer.write(&header).await?;
    reader.until("</stream:features>").await?;
    writer
        .write(&format!("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"))
        .await?;
    reader.until("</iq>").await?;
    writer.write("<presence/>").await?;
    Ok((reader, writer))
}

impl Writer {
    pub(crate) async fn write(&mut self, text: &str) -> Result<(), String> {
        self.io.write_all(text.as_bytes()).await.map_err(|e| e.to_string())?;
        self.io.flush().await.map_err(|e| e.to_string())
    }
}

impl Reader {
    async fn fill(&mut self) -> Result<(), String> {
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) => Err(format!("closed: {}", String::from_utf8_lossy(&self.buffer))),
            Ok(_) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn until(&mut self, mark: &str) -> Result<(), String> {
        loop {
            if let Some(at) = find(&self.buffer, mark.as_bytes()) {
                self.buffer.drain(..at + mark.len());
                return Ok(());
            }
            if find(&self.buffer, b"<failure").is_some() || find(&self.buffer, b"<stream:error").is_some() {
                return Err(String::from_utf8_lossy(&self.buffer).into_owned());
            }
            self.fill().await?;
        }
    }

    /// The next whole stanza.
    pub(crate) async fn next(&mut self) -> Result<Stanza, String> {
        loop {
            if let Some(stanza) = self.take() {
                return Ok(stanza);
            }
            self.fill().await?;
        }
    }

    fn take(&mut self) -> Option<Stanza> {
        let start = self.buffer.iter().position(|byte| *byte == b'<')?;
        let rest = &self.buffer[start..];
        let end_of_tag = rest.iter().position(|byte| *byte == b'>')?;
        let name_end = rest.iter().position(|byte| matches!(byte, b' ' | b'>' | b'/'))?;
        let name = std::str::from_utf8(&rest[1..name_end.max(1)]).unwrap_or("").to_owned();
        let length = if rest[end_of_tag - 1] == b'/' || name.is_empty() {
            end_of_tag + 1
        } else {
            let close = format!("</{name}>");
            find(rest, close.as_bytes())? + close.len()
        };
        let text = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.buffer.drain(..start + length);
        Some(read(&name, &text))
    }
}

fn read(name: &str, text: &str) -> Stanza {
    match name {
        "message" => match (attribute(text, "from"), between(text, "<body>", "</body>")) {
            (Some(from), Some(body)) => Stanza::Message { from, body },
            _ => Stanza::Other,
        },
        "iq" if text.contains("type='get'") || text.contains("type=\"get\"") => match attribute(text, "id") {
            Some(id) => Stanza::Question { from: attribute(text, "from"), to: attribute(text, "to"), id },
            None => Stanza::Other,
        },
        _ => Stanza::Other,
    }
}

/// An attribute of the outermost tag.
fn attribute(text: &str, name: &str) -> Option<String> {
    let tag = &text[..text.find('>')?];
    ["'", "\""].iter().find_map(|quote| between(tag, &format!(" {name}={quote}"), quote))
}

fn between(text: &str, open: &str, close: &str) -> Option<String> {
    let start = text.find(open)? + open.len();
    let end = text[start..].find(close)? + start;
    Some(text[start..end].to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A TLS client that trusts the certificates in `ca_pem`.
pub(crate) fn tls(ca_pem: &str) -> TlsConnector {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}
