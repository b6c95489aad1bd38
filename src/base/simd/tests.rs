//! The level in use against plain Rust.

use super::*;
use crate::base::test_numbers;

/// The operations on numbers that levels do in their own ways, against plain Rust's.
struct Compare<'a>(&'a [f32; 256]);

impl Kernel for Compare<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let plain = portable::BASELINE;
        let (rows, _) = self.0.as_chunks::<LANES>();
        let mut vectors = [simd.splat(0.0); LANES];
        for (v, row) in vectors.iter_mut().zip(rows) {
            *v = simd.load(row);
            assert_eq!(simd.lanes(simd.load_f32(&row.map(f32::to_ne_bytes))), *row);
            assert_eq!(simd.sum(*v).to_bits(), plain.sum(*row).to_bits());
            assert_eq!(simd.largest(*v), plain.largest(*row));
            let (next, no) = (rows[(row[0].to_bits() as usize + 1) % LANES], simd.splat(7.0));
            let mut unordered = next;
            unordered[3] = f32::NAN;
            unordered[5] = row[5];
            let found = simd.lanes(simd.if_less(*v, simd.load(&unordered), *v, no));
            assert_eq!(found, plain.if_less(*row, unordered, *row, [7.0; LANES]));
            let squares = simd.mul(*v, *v);
            assert_eq!(simd.lanes(simd.sqrt(squares)), plain.sqrt(simd.lanes(squares)));
            assert_eq!(simd.lanes(simd.of_bits(simd.bits(*v))), *row);
            assert_eq!(lanes(simd, simd.bits(*v)), plain.bits(*row));
            let halves = simd.mul(simd.round(simd.mul(*v, simd.splat(20.0))), simd.splat(0.5));
            assert_eq!(simd.lanes(simd.round(halves)), plain.round(simd.lanes(halves)));
            let whole = simd.round(simd.mul(*v, simd.splat(126.0)));
            assert_eq!(simd.lanes(simd.exp2_whole(whole)), plain.exp2_whole(simd.lanes(whole)));
            for n in 0..LANES {
                let first = simd.lanes(simd.load_first(&row[..n]));
                let mut stored = [7.0; LANES];
                simd.store_first(&mut stored[..n], *v);
                for i in 0..LANES {
                    assert_eq!((first[i], stored[i]), if i < n { (row[i], row[i]) } else { (0.0, 7.0) });
                }
            }
        }
        for (sum, v) in simd.lanes(simd.sums(vectors)).iter().zip(vectors) {
            assert_eq!(sum.to_bits(), simd.sum(v).to_bits());
        }
    }
}

#[test]
fn operations_on_numbers_are_those_of_plain_rust() {
    dispatch(Compare(test_numbers(256, 1)[..].try_into().unwrap()));
}

/// Sixteen f16 and bf16 as f32.
struct Widen([u16; LANES]);

impl Kernel for Widen {
    type Output = [[f32; LANES]; 2];
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [[f32; LANES]; 2] {
        let numbers = self.0.map(u16::to_le_bytes);
        [simd.lanes(simd.load_f16(&numbers)), simd.lanes(simd.load_bf16(&numbers))]
    }
}

#[test]
fn all_16_bit_numbers_are_widened_exactly() {
    for first in (0..=u16::MAX).step_by(LANES) {
        let numbers = std::array::from_fn(|i| first + i as u16);
        let [f16, bf16] = dispatch(Widen(numbers));
        for (i, x) in numbers.into_iter().enumerate() {
            assert_same(f16[i], half::f16::from_bits(x).to_f32());
            assert_same(bf16[i], half::bf16::from_bits(x).to_f32());
        }
    }
}

fn assert_same(a: f32, b: f32) {
    assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{a} {b}");
}

/// The operations on integers, against plain Rust's.
struct CompareIntegers {
    weights: [i32; LANES],
    x: [i32; LANES],
    numbers: [f32; LANES],
}

impl Kernel for CompareIntegers {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { weights, x, numbers } = self;
        let plain = portable::BASELINE;
        let (v, factors) = (simd.load_i(&weights), simd.load_i(&x));
        assert_eq!(lanes(simd, v), weights);
        assert_eq!(lanes(simd, simd.load_fours(&weights.map(i32::to_ne_bytes))), weights);
        assert_eq!(lanes(simd, simd.shl::<3>(v)), plain.shl::<3>(weights));
        assert_eq!(lanes(simd, simd.shr::<4>(v)), plain.shr::<4>(weights));
        assert_eq!(lanes(simd, simd.sar::<24>(v)), plain.sar::<24>(weights));
        assert_eq!(simd.lanes(simd.to_float(v)), plain.to_float(weights));
        let mut halves = simd.lanes(simd.half_to_float(v)).into_iter().zip(plain.half_to_float(weights));
        assert!(halves.all(|(a, b)| a == b || a.is_nan() && b.is_nan()));
        let (sums, small) = (simd.splat_i(5), simd.and(v, simd.splat_i(0x7f7f_7f7f)));
        let products = simd.dot(sums, small, factors);
        assert_eq!(lanes(simd, products), plain.dot([5; LANES], lanes(simd, small), x));
        let flip = i32::from_ne_bytes([S::FLIP; 4]);
        let products = lanes(simd, simd.dot_signed(sums, simd.xor(v, simd.splat_i(flip)), factors));
        let excess = plain.dot([0; LANES], [0x0101_0101; LANES], x).map(|sum| i32::from(S::FLIP) * sum);
        let expected = plain.dot_signed([5; LANES], weights, x);
        assert_eq!(products, std::array::from_fn(|i| expected[i] + excess[i]));
        let v = simd.round(simd.load(&numbers));
        let mut stored = [0i8; LANES];
        simd.store_bytes(&mut stored, v);
        assert_eq!(stored.map(f32::from), simd.lanes(v));
        assert_eq!(simd.sum_whole(v), plain.sum_whole(simd.lanes(v)));
    }
}

