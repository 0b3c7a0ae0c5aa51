//! The door over real sockets: what is decided of whoever knocks.

mod allow;
mod links;
mod minting;
mod proxy;
mod software;
