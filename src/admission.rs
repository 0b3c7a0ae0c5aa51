//! Admission: what the door decides before it knows who somebody is.

pub mod allow_list;
pub mod guesses;
