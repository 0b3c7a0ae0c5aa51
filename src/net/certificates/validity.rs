//! From when to when a certificate holds, and when it should be renewed.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Life left below which the log warns.
pub const WARN_BELOW: Duration = Duration::from_secs(7 * 86_400);

/// Jitter of a renewal, as a part of the certificate's life: a day of thirty.
const JITTER_PART: u64 = 30;

/// The time of a certificate, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub begin: u64,
    /// Its last second.
    pub end: u64,
    /// From 0 to 255, the certificate's own: certificates made together are not renewed together.
    share: u8,
}

impl Validity {
    /// Reads it.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let validity = parsed.validity();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        let share = digest.as_ref().first().copied().unwrap_or(0);
        Some(Self { begin: seconds(validity.not_before), end: seconds(validity.not_after), share })
    }

    /// When to renew: after two thirds of its life and a jitter.
    pub fn renew_at(&self) -> u64 {
        let life = self.end.saturating_sub(self.begin);
        self.begin + life / 3 * 2 + life / JITTER_PART * u64::from(self.share) / 255
    }

    /// Whole days until its end; negative where it has passed.
    pub fn days_left(&self, now: u64) -> i64 {
        (i64::try_from(self.end).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(86_400)
    }

    /// How long to wait after a renewal that failed: the less is left, the shorter.
    pub fn retry_after(&self, now: u64) -> Duration {
        match self.end.saturating_sub(now) {
            0 => Duration::from_secs(300),
            left => Duration::from_secs((left / 20).clamp(1, 3600)),
        }
    }

    /// What to say of it where its end is near.
    pub fn warning(&self, now: u64) -> Option<String> {
        if now > self.end {
            return Some(format!("has expired {}", ago(now - self.end)));
        }
        (self.end - now < WARN_BELOW.as_secs()).then(|| format!("expires in {}", span(self.end - now)))
    }
}

/// `seconds` as people say it: "3 days", "5 hours".
pub(super) fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "days"),
        7200.. => (seconds / 3600, "hours"),
        120.. => (seconds / 60, "minutes"),
        _ => (seconds, "seconds"),
    };
    format!("{count} {unit}")
}

pub(super) fn ago(seconds: u64) -> String {
    format!("{} ago", span(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life_and_never_after_its_end() {
        for share in [0, 128, 255] {
            let month = Validity { begin: 1000, end: 1000 + 30 * 86_400, share };
            assert!((1000 + 20 * 86_400..=1000 + 21 * 86_400).contains(&month.renew_at()));
            let minute = Validity { begin: 0, end: 60, share };
            assert!((40..=42).contains(&minute.renew_at()));
        }
    }

    #[test]
    fn the_end_is_told_below_seven_days_and_after_it() {
        let validity = Validity { begin: 0, end: 30 * 86_400, share: 0 };
        assert_eq!(validity.warning(0), None);
        assert_eq!(validity.warning(23 * 86_400), None);
        assert_eq!(validity.warning(23 * 86_400 + 1).as_deref(), Some("expires in 6 days"));
        assert_eq!(validity.warning(33 * 86_400).as_deref(), Some("has expired 3 days ago"));
        assert_eq!((validity.days_left(0), validity.days_left(31 * 86_400)), (30, -1));
    }
}
