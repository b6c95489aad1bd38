//! What is refused of a file before the library sees it: it trusts files to be well-formed, and to want no more than is
//! sensible. Kinds of components that are not listed here were never tried on broken files.

use serde_json::{Map, Value};

use crate::tokenizer::vocabulary::shown;

/// A component of the file that does one step.
pub(super) struct Component {
    /// Its place in the file: `normalizer.normalizers[3]`.
    pub place: String,
    /// Its `type`.
    pub kind: String,
    pub json: Value,
}

/// The kinds of components that do the same: their key in the file, the key of those in a sequence, and their types.
pub(super) struct Kinds {
    key: &'static str,
    list: &'static str,
    types: &'static [&'static str],
}

pub(super) const NORMALIZERS: Kinds = Kinds {
    key: "normalizer",
    list: "normalizers",
    types: &[
        "BertNormalizer",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Lowercase",
        "StripAccents",
        "Strip",
        "Replace",
        "Prepend",
        "ByteLevel",
    ],
};

pub(super) const PRE_TOKENIZERS: Kinds = Kinds {
    key: "pre_tokenizer",
    list: "pretokenizers",
    types: &[
        "ByteLevel",
        "BertPreTokenizer",
        "Whitespace",
        "WhitespaceSplit",
        "Metaspace",
        "Split",
        "Punctuation",
        "Digits",
        "CharDelimiterSplit",
    ],
};

pub(super) const DECODERS: Kinds = Kinds {
    key: "decoder",
    list: "decoders",
    types: &["ByteLevel", "WordPiece", "Metaspace", "BPEDecoder", "Replace", "Fuse", "Strip", "ByteFallback"],
};

/// The most components of one kind. Each takes its time with every text.
const MOST_COMPONENTS: usize = 1000;

impl Kinds {
    /// The components of this kind in a file, in the order in which they work: those of a sequence, or the only one.
    pub fn components(&self, parts: &Map<String, Value>) -> Result<Vec<Component>, String> {
        let mut found = vec![];
        if let Some(part) = parts.get(self.key).filter(|part| !part.is_null()) {
            self.collect(part, self.key, &mut found)?;
        }
        Ok(found)
    }

    fn collect(&self, part: &Value, place: &str, found: &mut Vec<Component>) -> Result<(), String> {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind == "Sequence" {
            let within = part.get(self.list).and_then(Value::as_array);
            let within = within.ok_or_else(|| format!("`{place}.{}` is not a list", self.list))?;
            return within
                .iter()
                .enumerate()
                .try_for_each(|(at, part)| self.collect(part, &format!("{place}.{}[{at}]", self.list), found));
        }
        if !self.types.contains(&kind) {
            return Err(format!("a {} of type {} is not supported", self.key, shown(kind)));
        }
        if part.get("prepend").is_some_and(|text| text == "") {
            return Err(format!("a {} that prepends nothing is not supported", self.key));
        }
        if part.get("stop").is_some_and(|stop| stop != 0) {
            return Err(format!("a {} that strips the end of tokens is not supported", self.key));
        }
        if found.len() == MOST_COMPONENTS {
            return Err(format!("`{}` has more than {MOST_COMPONENTS} components, which is too many", self.key));
        }
        found.push(Component { place: place.to_owned(), kind: kind.to_owned(), json: part.clone() });
        Ok(())
    }
}

/// Checks a model.
pub(super) fn check_model(model: &Map<String, Value>) -> Result<(), String> {
    const MODELS: [&str; 4] = ["BPE", "WordPiece", "WordLevel", "Unigram"];
    // Files of the first versions do not name the type.
    if let Some(kind) = model.get("type").map(|kind| kind.as_str().unwrap_or_default())
        && !MODELS.contains(&kind)
    {
        return Err(format!("a model of type {} is not supported", shown(kind)));
    }
    check_vocabulary(model)?;
    let text = |key: &str| model.get(key).and_then(Value::as_str).unwrap_or_default();
    if model.contains_key("merges") && !text("continuing_subword_prefix").is_empty() {
        return Err("merges with a continuing_subword_prefix are not supported".into());
    }
    // They are copied for every word, or every character.
    const LONGEST: usize = 1 << 10;
    for key in ["continuing_subword_prefix", "end_of_word_suffix", "unk_token"] {
        let length = text(key).len();
        if length > LONGEST {
            return Err(format!("`model.{key}` has {length} bytes, more than {LONGEST}, which is too much"));
        }
    }
    Ok(())
}

