//! Products of few and of many rows, and where their outputs go.

use super::*;

/// `y = x W^T + b`, with rows of NaN after those of x: no row may depend on another.
pub(super) struct Product {
    pub numbers: FloatType,
    pub inputs: usize,
    pub outputs: usize,
    pub w: Vec<f32>,
    pub x: Vec<f32>,
    pub b: Vec<f32>,
    pub weight: Memory,
    pub activations: Memory,
    pub bias: Option<Memory>,
}

impl Product {
    pub fn new(numbers: FloatType, rows: usize, inputs: usize, outputs: usize, bias: bool) -> Self {
        let w = noise_of(numbers, outputs * inputs, 1);
        let x = noise_of(numbers, rows * inputs, 2);
        let b = noise(outputs, 3).iter().map(|b| if bias { 6.0 * b } else { 0.0 }).collect::<Vec<_>>();
        let stride = padded(inputs);
        let mut padded_x = spread(&x, inputs, stride, 0.0);
        // Tiles are whole, even that of the last row alone.
        padded_x.resize((rows + WIDE) * stride, f32::NAN);
        let weight = upload(&in_fragments(numbers, &w, inputs));
        let activations = upload(&bytes(numbers, &padded_x));
        let memory = bias.then(|| upload(&bytes(F32, &b)));
        Self { numbers, inputs, outputs, w, x, b, weight, activations, bias: memory }
    }

    /// Runs a kernel over rows from `first` on.
    pub fn run(&self, kernel: Kernel, first: usize, rows: usize, to: MatmulArgs) {
        let row_bytes = padded(self.inputs) * self.numbers.size();
        let arguments = MatmulArgs {
            weight: self.weight.address(),
            bias: self.bias.as_ref().map_or(0, Memory::address),
            x: self.activations.address() + (first * row_bytes) as u64,
            row_bytes: row_bytes as i32,
            rows: rows as i32,
            outputs: self.outputs as i32,
            ..to
        };
        multiply(kernel, self.numbers, &arguments);
    }

    /// The outputs in f32 of rows from `first` on.
    pub fn outputs(&self, kernel: Kernel, first: usize, rows: usize) -> Vec<f32> {
        let stride = self.outputs + 3;
        let to = untouched(rows * stride * 4);
        let into = Into::Logits as i32;
        self.run(
            kernel,
            first,
            rows,
            MatmulArgs { y: to.address(), y_stride: stride as i32, into, ..Default::default() },
        );
        within(&to, self.outputs, stride)
    }
}

/// Rows of f32; checks that nothing was written around them.
#[track_caller]
pub(super) fn within(memory: &Memory, width: usize, stride: usize) -> Vec<f32> {
    let all = download(memory);
    let mut rows = vec![];
    for row in all.chunks(stride * 4) {
        let (inside, outside) = row.split_at(width * 4);
        rows.extend(floats(F32, inside));
        assert!(outside.iter().all(|byte| *byte == UNTOUCHED), "written beyond a row of {width}");
    }
    rows
}

/// The products of rows that are already normed.
fn products(numbers: FloatType) -> impl Iterator<Item = Kernel> {
    let all = NARROW.into_iter().chain([Kernel::Matmul64x64, Kernel::Matmul128x64]);
    all.filter(move |kernel| kernel.name(numbers).is_some())
}

/// Launches a product.
pub(super) fn multiply(kernel: Kernel, numbers: FloatType, arguments: &MatmulArgs) {
    let row_bytes = arguments.row_bytes as usize;
    let [rows, outputs] = [arguments.rows, arguments.outputs].map(|n| n as usize);
    // Any number of blocks can share all outputs.
    let tiles = outputs.div_ceil(TILE_OUTPUTS);
    let (tile_rows, down, shared) = match kernel {
        Kernel::Matmul8 | Kernel::Matmul8Deep => (TILE_ROWS, tiles, 0),
        Kernel::Matmul8Normed => (TILE_ROWS, tiles.min(3), normed_shared(row_bytes, arguments.norm_stride as usize)),
        Kernel::Matmul16 => (2 * TILE_ROWS, tiles, 0),
        Kernel::Matmul32 => (4 * TILE_ROWS, tiles, 0),
        Kernel::Matmul64x64 => (64, outputs.div_ceil(64), kernel.most_shared()),
        Kernel::Matmul128x64 => (64, outputs.div_ceil(128), kernel.most_shared()),
        _ => unreachable!("no product"),
    };
    launch(kernel, numbers, [rows.div_ceil(tile_rows), down, 1], shared, arguments);
}

