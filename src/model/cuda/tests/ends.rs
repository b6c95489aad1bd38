//! Embeddings, loading, and the tokens picked from logits.

use super::products::{Product, within};
use super::*;

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn an_embedding_is_the_sum_of_two_rows_and_ranks_start_at_0() {
    for numbers in TYPES {
        for (width, tokens) in [(1, 1), (33, 7), (300, 9)] {
            let stride = padded(width);
            let tables = [noise_of(numbers, 11 * width, 10), noise_of(numbers, 8 * width, 11)];
            let rows = [(5, 11), (3, 8)].map(|(step, of)| (0..tokens as u32).map(move |i| i * step % of));
            let [wte, wpe] = tables.each_ref().map(|table| upload(&in_fragments(numbers, table, width)));
            let [ids, positions] = rows.clone().map(|rows| words(&rows.collect::<Vec<_>>(), |id| id.to_ne_bytes()));
            let [x, best] = [tokens * stride * 4, 5 * 8].map(untouched);
            let arguments = EmbedArgs {
                wte: wte.address(),
                wpe: wpe.address(),
                ids: ids.address(),
                positions: positions.address(),
                x: x.address(),
                best: best.address(),
                stride: stride as i32,
                width: width as i32,
                best_count: 3,
                unused: 0,
            };
            launch(Kernel::Embed, numbers, [tokens, 1, 1], 0, &arguments);
            let [ids, positions] = rows;
            let expected = ids.zip(positions).flat_map(|(id, position)| {
                let row = |table: usize, row: u32| &tables[table][row as usize * width..][..width];
                row(0, id).iter().zip(row(1, position)).map(|(a, b)| a + b)
            });
            assert_eq!(within(&x, width, stride), expected.collect::<Vec<_>>(), "{numbers:?}, {width}");
            assert_eq!(download(&best), [[0; 24].as_slice(), &[UNTOUCHED; 16]].concat());
        }
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn matrices_of_any_type_are_converted_with_rounding_to_nearest() {
    // Ties, numbers too large for f16, tiny ones, and NaN or infinities.
    let special = [
        0.0,
        -0.0,
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        1.0 + 1.0 / 256.0,
        -1.0 - 3.0 / 256.0,
        65504.0,
        65519.9,
        65520.0,
        -1e30,
        3.4e38,
        6e-8,
        2.98e-8,
        -2.99e-8,
        9.1e-5,
        1e-40,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    for (numbers, stored) in TYPES.into_iter().flat_map(|numbers| TYPES.map(|stored| (numbers, stored))) {
        for (outputs, inputs) in [(1, 1), (17, 5), (3, 100), (70, 33)] {
            let mut from = noise(outputs * inputs, 12);
            from.iter_mut().zip(special).for_each(|(x, special)| *x = special);
            let file = bytes(stored, &from);
            let from = floats(stored, &file);
            for transposed in [false, true] {
                let stride = padded(inputs);
                let memory = upload(&file);
                let to = untouched((outputs.next_multiple_of(TILE_OUTPUTS) + 1) * stride * numbers.size());
                let arguments = PlaceArgs {
                    from: memory.address(),
                    to: to.address(),
                    outputs: outputs as i32,
                    inputs: inputs as i32,
                    stride: stride as i32,
                    stored: stored as i32,
                    transposed: i32::from(transposed),
                    unused: 0,
                };
                launch(Kernel::Place, numbers, [(outputs * inputs).div_ceil(PLACE_THREADS), 1, 1], 0, &arguments);
                let mut all = download(&to);
                let what = format!("{stored:?} to {numbers:?}, {outputs} x {inputs}, transposed: {transposed}");
                for (output, input) in (0..outputs).flat_map(|output| (0..inputs).map(move |input| (output, input))) {
                    let at = fragment_at(numbers, output, input, stride) * numbers.size();
                    let ours = &mut all[at..at + numbers.size()];
                    let x = from[if transposed { input * outputs + output } else { output * inputs + input }];
                    let [expected, y] = [&bytes(numbers, &[x]), &*ours].map(|bytes| floats(numbers, bytes)[0]);
                    // NaN of any kind.
                    let same = y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan();
                    assert!(same, "{what}: {x} is {y}, not {expected}");
                    ours.fill(UNTOUCHED);
                }
                assert!(all.iter().all(|byte| *byte == UNTOUCHED), "{what}: written beyond");
            }
        }
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn the_best_token_is_the_first_of_the_largest_and_none_where_a_logit_is_not_finite() {
    for vocabulary in [1, 2, 31, 33, 1023, 1024, 1025, 5000] {
        let last = vocabulary - 1;
        // Few distinct numbers, which gives ties between lanes, warps and rounds.
        let few = |seed| noise(vocabulary, seed).iter().map(|x| (3.0 * x).round()).collect::<Vec<f32>>();
        let mut rows: Vec<Vec<f32>> = (0..4).map(|seed| noise(vocabulary, 20 + seed)).collect();
        rows.extend((0..8).map(|seed| few(30 + seed)));
        rows.extend([0.0, -0.0, f32::MIN, f32::MAX, -1e-42].map(|x| vec![x; vocabulary]));
        for at in [0, last / 2, last] {
            for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
                let mut row = few(40 + at as u64);
                row[at] = x;
                rows.push(row.clone());
                // With the largest finite number in the same row.
                row[last / 3] = f32::MAX;
                rows.push(row);
            }
        }
        // Zeros of both signs are equal.
        let mut zeros = vec![-1.0; vocabulary];
        (zeros[last], zeros[last / 2]) = (0.0, -0.0);
        rows.extend([zeros, vec![f32::NEG_INFINITY; vocabulary], vec![f32::NAN; vocabulary]]);

        let logits = upload(&bytes(F32, &rows.concat()));
        for blocks in [1, 3, 16] {
            let best = upload(&vec![0; (rows.len() + 1) * 8]);
            let arguments =
                BestArgs { logits: logits.address(), best: best.address(), vocabulary: vocabulary as i32, unused: 0 };
            launch(Kernel::BestTokens, F32, [rows.len(), blocks, 1], 0, &arguments);
            let bytes = download(&best);
            let (ours, beyond) = bytes.split_at(rows.len() * 8);
            assert_eq!(beyond, [0; 8]);
            for (i, (ours, row)) in pass::ids(ours).zip(&rows).enumerate() {
                assert_eq!(ours, best_token(row), "row {i} of {vocabulary}");
            }
        }
    }
}

/// The first of the largest; `None` if a logit is not finite.
fn best_token(logits: &[f32]) -> Option<u32> {
    let larger = |best, i: usize| if logits[i] > logits[best] { i } else { best };
    logits.iter().all(|x| x.is_finite()).then(|| (0..logits.len()).fold(0, larger) as u32)
}

/// To the bit: decoding must get what it would find in the row.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn the_most_probable_tokens_and_the_sum_are_those_of_the_host() {
    for (vocabulary, count) in [(1, 1), (7, 7), (90, 64), (1024, 16), (1030, 3), (50257, 18)] {
        let mut rows: Vec<Vec<f32>> =
            (0..3).map(|seed| noise(vocabulary, 60 + seed).iter().map(|x| 9.0 * x - 40.0).collect()).collect();
        // Ties, an outlier that makes every other e^x 0, numbers of one sign, and zeros of both signs.
        rows.push(noise(vocabulary, 70).iter().map(|x| (4.0 * x).round()).collect());
        rows.push(rows[0].clone());
        rows[4][vocabulary / 2] = 200.0;
        rows.push((0..vocabulary).map(|i| if i % 3 == 0 { -0.0 } else { 0.0 }).collect());
        rows.push(rows[1].clone());
        rows[6][vocabulary - 1] = f32::NAN;
        rows.push(rows[1].clone());
        rows[7][0] = f32::NEG_INFINITY;

        let logits = upload(&bytes(F32, &rows.concat()));
        let top_bytes = (1 + count) * 8;
        let top = untouched((rows.len() + 1) * top_bytes);
        let arguments = TopArgs {
            logits: logits.address(),
            top: top.address(),
            vocabulary: vocabulary as i32,
            count: count as i32,
        };
        launch(Kernel::TopTokens, F32, [rows.len(), 1, 1], 0, &arguments);
        let bytes = download(&top);
        let (ours, beyond) = bytes.split_at(rows.len() * top_bytes);
        assert_eq!(beyond, vec![UNTOUCHED; top_bytes]);
        for (i, (ours, row)) in ours.chunks(top_bytes).zip(&rows).enumerate() {
            let (ours, host) = (pass::read_top(ours), Top::of(row, count));
            assert_eq!(ours.is_some(), i < 6, "row {i} of {vocabulary}");
            // -0 comes back as 0, which is equal.
            assert_eq!(ours, host, "row {i} of {vocabulary}");
        }
    }
}

/// In short rows with a peak, an exponential that is off by one unit shows in the sum.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn the_sums_of_short_rows_are_those_of_the_host() {
    const ROWS: usize = 4000;
    const VOCABULARY: usize = 10;
    let rows: Vec<f32> = noise(ROWS * VOCABULARY, 90).iter().map(|x| 12.0 * x).collect();
    let (logits, top) = (upload(&bytes(F32, &rows)), untouched(ROWS * 16));
    let arguments = TopArgs { logits: logits.address(), top: top.address(), vocabulary: VOCABULARY as i32, count: 1 };
    launch(Kernel::TopTokens, F32, [ROWS, 1, 1], 0, &arguments);
    for (ours, row) in download(&top).chunks(16).zip(rows.chunks(VOCABULARY)) {
        assert_eq!(pass::read_top(ours), Top::of(row, 1), "{row:?}");
    }
}

/// With ties, and a row of NaN.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_product_of_few_rows_ranks_the_best_tokens_of_the_rows_from_one_on() {
    let (rows, inputs, outputs, from) = (33, 40, 210, 5);
    for numbers in TYPES {
        let mut product = Product::new(numbers, rows, inputs, outputs, false);
        // The same rows repeated.
        let w = noise_of(numbers, 30 * inputs, 13).repeat(outputs / 30);
        product.weight = upload(&in_fragments(numbers, &w, inputs));
        product.x[20 * inputs] = f32::NAN;
        let mut x = spread(&product.x, inputs, padded(inputs), 0.0);
        x.resize(WIDE * padded(inputs), f32::NAN);
        product.activations = upload(&bytes(numbers, &x));
        for kernel in NARROW {
            let [logits, best] = [rows * outputs * 4, (rows - from + 1) * 8].map(|bytes| upload(&vec![0; bytes]));
            let to = MatmulArgs {
                y: logits.address(),
                y_stride: outputs as i32,
                into: Into::Logits as i32,
                best: best.address(),
                best_from: from as i32,
                ..MatmulArgs::default()
            };
            product.run(kernel, 0, rows, to);
            let bytes = download(&best);
            let (ours, beyond) = bytes.split_at((rows - from) * 8);
            assert_eq!(beyond, [0; 8]);
            let logits = floats(F32, &download(&logits));
            let expected = logits.chunks(outputs).skip(from).map(best_token);
            assert!(pass::ids(ours).eq(expected), "{kernel:?}, {numbers:?}");
        }
    }
}
