//! Tokens, by id, and texts.

use serde_json::Value;

use super::Range;
use super::field::{Fault, Field, Takes};
use super::ids::{ids_of_json, parse_ids};

/// Token ids.
impl Field for Vec<u32> {
    fn takes(&self) -> Takes {
        Takes::Many
    }

    fn read(&mut self, text: &str) -> Result<(), Fault> {
        self.extend(parse_ids(text).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// A list of ids, or a single id.
    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        let list = if value.is_number() { &Value::Array(vec![value.clone()]) } else { value };
        *self = ids_of_json(list).ok_or("not a list of token ids")?;
        Ok(())
    }

    fn check(&self, _: &Range) -> Result<(), Fault> {
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        self.clone().into()
    }
}

/// The ids of a text.
impl Field for Option<Vec<u32>> {
    fn takes(&self) -> Takes {
        Takes::One
    }

    fn read(&mut self, text: &str) -> Result<(), Fault> {
        *self = Some(parse_ids(text).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        *self = Some(ids_of_json(value).ok_or("not a list of token ids")?);
        Ok(())
    }

    fn check(&self, _: &Range) -> Result<(), Fault> {
        if self.as_ref().is_some_and(Vec::is_empty) { Err("is empty; give at least one id".into()) } else { Ok(()) }
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        self.clone().into()
    }
}

/// A text.
impl Field for Option<String> {
    fn takes(&self) -> Takes {
        Takes::One
    }

    fn read(&mut self, text: &str) -> Result<(), Fault> {
        *self = Some(text.to_owned());
        Ok(())
    }

    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        *self = Some(value.as_str().ok_or("not a text")?.to_owned());
        Ok(())
    }

    fn check(&self, _: &Range) -> Result<(), Fault> {
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        self.clone().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_a_list_or_a_single_one() {
        let mut flags: Vec<u32> = vec![];
        ["1 2", "3,4"].iter().for_each(|text| flags.read(text).unwrap());
        assert_eq!(flags, [1, 2, 3, 4]);
        for (value, ids) in [(json!([1, 2]), &[1, 2][..]), (json!(5), &[5]), (json!([]), &[])] {
            flags.read_json(&value).unwrap();
            assert_eq!(flags, ids);
        }
        for value in [json!("x"), json!([1.5]), json!([-1]), json!({"1": 2}), json!(4_294_967_296_u64), json!(true)] {
            assert_eq!(Vec::<u32>::new().read_json(&value).unwrap_err(), "not a list of token ids", "{value}");
        }
        assert_eq!(Vec::<u32>::new().read("1 x").unwrap_err(), "`x` is not a token id");
    }

    #[test]
    fn a_text_or_its_ids() {
        let (mut text, mut ids) = (None::<String>, None::<Vec<u32>>);
        text.read("").unwrap();
        ids.read("3 4").unwrap();
        assert_eq!((text.json(), ids.json()), (json!(""), json!([3, 4])));
        assert_eq!(text.read_json(&json!(5)).unwrap_err(), "not a text");
        assert_eq!(ids.read_json(&json!(5)).unwrap_err(), "not a list of token ids");
        ids.read("").unwrap();
        assert_eq!(ids.check(&Range::ANY).unwrap_err(), "is empty; give at least one id");
    }
}
