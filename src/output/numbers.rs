//! Numbers as people read them: however small they are, they do not turn into 0.

use gpt2::base::math;

/// A probability in percent with this many decimal places: `75.27%`; or, if they would say 0, the probability itself:
/// `3.1e-7`.
pub fn probability(prob: impl Into<f64>, places: usize) -> String {
    let prob = prob.into();
    match prob > 0.0 && prob < least(places) {
        true => format!("{prob:.digits$e}", digits = places.min(1)),
        false => format!("{:.places$}%", 100.0 * prob),
    }
}

/// The probability with this natural logarithm, as [`probability`]; it may be too small for a number.
pub fn probability_of(logprob: f64, places: usize) -> String {
    /// Below it, an exponent says no more than that it is 0: a bias may have put it there.
    const LEAST: f64 = -1e15;
    let prob = math::exp(logprob);
    if prob >= f64::MIN_POSITIVE || !logprob.is_finite() {
        return probability(prob, places);
    }
    if logprob < LEAST {
        return "0".to_owned();
    }
    let power = logprob / std::f64::consts::LN_10;
    let exponent = power.floor();
    format!("{:.1}e{exponent}", math::pow(10.0, power - exponent))
}

/// A number with this many decimal places, or in scientific notation if they would say 0.
pub fn decimal(x: impl Into<f64>, places: usize) -> String {
    let x = x.into();
    match x != 0.0 && x.abs() < 50.0 * least(places) {
        true => format!("{x:.1e}"),
        false => format!("{x:.places$}"),
    }
}

/// The smallest probability that has a digit other than 0 in these decimal places of a percentage.
fn least(places: usize) -> f64 {
    0.01 / math::pow(10.0, places as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_probability_vanishes() {
        for (prob, places, shown) in [
            (0.7527, 2, "75.27%"),
            (1.0, 3, "100.000%"),
            (0.000_012, 3, "0.001%"),
            (3.14e-7, 3, "3.1e-7"),
            (0.000_03, 2, "3.0e-5"),
            (0.004, 0, "4e-3"),
            (0.012, 0, "1%"),
            (0.0, 2, "0.00%"),
        ] {
            assert_eq!(probability(prob, places), shown);
            assert_eq!(probability_of(f64::ln(prob), places), shown);
        }
        // e^-1000 is 5.0759588e-435.
        assert_eq!(probability_of(-1000.0, 2), "5.1e-435");
    }

    #[test]
    fn no_number_vanishes() {
        for (x, shown) in [(-0.000_031, "-3.1e-5"), (0.0, "0.0000"), (-0.000_06, "-0.0001"), (12.345_67, "12.3457")] {
            assert_eq!(decimal(x, 4), shown);
        }
    }
}
