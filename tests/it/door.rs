//! The door over real sockets: what is decided of whoever knocks.

mod allow;
mod limits;
mod links;
mod minting;
mod proxy;
mod software;
