//! The desk against a small store that commits when told, a relay and agents' clients made of words.

mod admission;
mod crash;
mod door;
mod hold;
mod hostile;
mod links;
mod returning;
mod rig;
mod routing;
mod talk;
