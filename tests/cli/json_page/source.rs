//! The records as the source declares them: their fields, serde attributes and doc comments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Token};

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    String,
    Integer,
    Number,
    Boolean,
    /// Any JSON.
    Any,
    /// An object with any keys.
    Map,
    Array(Box<Self>),
    Nullable(Box<Self>),
    /// A declared type, by its place in [`Source`].
    Declared(String),
}

/// A field of a record.
#[derive(Debug)]
pub struct Field {
    pub key: String,
    pub meaning: String,
    pub kind: Type,
    /// Whether its own fields take its place.
    pub is_flat: bool,
    pub may_be_absent: bool,
}

/// What a declared type is in JSON.
#[derive(Debug)]
pub enum Shape {
    Record(Vec<Field>),
    /// Strings, each with its meaning.
    Names(Vec<(String, String)>),
}

/// A declared type.
#[derive(Debug)]
pub struct Declared {
    pub meaning: String,
    pub shape: Shape,
    pub is_output: bool,
}

/// All types of the program that become JSON, as `file::Name`.
#[derive(Debug)]
pub struct Source(BTreeMap<String, Declared>);

/// Types that write themselves, or that others declare.
fn written_by_hand(name: &str) -> Option<Type> {
    let array_of = |record: &str| Type::Array(Box::new(Type::Declared(record.to_owned())));
    Some(match name {
        "Candidates" => array_of("CandidateRecord"),
        "Logprobs" => array_of("LogprobRecord"),
        "Vectors" => Type::Array(Box::new(Type::Any)),
        "Activation" | "String" | "str" => Type::String,
        "Carried" | "Map" | "TopLogprobs" => Type::Map,
        "RawValue" | "Value" => Type::Any,
        "Number" | "f32" | "f64" => Type::Number,
        "usize" | "u32" | "u64" => Type::Integer,
        "bool" => Type::Boolean,
        _ => return None,
    })
}

impl Source {
    /// Reads `src/`.
    pub fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = vec![];
        find_files(&src, &mut files);
        let mut found = BTreeMap::new();
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            let file = path.strip_prefix(&src).unwrap().with_extension("").display().to_string().replace('\\', "/");
            let file = file.trim_end_matches("/mod");
            let items = syn::parse_file(&text).unwrap_or_else(|e| panic!("{file}: {e}")).items;
            // The data of pages is for their own scripts.
            let is_output = file.starts_with("output") && !file.starts_with("output/html");
            for (name, declared) in items.iter().filter_map(|item| declared(item, is_output)) {
                found.insert(format!("{file}::{name}"), declared);
            }
        }
        let mut source = Self(found);
        source.resolve();
        source
    }

    /// The type of this place.
    pub fn get(&self, place: &str) -> &Declared {
        self.0.get(place).unwrap_or_else(|| panic!("no type {place} becomes JSON"))
    }

    /// The records in the room `output`.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, declared)| declared.is_output).map(|(place, _)| place.as_str())
    }

    /// Gives every name in a field its place: in the same file, or else the only one.
    fn resolve(&mut self) {
        let places: Vec<String> = self.0.keys().cloned().collect();
        for (place, declared) in &mut self.0 {
            let Shape::Record(fields) = &mut declared.shape else { continue };
            let file = place.rsplit_once("::").unwrap().0;
            for field in fields {
                let mut kind = &mut field.kind;
                while let Type::Array(inner) | Type::Nullable(inner) = kind {
                    kind = inner;
                }
                let Type::Declared(name) = kind else { continue };
                let (near, far) = (format!("{file}::{name}"), format!("::{name}"));
                let all: Vec<&String> = places.iter().filter(|other| other.ends_with(&far)).collect();
                *name = match all.as_slice() {
                    _ if places.contains(&near) => near,
                    [only] => (*only).clone(),
                    // Not all that the program serializes is for users.
                    _ if !declared.is_output => continue,
                    _ => panic!("{place}, {}: {name} is {all:?}; see `written_by_hand`", field.key),
                };
            }
        }
    }
}

fn find_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => find_files(&path, files),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
}

