//! Elementary functions of f64 with the same bits on every platform, unlike those of the standard library, which are the
//! platform's.
//!
//! | function | of | error, in units of the last place | where |
//! |---|---|---|---|
//! | `exp`, `ln`, `ln_1p`, `pow` here | f64 | below 1 | all that is not a kernel: the sum of a softmax, draws, penalties for length, perplexities, what is shown |
//! | `sqrt` | f32, f64 | 0.5, as IEEE 754 wants it | norms, contrastive search |
//! | `exp` in `base/simd/math.rs` | f32 | about 1 | attention, activations |
//! | `tanh` there; `erf` in `kernels/activation.rs` | f32 | an absolute error of 2e-7 | activations |
//! | `exp` in `logits.rs` | f32, up to 0 | 2 | softmax over logits |
//!
//! Those of f32 are ours, and consist of operations that IEEE 754 defines, fused multiply-add among them. These are the
//! crate libm's, which is musl's mathematics in Rust. A lint forbids the standard library's (`clippy.toml`).

pub use libm::{exp, log as ln, log1p as ln_1p, pow};

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance in units of the last place.
    fn units(a: f64, b: f64) -> u64 {
        a.to_bits().abs_diff(b.to_bits())
    }

    /// The platform's are within one unit themselves.
    #[test]
    #[cfg_attr(windows, ignore = "Windows's own are off by more than a unit")]
    fn they_are_within_a_unit_of_the_platforms() {
        let mut seed = 1_u64;
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        for _ in 0..200_000 {
            let (x, y) = (uniform(), uniform());
            for (ours, platforms) in [
                (exp(-90.0 * x), (-90.0 * x).exp()),
                (ln(60_000.0 * x), (60_000.0 * x).ln()),
                (ln_1p(-x), (-x).ln_1p()),
                (pow(1.0 + 1024.0 * x, 20.0 * y - 10.0), (1.0 + 1024.0 * x).powf(20.0 * y - 10.0)),
            ] {
                assert!(units(ours, platforms) <= 1, "{ours:e} {platforms:e}");
            }
        }
    }

    #[test]
    fn what_is_exact_stays_exact() {
        assert_eq!((exp(0.0), ln(1.0), ln_1p(0.0), pow(3.0, 2.0), pow(5.0, 0.0)), (1.0, 0.0, 0.0, 9.0, 1.0));
        assert_eq!((exp(f64::NEG_INFINITY), ln(0.0), ln_1p(-1.0)), (0.0, f64::NEG_INFINITY, f64::NEG_INFINITY));
    }
}
