//! Sockets that were opened before the process started (`LISTEN_FDS`), taken by name.
//!
//! The names are `client`, `client-quic`, `tunnel`, `tunnel-quic`, `admin` and `agents`, given in `LISTEN_FDNAMES`. The order of
//! the descriptors means nothing: systemd does not keep that of `Sockets=`. A name may occur several times, for several addresses.
//!
//! Without `LISTEN_FDNAMES` the sockets are told apart by their kind alone. That is unambiguous for one process in one role: one
//! TCP listener (`client` or `agents`, whichever is asked for), one UDP socket (`tunnel-quic`, or `client-quic`), one Unix
//! listener (`admin`); with more than one of a kind the names must be given.

use std::env;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

/// Whether a socket was opened here or handed to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Opened by this process.
    Bound,
    /// Handed over; opening another may be forbidden.
    Inherited,
}

/// The names that sockets can have.
const NAMES: [&str; 6] = ["client", "client-quic", "tunnel", "tunnel-quic", "admin", "agents"];

/// Why the inherited sockets cannot be used. All of it is the starter's doing.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// `LISTEN_FDNAMES` names another number of sockets than there are.
    #[error("LISTEN_FDNAMES names {names} sockets, LISTEN_FDS hands over {sockets}")]
    Count {
        /// Names given.
        names: usize,
        /// Sockets given.
        sockets: usize,
    },
    /// A name that means nothing here.
    #[error("LISTEN_FDNAMES holds {name:?}; known are client, client-quic, tunnel, tunnel-quic, admin and agents")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// The socket is of another kind than its name asks for.
    #[error("the inherited socket {name:?} is no {wanted}")]
    Kind {
        /// The name.
        name: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Without names, several sockets could be meant.
    #[error("several sockets could be {name:?}: name them in LISTEN_FDNAMES")]
    Ambiguous {
        /// The name asked for.
        name: &'static str,
    },
}

/// The sockets handed over that nobody has taken yet.
pub struct Inherited {
    sockets: ListenFd,
    names: Option<Vec<String>>,
}

impl std::fmt::Debug for Inherited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inherited").field("sockets", &self.sockets.len()).field("names", &self.names).finish()
    }
}

impl Inherited {
    /// Takes what the environment hands over; nothing where it hands over nothing.
    pub fn from_env() -> Result<Self, InheritError> {
        Self::named(ListenFd::from_env(), env::var("LISTEN_FDNAMES").ok().as_deref())
    }

    /// Nothing, whatever the environment says.
    pub fn none() -> Self {
        Self { sockets: ListenFd::empty(), names: None }
    }

    fn named(sockets: ListenFd, names: Option<&str>) -> Result<Self, InheritError> {
        if sockets.len() == 0 {
            return Ok(Self { sockets, names: None });
        }
        let names = names.map(|names| names.split(':').map(str::to_owned).collect::<Vec<_>>());
        if let Some(names) = &names {
            if names.len() != sockets.len() {
                return Err(InheritError::Count { names: names.len(), sockets: sockets.len() });
            }
            if let Some(name) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
                return Err(InheritError::UnknownName { name: name.clone() });
            }
        }
        Ok(Self { sockets, names })
    }

    /// Whether anything was handed over.
    pub fn is_empty(&self) -> bool {
        self.sockets.len() == 0
    }

    /// Takes the TCP listeners called `name`.
    pub fn tcp(&mut self, name: &'static str) -> Result<Vec<TcpListener>, InheritError> {
        self.take(name, "listening TCP socket", ListenFd::take_tcp_listener)
    }

    /// Takes the UDP sockets called `name`.
    pub fn udp(&mut self, name: &'static str) -> Result<Vec<UdpSocket>, InheritError> {
        self.take(name, "UDP socket", ListenFd::take_udp_socket)
    }

    /// Takes the Unix listeners called `name`.
    pub fn unix(&mut self, name: &'static str) -> Result<Vec<UnixListener>, InheritError> {
        self.take(name, "listening Unix socket", ListenFd::take_unix_listener)
    }

    fn take<T>(&mut self, name: &'static str, wanted: &'static str, take: Take<T>) -> Result<Vec<T>, InheritError> {
        let Some(names) = &self.names else { return self.take_only(name, take) };
        let mut taken = Vec::new();
        for (index, _) in names.iter().enumerate().filter(|(_, other)| *other == name) {
            let socket = take(&mut self.sockets, index).map_err(|cause| InheritError::Kind { name, wanted, cause })?;
            taken.extend(socket);
        }
        Ok(taken)
    }

    /// Takes the one socket of its kind.
    fn take_only<T>(&mut self, name: &'static str, take: Take<T>) -> Result<Vec<T>, InheritError> {
        let mut taken = Vec::new();
        for index in 0..self.sockets.len() {
            // An error here says that the socket is of another kind; it stays.
            if let Ok(Some(socket)) = take(&mut self.sockets, index) {
                taken.push(socket);
            }
        }
        if taken.len() > 1 { Err(InheritError::Ambiguous { name }) } else { Ok(taken) }
    }
}

/// How a socket of some kind is taken, by its index.
type Take<T> = fn(&mut ListenFd, usize) -> io::Result<Option<T>>;
