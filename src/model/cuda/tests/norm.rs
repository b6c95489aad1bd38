//! Layer norms, alone and within a product.

use super::products::{Product, bits, multiply, normed_shared, within};
use super::*;

/// Rows of f32 and a norm.
struct NormedRows {
    width: usize,
    stride: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    memory: [Memory; 3],
}

/// Large enough to matter.
const NORM_EPSILON: f32 = 0.1;

impl NormedRows {
    fn new(rows: usize, width: usize) -> Self {
        let x: Vec<f32> = noise(rows * width, 5).iter().map(|x| 3.0 * x + 0.7).collect();
        let [weight, bias] = [noise(width, 6), noise(width, 7)];
        let stride = padded(width);
        let memory = [&x, &weight, &bias].map(|x| upload(&bytes(F32, &spread(x, width, stride, 0.0))));
        Self { width, stride, x, weight, bias, memory }
    }

    fn norm(&self) -> NormArgs {
        let [_, weight, bias] = self.memory.each_ref().map(Memory::address);
        NormArgs { weight, bias, epsilon: NORM_EPSILON, width: self.width as i32 }
    }

    fn run(
        &self,
        numbers: FloatType,
        norm: NormArgs,
        picked: Option<&[u32]>,
        y: Option<&Memory>,
        exact: Option<&Memory>,
    ) {
        let picks = picked.map(|rows| words(rows, |row| row.to_ne_bytes()));
        let count = picked.map_or(self.x.len() / self.width, <[_]>::len);
        let arguments = NormaliseArgs {
            x: self.memory[0].address(),
            rows: picks.as_ref().map_or(0, Memory::address),
            y: y.map_or(0, Memory::address),
            exact: exact.map_or(0, Memory::address),
            norm,
            x_stride: self.stride as i32,
            y_stride: self.stride as i32,
            exact_stride: self.width as i32,
            count: count as i32,
        };
        launch(Kernel::Normalise, numbers, [count.div_ceil(NORM_WARPS), 1, 1], 0, &arguments);
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_layer_norm_of_some_rows_or_all_is_right_in_both_its_results() {
    for numbers in TYPES {
        for (rows, width) in [(1, 1), (2, 2), (7, 33), (9, 100), (4, 129), (5, 333), (3, 1600)] {
            let normed = NormedRows::new(rows, width);
            let backwards: Vec<u32> = (0..rows as u32 + 1).rev().map(|row| row / 2).collect();
            for picked in [None, Some(backwards.as_slice())] {
                let all: Vec<u32> = (0..rows as u32).collect();
                let from = picked.unwrap_or(&all);
                let [y, exact] = [normed.stride * numbers.size(), width * 4].map(|bytes| untouched(from.len() * bytes));
                normed.run(numbers, normed.norm(), picked, Some(&y), Some(&exact));
                let exact = floats(F32, &download(&exact));
                for (i, row) in from.iter().enumerate() {
                    let x = &normed.x[*row as usize * width..][..width];
                    let (expected, off) = norm_in_f64(x, &normed.weight, &normed.bias);
                    for c in 0..width {
                        let what = || format!("{numbers:?}, row {row} of {rows} x {width}, number {c}");
                        near(F32, exact[i * width + c], expected[c], off[c], what);
                    }
                }
                // The stored result is the exact one, rounded and zero-padded.
                let stored = bytes(numbers, &spread(&exact, width, normed.stride, 0.0));
                assert!(download(&y) == stored, "{numbers:?}, {rows} x {width}");
                // Each result alone, and rows unchanged.
                let [y, alone] = [untouched(stored.len()), untouched(from.len() * width * 4)];
                normed.run(numbers, normed.norm(), picked, Some(&y), None);
                normed.run(numbers, normed.norm(), picked, None, Some(&alone));
                assert!(download(&y) == stored && floats(F32, &download(&alone)) == exact);
                let as_they_are = NormArgs { width: width as i32, ..NormArgs::default() };
                let y = untouched(stored.len());
                normed.run(numbers, as_they_are, picked, Some(&y), Some(&alone));
                let x: Vec<f32> =
                    from.iter().flat_map(|row| &normed.x[*row as usize * width..][..width]).copied().collect();
                assert!(download(&y) == spread_untouched(numbers, &x, width, normed.stride));
                assert_eq!(floats(F32, &download(&alone)), x);
            }
        }
    }
}

/// A row's norm, and the error bounds for sums of `width` numbers and about ten operations.
fn norm_in_f64(x: &[f32], weight: &[f32], bias: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let n = x.len() as f64;
    let of = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).sum::<f64>() / n;
    let (mean, size) = (of(&|x| x), of(&f64::abs));
    let scale = 1.0 / (of(&|x| (x - mean).powi(2)) + f64::from(NORM_EPSILON)).sqrt();
    let numbers = x.iter().zip(weight.iter().zip(bias)).map(|(x, (weight, bias))| {
        let [x, weight, bias] = [*x, *weight, *bias].map(f64::from);
        let normed = (x - mean) * scale * weight;
        // The error of the mean is relative to `size`, that of the scale to itself.
        let off = (n + 10.0) * EPSILON * (normed.abs() + (size * scale * weight).abs() + bias.abs());
        (normed + bias, off)
    });
    numbers.unzip()
}

/// Rows as `numbers` in rows of `stride`, with the previous contents between them.
fn spread_untouched(numbers: FloatType, from: &[f32], width: usize, stride: usize) -> Vec<u8> {
    let mut to = vec![UNTOUCHED; from.len() / width * stride * numbers.size()];
    let rows = bytes(numbers, from);
    for (to, from) in to.chunks_mut(stride * numbers.size()).zip(rows.chunks(width * numbers.size())) {
        to[..from.len()].copy_from_slice(from);
    }
    to
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_norm_within_a_product_gives_the_bits_of_the_two_apart() {
    for numbers in TYPES {
        for (rows, width, outputs) in
            [(1, 1, 3), (3, 24, 50), (8, 33, 16), (7, 100, 17), (2, 320, 70), (5, 900, 9), (5, 2100, 9)]
        {
            if normed_shared(padded(width) * numbers.size(), padded(width)) > MOST_NORMED_SHARED {
                continue;
            }
            let mut product = Product::new(numbers, rows, width, outputs, true);
            let normed = NormedRows::new(rows, width);
            let row_bytes = normed.stride * numbers.size();
            let y = upload(&vec![0; WIDE * row_bytes]);
            normed.run(numbers, normed.norm(), None, Some(&y), None);
            product.activations = y;
            let apart = product.outputs(Kernel::Matmul8, 0, rows);
            let together = untouched(rows * outputs * 4);
            let arguments = MatmulArgs {
                weight: product.weight.address(),
                bias: product.bias.as_ref().map_or(0, Memory::address),
                x: normed.memory[0].address(),
                y: together.address(),
                norm: normed.norm(),
                norm_stride: normed.stride as i32,
                row_bytes: row_bytes as i32,
                rows: rows as i32,
                outputs: outputs as i32,
                y_stride: outputs as i32,
                into: Into::Logits as i32,
                ..MatmulArgs::default()
            };
            multiply(Kernel::Matmul8Normed, numbers, &arguments);
            assert_eq!(bits(&within(&together, outputs, outputs)), bits(&apart), "{numbers:?}, {rows} x {width}");
        }
    }
}