/// Shared memory for normed rows and the norm's weights and biases.
pub(super) fn normed_shared(row_bytes: usize, norm_stride: usize) -> usize {
    TILE_ROWS * (row_bytes + 16) + 2 * norm_stride * 4
}

pub(super) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn products_are_right_and_the_same_bits_in_every_kernel_and_for_a_row_alone() {
    // Inputs, outputs, rows. The wide ones have slices of more steps than are loaded ahead.
    let shapes = [
        (1, 1, 1),
        (5, 17, 7),
        (33, 50, 8),
        (100, 70, 9),
        (200, 3, 33),
        (31, 16, 64),
        (65, 65, 65),
        (96, 129, 130),
        (600, 20, 12),
        (1400, 18, 9),
        (7, 33, 127),
        (300, 100, 129),
        (160, 7, 500),
    ];
    for numbers in TYPES {
        for (inputs, outputs, rows) in shapes {
            let product = Product::new(numbers, rows, inputs, outputs, rows % 2 == 0);
            let first = product.outputs(Kernel::Matmul8, 0, rows);
            for (i, y) in first.iter().enumerate() {
                let (row, output) = (i / outputs, i % outputs);
                let (x, w) = (&product.x[row * inputs..][..inputs], &product.w[output * inputs..][..inputs]);
                let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let b = f64::from(product.b[output]);
                // The slices and the bias are added too.
                let off = (inputs + 9) as f64 * EPSILON * (terms.clone().map(f64::abs).sum::<f64>() + b.abs());
                near(F32, *y, terms.sum::<f64>() + b, off, || format!("{numbers:?}, {rows} x {inputs}, output {i}"));
            }
            for kernel in products(numbers) {
                let what = format!("{kernel:?}, {numbers:?}, {inputs} -> {outputs}");
                assert_eq!(bits(&product.outputs(kernel, 0, rows)), bits(&first), "{what}, {rows} rows");
                for row in (0..rows).step_by(rows.div_ceil(5)) {
                    let alone = product.outputs(kernel, row, 1);
                    assert_eq!(bits(&alone), bits(&first[row * outputs..][..outputs]), "{what}, row {row} alone");
                }
            }
        }
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn outputs_are_added_to_the_residual_stream_or_activated() {
    let (rows, inputs, outputs, stride) = (67, 40, 70, 96);
    for numbers in TYPES {
        let product = Product::new(numbers, rows, inputs, outputs, true);
        let plain = product.outputs(Kernel::Matmul8, 0, rows);
        for kernel in products(numbers) {
            let stream = noise(rows * outputs, 4);
            let untouched_f32 = f32::from_ne_bytes([UNTOUCHED; 4]);
            let to = upload(&bytes(F32, &spread(&stream, outputs, stride, untouched_f32)));
            let into = |to: &Memory, into: Into, activation| MatmulArgs {
                y: to.address(),
                y_stride: stride as i32,
                into: into as i32,
                activation,
                ..MatmulArgs::default()
            };
            product.run(kernel, 0, rows, into(&to, Into::Residual, 0));
            let sums: Vec<f32> = stream.iter().zip(&plain).map(|(x, y)| x + y).collect();
            assert_eq!(bits(&within(&to, outputs, stride)), bits(&sums), "{kernel:?}, {numbers:?}");

            for (activation, exact) in ACTIVATIONS.into_iter().enumerate() {
                let to = untouched(rows * stride * numbers.size());
                product.run(kernel, 0, rows, into(&to, Into::Activated, activation as i32));
                let all = download(&to);
                for (row, x) in all.chunks(stride * numbers.size()).zip(plain.chunks(outputs)) {
                    let (inside, outside) = row.split_at(outputs * numbers.size());
                    assert!(outside.iter().all(|byte| *byte == UNTOUCHED), "{kernel:?}, {numbers:?}");
                    for (y, x) in floats(numbers, inside).iter().zip(x) {
                        // About four operations, whose results are at most 1 and are finally multiplied by x.
                        let x = f64::from(*x);
                        let what = || format!("{kernel:?}, {numbers:?}, activation {activation} of {x}");
                        near(numbers, *y, exact(x), 8.0 * EPSILON * x.abs(), what);
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_row_of_nan_gets_nan_and_leaves_the_other_rows_alone() {
    let (rows, inputs, outputs, nan) = (70, 100, 36, 40);
    for numbers in TYPES {
        let clean = Product::new(numbers, rows, inputs, outputs, true);
        let stride = padded(inputs);
        let mut x = spread(&clean.x, inputs, stride, 0.0);
        x.resize((rows + WIDE) * stride, f32::NAN);
        x[nan * stride + inputs / 2] = f32::NAN;
        let poisoned =
            Product { activations: upload(&bytes(numbers, &x)), ..Product::new(numbers, 0, inputs, outputs, true) };
        for kernel in products(numbers) {
            let [expected, ours] = [&clean, &poisoned].map(|product| product.outputs(kernel, 0, rows));
            for (row, (expected, ours)) in expected.chunks(outputs).zip(ours.chunks(outputs)).enumerate() {
                let same = if row == nan { ours.iter().all(|y| y.is_nan()) } else { bits(ours) == bits(expected) };
                assert!(same, "{kernel:?}, {numbers:?}, row {row}");
            }
            for activation in 0..ACTIVATIONS.len() {
                let to = untouched(rows * outputs * numbers.size());
                let (y, into) = (to.address(), Into::Activated as i32);
                let to_y = MatmulArgs {
                    y,
                    y_stride: outputs as i32,
                    into,
                    activation: activation as i32,
                    ..Default::default()
                };
                poisoned.run(kernel, 0, rows, to_y);
                let y = floats(numbers, &download(&to));
                let found = y.chunks(outputs).map(|row| row.iter().filter(|y| y.is_nan()).count());
                let expected = (0..rows).map(|row| if row == nan { outputs } else { 0 });
                assert!(found.eq(expected), "{kernel:?}, {numbers:?}, activation {activation}");
            }
        }
    }
}

/// GPT-2's vocabulary, which is no multiple of a tile, for few rows and for many.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn the_logits_of_a_large_vocabulary_are_right_up_to_the_last() {
    let (inputs, outputs) = (33, 50257);
    for numbers in TYPES {
        for (rows, kernel) in [(3, Kernel::Matmul8), (17, Kernel::Matmul32), (65, Kernel::Matmul64x64)] {
            let product = Product::new(numbers, rows, inputs, outputs, false);
            let ours = product.outputs(kernel, 0, rows);
            for row in [0, rows / 2, rows - 1] {
                let x = &product.x[row * inputs..][..inputs];
                for (output, w) in product.w.chunks(inputs).enumerate() {
                    let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let off = (inputs + 8) as f64 * EPSILON * terms.clone().map(f64::abs).sum::<f64>();
                    let what = || format!("{kernel:?}, {numbers:?}, row {row}, output {output}");
                    near(F32, ours[row * outputs + output], terms.sum(), off, what);
                }
            }
        }
    }
}

/// In the order of their numbers in `kernels`.
const ACTIVATIONS: [fn(f64) -> f64; 7] = [
    |x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
    |x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    |x| x.max(0.0),
    |x| x / (1.0 + (-x).exp()),
    |x| (0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))).clamp(-10.0, 10.0),
    |x| x / (1.0 + (-1.702 * x).exp()),
    f64::tanh,
];

/// Uses the series whose terms all have the same sign.
fn erf(x: f64) -> f64 {
    let next = |term: &f64, n: usize| term * 2.0 * x * x / (2 * n + 1) as f64;
    let terms = (1..200).scan(x, |term, n| Some(std::mem::replace(term, next(term, n))));
    (terms.sum::<f64>() * std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp()).clamp(-1.0, 1.0)
}

/// Where keys, values and queries go, compared byte by byte including everything around them.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn queries_keys_and_values_go_to_their_places_and_nothing_else_is_written() {
    for numbers in TYPES {
        for ((heads, head_dim), rows) in [
            ((1, 2), 1),
            ((3, 24), 9),
            ((1, 64), 65),
            ((2, 80), 7),
            // Four outputs that follow each other are of several heads, of queries and keys, of keys and values.
            ((7, 1), 70),
            ((5, 5), 129),
            ((2, 20), 127),
            ((1, 128), 66),
        ] {
            let shape = shape(numbers, heads, head_dim, 100);
            let width = heads * head_dim;
            let product = Product::new(numbers, rows, width, 3 * width, true);
            let plain = bytes(numbers, &product.outputs(Kernel::Matmul8, 0, rows));
            // Arbitrary pages and positions, all different.
            let places: Vec<(usize, usize)> = (0..rows).map(|i| (i * 5 % 3, i * 7 % PAGE_POSITIONS)).collect();
            let (keys_at, values_at) = shape.layer_at(1);
            let (page_bytes, size) = (shape.page_bytes(), numbers.size());
            let q_stride = heads * shape.key_dim + 8;
            let mut q = vec![UNTOUCHED; rows * q_stride * size];
            let mut pages = vec![UNTOUCHED; 3 * page_bytes];
            for (i, y) in plain.chunks(size).enumerate() {
                let (row, part, head, d) =
                    (i / (3 * width), i % (3 * width) / width, i % width / head_dim, i % head_dim);
                let (page, position) = places[row];
                let key = keys_at + (head * PAGE_POSITIONS + position) * shape.key_dim + d;
                let value = values_at + (head * shape.value_dim + d) * PAGE_POSITIONS + position;
                match part {
                    0 => q[(row * q_stride + head * shape.key_dim + d) * size..][..size].copy_from_slice(y),
                    1 => pages[page * page_bytes + key * size..][..size].copy_from_slice(y),
                    _ => pages[page * page_bytes + value * size..][..size].copy_from_slice(y),
                }
            }
            for kernel in products(numbers) {
                let [our_q, our_pages] = [untouched(q.len()), untouched(pages.len())];
                let address = |page: usize| our_pages.address() + (page * page_bytes) as u64;
                let page_of_row = words(&places, |place| address(place.0).to_ne_bytes());
                let positions = words(&places, |place| (place.1 as u32).to_ne_bytes());
                let to = cached(&shape, 1, (&our_q, q_stride), &page_of_row, &positions);
                product.run(kernel, 0, rows, to);
                assert!(download(&our_q) == q, "{kernel:?}, {numbers:?}: queries of {heads} x {head_dim}");
                assert!(download(&our_pages) == pages, "{kernel:?}, {numbers:?}: cache of {heads} x {head_dim}");
            }
        }
    }
}

/// Two layers of a network.
pub(super) fn shape(numbers: FloatType, heads: usize, head_dim: usize, positions: usize) -> NetworkShape {
    let config = Config {
        n_embd: heads * head_dim,
        n_head: heads,
        n_layer: 2,
        n_positions: positions,
        ..Config::named("gpt2").unwrap()
    };
    NetworkShape::new(&config, numbers)
}

/// A product to queries and the cache of a layer.
pub(super) fn cached(
    shape: &NetworkShape,
    layer: usize,
    (q, q_stride): (&Memory, usize),
    pages: &Memory,
    positions: &Memory,
) -> MatmulArgs {
    MatmulArgs {
        y: q.address(),
        y_stride: q_stride as i32,
        into: Into::Qkv as i32,
        pages: pages.address(),
        positions: positions.address(),
        cached: CachedArgs::new(shape, layer),
        ..MatmulArgs::default()
    }
}
