//! The PROXY protocol: believed from trusted proxies, refused from anybody else, through a real HAProxy.

use std::process::Command;
use std::time::Duration;

use outgate::net::proxy_protocol::SIGNATURE;
use outgate::relay::Relay;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::carriers::proxies::Real;
use crate::interop::Needs;
use crate::trust::company::{Company, all_pushed};

const GRANTS: [(&str, &[&str]); 1] = [("lan1", &["hello"])];

/// The proxy of the tests, and the only address that customers may have: neither is the other.
const PROXY: [u8; 4] = [127, 0, 0, 2];
const SECTIONS: &str = "[access.client]\nallow = [\"127.0.0.3\", \"192.0.2.0/24\"]\ntrusted_proxies = [\"127.0.0.2\"]\n";

async fn connect(source: [u8; 4], relay: &Relay) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(relay.client_addresses()[0]).await.unwrap()
}

/// Sends `bytes` and hears what comes until the relay closes.
async fn hear(mut socket: TcpStream, bytes: &[u8]) -> Vec<u8> {
    // The other side may have closed already.
    drop(socket.write_all(bytes).await);
    let mut heard = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(15), socket.read_to_end(&mut heard)).await;
    drop(closed.unwrap_or_else(|_| panic!("the relay keeps whoever sends {bytes:?}")));
    heard
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed_and_it_must_tell() {
    let company = Company::new();
    let relay = company.relay_with("dmz1", &GRANTS, SECTIONS);
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 5222\r\n";
    let second = [&SIGNATURE[..], &[0x21, 0x11, 0, 12, 192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x67, 0x14, 0x66]].concat();
    let stream = b"<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                   xmlns:stream='http://etherx.jabber.org/streams'></stream:stream>";

    for header in [&header[..], &second] {
        let heard = hear(connect(PROXY, &relay).await, &[header, stream].concat()).await;
        assert!(String::from_utf8_lossy(&heard).contains("<starttls"), "behind a header the stream begins: {heard:?}");
        assert_eq!(hear(connect([127, 0, 0, 3], &relay).await, &[header, stream].concat()).await, b"", "lent by a stranger");
    }
    for header in [&b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 5222\r\n"[..], b"PROXY UNKNOWN\r\n"] {
        assert_eq!(hear(connect(PROXY, &relay).await, &[header, stream].concat()).await, b"", "not allowed to connect");
    }
    for missing in [&stream[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00", b"PROXY TCP4", b""] {
        assert_eq!(hear(connect(PROXY, &relay).await, missing).await, b"", "a proxy that does not tell");
    }
    let status = company.until("dmz1", "all refusals", |status| status["connections"] == 0).await;
    let reasons = ["proxy-not-trusted", "address-denied", "proxy-header"].map(|reason| status["reasons"][reason].as_u64().unwrap_or(0));
    assert_eq!(reasons, [2, 2, 4], "{status}");
}

#[tokio::test]
async fn a_customer_behind_a_real_haproxy_has_his_own_address() {
    if !Needs::default().program("haproxy").met("HAProxy before the relay") {
        return;
    }
    let company = Company::new();
    let relay = company.relay_with("dmz1", &GRANTS, SECTIONS);
    let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["hello"]).await;
    company.until("lan1", "the tunnel", all_pushed).await;
    for send in ["send-proxy", "send-proxy-v2"] {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = company.path("haproxy.cfg");
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             listen chat\n bind {address}\n source 127.0.0.2\n server relay {} {send}\n",
            relay.client_addresses()[0]
        );
        company.write("haproxy.cfg", &text);
        let _proxy = Real::start(Command::new("haproxy").arg("-db").arg("-f").arg(&config), address.port()).await;
        let mut customer = company.customer_at([127, 0, 0, 3], address).await;
        customer.log_in_anonymously().await;
        customer.until("This is lan1.").await;
        assert_eq!(relay.status().await.counts.sessions, 1);
        customer.say("</stream:stream>").await;
        company.until("dmz1", "the end", |status| status["sessions"] == 0).await;
    }
}
