//! What is no constraint, or cannot be followed.

use super::*;

#[test]
fn where_no_token_leads_on_is_said() {
    let tokens = Tokens::of(&["", "ab", "b"]);
    let error = tokens.vocabulary().compile(&regex("a+")).unwrap_err().to_string();
    let why = "no token of the vocabulary leads on";
    assert_eq!(error, format!("`regex` cannot be followed from byte 0 of the completion on: {why}"));
    // After the first token, what must follow has none.
    for config in [
        tokens.config(&regex("aba")),
        GenerationConfig { num_beams: 3, ..tokens.config(&regex("aba")) },
        GenerationConfig {
            num_beams: 4,
            num_beam_groups: 2,
            diversity_penalty: Some(1.0),
            ..tokens.config(&regex("aba"))
        },
        GenerationConfig { sample: true, ..tokens.config(&regex("aba")) },
    ] {
        let error = run(&tokens, &[1], &config).unwrap_err().to_string();
        assert_eq!(error, format!("`regex` cannot be followed from byte 2 of the completion on: {why}"));
    }
}

#[test]
fn what_is_no_constraint_is_refused_by_name() {
    let tokens = Tokens::of(&LETTERS);
    let vocabulary = tokens.vocabulary();
    let refused = |source: Source| vocabulary.compile(&source).unwrap_err().to_string();
    for (source, fault) in [
        ("(", "`regex` is not a regular expression: unclosed group (at byte 0)"),
        (r"a(?=b)", "look-around, including look-ahead and look-behind, is not supported (at byte 1)"),
        (r"(a)\1", "backreferences are not supported"),
        (r"a\bb", "`regex` looks at what is around a place"),
        (r"(?-u:\xff)", "pattern can match invalid UTF-8"),
        ("[a&&b]", "from byte 0 of the completion on: no token"),
    ] {
        let error = refused(regex(source));
        assert!(error.contains(fault) && !error.contains('\n'), "{error}");
    }
    for (grammar, fault) in [
        ("start: b", "unknown name: \"b\""),
        ("a: \"b\"", "there is no rule \"start\""),
        ("start: start \"a\"", "`grammar` has a rule that never ends: \"start\""),
        ("start: <|endoftext|>", "`grammar` has a special token"),
        ("start: (((", "`grammar` is not a grammar"),
    ] {
        let error = refused(Source::Grammar(grammar.to_owned()));
        assert!(error.contains(fault) && !error.contains('\n'), "{error}");
    }
    let deep = refused(regex(&("(".repeat(9000) + &")".repeat(9000))));
    assert!(deep.contains("nested"), "{deep}");
    let deep = refused(Source::Grammar(format!("start: {}\"a\"{}", "(".repeat(201), ")".repeat(201))));
    assert!(deep.contains("nested too deeply: 201 brackets"), "{deep}");
    let long = refused(Source::Grammar("#".repeat(2 << 20)));
    assert!(long.contains("has 2097152 bytes"), "{long}");
}

/// What a rule derives decides, not where it calls itself.
#[test]
fn only_rules_that_derive_nothing_never_end() {
    let vocabulary = Tokens::of(&LETTERS).vocabulary();
    for (grammar, ends) in [
        ("start: start \"a\" | \"b\"", true),
        ("start: \"a\" start | \"\"", true),
        ("start: x start x | \"b\"\nx: \"\"", true),
        ("start: start*", true),
        ("start: \"a\" | never\nnever: \"b\" never", false),
        ("start: x\nx: y \"a\"\ny: x \"b\"", false),
        ("start: \"a\" x\nx: \"b\" x | x \"b\" | x x", false),
        ("start: \"a\"\nunused: unused", true),
    ] {
        let compiled = vocabulary.compile(&Source::Grammar(grammar.to_owned()));
        match compiled {
            Ok(_) => assert!(ends, "{grammar}"),
            Err(error) => assert!(!ends && error.to_string().contains("never end"), "{grammar}: {error}"),
        }
    }
}

#[test]
fn left_recursion_is_followed() {
    let tokens = Tokens::of(&LETTERS);
    let grammar = Source::Grammar("start: start \"b\" | \"a\"".to_owned());
    let constraint = tokens.vocabulary().compile(&grammar).unwrap();
    let mut scores = vec![0.0; tokens.0.len()];
    constraint.apply(&mut scores, &[3], &[END]).unwrap();
    assert_eq!(
        scores.iter().map(|score| *score == 0.0).collect::<Vec<_>>(),
        [true, false, true, false, false, false, false, false]
    );
}

#[test]
fn only_one_constraint_at_a_time() {
    let both = GenerationConfig { regex: Some("a".into()), choices: vec!["b".into()], ..GenerationConfig::default() };
    let error = both.check().unwrap_err().to_string();
    assert_eq!(error, "`choices` cannot be combined with `regex`: leave one of them out");
    // A row's own takes the place of that for all rows.
    let row = serde_json::json!({"choices": ["x"]});
    let all = GenerationConfig { regex: Some("a".into()), ..GenerationConfig::default() };
    let own = all.with_json(row.as_object().unwrap()).unwrap();
    assert_eq!((own.regex, own.choices), (None, vec!["x".to_owned()]));
    assert!(GenerationConfig { regex: Some(" ".into()), ..GenerationConfig::default() }.check().is_ok());
    let error = GenerationConfig { regex: Some("".into()), ..GenerationConfig::default() }.check().unwrap_err();
    assert_eq!(error.to_string(), "`regex` is empty");
    let mut none = GenerationConfig { regex: Some("a".into()), ..GenerationConfig::default() };
    let error = none.compile(|| None).unwrap_err();
    assert_eq!(error.to_string(), "`regex` needs a tokenizer, and the model has none");
}
