//! What HELLO tells of the other side's clock.

use std::time::Duration;

/// How far the clocks of both sides may differ before it is said: as far as links are judged with leeway.
pub const CLOCKS_APART: Duration = Duration::from_secs(30);

/// By how many seconds their clock is ahead of ours (negative: behind), where that is more than [`CLOCKS_APART`]. Both in milliseconds since
/// 1970; 0 tells nothing. The way of the frame counts as time.
pub fn clock_ahead(theirs: u64, ours: u64) -> Option<i64> {
    if theirs == 0 || ours == 0 || theirs.abs_diff(ours) <= u64::try_from(CLOCKS_APART.as_millis()).unwrap_or(u64::MAX) {
        return None;
    }
    let seconds = i64::try_from(theirs.abs_diff(ours) / 1000).unwrap_or(i64::MAX);
    Some(if theirs > ours { seconds } else { -seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_leeway_is_told_with_its_sign() {
        let now = 1_700_000_000_000;
        assert_eq!(clock_ahead(now + 30_000, now), None);
        assert_eq!(clock_ahead(now + 31_000, now), Some(31));
        assert_eq!(clock_ahead(now - 3_600_000, now), Some(-3600));
        assert_eq!((clock_ahead(0, now), clock_ahead(now, 0)), (None, None));
        assert_eq!(clock_ahead(u64::MAX, 1), Some(i64::try_from((u64::MAX - 1) / 1000).unwrap()));
    }
}
