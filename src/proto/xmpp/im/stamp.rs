//! A moment as XEP-0082 writes it: RFC 3339, in UTC.

/// The last moment that four digits of a year can tell: 9999-12-31T23:59:59.999Z.
const LAST: u64 = 253_402_300_799_999;

/// Milliseconds since the Unix epoch as "2026-11-22T18:10:26Z", with ".123" where the moment is between two seconds.
pub(super) fn stamp(unix_millis: u64) -> String {
    let unix_millis = unix_millis.min(LAST);
    let (seconds, millis) = (unix_millis / 1000, unix_millis % 1000);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = if millis == 0 { String::new() } else { format!(".{millis:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Days since 1970-01-01 as year, month and day of the Gregorian calendar. Years are counted from March, so that a leap day
/// ends its year, in eras of 400 years, which are all alike.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0000 = days + 719_468;
    let (era, day_of_era) = (since_march_0000 / 146_097, since_march_0000 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, carried) = if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    (era * 400 + year_of_era + carried, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_as_the_standard_says() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(stamp(1_031_699_305_000), "2002-09-10T23:08:25Z");
        assert_eq!(stamp(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(stamp(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(stamp(4_107_542_400_000), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_moment_beyond_four_digits_of_year_stays_within_them() {
        assert_eq!(stamp(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_day_follows_the_day_before_it() {
        let mut expected = (1970, 1, 1);
        for days in 0..150_000 {
            assert_eq!(civil(days), expected);
            expected = day_after(expected);
        }
    }

    fn day_after((year, month, day): (u64, u64, u64)) -> (u64, u64, u64) {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        match (month, day) {
            (12, 31) => (year + 1, 1, 1),
            (_, last) if last == length => (year, month + 1, 1),
            _ => (year, month, day + 1),
        }
    }
}
