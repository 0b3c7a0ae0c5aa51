//! Ten thousand hostile connections from a thousand networks beside customers who log in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;

const HOSTILE: usize = 10_000;

/// Sockets that the hostile side holds at once; the relay, in this process, holds less than as many.
const AT_ONCE: usize = 4_000;

/// Half of them IPv4 /24, half IPv6 /48.
const NETWORKS: usize = 1_000;

/// Customers who log in meanwhile, at the least.
const CUSTOMERS: usize = 40;

/// The relay's places before login, as shipped.
const PLACES: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_strangers_from_a_thousand_networks_keep_no_customer_out() {
    let (company, relay, _connector) = company("[access.client]\ntrusted_proxies = [\"127.0.0.2\"]\n").await;
    let (company, door) = (Arc::new(company), relay.client_addresses()[0]);
    let knocked = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let flood = {
        let (knocked, is_over) = (Arc::clone(&knocked), Arc::clone(&is_over));
        async move {
            let places = Arc::new(Semaphore::new(AT_ONCE));
            let mut strangers = JoinSet::new();
            for number in 0..HOSTILE {
                let place = Arc::clone(&places).acquire_owned().await.unwrap();
                let knocked = Arc::clone(&knocked);
                strangers.spawn(async move {
                    stranger(door, number, &knocked).await;
                    drop(place);
                });
                while strangers.try_join_next().is_some() {}
            }
            is_over.store(true, Ordering::Relaxed);
            strangers
        }
    };
    let customers = async {
        let (mut tried, mut slowest, mut most, mut failed) = (0, Duration::ZERO, 0, Vec::new());
        while tried < CUSTOMERS || !is_over.load(Ordering::Relaxed) {
            tried += 1;
            let knocking = Instant::now();
            let (company, host) = (Arc::clone(&company), u8::try_from(tried % 250).unwrap());
            // A task of its own: what panics in it is a customer who did not get in.
            let arriving = JoinSet::from_iter([async move {
                let mut customer = company.customer_at([127, 200, host, 1], door).await;
                customer.log_in(&company.link("support")).await;
                customer.until("This is lan1.").await;
                customer.say("</stream:stream>").await;
            }])
            .join_next()
            .await;
            slowest = slowest.max(knocking.elapsed());
            failed.extend(arriving.unwrap().err().map(|fault| fault.to_string()));
            most = most.max(relay.status().await.counts.before_login);
        }
        (tried, slowest, most, failed)
    };
    let (strangers, (tried, slowest, most, failed)) = timeout(PATIENCE * 3, async { tokio::join!(flood, customers) }).await.unwrap();
    drop(strangers);
    let status = relay.status().await;
    let reasons = &status.counts.reasons;
    eprintln!(
        "{HOSTILE} hostile connections from {NETWORKS} networks in {:?} ({} connected), at most {most} at once before login: \
         {} of {tried} logins of customers succeeded at the first try, the slowest in {slowest:?}; {reasons:?}",
        began.elapsed(),
        knocked.load(Ordering::Relaxed),
        tried - failed.len()
    );
    assert_eq!(failed, Vec::<String>::new(), "every customer gets in");
    // A few were told to go and have not gone yet.
    assert!(most <= PLACES + 200, "{most}");
    assert!(reasons.get("gave-way").is_some_and(|count| *count > 1000), "the flood was one: {reasons:?}");
}

/// Connects and is wrong in its own way until the relay has had enough.
async fn stranger(door: std::net::SocketAddr, number: usize, knocked: &AtomicUsize) {
    let network = number % NETWORKS;
    let [high, low] = u16::try_from(network).unwrap().to_be_bytes();
    let host = u8::try_from(number / NETWORKS % 200).unwrap() + 1;
    let is_v6 = network % 2 == 1;
    let socket = TcpSocket::new_v4().unwrap();
    let source = if is_v6 { [127, 0, 0, 2] } else { [127, 100 + high, low, host] };
    if socket.bind((source, 0).into()).is_err() {
        return;
    }
    let Ok(Ok(mut socket)) = timeout(PATIENCE, socket.connect(door)).await else { return };
    knocked.fetch_add(1, Ordering::Relaxed);
    if is_v6 {
        let mut addresses = [0_u8; 36];
        addresses[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        (addresses[4], addresses[5], addresses[15]) = (high, low, host);
        let header = [&SIGNATURE[..], &[0x21, 0x21, 0, 36], &addresses].concat();
        drop(socket.write_all(&header).await);
    }
    let words: &[u8] = match number % 5 {
        0 => b"",
        1 => b"\x16\x03\x01",
        2 => b"<?xml version='1.0'?><stream:stream to='localhost' ",
        3 => {
            b"<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
               xmlns:stream='http://etherx.jabber.org/streams'>"
        }
        _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    };
    drop(socket.write_all(words).await);
    let mut heard = Vec::new();
    drop(timeout(PATIENCE, socket.read_to_end(&mut heard)).await);
}