/// The name and the shape of a type that serde writes as declared.
fn declared(item: &Item, is_output: bool) -> Option<(String, Declared)> {
    let (name, attributes) = match item {
        Item::Struct(item) => (&item.ident, &item.attrs),
        Item::Enum(item) => (&item.ident, &item.attrs),
        _ => return None,
    };
    let derives = |attribute: &Attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("derive") && list.tokens.to_string().split(", ").any(|name| name == "Serialize")
    };
    attributes.iter().find(|attribute| derives(attribute))?;
    let shape = match item {
        Item::Struct(item) => Shape::Record(fields(&item.fields)),
        Item::Enum(item) if item.variants.iter().all(|variant| variant.fields.is_empty()) => {
            assert_eq!(serde(attributes, "rename_all").as_deref(), Some("lowercase"), "{name}: how names are written");
            let named = |variant: &syn::Variant| (variant.ident.to_string().to_lowercase(), doc(&variant.attrs));
            Shape::Names(item.variants.iter().map(named).collect())
        }
        // An untagged choice: what may be chosen is listed for itself.
        _ => return None,
    };
    Some((name.to_string(), Declared { meaning: doc(attributes), shape, is_output }))
}

fn fields(fields: &Fields) -> Vec<Field> {
    let kept = fields.iter().filter(|field| serde(&field.attrs, "skip").is_none());
    let field = |field: &syn::Field| {
        let kind = kind(&field.ty);
        // It is a function that writes a name.
        let is_written = serde(&field.attrs, "serialize_with").is_some();
        Field {
            key: serde(&field.attrs, "rename").or(field.ident.as_ref().map(ToString::to_string)).unwrap_or_default(),
            meaning: doc(&field.attrs),
            kind: match kind {
                Type::Nullable(_) if is_written => Type::Nullable(Box::new(Type::String)),
                _ if is_written => Type::String,
                kind => kind,
            },
            is_flat: serde(&field.attrs, "flatten").is_some(),
            may_be_absent: serde(&field.attrs, "skip_serializing_if").is_some(),
        }
    };
    kept.map(field).collect()
}

fn kind(declared: &syn::Type) -> Type {
    let inner = |arguments: &PathArguments| {
        let PathArguments::AngleBracketed(arguments) = arguments else { panic!("a type without arguments") };
        let mut types = arguments.args.iter().filter_map(|argument| match argument {
            GenericArgument::Type(inner) => Some(kind(inner)),
            _ => None,
        });
        Box::new(types.next().expect("a type as argument"))
    };
    match declared {
        syn::Type::Reference(reference) => kind(&reference.elem),
        syn::Type::Array(array) => Type::Array(Box::new(kind(&array.elem))),
        // Pairs of the same type.
        syn::Type::Tuple(tuple) if !tuple.elems.is_empty() => Type::Array(Box::new(kind(&tuple.elems[0]))),
        syn::Type::Path(path) => {
            let last = path.path.segments.last().expect("a name");
            let name = last.ident.to_string();
            match name.as_str() {
                "Option" => Type::Nullable(inner(&last.arguments)),
                "Vec" => Type::Array(inner(&last.arguments)),
                "Box" | "Cow" => *inner(&last.arguments),
                name => written_by_hand(name).unwrap_or_else(|| Type::Declared(name.to_owned())),
            }
        }
        // Not of a record for users, or `Source::get` fails.
        _ => Type::Declared("another kind of type".to_owned()),
    }
}

/// What `#[serde(KEY)]` or `#[serde(KEY = "...")]` says.
fn serde(attributes: &[Attribute], key: &str) -> Option<String> {
    let mut said = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute
            .parse_nested_meta(|meta| {
                let value = match meta.input.peek(Token![=]) {
                    true => meta.value()?.parse::<syn::LitStr>()?.value(),
                    false => String::new(),
                };
                if meta.path.is_ident(key) {
                    said = Some(value);
                }
                Ok(())
            })
            .expect("attributes of serde");
    }
    said
}

/// The doc comment as one paragraph of Markdown, without rustdoc's links.
fn doc(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| {
        let Meta::NameValue(doc) = &attribute.meta else { return None };
        let Expr::Lit(literal) = &doc.value else { return None };
        let Lit::Str(text) = &literal.lit else { return None };
        doc.path.is_ident("doc").then(|| text.value().trim().to_owned())
    };
    let text = attributes.iter().filter_map(line).collect::<Vec<_>>().join(" ");
    let text = regex::Regex::new(r"\[([^\]]+)\]\([^)]*::[^)]*\)").unwrap().replace_all(&text, "$1").into_owned();
    regex::Regex::new(r"\[(`[^`]+`)\]").unwrap().replace_all(&text, "$1").into_owned()
}