#[inline(always)]
fn lanes<S: Simd>(simd: S, v: S::I) -> [i32; LANES] {
    let mut lanes = [0; LANES];
    simd.store_i(&mut lanes, v);
    lanes
}

#[test]
fn operations_on_integers_are_those_of_plain_rust() {
    for seed in 0..50 {
        let numbers = |n, seed| test_numbers(n, seed).into_iter().map(|x| (x * 140.0).round());
        // Signed bytes up to their extremes, -128 among the weights alone.
        let lanes = |least: f32, seed| -> [i32; LANES] {
            let mut bytes = numbers(4 * LANES, seed).map(|x| x.clamp(least, 127.0) as i8 as u8);
            std::array::from_fn(|_| i32::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap())))
        };
        let (mut weights, mut x) = (lanes(-128.0, seed), lanes(-127.0, seed + 100));
        if seed == 0 {
            (weights, x) = ([0x8080_8080u32 as i32; LANES], [0x8181_8181u32 as i32; LANES]);
        }
        let floats: Vec<f32> = numbers(LANES, seed + 200).map(|x| x.clamp(-128.0, 127.0)).collect();
        dispatch(CompareIntegers { weights, x, numbers: floats[..].try_into().unwrap() });
    }
}

/// A thread that has set the unit up does not get it twice, and gets it again when it has given it back.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_matrix_unit_is_set_up_once() {
    let unit = amx::Amx::configure(32);
    assert_eq!(unit.is_some(), level() == Level::Amx);
    assert!(amx::Amx::configure(16).is_none());
    drop(unit);
    assert_eq!(amx::Amx::configure(16).is_some(), level() == Level::Amx);
}

/// The products and sums of the level in use.
struct Fused<'a> {
    a: &'a [f32; LANES],
    b: &'a [f32; LANES],
    c: &'a [f32; LANES],
}

impl Kernel for Fused<'_> {
    type Output = [f32; LANES];
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f32; LANES] {
        simd.lanes(simd.fma(simd.load(self.a), simd.load(self.b), simd.load(self.c)))
    }
}

#[test]
fn multiply_and_add_round_once() {
    let mut seed = 1_u64;
    let mut bits = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 32) as u32
    };
    // Numbers of few bits, whose sums are often ties; all numbers, among them infinities and NaN; neighbours of powers of
    // two; those that are hardly normal.
    let mut number = |kind: u32| {
        let x = bits();
        let sign = x & 1 << 31;
        f32::from_bits(match kind {
            0 => sign | ((115 + (x >> 8) % 24) << 23) | ((x & 7) << 20),
            1 => x,
            2 => sign | (((110 + x % 40) << 23) + ((x >> 12) & 3)).wrapping_sub(1),
            _ => sign | ((x % 80) << 23) | ((x >> 3) & 0x7f_ffff),
        })
    };
    for round in 0..200_000 {
        let [a, b, c] = [round % 4, round / 4 % 4, round / 16 % 4].map(|kind| std::array::from_fn(|_| number(kind)));
        let found = dispatch(Fused { a: &a, b: &b, c: &c });
        for i in 0..LANES {
            // Some platforms' own rounds twice.
            assert_same(found[i], libm::fmaf(a[i], b[i], c[i]));
        }
    }
}

#[test]
fn what_is_only_nearly_a_tie_is_rounded_as_none() {
    // A product of nearly 2^-24, half a unit of a number that ends in 1.
    let near = 2f32.powi(-12);
    let (a, b, c) = (near * (1.0 + f32::EPSILON), near * (1.0 - f32::EPSILON), 1.0 + f32::EPSILON);
    for (a, c) in [(a, c), (-a, c), (a, -c), (-a, -c)] {
        assert_ne!((f64::from(a) * f64::from(b) + f64::from(c)) as f32, c, "rounding twice goes wrong");
        assert_eq!(dispatch(Fused { a: &[a; LANES], b: &[b; LANES], c: &[c; LANES] }), [c; LANES]);
    }
}
