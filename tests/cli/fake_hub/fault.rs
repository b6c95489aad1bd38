//! What goes wrong at the fake hub.

use std::time::Duration;

use super::{Request, State};

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The answer is this status.
    Status(u16),
    /// The answer is these bytes.
    Raw(Vec<u8>),
    /// The answer is `head`, then `again` and `pause` forever.
    Endless { head: Vec<u8>, again: Vec<u8>, pause: Duration },
    /// The connection ends after this many bytes of the body.
    CutAfter(usize),
    /// This many bytes of the body arrive, then nothing, with the connection still open.
    StallAfter(usize),
    /// The answer is delayed.
    Delay(Duration),
    /// The first byte of the body is altered.
    Alter,
    /// The whole file is sent although a range was requested.
    IgnoreRange,
    /// This header of the answer has another value.
    Claim(&'static str, String),
}

pub(super) struct PlannedFault {
    pub(super) method: &'static str,
    pub(super) part_of_path: String,
    pub(super) times: usize,
    pub(super) fault: Fault,
}

impl State {
    /// The fault planned for a request that would be answered with this status.
    pub(super) fn fault_for(&self, request: &Request, status: u16) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let planned = faults.iter_mut().find(|planned| {
            let is_about_content = !matches!(planned.fault, Fault::Status(_)) && planned.method == "GET";
            planned.times > 0
                && planned.method == request.method
                && request.path.contains(&planned.part_of_path)
                // A redirect has no content that could be wrong.
                && !(is_about_content && (300..400).contains(&status))
        })?;
        planned.times -= 1;
        Some(planned.fault.clone())
    }
}
