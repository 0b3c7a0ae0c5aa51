//! A customer on the Internet, a relay in the DMZ and a connector on the LAN, with a firewall between that lets nothing in.
//!
//! [`network`] builds the three networks and cuts them; [`walls`] proves with plain sockets that they are what they claim
//! to be; [`site`] sets up a relay and a connector from the shipped configuration
//! as an admin would, [`outgate`] holds conversations between them through the cuts, and [`unprivileged`] lets one be held without root.

mod network;
mod outgate;
mod site;
mod unprivileged;
mod walls;
