use super::*;
use crate::decode::Detokenize;

/// A vocabulary of bytes: token `i` has the text of `0[i]`.
struct Tokens(Vec<Vec<u8>>);

impl Detokenize for Tokens {
    fn token_bytes(&self, id: u32) -> &[u8] {
        self.0.get(id as usize).map_or(&[], Vec::as_slice)
    }
}

fn tokens(texts: &[&str]) -> Tokens {
    Tokens(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
}

#[test]
fn try_it() {
    let tokens = tokens(&["a", "b", "ab", "ba", "aab", "c", "", "\n", "/", "{", "}", "\"", " "]);
    let vocabulary = Vocabulary::new(tokens.0.len(), &tokens).unwrap();
    for rx in ["a*", "(ab|b)+", "a|ab", "^ab$", "a/b", "", "(?:)", "a{2,3}?", "(?x) a # com\n b", "[a&&b]", "(?P<stop>a)b", ".", "(?s).", "a\\b", "(a", "(?=a)", "(?-u:\\xff)"] {
        println!("== {rx:?}");
        let c = match vocabulary.compile(&Source::Regex(rx.into())) { Ok(c) => c, Err(e) => { println!("{e}"); continue } };
        for ids in [&[][..], &[0], &[0, 1], &[2], &[1], &[0,0], &[0, 0, 1]] {
            let mut scores = vec![0.0; tokens.0.len()];
            let r = c.apply(&mut scores, ids, &[6]);
            let ok: Vec<_> = (0..scores.len()).filter(|i| scores[*i] == 0.0).collect();
            println!("{ids:?} {r:?} {ok:?} {:?} {:?}", c.status(ids), c.dead_end(ids).map(|e| e.to_string()));
        }
    }
    for g in ["start: \"a\" start \"b\" | \"ab\"", "start: start \"a\" | \"a\"", "start: start \"a\"", "start: x", "start: \"a\" %ignore \"b\"", "", "foo", "start: (", "start: <|endoftext|>", "start: <[3]>", "start: %json { \"type\": \"object\", \"properties\": {} }"] {
        println!("== {g:?}");
        let c = match vocabulary.compile(&Source::Grammar(g.into())) { Ok(c) => c, Err(e) => { println!("{e}"); continue } };
        for ids in [&[][..], &[0], &[0, 1], &[2], &[1], &[0,0], &[0, 0, 1]] {
            let mut scores = vec![0.0; tokens.0.len()];
            let r = c.apply(&mut scores, ids, &[6]);
            let ok: Vec<_> = (0..scores.len()).filter(|i| scores[*i] == 0.0).collect();
            println!("{ids:?} {r:?} {ok:?} {:?} {:?}", c.status(ids), c.dead_end(ids).map(|e| e.to_string()));
        }
    }
    for s in ["{}", "true", "false", "1", r#"{"type":"object"}"#, r#"{"not":{}}"#, r#"{"type":"foo"}"#, r#"{"type":"array","uniqueItems":true}"#,r#"{"dependencies":{}}"#,r#"{"format":"foo", "type":"string"}"#, r#"{"type":"string","pattern":"("}"#, r#"{"properties":{"if":{}}}"#, r##"{"$ref":"#/x"}"##, r##"{"$ref":"http://x"}"##] {
        println!("== {s}");
        let c = match vocabulary.compile(&Source::JsonSchema(serde_json::from_str(s).unwrap())) { Ok(c) => c, Err(e) => { println!("{e}"); continue } };
        for ids in [&[][..], &[9], &[9,12], &[12], &[9,10], &[9,10,12]] {
            let mut scores = vec![0.0; tokens.0.len()];
            let r = c.apply(&mut scores, ids, &[6]);
            let ok: Vec<_> = (0..scores.len()).filter(|i| scores[*i] == 0.0).collect();
            println!("{ids:?} {r:?} {ok:?} {:?} {:?}", c.status(ids), c.dead_end(ids).map(|e| e.to_string()));
        }
    }
}
