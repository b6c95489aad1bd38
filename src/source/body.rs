//! The content of a response: as it arrives, not slower than some pace, and which part of a file it is.

use std::time::{Duration, Instant};

use reqwest::Response;

use super::api::Api;
use super::failure::Failure;
use super::settings::Patience;

/// The body of a response, as it arrives.
pub(super) struct Body<'a> {
    response: Response,
    api: &'a Api,
    patience: Patience,
    /// How long the server has let us wait for `bytes`.
    waited: Duration,
    bytes: u64,
}

impl<'a> Body<'a> {
    pub(super) fn new(response: Response, api: &'a Api, patience: Patience) -> Self {
        Self { response, api, patience, waited: Duration::ZERO, bytes: 0 }
    }

    /// The next bytes; `None` after the last ones. A server that is silent, or nearly so, fails.
    pub(super) async fn chunk(&mut self) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>, Failure> {
        /// Bytes a second, over [`LIMITS`] times the time limit. The slowest modems had 1200.
        const SLOWEST: u64 = 1000;
        /// With the usual time limit, half a minute.
        const LIMITS: u32 = 3;
        let Self { api, patience, .. } = *self;
        let start = Instant::now();
        let next = tokio::time::timeout(patience.limit, self.response.chunk()).await;
        self.waited += start.elapsed();
        let url = self.response.url();
        let chunk = match next {
            Err(_) => return Err(api.target.of_silence(url, patience)),
            Ok(chunk) => chunk.map_err(|error| api.target.of_transport(&error, url))?,
        };
        self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if chunk.is_some() && self.waited > patience.limit * LIMITS {
            let seconds = self.waited.as_secs();
            if self.bytes < SLOWEST * seconds {
                let achieved = format!("sent no more than {} bytes in {seconds} s", self.bytes);
                return Err(api.target.of_slowness(url, &achieved, patience));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }

    /// The server that sends it, for messages.
    pub(super) fn server(&self) -> String {
        self.api.target.server(self.response.url())
    }
}

/// What Content-Range says: which bytes of how many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: u64,
    last: u64,
    /// Bytes of the whole file, if the server knows.
    pub(super) total: Option<u64>,
}

impl Part {
    /// From `bytes FIRST-LAST/TOTAL`; `None` for anything else, such as a part that does not fit into the whole.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = if total == "*" { None } else { Some(total.parse().ok()?) };
        let part = Self { first: first.parse().ok()?, last: last.parse().ok()?, total };
        let fits = part.first <= part.last && part.last < total.unwrap_or(u64::MAX);
        fits.then_some(part)
    }

    pub(super) fn len(&self) -> u64 {
        self.last - self.first + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference: RFC 9110, 14.4.
    #[test]
    fn a_content_range_says_which_bytes_of_how_many() {
        let part = |first, last, total| Some(Part { first, last, total });
        for (text, expected) in [
            ("bytes 42-1233/1234", part(42, 1233, Some(1234))),
            ("bytes 42-1233/*", part(42, 1233, None)),
            ("bytes 0-0/1", part(0, 0, Some(1))),
            ("bytes */1234", None),
            ("bytes 5-4/10", None),
            ("bytes 5-10/10", None),
            ("bytes -5-9/10", None),
            ("bytes 5/10", None),
            ("items 5-9/10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 0-18446744073709551616/*", None),
            ("", None),
        ] {
            assert_eq!(Part::parse(text), expected, "{text}");
        }
    }
}