/// Checks the vocabulary and merges.
fn check_vocabulary(model: &Map<String, Value>) -> Result<(), String> {
    let is_id = |id: &Value| id.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
    match model.get("vocab") {
        Some(Value::Object(vocabulary)) => {
            if let Some((piece, _)) = vocabulary.iter().find(|(_, id)| !is_id(id)) {
                return Err(format!("`model.vocab`: the id of {} is not a whole number from 0", shown(piece)));
            }
        }
        Some(Value::Array(pieces)) => {
            check_pieces(pieces.iter().filter_map(|piece| piece.get(0)).filter_map(Value::as_str))?;
        }
        _ => {}
    }
    let is_merge = |merge: &Value| match merge {
        Value::String(_) => true,
        Value::Array(pair) => pair.len() == 2 && pair.iter().all(Value::is_string),
        _ => false,
    };
    let Some(merges) = model.get("merges") else { return Ok(()) };
    let merges = merges.as_array().ok_or("`model.merges` is not a list")?;
    match merges.iter().position(|merge| !is_merge(merge)) {
        Some(at) => Err(format!("`model.merges`: item {at} is not a merge, which is two pieces")),
        None => Ok(()),
    }
}

/// Checks the pieces of a Unigram model. At every character of a text, it copies each piece that begins there; and the
/// tree of its pieces is as deep as the longest.
fn check_pieces<'a>(pieces: impl Iterator<Item = &'a str>) -> Result<(), String> {
    const LONGEST: usize = 1 << 10;
    const MOST_BYTES: usize = 1 << 14;
    let mut pieces: Vec<&str> = pieces.collect();
    if let Some(piece) = pieces.iter().find(|piece| piece.len() > LONGEST) {
        let (piece, length) = (shown(piece), piece.len());
        return Err(format!("`model.vocab`: {piece} has {length} bytes, more than {LONGEST}, which is too much"));
    }
    // In this order, a piece comes right after those that begin it.
    pieces.sort_unstable();
    let mut beginnings: Vec<(&str, usize)> = vec![];
    for piece in pieces {
        while beginnings.last().is_some_and(|(before, _)| !piece.starts_with(before)) {
            beginnings.pop();
        }
        let bytes = piece.len() + beginnings.last().map_or(0, |(_, bytes)| *bytes);
        if bytes > MOST_BYTES {
            return Err(format!("`model.vocab`: too many pieces begin like {}", shown(piece)));
        }
        beginnings.push((piece, bytes));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn components(part: Value) -> Result<Vec<(String, String)>, String> {
        let Value::Object(parts) = json!({"normalizer": part}) else { unreachable!("it is an object") };
        let found = NORMALIZERS.components(&parts)?;
        Ok(found.into_iter().map(|component| (component.place, component.kind)).collect())
    }

    #[test]
    fn components_are_named_by_their_places() {
        let found =
            |places: &[(&str, &str)]| Ok(places.iter().map(|(at, kind)| ((*at).into(), (*kind).into())).collect());
        let (nfc, lowercase) = (json!({"type": "NFC"}), json!({"type": "Lowercase"}));
        assert_eq!(components(Value::Null), found(&[]));
        assert_eq!(components(nfc.clone()), found(&[("normalizer", "NFC")]));
        let inner = json!({"type": "Sequence", "normalizers": [lowercase]});
        let both = json!({"type": "Sequence", "normalizers": [nfc, inner]});
        let places = [("normalizer.normalizers[0]", "NFC"), ("normalizer.normalizers[1].normalizers[0]", "Lowercase")];
        assert_eq!(components(both), found(&places));
        let many = json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); MOST_COMPONENTS + 1]});
        assert!(components(many).unwrap_err().contains("more than 1000"));
    }

    #[test]
    fn pieces_within_each_other_are_counted() {
        let nested = |longest: usize| (1..=longest).map(|length| "a".repeat(length)).collect::<Vec<_>>();
        let check = |pieces: &[String]| check_pieces(pieces.iter().map(String::as_str));
        // 1 + 2 + ... + 180 < 2¹⁴ < 1 + 2 + ... + 181
        assert_eq!(check(&nested(180)), Ok(()));
        assert!(check(&nested(181)).unwrap_err().contains("too many pieces"));
        let apart: Vec<String> = nested(179).into_iter().flat_map(|piece| [format!("b{piece}"), piece]).collect();
        assert_eq!(check(&apart), Ok(()));
        assert!(check(&["a".repeat(1025)]).unwrap_err().contains("1025 bytes"));
    }
}
