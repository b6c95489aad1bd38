//! Calls into libraries that may panic: at their border a panic becomes an error.

use std::cell::Cell;
use std::panic::{self, UnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`guard`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// A call that panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs `call`; a panic in it, on this thread, is not reported on stderr but returned.
///
/// # Errors
/// [`Panicked`].
pub fn guard<T>(call: impl FnOnce() -> T + UnwindSafe) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                report(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = panic::catch_unwind(call);
    GUARDED.set(outer);
    result.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guard(|| 1), Ok(1));
        let empty: Vec<u8> = vec![];
        assert_eq!(guard(|| empty[std::hint::black_box(3)]), Err(Panicked));
        assert_eq!(guard(|| guard(|| panic!("within"))), Ok(Err::<(), _>(Panicked)));
        assert!(!GUARDED.get());
    }
}
