//! One schema for all records of a batch: a result and the record of a failed row have the same keys.

use serde::ser::{Error, Impossible, SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::output::RowRecord;

/// The key whose values differ from run to run.
const TIMINGS: &str = "timings";

/// The keys of a record, in order.
#[derive(Debug, Default)]
pub struct Columns {
    keys: Vec<String>,
    /// Whether timings are left out.
    is_untimed: bool,
}

impl Columns {
    /// Those of a kind of record, of which an empty one will do.
    pub fn of(record: &impl Serialize, is_untimed: bool) -> Self {
        let object = serde_json::to_value(Filled { row: None, record, is_untimed });
        let keys = match object {
            Ok(Value::Object(object)) => object.into_iter().map(|(key, _)| key).collect(),
            _ => vec![],
        };
        Self { keys, is_untimed }
    }

    /// A row's result, as JSON.
    pub fn result<'a, T: Serialize>(&self, row: &'a RowRecord, record: &'a T) -> impl Serialize + use<'a, T> {
        Filled { row: Some(row), record, is_untimed: self.is_untimed }
    }

    /// The record of a row that failed, as JSON.
    pub fn failure<'a>(&'a self, row: &'a RowRecord) -> impl Serialize + use<'a> {
        Failure { row, keys: &self.keys }
    }
}

/// A record in which what may be left out is null, after what is said about its row.
struct Filled<'a, T> {
    row: Option<&'a RowRecord>,
    record: &'a T,
    is_untimed: bool,
}

impl<T: Serialize> Serialize for Filled<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(row) = self.row {
            row.serialize(Fields { map: &mut map, is_untimed: false })?;
        }
        self.record.serialize(Fields { map: &mut map, is_untimed: self.is_untimed })?;
        map.end()
    }
}

struct Failure<'a> {
    row: &'a RowRecord,
    keys: &'a [String],
}

impl Serialize for Failure<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.row.serialize(Fields { map: &mut map, is_untimed: false })?;
        self.keys.iter().try_for_each(|key| map.serialize_entry(key, &()))?;
        map.end()
    }
}

/// Writes the fields of a record into a map: those that the record would leave out, too, as null.
struct Fields<'m, M> {
    map: &'m mut M,
    is_untimed: bool,
}

/// What is no record has no fields.
macro_rules! no_records {
    ($($name:ident($($kind:ty),*) $(-> $result:ident)?;)*) => {$(
        fn $name(self $(, _: $kind)*) -> Result<no_records!(@result $($result)?), M::Error> {
            Err(M::Error::custom("a record has fields"))
        }
    )*};
    (@result) => { () };
    (@result $result:ident) => { Self::$result };
}

impl<M: SerializeMap> Serializer for Fields<'_, M> {
    type Ok = ();
    type Error = M::Error;
    type SerializeSeq = Impossible<(), M::Error>;
    type SerializeTuple = Impossible<(), M::Error>;
    type SerializeTupleStruct = Impossible<(), M::Error>;
    type SerializeTupleVariant = Impossible<(), M::Error>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), M::Error>;

    no_records! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
        serialize_seq(Option<usize>) -> SerializeSeq;
        serialize_tuple(usize) -> SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), M::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), M::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), M::Error> {
        value.serialize(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, M::Error> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, M::Error> {
        Ok(self)
    }
}

impl<M: SerializeMap> SerializeStruct for Fields<'_, M> {
    type Ok = ();
    type Error = M::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), M::Error> {
        if self.is_untimed && key == TIMINGS { Ok(()) } else { self.map.serialize_entry(key, value) }
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), M::Error> {
        self.map.serialize_entry(key, &())
    }

    fn end(self) -> Result<(), M::Error> {
        Ok(())
    }
}

impl<M: SerializeMap> SerializeMap for Fields<'_, M> {
    type Ok = ();
    type Error = M::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), M::Error> {
        self.map.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), M::Error> {
        self.map.serialize_value(value)
    }

    fn end(self) -> Result<(), M::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Serialize)]
    struct Record {
        a: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        b: Option<u32>,
        timings: u32,
    }

    #[test]
    fn results_and_failures_have_the_same_keys() {
        let row = RowRecord::new(3);
        let keys = |json: String| -> Vec<String> {
            serde_json::from_str::<serde_json::Map<String, Value>>(&json).unwrap().into_iter().map(|(k, _)| k).collect()
        };
        for is_untimed in [false, true] {
            let columns = Columns::of(&Record::default(), is_untimed);
            let record = Record { a: 1, b: Some(2), timings: 3 };
            let result = serde_json::to_string(&columns.result(&row, &record)).unwrap();
            let failure = serde_json::to_string(&columns.failure(&row)).unwrap();
            assert!(result.starts_with(r#"{"id":null,"line":3,"#) && result.contains(r#""a":1,"b":2"#), "{result}");
            assert!(failure.contains(r#""a":null,"b":null"#), "{failure}");
            assert_eq!(result.contains("timings"), !is_untimed);
            let empty = serde_json::to_string(&columns.result(&row, &Record::default())).unwrap();
            assert_eq!((keys(result), keys(empty)), (keys(failure.clone()), keys(failure)));
        }
    }
}
