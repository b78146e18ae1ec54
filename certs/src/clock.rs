//! Validity periods, and the two ways in which Ward writes a moment.

use std::time::SystemTime;

use protocol::Time;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

/// How long a study's CA is valid unless its maker says otherwise.
pub const CA_VALIDITY: Duration = Duration::days(3652);
/// How long a party's certificate is valid unless the CA says otherwise.
pub const PARTY_VALIDITY: Duration = Duration::days(365);
/// How far before its making a certificate begins, for parties whose clock runs late.
pub const BACKDATE: Duration = Duration::hours(1);

/// This machine's clock in the protocol's count.
pub fn now() -> Time {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// The protocol's count as a date; what lies beyond the year 9999 is its last moment.
pub(crate) fn date(moment: Time) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment.0) * 1_000_000)
        .unwrap_or(PrimitiveDateTime::MAX.assume_utc())
}

/// A date for people.
pub(crate) fn show(moment: OffsetDateTime) -> String {
    let moment = moment.to_offset(time::UtcOffset::UTC);
    format!("{} {:02}:{:02} UTC", moment.date(), moment.hour(), moment.minute())
}
