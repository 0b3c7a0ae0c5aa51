//! Admission: what the door decides before it knows who somebody is, and what one may cost who is in.

pub mod allow_list;
pub mod failures;
pub mod guesses;
pub mod headcount;
pub mod quota;
pub mod source;
pub mod waiting;
