//! Bytes of tokens in, whole UTF-8 characters out.

/// Turns bytes that arrive token by token into text, holding back the first bytes of a character until the rest has
/// come.
///
/// However the bytes are split, the parts together are [`String::from_utf8_lossy`] of the whole.
#[derive(Debug, Default)]
pub struct TextStream {
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
}

impl TextStream {
    /// Takes the next token's bytes and returns the text that is now complete, which may be empty. Invalid bytes become
    /// U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = &self.held[..];
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            rest = invalid;
            let Some(len) = error.error_len() else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[len..];
        }
        self.held = rest.to_vec();
        text
    }

    /// Ends the text; what was held back becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        String::from_utf8_lossy(&held).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::TextStream;

    /// Bytes that are often parts of characters.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![any::<u8>(), 0x80_u8..=0xBF, 0xC0_u8..=0xFF, Just(b'a')]
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![vec(byte(), 0..5), any::<char>().prop_map(|c| c.to_string().into_bytes())];
        vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_split_gives_the_text_of_the_whole(bytes in bytes(), lengths in vec(0_usize..5, 0..100)) {
            let mut stream = TextStream::default();
            let mut text = String::new();
            let mut rest = &bytes[..];
            for length in lengths {
                let (part, after) = rest.split_at(length.min(rest.len()));
                text += &stream.push(part);
                rest = after;
            }
            text += &stream.push(rest);
            text += &stream.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_character_comes_with_its_last_byte() {
        let mut stream = TextStream::default();
        let parts: Vec<_> = "🙂!".bytes().map(|byte| stream.push(&[byte])).collect();
        assert_eq!(parts, ["", "", "", "🙂", "!"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn the_end_shows_what_was_held_back() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"ok\xf0\x9f"), "ok");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.push(b"again"), "again");
    }
}
