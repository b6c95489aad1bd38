//! When to ask the hub again.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::Progress;
use super::failure::Failure;

/// The pauses between attempts, unless the hub asks for more.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1000), Duration::from_millis(2000)];

/// The longest pause that a server may ask for: who waits longer should know why, and may have better things to do.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Tries to get `what` until it succeeds, is refused, or has failed too often, and tells `listener` of every retry. If
/// the hub was never `heard_of`, a failed connection is final: the user should learn that at once.
pub(super) async fn attempts<T>(
    what: &str,
    heard_of: bool,
    listener: Option<&dyn Fn(Progress<'_>)>,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    for (number, pause) in (2..).zip(PAUSES) {
        let (reason, pause) = match attempt().await {
            Err(Failure::Passing(reason, Some(asked))) if asked > LONGEST_PAUSE => {
                let reason = format!("{reason} and asks to come back in {}", readable(asked));
                return Err(Failure::Passing(reason, Some(asked)));
            }
            Err(Failure::Passing(reason, asked)) => (reason, asked.unwrap_or(pause).max(pause)),
            Err(Failure::Unreachable(reason)) if heard_of => (reason, pause),
            outcome => return outcome,
        };
        if let Some(listener) = listener {
            let of = PAUSES.len() + 1;
            listener(Progress::Retrying { name: what, reason: &reason, pause, attempt: number, of });
        }
        tokio::time::sleep(pause).await;
    }
    attempt().await
}

/// How long the server asks to wait: a number of seconds, or until a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    wait_until(headers.get(RETRY_AFTER)?.to_str().ok()?.trim(), SystemTime::now())
}

fn wait_until(text: &str, now: SystemTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a long time, too.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default())
}

/// A time in the unit that people would use.
fn readable(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match time.as_secs() {
        seconds if seconds < 2 * MINUTE => format!("{seconds} s"),
        seconds if seconds < 2 * HOUR => format!("{} min", seconds.div_ceil(MINUTE)),
        seconds if seconds < 2 * DAY => format!("{} h", seconds.div_ceil(HOUR)),
        seconds => format!("{} days", seconds.div_ceil(DAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dates are RFC 9110's examples: one moment in three forms.
    #[test]
    fn a_server_asks_to_wait_for_seconds_or_until_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        for (text, seconds) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(90)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(90)),
            ("Sun Nov  6 08:49:37 1994", Some(90)),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait_until(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn times_are_readable() {
        let of = |seconds| readable(Duration::from_secs(seconds));
        assert_eq!([of(61), of(3600), of(7200), of(86_400 * 3)], ["61 s", "60 min", "2 h", "3 days"]);
        assert_eq!(of(u64::MAX), "213503982334602 days");
    }
}
