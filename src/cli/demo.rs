//! `outgate demo`: a relay and a connector in one process, joined by a real tunnel over loopback.
//!
//! It makes its certificates, keys, accounts and configuration files in a temporary folder and starts both roles from them, as
//! an admin would. Then it holds a conversation with itself and tells how to join.

mod conversation;
mod guide;
mod hops;
mod person;
mod site;

use std::net::SocketAddr;
use std::time::Duration;

use crate::connector::Connector;
use crate::relay::Relay;

use self::hops::Show;
use self::site::Site;
use super::{Failure, output, runtime};

/// The conversation, start and end included, takes far less.
const CONVERSATION_WITHIN: Duration = Duration::from_secs(8);

/// Arguments of `outgate demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  outgate demo                     show a conversation, then wait for you to join\n  \
    outgate demo --once              end after the conversation; exit code 0 if every message arrived\n  \
    outgate demo --json --agents 2   one line of JSON for a script, then serve until Ctrl-C")]
pub struct Args {
    /// End after the conversation; exit code 0 only if every message arrived.
    #[arg(long)]
    pub once: bool,
    /// Print one line of JSON on stdout, all else on stderr.
    #[arg(long)]
    pub json: bool,
    /// Links to make.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub links: u32,
    /// Agents' accounts to make.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub agents: u32,
    /// Sessions that an agent serves at once.
    #[arg(long, value_name = "K", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub capacity: u32,
    /// Give agents their sessions without asking them.
    #[arg(long)]
    pub auto_accept: bool,
    /// Hold customers to the limits of a relay as shipped, those from this host too.
    #[arg(long)]
    pub limits: bool,
    /// Where customers connect; agents get a port of their own beside it. Port 0 is chosen freely.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
}

/// Runs the demo.
///
/// # Errors
/// It could not start, or a message did not arrive.
pub fn run(args: Args) -> Result<(), Failure> {
    let show = if args.json { Show::Stderr } else { Show::Stdout };
    let hops = hops::install(show, if args.once { hops::After::Silence } else { hops::After::Sessions });
    runtime::block_on(runtime::Cores::BesideStore, async {
        show.line("outgate demo: a relay and a connector, joined by a QUIC tunnel over loopback");
        let site = Site::make(&args)?;
        let (relay, mut connector) = site.start().await?;
        let addresses = site.addresses(&relay, &connector)?;
        if args.json {
            output::line(guide::json(&site, &addresses))?;
        }
        let told = tokio::time::timeout(CONVERSATION_WITHIN, conversation::hold(&site, &addresses, &hops, show)).await;
        let told = told.unwrap_or_else(|_| Err(format!("the conversation took over {} s", CONVERSATION_WITHIN.as_secs())));
        let outcome = match told {
            Ok(()) if args.once => {
                hops.end();
                Ok(())
            }
            Ok(()) => {
                hops.end();
                guide::show(&site, &addresses, show);
                stay(&mut connector).await
            }
            Err(why) => Err(Failure::runtime(format!("the conversation failed: {why}"))),
        };
        stop(relay, connector).await;
        outcome
    })
}

async fn stay(connector: &mut Connector) -> Result<(), Failure> {
    tokio::select! {
        signal = runtime::stop_signal() => signal,
        () = connector.failed() => Err(Failure::runtime("a part of the connector failed")),
    }
}

async fn stop(relay: Relay, connector: Connector) {
    relay.stop().await;
    connector.shutdown().await;
}
