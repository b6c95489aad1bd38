//! What a constraint allows is worked out only if none of the first choices is allowed.

use super::*;

/// Whether a request finds the same if it waits, and if log-probabilities make it look at all tokens at once.
#[test]
fn what_a_constraint_allows_may_be_worked_out_late() {
    let vocabulary = Vocabulary::new(VOCAB, &Letters).unwrap();
    let sample = GenerationConfig { sample: true, num_return_sequences: 8, seed: Some(4), ..base() };
    let configs = [
        base(),
        GenerationConfig { repetition_penalty: 1.3, frequency_penalty: 0.5, ..base() },
        sample.clone(),
        GenerationConfig { temperature: Some(0.6), ..sample.clone() },
        GenerationConfig { temperature: Some(4.0), prompt_lookup: Some(3), ..sample.clone() },
        GenerationConfig { top_k: Some(3), ..sample },
    ];
    // Many tokens or few may follow; the last of these comes to a place only once.
    let regexes = ["[A-Za-m]*", "([A-E][Aa-c])*", "[B-D]{2,9}", "(AB|ABC|B)*", "[A-Z]{0,3}[a-f]{0,5}A*"];
    let grammars = ["start: (WORD \"A\")+\nWORD: /[B-Z]{1,3}/", "start: \"a\" start \"b\" | \"c\""];
    let wanted = regexes.iter().map(|regex| (Some((*regex).to_owned()), None));
    let wanted = wanted.chain(grammars.iter().map(|grammar| (None, Some((*grammar).to_owned()))));
    for (regex, grammar) in wanted {
        for (i, config) in configs.iter().enumerate() {
            let mut config = GenerationConfig { regex: regex.clone(), grammar: grammar.clone(), ..config.clone() };
            config.compile(|| Some(Ok(&vocabulary))).unwrap();
            let at_once = GenerationConfig { logprobs: Some(0), ..config.clone() };
            for (scale, prompt) in [(1.0, [3, 5]), (1.0, [30, 2]), (9.0, [3, 5]), (60.0, [8, 8])] {
                // Of the last, what is allowed is often far from the best.
                let table = || {
                    let model = scrambled(VOCAB, 64, 1);
                    TableModel::new(VOCAB, 64, move |ids: &[u32]| {
                        model.logits(ids).into_iter().map(|x| x * scale).collect()
                    })
                };
                let found = run(&mut table(), &prompt, &config);
                let expected = run(&mut table(), &prompt, &at_once);
                let name = format!("{i}: {regex:?} {grammar:?} {scale} {prompt:?}");
                assert_eq!(ids(&found), ids(&expected), "{name}");
                let reasons = |found: &[Sequence]| -> Vec<_> {
                    found.iter().map(|sequence| (sequence.finish_reason, sequence.is_whole)).collect()
                };
                assert_eq!(reasons(&found), reasons(&expected), "{name}");
            }
        }
    }
}
