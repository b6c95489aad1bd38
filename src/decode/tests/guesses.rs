//! Guessing ahead.

use super::*;

/// Without the counts of guesses.
fn uncounted(sequences: Vec<Sequence>) -> Vec<Sequence> {
    sequences.into_iter().map(|sequence| Sequence { guesses: None, ..sequence }).collect()
}

#[test]
fn guesses_change_nothing_and_save_passes() {
    let configs = strategies().into_iter().filter(|(_, c)| c.num_beams == 1 && c.penalty_alpha.is_none());
    for (name, config) in configs {
        let plain = GenerationConfig { prompt_lookup: None, ..config };
        let lookup = GenerationConfig { prompt_lookup: Some(5), ..plain.clone() };
        let assisted = GenerationConfig { assistant: true, ..plain.clone() };
        for prompt in prompts() {
            let mut model = scrambled(VOCAB, 30, 1);
            let expected = run(&mut model, &prompt, &plain);
            let passes = model.passes;
            let found = run(&mut scrambled(VOCAB, 30, 1), &prompt, &lookup);
            assert_eq!(uncounted(found), uncounted(expected.clone()), "{name}, looked up");
            // The same model, a wrong one, and one with a shorter context.
            for (seed, n_positions) in [(1, 30), (2, 30), (1, 9)] {
                let (mut model, mut assistant) = (scrambled(VOCAB, 30, 1), scrambled(VOCAB, n_positions, seed));
                let mut engine = Engine::new(&mut model, &Letters).with_assistant(&mut assistant).unwrap();
                engine.submit(&prompt, &checked(&assisted)).unwrap();
                let mut result = vec![];
                while !engine.is_idle() {
                    for event in engine.step().unwrap() {
                        if let Event::Finished { result: sequences, .. } = event {
                            result = sequences.unwrap();
                        }
                    }
                }
                let name = format!("{name}, assistant {seed} with {n_positions} positions");
                assert_eq!(uncounted(result), uncounted(expected.clone()), "{name}");
                if (seed, n_positions) == (1, 30) && passes > 4 {
                    assert!(model.passes <= passes / 2 + 1, "{name}: {} passes, plain {passes}", model.passes);
                }
            }
        }
    }
}

#[test]
fn prompt_lookup_saves_passes_if_text_repeats() {
    let cycle =
        || TableModel::new(8, 200, |ids: &[u32]| (0..8).map(|i| f32::from(i == (ids.len() % 5) as u8)).collect());
    let config = GenerationConfig { max_new_tokens: 100, ..GenerationConfig::default() };
    let (mut plain, mut guessing) = (cycle(), cycle());
    let expected = run(&mut plain, &[0], &config);
    let config = GenerationConfig { prompt_lookup: Some(9), ..config };
    assert_eq!(uncounted(run(&mut guessing, &[0], &config)), expected);
    assert_eq!(plain.passes, 100);
    assert!(guessing.passes < 25, "{} passes", guessing.passes);
}

/// Runs a request with a second model.
fn run_assisted(
    model: &mut dyn LanguageModel,
    assistant: &mut dyn LanguageModel,
    prompt: &[u32],
    config: &GenerationConfig,
) -> Vec<Sequence> {
    let mut engine = Engine::new(model, &Letters).with_assistant(assistant).unwrap();
    engine.submit(prompt, &checked(config)).unwrap();
    loop {
        for event in engine.step().unwrap() {
            if let Event::Finished { result, .. } = event {
                return result.unwrap();
            }
        }
    }
}

#[test]
fn guesses_are_counted() {
    let config = GenerationConfig { max_new_tokens: 12, assistant: true, ..GenerationConfig::default() };
    let counted = |seed, config: &GenerationConfig| {
        let (mut model, mut assistant) = (scrambled(VOCAB, 64, 1), scrambled(VOCAB, 64, seed));
        let found = run_assisted(&mut model, &mut assistant, &[3, 5], config).remove(0);
        (found.guesses.unwrap(), model.passes)
    };
    // The prompt's pass gives a token. Then 5 guesses and one token more, and 4 for the 5 that are missing.
    let right = Guesses { passes: 3, drafted: 9, accepted: 9 };
    assert_eq!(counted(1, &config), (right, 3));
    let one = GenerationConfig { num_assistant_tokens: Some(1), ..config.clone() };
    let right = Guesses { passes: 7, drafted: 5, accepted: 5 };
    assert_eq!(counted(1, &one), (right, 7));
    let (guesses, passes) = counted(2, &config);
    assert_eq!(guesses.passes, passes);
    assert!(guesses.accepted < guesses.drafted && guesses.accepted + guesses.passes == 12, "{guesses:?}");
    let plain = GenerationConfig { assistant: false, ..config };
    assert_eq!(run(&mut scrambled(VOCAB, 64, 1), &[3, 5], &plain)[0].guesses, None);
}

/// A vocabulary and a length for which all sequences can be listed.
const FEW: usize = 5;
const STEPS: usize = 4;

