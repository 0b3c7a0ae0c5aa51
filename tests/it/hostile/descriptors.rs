//! Fault 37: a relay that runs out of descriptors keeps what it has, and takes newcomers again once it can.

use std::time::Duration;

use outgate::proto::xmpp::client::Credentials;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use super::site::Site;
use super::talker::Talker;
use crate::fault_table::proven;
use crate::setup::{AGENTS, CUSTOMERS, PASSWORD};

const QUEUE: &str = "support@chat.example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_37_a_relay_without_descriptors_keeps_its_tunnel_and_its_conversations() {
    let site = Site::start();
    let ca_pem = site.ca_pem();
    let alice = Credentials::Scram { user: "alice".to_owned(), password: PASSWORD.to_owned() };
    let mut agent = Talker::arrive(site.agents, AGENTS, &ca_pem, alice).await;
    let link = Credentials::Plain { user: "me".to_owned(), password: site.good_link() };
    let mut customer = Talker::arrive(site.door, CUSTOMERS, &ca_pem, link.clone()).await;
    customer.say(QUEUE, "hello").await;
    let proxy = heard(&mut agent, "hello").await;
    let epoch = site.status()["tunnels"][0]["epoch"].clone();

    let pid = Pid::from_raw(site.relay_pid().try_into().unwrap());
    let open = std::fs::read_dir(format!("/proc/{}/fd", site.relay_pid())).unwrap().count() as u64;
    // Room for `outgate status` and a few strangers.
    let few = Rlimit { current: Some(open + 8), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(pid, Resource::Nofile, few).unwrap();
    let mut strangers = Vec::new();
    for number in 0..60 {
        let door = if number % 2 == 0 { site.door } else { site.tunnel };
        strangers.push(timeout(PATIENCE, TcpStream::connect(door)).await.unwrap().unwrap());
    }
    // Time enough for both accept loops to have met the end of the table, again and again.
    let used = cpu(site.relay_pid());
    let began = Instant::now();
    for number in 0..10 {
        customer.say(QUEUE, &format!("customer {number}")).await;
        heard(&mut agent, &format!("customer {number}")).await;
        agent.say(&proxy, &format!("agent {number}")).await;
        heard(&mut customer, &format!("agent {number}")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let busy = cpu(site.relay_pid()) - used;
    assert!(busy < began.elapsed() / 2, "{busy:?} of {:?} were spent on accepting in vain", began.elapsed());

    drop(strangers);
    prlimit(pid, Resource::Nofile, before).unwrap();
    let second = timeout(PATIENCE, Talker::arrive(site.door, CUSTOMERS, &ca_pem, link)).await.unwrap();
    assert_eq!(site.status()["tunnels"][0]["epoch"], epoch, "the tunnel lived on");
    drop(second);
    proven(37, "a relay without descriptors: tunnel and talk live, newcomers come in afterwards");
}

/// Waits for these words; gives who said them.
async fn heard(talker: &mut Talker, words: &str) -> String {
    let hearing = async {
        loop {
            let heard = talker.hear().await;
            if heard.body == words {
                return heard.from;
            }
        }
    };
    timeout(PATIENCE, hearing).await.unwrap_or_else(|_| panic!("nobody said {words:?}"))
}

/// Processor time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
