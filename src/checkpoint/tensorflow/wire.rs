//! Protocol buffers' encoding of numbers and fields, which the table uses too.

/// Bytes to be read from the front. What is damaged or runs out gives `None`.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next number: seven bits a byte, the lowest first; the highest bit says that more follow.
    pub fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                return ((bits << shift) >> shift == bits).then_some(number);
            }
        }
        None
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number of any width.
    Number(u64),
    /// A string, bytes, or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers, in order; `None` if it is damaged.
pub(super) fn fields(message: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut cursor = Cursor(message);
    let mut fields = Vec::new();
    while !cursor.0.is_empty() {
        let tag = cursor.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(cursor.varint()?),
            1 => Value::Number(u64::from_le_bytes(cursor.array()?)),
            2 => {
                let len = cursor.varint()?;
                Value::Bytes(cursor.take(len)?)
            }
            5 => Value::Number(u32::from_le_bytes(cursor.array()?).into()),
            _ => return None,
        };
        fields.push((tag >> 3, value));
    }
    Some(fields)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = vec![];
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    /// A field that holds a number.
    pub fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    /// A field that holds bytes.
    pub fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
        [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
    }

    #[test]
    fn numbers_are_read_up_to_64_bits() {
        for n in [0, 1, 127, 128, 300, u32::MAX.into(), u64::MAX] {
            assert_eq!(Cursor(&varint(n)).varint(), Some(n));
        }
        // The example of protocol buffers' documentation.
        assert_eq!(Cursor(b"\x96\x01").varint(), Some(150));
        for damaged in [&b""[..], b"\x80", &[0xff; 12], b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"] {
            assert_eq!(Cursor(damaged).varint(), None, "{damaged:?}");
        }
    }

    #[test]
    fn fields_of_every_kind_are_read() {
        let message = b"\x08\x96\x01\x12\x07testing\x1d\x01\0\0\0\x21\x02\0\0\0\0\0\0\0";
        let expected =
            [(1, Value::Number(150)), (2, Value::Bytes(b"testing")), (3, Value::Number(1)), (4, Value::Number(2))];
        assert_eq!(fields(message).unwrap(), expected);
        for damaged in [&b"\x08"[..], b"\x12\x07test", b"\x1d\0", b"\x0b\x0c"] {
            assert_eq!(fields(damaged), None, "{damaged:?}");
        }
    }
}