/// The probability of every sequence of `steps` tokens after a prompt, by the logits of each step.
fn exact(model: &dyn Fn(&[u32]) -> Vec<f32>, prompt: &[u32], steps: usize) -> Vec<f64> {
    let mut probs = vec![1.0];
    let mut open = vec![prompt.to_vec()];
    for _ in 0..steps {
        (probs, open) = std::iter::zip(probs, open)
            .flat_map(|(prob, ids)| {
                let weights: Vec<f64> = model(&ids).iter().map(|x| f64::from(*x).exp()).collect();
                let sum: f64 = weights.iter().sum();
                (0..).zip(weights).map(move |(id, weight)| (prob * weight / sum, [&ids[..], &[id]].concat()))
            })
            .unzip();
    }
    probs
}

/// How often each sequence of the first `steps` tokens was drawn, in the order of [`exact`].
fn counts(drawn: &[Vec<u32>], steps: usize) -> Vec<f64> {
    let mut counts = vec![0.0; FEW.pow(steps as u32)];
    for ids in drawn {
        counts[ids[..steps].iter().fold(0, |place, id| place * FEW + *id as usize)] += 1.0;
    }
    counts
}

/// Whether counts differ from what the probabilities let expect, so that chance would explain it once in a million times:
/// Pearson's test. Outcomes expected less than 5 times count as one.
fn differ(counts: &[f64], probs: &[f64]) -> bool {
    let n: f64 = counts.iter().sum();
    let cells = || std::iter::zip(counts, probs).map(|(count, prob)| (*count, n * prob));
    let (rare, frequent): (Vec<_>, Vec<_>) = cells().partition(|(_, expected)| *expected < 5.0);
    let rare = rare.into_iter().fold((0.0, 0.0), |(counts, sum), (count, expected)| (counts + count, sum + expected));
    let cells: Vec<_> = frequent.into_iter().chain(Some(rare).filter(|(_, expected)| *expected >= 5.0)).collect();
    let statistic: f64 = cells.iter().map(|(count, expected)| (count - expected).powi(2) / expected).sum();
    // The quantile of chi-square by Wilson and Hilferty's approximation, from that of the normal distribution.
    let freedom = (cells.len() - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    statistic > freedom * (1.0 - spread + 4.7534 * spread.sqrt()).powi(3)
}

/// Sequences drawn with as many seeds.
fn drawn(seeds: u64, config: &GenerationConfig, run: impl Fn(&GenerationConfig) -> Vec<Sequence>) -> Vec<Sequence> {
    let of = |seed| run(&GenerationConfig { seed: Some(seed), ..config.clone() });
    (0..seeds).flat_map(of).collect()
}

#[test]
fn guesses_keep_the_distribution_of_each_step() {
    const SEEDS: u64 = 2000;
    let (model, other) = (|| scrambled(FEW, 64, 1), || scrambled(FEW, 64, 2));
    let base = GenerationConfig {
        max_new_tokens: STEPS,
        sample: true,
        num_return_sequences: 5,
        ..GenerationConfig::default()
    };
    let lookup = GenerationConfig { prompt_lookup: Some(3), max_matching_ngram_size: Some(2), ..base.clone() };
    let assisted = GenerationConfig { assistant: true, ..base.clone() };
    for temperature in [1.0, 2.5] {
        let warm = |config: &GenerationConfig| GenerationConfig { temperature: Some(temperature), ..config.clone() };
        for prompt in [&[0, 1, 2, 0, 1, 3, 4, 0][..], &[2, 2, 4]] {
            let plain = drawn(SEEDS, &warm(&base), |config| run(&mut model(), prompt, config));
            let logits = |ids: &[u32]| model().logits(ids).iter().map(|x| x / temperature as f32).collect();
            for (name, found) in [
                ("looked up", drawn(SEEDS, &warm(&lookup), |config| run(&mut model(), prompt, config))),
                (
                    "assisted",
                    drawn(SEEDS, &warm(&assisted), |config| run_assisted(&mut model(), &mut other(), prompt, config)),
                ),
            ] {
                let guesses: Vec<_> = found.iter().filter_map(|sequence| sequence.guesses).collect();
                let (drafted, accepted) =
                    guesses.iter().fold((0, 0), |(d, a), guesses| (d + guesses.drafted, a + guesses.accepted));
                assert!(accepted > 200 && drafted - accepted > 200, "{name}: {accepted} of {drafted}");
                let found = ids(&found);
                for steps in 1..=STEPS {
                    let probs = exact(&logits, prompt, steps);
                    assert!(!differ(&counts(&found, steps), &probs), "{name}, {steps} tokens after {prompt:?}");
                }
                // More than the law: they are the same draws.
                assert_eq!(found, ids(&plain), "{name}");
            }
            // It would show if a guess in five were taken as it is.
            let guessed = drawn(SEEDS, &warm(&base), |config| run(&mut other(), prompt, config));
            let wrong: Vec<_> = std::iter::zip(ids(&plain), ids(&guessed))
                .enumerate()
                .map(|(i, (plain, guessed))| if i % 5 == 0 { guessed } else { plain })
                .collect();
            assert!(differ(&counts(&wrong, STEPS), &exact(&logits, prompt, STEPS)), "after {prompt:?}");
        }
    }
}
