//! Every strategy follows a constraint.

use super::*;

#[test]
fn every_strategy_follows_it_and_every_beam_is_another_text() {
    let tokens = Tokens::of(&LETTERS);
    let long = Tokens::of(&LETTERS).config(&regex("(ab|ba){1,3}|b(aab)*"));
    let base = GenerationConfig { max_new_tokens: 12, ..long };
    let sample = GenerationConfig { sample: true, seed: Some(3), num_return_sequences: 4, ..base.clone() };
    let beams = GenerationConfig { num_beams: 4, num_return_sequences: 4, ..base.clone() };
    let whole = Regex::new("^(?:(ab|ba){1,3}|b(aab)*)$").unwrap();
    for (name, config) in [
        ("greedy", base.clone()),
        ("sampling", sample.clone()),
        ("the best", GenerationConfig { top_k: Some(1), temperature: Some(1.7), ..sample.clone() }),
        ("by mass", GenerationConfig { top_p: Some(0.3), typical_p: Some(0.9), min_p: Some(0.5), ..sample.clone() }),
        ("penalised", GenerationConfig { repetition_penalty: 1.4, frequency_penalty: 1.0, ..sample }),
        ("beams", beams.clone()),
        ("drawn beams", GenerationConfig { sample: true, ..beams.clone() }),
        ("groups", GenerationConfig { num_beam_groups: 2, diversity_penalty: Some(0.7), ..beams }),
        ("contrastive", GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(5), ..base.clone() }),
        ("prompt lookup", GenerationConfig { prompt_lookup: Some(4), ..base }),
    ] {
        for prompt in [&[1][..], &[3, 4, 5, 3, 4], &[6, 2]] {
            let found = run(&tokens, prompt, &config).unwrap();
            assert!(!found.is_empty(), "{name}");
            for sequence in &found {
                let text = String::from_utf8(tokens.text(&sequence.ids)).unwrap();
                let matches = whole.is_match(&text);
                assert!(matches || sequence.finish_reason == FinishReason::Length, "{name}: {text}");
                assert_eq!(sequence.is_whole, Some(matches), "{name}: {text}");
            }
            if name == "beams" {
                let ids: HashSet<_> = found.iter().map(|sequence| sequence.ids.clone()).collect();
                assert_eq!(ids.len(), found.len());
            }
        }
    }
}

/// An assistant that always agrees guesses to the end of the text and not beyond it.
#[test]
fn assisted_decoding_finds_the_same() {
    let tokens = Tokens::of(&LETTERS);
    for source in ["ab", "(ab)*b", "a{9}", "(a|b){5}"] {
        let config = GenerationConfig { max_new_tokens: 12, ..tokens.config(&regex(source)) };
        let plain = run(&tokens, &[1, 2], &config).unwrap();
        let decoding = Arc::new(GenerationConfig { assistant: true, ..config }.validate().unwrap());
        for seed in [1, 2] {
            let (mut model, mut assistant) = (scrambled(8, 64, 1), scrambled(8, 64, seed));
            let engine = Engine::new(&mut model, &tokens);
            let mut engine = engine.with_assistant(&mut assistant).unwrap();
            engine.submit(&[1, 2], &decoding).unwrap();
            let mut found = None;
            while found.is_none() {
                found = engine.step().unwrap().into_iter().find_map(|event| match event {
                    Event::Finished { result, .. } => Some(result.unwrap()),
                    _ => None,
                });
            }
            let found: Vec<_> = found.unwrap().into_iter().map(|it| Sequence { guesses: None, ..it }).collect();
            assert_eq!(found, plain, "{source}");
        }
    }
}

#[test]
fn beams_find_all_of_a_few_texts_in_order() {
    let tokens = Tokens::of(&LETTERS);
    let choices = ["ab", "aba", "b", "bbbb"].map(str::to_owned);
    let prompt = [1, 4, 6];
    let mut expected: Vec<_> = by_force(&tokens, "ab|aba|b|bbbb", &prompt).into_iter().collect();
    expected.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
    let config = GenerationConfig {
        num_beams: 32,
        num_return_sequences: 32,
        length_penalty: Some(0.0),
        early_stopping: Some(crate::decode::EarlyStopping::Never),
        max_new_tokens: MOST,
        ..tokens.config(&Source::Choices(choices.to_vec()))
    };
    let found = run(&tokens, &prompt, &config).unwrap();
    assert_eq!(found.len(), expected.len(), "those that there are, and no more");
    // The score is that of the model, which is not renormalised.
    let mut found: Vec<_> = found.into_iter().map(|sequence| sequence.ids).collect();
    let mut expected: Vec<_> = expected.into_iter().map(|(ids, _)| ids).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}
