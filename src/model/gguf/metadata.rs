//! GGUF metadata: typed values by key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use crate::model::LoadError;

/// Arrays may hold arrays this deep; real files stop at one.
const MAX_ARRAY_DEPTH: u32 = 4;

/// Type of a metadata number, as numbered by the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberType {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// Float, 32 bits.
    F32,
    /// Float, 64 bits.
    F64,
    /// One byte, 0 or 1.
    Bool,
}

impl NumberType {
    const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Reads one number of `self.bytes()` bytes; `None` for a boolean that is neither 0 nor 1.
    fn decode(self, bytes: &[u8]) -> Option<Value> {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        Some(match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Value::Uint(bits),
            Self::I8 => Value::Int(i64::from(bits as u8 as i8)),
            Self::I16 => Value::Int(i64::from(bits as u16 as i16)),
            Self::I32 => Value::Int(i64::from(bits as u32 as i32)),
            Self::I64 => Value::Int(bits as i64),
            Self::F32 => Value::Float(f64::from(f32::from_bits(bits as u32))),
            Self::F64 => Value::Float(f64::from_bits(bits)),
            Self::Bool if bits > 1 => return None,
            Self::Bool => Value::Bool(bits == 1),
        })
    }
}

/// A metadata value. Integers and floats are widened.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// u8, u16, u32 or u64.
    Uint(u64),
    /// i8, i16, i32 or i64.
    Int(i64),
    /// f32 or f64.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Numbers of one type, still as little-endian bytes.
    Numbers(NumberType, Vec<u8>),
    /// Strings.
    Strings(Vec<String>),
    /// Arrays in an array.
    Arrays(Vec<Value>),
}

impl Value {
    /// Name of the kind, for messages.
    fn kind(&self) -> &'static str {
        match self {
            Self::Uint(_) | Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::String(_) => "a string",
            Self::Numbers(..) => "an array of numbers",
            Self::Strings(_) => "an array of strings",
            Self::Arrays(_) => "an array of arrays",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Uint(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
            other => other.kind().to_owned(),
        }
    }

    /// The integer, when it is one and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint(value) => Some(*value),
            Self::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Uint(value) => i64::try_from(*value).ok(),
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    fn as_f32(&self) -> Option<f32> {
        match self {
            Self::Float(value) => Some(*value as f32),
            _ => None,
        }
    }

    /// Reads a value of the type numbered `type_id`.
    fn read(reader: &mut Reader<'_>, type_id: u32, depth: u32) -> Result<Self, LoadError> {
        match type_id {
            8 => Ok(Self::String(reader.string("a string")?.to_owned())),
            9 if depth >= MAX_ARRAY_DEPTH => {
                Err(reader.error(format_args!("arrays nested more than {MAX_ARRAY_DEPTH} deep")))
            }
            9 => Self::read_array(reader, depth),
            _ => {
                let number = number_type(reader, type_id)?;
                let bytes = reader.take(number.bytes() as u64, "a number")?;
                number.decode(bytes).ok_or_else(|| reader.error("a boolean is neither 0 nor 1"))
            }
        }
    }

    fn read_array(reader: &mut Reader<'_>, depth: u32) -> Result<Self, LoadError> {
        let type_id = reader.u32("an array's type")?;
        match type_id {
            8 => {
                let len = reader.count(8, "an array's length")?;
                let mut strings = Vec::with_capacity(len);
                for _ in 0..len {
                    strings.push(reader.string("a string")?.to_owned());
                }
                Ok(Self::Strings(strings))
            }
            9 => {
                let len = reader.count(12, "an array's length")?;
                let mut arrays = Vec::new();
                for _ in 0..len {
                    arrays.push(Self::read(reader, 9, depth + 1)?);
                }
                Ok(Self::Arrays(arrays))
            }
            _ => {
                let number = number_type(reader, type_id)?;
                let len = reader.count(number.bytes() as u64, "an array's length")?;
                let bytes = reader.take((len * number.bytes()) as u64, "an array")?;
                if number == NumberType::Bool && bytes.iter().any(|&byte| byte > 1) {
                    return Err(reader.error("a boolean is neither 0 nor 1"));
                }
                Ok(Self::Numbers(number, bytes.to_vec()))
            }
        }
    }

    /// The elements of an array of numbers, each mapped by `convert`; `None` for another kind or a failed conversion.
    fn numbers<T>(&self, convert: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        let Self::Numbers(number, bytes) = self else { return None };
        bytes.chunks_exact(number.bytes()).map(|chunk| convert(&number.decode(chunk)?)).collect()
    }
}

fn number_type(reader: &Reader<'_>, type_id: u32) -> Result<NumberType, LoadError> {
    Ok(match type_id {
        0 => NumberType::U8,
        1 => NumberType::I8,
        2 => NumberType::U16,
        3 => NumberType::I16,
        4 => NumberType::U32,
        5 => NumberType::I32,
        6 => NumberType::F32,
        7 => NumberType::Bool,
        10 => NumberType::U64,
        11 => NumberType::I64,
        12 => NumberType::F64,
        other => return Err(reader.error(format_args!("unknown metadata type {other}"))),
    })
}

/// The key-value pairs of a GGUF file.
///
/// The typed accessors give `Ok(None)` for a missing key and an error that names file and key for a value of another
/// kind; [`require`](Metadata::require) turns the former into an error as well.
#[derive(Debug, Clone)]
pub struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Reads `count` pairs.
    pub(super) fn read(reader: &mut Reader<'_>, path: &Path, count: usize) -> Result<Self, LoadError> {
        let mut values = BTreeMap::new();
        for _ in 0..count {
            let key = reader.string("a metadata key")?;
            let type_id = reader.u32("a metadata type")?;
            let value = Value::read(reader, type_id, 0)?;
            if values.insert(key.to_owned(), value).is_some() {
                return Err(reader.error(format_args!("metadata key `{key}` stands there twice")));
            }
        }
        Ok(Self { path: path.into(), values })
    }

    /// The raw value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Turns a missing value into an error.
    pub fn require<T>(&self, key: &str, value: Option<T>) -> Result<T, LoadError> {
        value.ok_or_else(|| LoadError::missing_key(&self.path, key))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        match convert(value) {
            Some(value) => Ok(Some(value)),
            None => Err(LoadError::bad_value(&self.path, key, expected, value.describe())),
        }
    }

    /// An integer from 0 to 2^32 - 1, whatever its stored width.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, LoadError> {
        self.typed(key, "an integer below 2^32", |value| value.as_u64()?.try_into().ok())
    }

    /// An integer that is not negative, whatever its stored width.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, LoadError> {
        self.typed(key, "an integer that is not negative", Value::as_u64)
    }

    /// A float (f64 is rounded).
    pub fn f32(&self, key: &str) -> Result<Option<f32>, LoadError> {
        self.typed(key, "a float", Value::as_f32)
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.typed(key, "a boolean", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A string.
    pub fn string(&self, key: &str) -> Result<Option<&str>, LoadError> {
        self.typed(key, "a string", |value| match value {
            Value::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, LoadError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Strings(values) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// An array of integers of any width.
    pub fn ints(&self, key: &str) -> Result<Option<Vec<i64>>, LoadError> {
        self.typed(key, "an array of integers", |value| value.numbers(Value::as_i64))
    }

    /// An array of floats (f64 is rounded).
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, LoadError> {
        self.typed(key, "an array of floats", |value| value.numbers(Value::as_f32))
    }
}
