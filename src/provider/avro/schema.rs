//! The types of an Avro file, as its header writes them in JSON.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The types of a file; those that are named may hold themselves.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    root: TypeId,
}

/// A type by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeId(usize);

#[derive(Debug)]
pub(super) enum Type {
    Null,
    Boolean,
    /// `int` and `long`, which are written alike.
    Integer,
    Float,
    Double,
    Bytes,
    Text,
    /// So many bytes.
    Fixed(usize),
    Enum(Vec<String>),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Record(Vec<(String, TypeId)>),
    /// Named and not read to its end yet.
    Open,
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a fragment of a sentence.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let json: Value =
            serde_json::from_slice(json).map_err(|error| format!("its schema is no JSON: {error}"))?;
        let mut reader = Reader { types: Vec::new(), names: BTreeMap::new() };
        let root = reader.of(&json, "")?;
        Ok(Self { types: reader.types, root })
    }

    /// The type of each datum of the file.
    pub fn root(&self) -> TypeId {
        self.root
    }

    pub fn get(&self, TypeId(place): TypeId) -> &Type {
        self.types.get(place).unwrap_or(&Type::Open)
    }
}

struct Reader {
    types: Vec<Type>,
    /// By their whole names.
    names: BTreeMap<String, TypeId>,
}

impl Reader {
    fn add(&mut self, read: Type) -> TypeId {
        self.types.push(read);
        TypeId(self.types.len() - 1)
    }

    /// The type that `json` describes, where names without a namespace belong to `space`.
    fn of(&mut self, json: &Value, space: &str) -> Result<TypeId, String> {
        match json {
            Value::String(name) => self.named(name, space),
            Value::Array(branches) => {
                let branches =
                    branches.iter().map(|branch| self.of(branch, space)).collect::<Result<_, _>>()?;
                Ok(self.add(Type::Union(branches)))
            }
            Value::Object(object) => match object.get("type") {
                Some(Value::String(kind)) => self.complex(kind, object, space),
                // A type that is described within a description.
                Some(inner @ (Value::Object(_) | Value::Array(_))) => self.of(inner, space),
                _ => Err("its schema has a type without a name".to_owned()),
            },
            _ => Err("its schema has a type that is none".to_owned()),
        }
    }

    fn named(&mut self, name: &str, space: &str) -> Result<TypeId, String> {
        let primitive = match name {
            "null" => Type::Null,
            "boolean" => Type::Boolean,
            "int" | "long" => Type::Integer,
            "float" => Type::Float,
            "double" => Type::Double,
            "bytes" => Type::Bytes,
            "string" => Type::Text,
            _ => {
                let whole = whole_name(name, space);
                let found = self.names.get(&whole).or_else(|| self.names.get(name));
                return found
                    .copied()
                    .ok_or_else(|| format!("its schema does not say what `{}` is", short(name)));
            }
        };
        Ok(self.add(primitive))
    }

    fn complex(&mut self, kind: &str, object: &Map<String, Value>, space: &str) -> Result<TypeId, String> {
        let part = |key: &str| {
            object.get(key).ok_or_else(|| format!("its schema has `{}` without `{key}`", short(kind)))
        };
        match kind {
            "array" => {
                let items = self.of(part("items")?, space)?;
                Ok(self.add(Type::Array(items)))
            }
            "map" => {
                let values = self.of(part("values")?, space)?;
                Ok(self.add(Type::Map(values)))
            }
            "record" | "error" | "enum" | "fixed" => {
                let (id, space) = self.open(object, space)?;
                let read = match kind {
                    "enum" => Type::Enum(texts(part("symbols")?)),
                    "fixed" => {
                        let size = part("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                        Type::Fixed(size.ok_or("its schema has a `size` that is none")?)
                    }
                    _ => {
                        let fields =
                            part("fields")?.as_array().ok_or("its schema has `fields` that are no list")?;
                        let mut read = Vec::with_capacity(fields.len());
                        for field in fields {
                            let name = field.get("name").and_then(Value::as_str);
                            let name = name.ok_or("its schema has a field without a name")?;
                            let kind = field.get("type").ok_or("its schema has a field without a type")?;
                            read.push((name.to_owned(), self.of(kind, &space)?));
                        }
                        Type::Record(read)
                    }
                };
                self.types[id.0] = read;
                Ok(id)
            }
            _ => self.named(kind, space),
        }
    }

    /// A place for a type that has a name; and the namespace of what stands in it.
    fn open(&mut self, object: &Map<String, Value>, space: &str) -> Result<(TypeId, String), String> {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let name = text("name").ok_or("its schema has a type without a name")?;
        let whole = whole_name(name, text("namespace").unwrap_or(space));
        let id = self.add(Type::Open);
        let inner = whole.rsplit_once('.').map(|(space, _)| space.to_owned()).unwrap_or_default();
        self.names.insert(whole, id);
        Ok((id, inner))
    }
}

fn whole_name(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() { name.to_owned() } else { format!("{space}.{name}") }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
}

fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}
