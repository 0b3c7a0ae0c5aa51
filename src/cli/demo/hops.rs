//! Shows a message's way, hop by hop, and later the sessions that come and go: both are what the roles themselves log.

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::telemetry::HOP;

/// How long people wait before they speak: what was said before has long arrived everywhere.
const BREATH: Duration = Duration::from_millis(60);

/// Where the demo's text goes: stdout, or stderr where stdout is for a script.
#[derive(Clone, Copy, Debug)]
pub(super) enum Show {
    Stdout,
    Stderr,
}

impl Show {
    /// Writes one line. A reader that went away is no fault.
    pub(super) fn line(self, text: impl AsRef<str>) {
        let text = text.as_ref();
        match self {
            Self::Stdout => drop(writeln!(std::io::stdout().lock(), "{text}")),
            Self::Stderr => drop(writeln!(std::io::stderr().lock(), "{text}")),
        }
    }
}

/// What is shown once the conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Silence,
    Sessions,
}

/// The clock and switch of what is shown.
#[derive(Clone, Debug)]
pub(super) struct Hops {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    began: Mutex<Instant>,
    talking: AtomicBool,
    show: Show,
    after: After,
}

/// Makes the process's log one that shows hops.
pub(super) fn install(show: Show, after: After) -> Hops {
    let hops = Hops { inner: Arc::new(Inner { began: Mutex::new(now()), talking: AtomicBool::new(true), show, after }) };
    // A second installation in one process keeps the first, which shows the same.
    let _already = tracing_subscriber::registry().with(hops.clone()).try_init();
    hops
}

impl Hops {
    /// Someone says something: times count from here.
    pub(super) async fn say(&self, who: &str, text: &str) {
        self.act(&format!("{who}: {text}")).await;
    }

    /// Someone does something: times count from here, once the hops of what was before are shown.
    pub(super) async fn act(&self, what: &str) {
        tokio::time::sleep(BREATH).await;
        *self.inner.began.lock().unwrap_or_else(PoisonError::into_inner) = now();
        self.inner.show.line(format!("\n{what}"));
    }

    /// A hop that no role logs: what a client shows.
    pub(super) fn hop(&self, text: &str) {
        let since = self.inner.began.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        self.inner.show.line(format!("  {:>7.2} ms  {text}", since.as_secs_f64() * 1000.0));
    }

    /// The conversation is over.
    pub(super) fn end(&self) {
        self.inner.talking.store(false, Ordering::Relaxed);
        // Hops are asked for no more, so that they cost nothing.
        tracing::callsite::rebuild_interest_cache();
    }
}

impl<S: Subscriber> Layer<S> for Hops {
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        let wants_hop = metadata.target() == HOP && self.inner.talking.load(Ordering::Relaxed);
        wants_hop || (metadata.target().starts_with("outgate") && *metadata.level() <= Level::INFO)
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let talking = self.inner.talking.load(Ordering::Relaxed);
        let is_hop = event.metadata().target() == HOP;
        let is_shown =
            if talking { is_hop || *event.metadata().level() <= Level::WARN } else { !is_hop && self.inner.after == After::Sessions };
        if !is_shown {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        if is_hop { self.hop(&text.message) } else { self.inner.show.line(format!("{}{}", text.message, text.fields)) }
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written =
            if field.name() == "message" { write!(self.message, "{value:?}") } else { write!(self.fields, "  {}={value:?}", field.name()) };
        written.expect("writing to a String does not fail");
    }
}

#[expect(clippy::disallowed_methods, reason = "the demo shows times")]
fn now() -> Instant {
    Instant::now()
}
