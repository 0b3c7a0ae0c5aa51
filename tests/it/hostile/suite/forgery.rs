//! Strangers who lend themselves another address by the PROXY protocol.

use std::net::{IpAddr, Ipv4Addr};

use outgate::net::proxy_protocol::SIGNATURE;

use super::super::site::{Plan, Site};
use super::{HEADER, Trial};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const SECTIONS: &str = "[access.client]\ntrusted_proxies = [\"127.0.0.2\"]\ndeny = [\"192.0.2.0/24\"]\n";

const GOOD: &[u8] = b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 5222\r\n";
const DENIED: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 5222\r\n";

/// A stranger's header is believed by nobody; a proxy's must be one, and is believed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_forgery() {
    const ROUNDS: usize = 30;
    let forgeries = forgeries();
    let strangers = forgeries.len() * ROUNDS;
    let trial = Trial::begin_at("PROXY forgery", Plan { sections: SECTIONS, ..Plan::default() }).await;
    let expected: Vec<&str> = forgeries.iter().map(|(_, _, reason)| *reason).collect();
    trial
        .strangers(strangers, move |site, number| {
            let (source, bytes, _) = forgeries[number % forgeries.len()].clone();
            async move {
                let mut stranger = site.customer_from(source).await;
                stranger.send(&[&bytes, HEADER.as_bytes()].concat()).await;
                stranger.half_close().await;
                let heard = stranger.end().await;
                assert!(!heard.contains("<stream:features"), "{bytes:?} was believed");
            }
        })
        .await;
    for reason in ["proxy-not-trusted", "address-denied", "proxy-header"] {
        let times = ROUNDS * expected.iter().filter(|expected| **expected == reason).count();
        trial.until_counted(reason, times).await;
        assert_eq!(trial.counted(reason), times as u64, "{reason}");
    }
    served_behind_the_proxy(&trial.site).await;
    trial.end(strangers).await;
}

async fn served_behind_the_proxy(site: &Site) {
    let mut customer = site.customer_from(PROXY).await;
    customer.send(GOOD).await;
    let mut customer = customer.direct_tls().await;
    customer.log_in(&site.good_link()).await;
    customer.say("<message to='support@chat.example.com' type='chat'><body>newcomer 0</body></message>").await;
    customer.until("welcome 0").await;
}

/// Who sends what, and what is counted.
fn forgeries() -> Vec<(IpAddr, Vec<u8>, &'static str)> {
    let version_2 = |command: u8, family: u8, length: u16, addresses: &[u8]| {
        [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), addresses].concat()
    };
    let v4 = [198, 51, 100, 7, 127, 0, 0, 1, 0x12, 0x67, 0x14, 0x66];
    vec![
        (STRANGER, GOOD.to_vec(), "proxy-not-trusted"),
        (STRANGER, b"PROXY TCP4 127.0.0.2 127.0.0.1 4711 5222\r\n".to_vec(), "proxy-not-trusted"),
        (STRANGER, b"PROXY UNKNOWN\r\n".to_vec(), "proxy-not-trusted"),
        (STRANGER, version_2(0x21, 0x11, 12, &v4), "proxy-not-trusted"),
        (STRANGER, version_2(0x20, 0, 0, &[]), "proxy-not-trusted"),
        (PROXY, [GOOD, GOOD].concat(), "proxy-not-trusted"),
        (PROXY, [GOOD, &version_2(0x21, 0x11, 12, &v4)].concat(), "proxy-not-trusted"),
        (PROXY, DENIED.to_vec(), "address-denied"),
        (PROXY, b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 5222\r\n".to_vec(), "address-denied"),
        (PROXY, Vec::new(), "proxy-header"),
        (PROXY, b"PROXY TCP4 198.51.100.300 127.0.0.1 4711 5222\r\n".to_vec(), "proxy-header"),
        (PROXY, [b"PROXY TCP4 ", &[b'1'; 4000][..]].concat(), "proxy-header"),
        (PROXY, version_2(0x21, 0x11, 65535, &v4), "proxy-header"),
        (PROXY, version_2(0x21, 0x12, 12, &v4), "proxy-header"),
        (PROXY, version_2(0x31, 0x11, 12, &v4), "proxy-header"),
        (PROXY, version_2(0x21, 0x11, 4, &v4[..4]), "proxy-header"),
    ]
}
