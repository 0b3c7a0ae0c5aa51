//! One address, behind which connections lead to whichever place is told; those that stand can be broken.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of the connections that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Cut,
    /// The client's side is cut, the server's stands.
    Freeze,
}

/// Leads to one place at a time.
#[derive(Debug)]
pub(super) struct Switch {
    address: SocketAddr,
    place: Arc<Mutex<SocketAddr>>,
    words: watch::Sender<Option<Word>>,
    _task: JoinSet<()>,
}

impl Switch {
    pub(super) async fn start(place: SocketAddr) -> Self {
        let listener = TcpListener::bind((place.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let place = Arc::new(Mutex::new(place));
        let (words, heard) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, Arc::clone(&place), heard));
        Self { address, place, words, _task: task }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections lead here from now on.
    pub(super) fn to(&self, place: SocketAddr) {
        *self.place.lock().unwrap() = place;
    }

    /// Breaks all that stand.
    pub(super) fn cut(&self) {
        self.words.send_replace(Some(Word::Cut));
    }

    /// Breaks them for the client alone.
    pub(super) fn freeze(&self) {
        self.words.send_replace(Some(Word::Freeze));
    }
}

async fn accept(listener: TcpListener, place: Arc<Mutex<SocketAddr>>, heard: watch::Receiver<Option<Word>>) {
    let mut pipes = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let to = *place.lock().unwrap();
        let mut heard = heard.clone();
        heard.mark_unchanged();
        pipes.spawn(carry(client, to, heard));
        while pipes.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr, mut heard: watch::Receiver<Option<Word>>) {
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    tokio::select! {
        _ended = copy_bidirectional(&mut client, &mut server) => return,
        _word = heard.changed() => {}
    }
    drop(client);
    if *heard.borrow() == Some(Word::Freeze) {
        // Held, and not read, until the test is over or the server ends it.
        std::future::pending::<()>().await;
    }
}
