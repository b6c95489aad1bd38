//! Whole numbers, with errors that say which are allowed, to follow the flag's name.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;

/// Parses a whole number in the range.
pub fn whole<T>(
    range: impl RangeBounds<T> + Clone + Send + Sync,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync
where
    T: FromStr + PartialOrd + Display,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let low = match range.start_bound() {
                Bound::Included(low) => format!(" from {low}"),
                _ => String::new(),
            };
            let high = match range.end_bound() {
                Bound::Included(high) => format!(" to {high}"),
                _ => String::new(),
            };
            format!("takes a whole number{low}{high}, not {text}")
        })
    }
}

/// Parses any whole number.
pub fn signed(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("takes a whole number, not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_says_what_is_allowed() {
        assert_eq!(whole::<u16>(1..=8)("8"), Ok(8));
        assert_eq!(whole::<u16>(1..=8)("9"), Err("takes a whole number from 1 to 8, not 9".into()));
        assert_eq!(whole::<usize>(1..)("0"), Err("takes a whole number from 1, not 0".into()));
        assert_eq!(whole::<usize>(0..)("x"), Err("takes a whole number from 0, not x".into()));
        assert_eq!(signed("-3"), Ok(-3));
    }
}
