//! Attention's scores, for who looks at them: attention itself never holds them all.

use std::ops::Range;

use super::share::for_each_chunk;
use super::simd::{Kernel, Simd, dispatch};

/// The scores of one head before softmax, `y[t, s] = q[t] · k[s] * scale`; -∞ where `s > t`, which is masked. `q` and `k`
/// are (T, C), of which the head has `columns`; `y` is (T, T).
///
/// # Panics
/// If the lengths do not fit each other.
pub fn scores(q: &[f32], k: &[f32], columns: Range<usize>, scale: f32, y: &mut [f32]) {
    let t = y.len().isqrt();
    let width = q.len() / t.max(1);
    assert!(t * t == y.len() && q.len() == k.len() && t * width == q.len(), "lengths of attention's scores");
    assert!(columns.end <= width, "columns of a head");
    for_each_chunk(y.len() * columns.len(), y, t, |query, y| {
        let of = |x: &[f32], at: usize| -> Range<usize> {
            let from = at * (x.len() / t);
            from + columns.start..from + columns.end
        };
        let (seen, masked) = y.split_at_mut(query + 1);
        for (key, y) in seen.iter_mut().enumerate() {
            *y = scale * dispatch(Dot { a: &q[of(q, query)], b: &k[of(k, key)] });
        }
        masked.fill(f32::NEG_INFINITY);
    });
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sum = simd.splat(0.0);
        let ((a, a_rest), (b, b_rest)) = (self.a.as_chunks(), self.b.as_chunks());
        for (a, b) in a.iter().zip(b) {
            sum = simd.fma(simd.load(a), simd.load(b), sum);
        }
        if !a_rest.is_empty() {
            sum = simd.fma(simd.load_first(a_rest), simd.load_first(b_rest), sum);
        }
        simd.sum(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_numbers;
    use super::*;

    #[test]
    fn scores_are_products_up_to_the_query() {
        let (t, heads, d) = (5, 3, 21);
        let (q, k) = (test_numbers(t * heads * d, 1), test_numbers(t * heads * d, 2));
        let mut y = vec![0.0; t * t];
        for head in 0..heads {
            scores(&q, &k, head * d..(head + 1) * d, 0.25, &mut y);
            for (query, key) in (0..t).flat_map(|query| (0..t).map(move |key| (query, key))) {
                let at = |x: &[f32], position: usize, i: usize| f64::from(x[position * heads * d + head * d + i]);
                let expected: f64 = (0..d).map(|i| at(&q, query, i) * at(&k, key, i)).sum::<f64>() * 0.25;
                let found = f64::from(y[query * t + key]);
                let is_right = if key > query { found == f64::NEG_INFINITY } else { (found - expected).abs() < 1e-5 };
                assert!(is_right, "{head} {query} {key}: {found} {expected}");
            }
        }
    }
}
