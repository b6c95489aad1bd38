//! What a tokenizer adds around a text: the token that starts it, in a few tokenizers one that ends it.

use serde_json::Value;

use super::vocabulary::shown;

/// The most tokens around a text. Usual tokenizers add one or two.
const MOST_TOKENS: usize = 1000;

/// The ids before and after a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Template {
    pub before: Vec<u32>,
    pub after: Vec<u32>,
}

impl Template {
    /// That of the `post_processor` of a `tokenizer.json`, for a single text.
    pub fn of(post_processor: &Value) -> Result<Self, String> {
        match post_processor.get("type").and_then(Value::as_str) {
            None if post_processor.is_null() => Ok(Self::default()),
            Some("ByteLevel") => Ok(Self::default()),
            Some("Sequence") => {
                let processors = post_processor.get("processors").and_then(Value::as_array);
                let processors = processors.ok_or("`post_processor.processors` is not a list")?;
                processors.iter().try_fold(Self::default(), |inner, processor| {
                    let outer = Self::of(processor)?;
                    let before = [outer.before, inner.before].concat();
                    let after = [inner.after, outer.after].concat();
                    Self { before, after }.checked()
                })
            }
            Some("TemplateProcessing") => template(post_processor),
            Some("RobertaProcessing" | "BertProcessing") => {
                let id = |key: &str| {
                    let id = post_processor.get(key).and_then(|token| token.get(1)).and_then(id);
                    id.map(|id| vec![id]).ok_or_else(|| format!("`post_processor.{key}` is not a token and its id"))
                };
                Ok(Self { before: id("cls")?, after: id("sep")? })
            }
            kind => Err(format!("a post_processor of type {} is not supported", shown(kind.unwrap_or_default()))),
        }
    }

    fn checked(self) -> Result<Self, String> {
        if self.ids().count() <= MOST_TOKENS {
            return Ok(self);
        }
        Err(format!("`post_processor` adds more than {MOST_TOKENS} tokens to a text, which is too many"))
    }

    /// All ids.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.before.iter().chain(&self.after).copied()
    }
}

/// `{"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {}}], "special_tokens": {"<s>": {"ids": [1]}}}`
fn template(json: &Value) -> Result<Template, String> {
    let pieces = json.get("single").and_then(Value::as_array);
    let pieces = pieces.ok_or("`post_processor.single` is not a list")?;
    let is_text = |piece: &&Value| piece.get("Sequence").is_some();
    if pieces.iter().filter(is_text).nth(1).is_some() {
        return Err("`post_processor.single` repeats the text, which is not supported".into());
    }
    let mut template = Template::default();
    let mut in_front = true;
    for piece in pieces {
        if is_text(&piece) {
            in_front = false;
            continue;
        }
        let name = piece.get("SpecialToken").and_then(|token| token.get("id")).and_then(Value::as_str);
        let name = name.ok_or("`post_processor.single` has a part that is neither a text nor a token")?;
        let ids = json.get("special_tokens").and_then(|tokens| tokens.get(name)).and_then(|token| token.get("ids"));
        let ids = ids.and_then(Value::as_array).and_then(|ids| ids.iter().map(id).collect::<Option<Vec<u32>>>());
        let ids =
            ids.ok_or_else(|| format!("`post_processor.special_tokens` does not say the ids of {}", shown(name)))?;
        if in_front { &mut template.before } else { &mut template.after }.extend(ids);
        template = template.checked()?;
    }
    Ok(template)
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(json: Value) -> (Vec<u32>, Vec<u32>) {
        let template = Template::of(&json).unwrap();
        (template.before, template.after)
    }

    #[test]
    fn every_kind_says_what_it_adds() {
        let bos = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}},
        });
        let roberta = json!({"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 2]});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true});
        assert_eq!(of(Value::Null), (vec![], vec![]));
        assert_eq!(of(bytes.clone()), (vec![], vec![]));
        assert_eq!(of(bos.clone()), (vec![7], vec![]));
        assert_eq!(of(roberta.clone()), (vec![0], vec![2]));
        assert_eq!(of(json!({"type": "Sequence", "processors": [bytes, bos, roberta]})), (vec![0, 7], vec![2]));
    }

    /// Adds a token with these ids, so many times.
    fn many(ids: Vec<u32>, times: usize) -> Value {
        let single = vec![json!({"SpecialToken": {"id": "x"}}); times];
        json!({"type": "TemplateProcessing", "single": single, "special_tokens": {"x": {"ids": ids}}})
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for (json, words) in [
            (json!({"type": "Nonsense"}), "\"Nonsense\""),
            (json!(3), "\"\""),
            (json!({"type": "Sequence"}), "post_processor.processors"),
            (json!({"type": "TemplateProcessing", "single": 1}), "post_processor.single"),
            (json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}]}), "the ids of \"x\""),
            (json!({"type": "BertProcessing", "cls": ["a", -1]}), "post_processor.cls"),
            (json!({"type": "TemplateProcessing", "single": [{"Sequence": {}}, {"Sequence": {}}]}), "repeats the text"),
            (many(vec![7; 1], 1001), "more than 1000 tokens"),
            (many(vec![7; 1001], 1), "more than 1000 tokens"),
            (
                json!({"type": "Sequence", "processors": [many(vec![7], 600), many(vec![7], 600)]}),
                "more than 1000 tokens",
            ),
        ] {
            let error = Template::of(&json).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
