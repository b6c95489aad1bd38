//! Bytes of tokens in, whole UTF-8 characters out.

/// Turns bytes that arrive token by token into text, holding back the first bytes of a character until the rest is there.
#[derive(Debug, Default)]
pub struct TextStream {
    held: Vec<u8>,
}

impl TextStream {
    /// Takes the next token's bytes and returns the text that is complete now; may be empty. Bytes that can start no
    /// character become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let _ = (bytes, &self.held);
        todo!()
    }

    /// Ends the text: what was held back, as U+FFFD.
    pub fn finish(&mut self) -> String {
        todo!()
    }
}
