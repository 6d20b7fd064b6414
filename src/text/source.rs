//! Tokenizer and chat template of a checkpoint, wherever it keeps them.

use super::{ChatTemplate, GgufVocab, TextError, Tokenizer};
use crate::engine::TokenId;
use crate::model::LoadError;
use crate::model::TokenizerSource;
use crate::model::gguf::Metadata;

impl Tokenizer {
    /// The tokenizer of a checkpoint.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`] or [`Tokenizer::from_dir`]; [`TextError::Load`] if GGUF metadata is malformed.
    pub fn from_source(source: TokenizerSource<'_>) -> Result<Self, TextError> {
        match source {
            TokenizerSource::Gguf(metadata) => Self::from_gguf(&GgufVocab::from_metadata(metadata)?),
            TokenizerSource::Folder(folder) => Self::from_dir(folder),
        }
    }
}

impl ChatTemplate {
    /// The chat template of a checkpoint.
    ///
    /// # Errors
    /// [`TextError::NoTemplate`] if it has none, or as [`ChatTemplate::new`] and [`ChatTemplate::from_dir`].
    pub fn from_source(source: TokenizerSource<'_>) -> Result<Self, TextError> {
        match source {
            TokenizerSource::Gguf(metadata) => {
                Self::new(metadata.string("tokenizer.chat_template")?.ok_or(TextError::NoTemplate)?)
            }
            TokenizerSource::Folder(folder) => Self::from_dir(folder),
        }
    }
}

impl GgufVocab {
    /// The vocabulary in a GGUF file's metadata.
    ///
    /// # Errors
    /// [`LoadError`] if `tokenizer.ggml.model` or `.tokens` is missing, or a key has a value of the wrong kind.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, LoadError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let strings = |name| metadata.strings(&key(name));
        let id = |name| -> Result<Option<TokenId>, LoadError> { metadata.u32(&key(name)) };
        let model = metadata.string(&key("model"))?;
        let kinds = metadata.ints(&key("token_type"))?.unwrap_or_default();
        Ok(Self {
            model: metadata.require(&key("model"), model)?.to_owned(),
            pre: metadata.string(&key("pre"))?.map(str::to_owned),
            tokens: metadata.require(&key("tokens"), strings("tokens")?)?.to_vec(),
            merges: strings("merges")?.unwrap_or_default().to_vec(),
            token_types: kinds.into_iter().map(|kind| i32::try_from(kind).unwrap_or(0)).collect(),
            scores: metadata.floats(&key("scores"))?.unwrap_or_default(),
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            unk: id("unknown_token_id")?,
            add_bos: metadata.bool(&key("add_bos_token"))?,
            add_space_prefix: metadata.bool(&key("add_space_prefix"))?,
        })
    }
}
