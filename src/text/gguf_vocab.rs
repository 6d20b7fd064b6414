//! A tokenizer rebuilt from the metadata of a GGUF file (keys `tokenizer.ggml.*`).

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::{NFC, Prepend, Sequence as NormalizerSequence};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizerSequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, SplitDelimiterBehavior, Tokenizer as HfTokenizer};

use super::TextError;
use crate::engine::TokenId;

/// Squares of the lengths of all tokens, at most: looking for the merges of one takes as much, and vocabularies of models
/// stay below a hundredth of it.
const MAX_MERGE_WORK: u64 = 1 << 32;

/// The vocabulary of a GGUF file, as its metadata has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is cut before merging, for `gpt2`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.merges`: pairs separated by a space, most important first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.scores`, for `llama`.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<TokenId>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<TokenId>,
    /// `tokenizer.ggml.eot_token_id`: ends a turn, and with it a sequence.
    pub eot: Option<TokenId>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<TokenId>,
    /// `tokenizer.ggml.add_bos_token`; without it, what the kind of vocabulary usually does.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`, for `llama`; on without it.
    pub add_space_prefix: Option<bool>,
}

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Meta's Llama 3 `tokenizer.json`.
const LLAMA3_REGEX: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen2's `tokenizer.json`: digits one by one.
const QWEN2_REGEX: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SUPPORTED_PRE: &str = "gpt-2, default, smollm, starcoder, refact, llama-bpe, llama3, llama-v3, qwen2";

fn parse(error: tokenizers::Error) -> TextError {
    TextError::Parse { what: "the GGUF's tokenizer metadata".into(), reason: error.to_string() }
}

fn malformed(reason: String) -> TextError {
    TextError::Parse { what: "the GGUF's tokenizer metadata".into(), reason }
}

impl GgufVocab {
    /// The `tokenizers` tokenizer that Hugging Face ships for this vocabulary.
    pub(super) fn build(&self) -> Result<HfTokenizer, TextError> {
        if self.tokens.is_empty() {
            return Err(malformed("tokenizer.ggml.tokens is empty".into()));
        }
        for (name, len) in [("token_type", self.token_types.len()), ("scores", self.scores.len())] {
            if len != 0 && len != self.tokens.len() {
                let tokens = self.tokens.len();
                return Err(malformed(format!("tokenizer.ggml.{name} has {len} entries for {tokens} tokens")));
            }
        }
        let mut tokenizer = match self.model.as_str() {
            "gpt2" => self.build_byte_level()?,
            "llama" => self.build_sentence_piece()?,
            other => {
                return Err(TextError::UnsupportedVocab {
                    field: "tokenizer.ggml.model",
                    value: other.into(),
                    supported: "gpt2, llama",
                });
            }
        };
        self.add_tokens(&mut tokenizer)?;
        self.add_bos_rule(&mut tokenizer)?;
        Ok(tokenizer)
    }

    fn vocab(&self) -> Vocab {
        self.tokens.iter().cloned().zip(0..).collect()
    }

    fn build_byte_level(&self) -> Result<HfTokenizer, TextError> {
        let pre = self.pre.as_deref().unwrap_or("default");
        let byte_level = |use_regex| ByteLevel::new(false, true, use_regex).into();
        let split = |regex: &str| -> Result<PreTokenizerWrapper, TextError> {
            let pattern = SplitPattern::Regex(regex.into());
            Ok(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(parse)?.into())
        };
        let (pieces, ignore_merges): (Vec<PreTokenizerWrapper>, bool) = match pre {
            "gpt-2" | "default" => (vec![byte_level(true)], false),
            "smollm" | "starcoder" | "refact" => (vec![Digits::new(true).into(), byte_level(true)], false),
            "llama-bpe" | "llama3" | "llama-v3" => (vec![split(LLAMA3_REGEX)?, byte_level(false)], true),
            "qwen2" => (vec![split(QWEN2_REGEX)?, byte_level(false)], false),
            other => {
                return Err(TextError::UnsupportedVocab {
                    field: "tokenizer.ggml.pre",
                    value: other.into(),
                    supported: SUPPORTED_PRE,
                });
            }
        };
        let merges: Option<Merges> = self
            .merges
            .iter()
            .map(|merge| merge.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())))
            .collect();
        let merges = merges.ok_or_else(|| malformed("an entry of tokenizer.ggml.merges is not a pair".into()))?;
        let bpe = BPE::builder().vocab_and_merges(self.vocab(), merges).ignore_merges(ignore_merges);
        let mut tokenizer = HfTokenizer::new(bpe.build().map_err(parse)?);
        if pre == "qwen2" {
            tokenizer.with_normalizer(Some(NFC)).map_err(parse)?;
        }
        tokenizer.with_pre_tokenizer(Some(PreTokenizerSequence::new(pieces)));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok(tokenizer)
    }

    /// SentencePiece BPE as `transformers` converts it: merges are every way to put a token together from two others,
    /// best score first; what no token covers falls back to bytes.
    fn build_sentence_piece(&self) -> Result<HfTokenizer, TextError> {
        if self.scores.is_empty() {
            return Err(malformed("tokenizer.ggml.scores is missing, which a llama vocabulary needs".into()));
        }
        let vocab = self.vocab();
        let work: u64 = self.tokens.iter().map(|token| (token.len() as u64).saturating_mul(token.len() as u64)).sum();
        if work > MAX_MERGE_WORK {
            return Err(malformed("the tokens of tokenizer.ggml.tokens are too long for a vocabulary".into()));
        }
        let mut merges: Vec<(f32, TokenId, TokenId)> = Vec::new();
        for (token, &score) in self.tokens.iter().zip(&self.scores) {
            let start = merges.len();
            for (at, _) in token.char_indices().skip(1) {
                if let (Some(&left), Some(&right)) = (vocab.get(&token[..at]), vocab.get(&token[at..])) {
                    merges.push((score, left, right));
                }
            }
            merges[start..].sort_unstable_by_key(|&(_, left, right)| (left, right));
        }
        let token = |id: TokenId| &self.tokens[id as usize];
        let chars = |id: TokenId| token(id).chars().count();
        // A stable sort, as transformers' by (score, length of left, length of right), all descending.
        merges.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then_with(|| chars(b.1).cmp(&chars(a.1))).then_with(|| chars(b.2).cmp(&chars(a.2)))
        });
        let merges: Merges =
            merges.into_iter().map(|(_, left, right)| (token(left).clone(), token(right).clone())).collect();
        let mut bpe = BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(true).byte_fallback(true);
        if let Some(unk) = self.unk.and_then(|unk| self.tokens.get(unk as usize)) {
            bpe = bpe.unk_token(unk.clone());
        }
        let mut tokenizer = HfTokenizer::new(bpe.build().map_err(parse)?);
        let prefix = self.add_space_prefix.unwrap_or(true);
        let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
        if prefix {
            normalizers.push(Prepend::new("▁".into()).into());
        }
        normalizers.push(Replace::new(" ", "▁").map_err(parse)?.into());
        tokenizer.with_normalizer(Some(NormalizerSequence::new(normalizers))).map_err(parse)?;
        let mut decoders =
            vec![Replace::new("▁", " ").map_err(parse)?.into(), ByteFallback::default().into(), Fuse::default().into()];
        if prefix {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        tokenizer.with_decoder(Some(DecoderSequence::new(decoders)));
        Ok(tokenizer)
    }

    fn add_tokens(&self, tokenizer: &mut HfTokenizer) -> Result<(), TextError> {
        let typed = |wanted: i32| self.tokens.iter().zip(&self.token_types).filter(move |(_, kind)| **kind == wanted);
        let is_llama = self.model == "llama";
        let control = typed(CONTROL).chain(typed(UNKNOWN).filter(|_| is_llama));
        let special = control.map(|(token, _)| AddedToken::from(token.as_str(), true));
        tokenizer.add_special_tokens(special.collect::<Vec<_>>()).map_err(parse)?;
        let plain = typed(USER_DEFINED).map(|(token, _)| AddedToken::from(token.as_str(), false).normalized(false));
        tokenizer.add_tokens(plain.collect::<Vec<_>>()).map_err(parse)?;
        Ok(())
    }

    fn add_bos_rule(&self, tokenizer: &mut HfTokenizer) -> Result<(), TextError> {
        let usual = self.model == "llama" || matches!(self.pre.as_deref(), Some("llama-bpe" | "llama3" | "llama-v3"));
        let Some(bos) = self.bos.filter(|_| self.add_bos.unwrap_or(usual)) else { return Ok(()) };
        let Some(token) = self.tokens.get(bos as usize) else {
            let tokens = self.tokens.len();
            return Err(malformed(format!("tokenizer.ggml.bos_token_id is {bos}, but there are {tokens} tokens")));
        };
        // The template language splits at blanks and colons, so the token goes in under another name.
        let special = tokenizers::processors::template::SpecialToken::new("BOS".into(), vec![bos], vec![token.clone()])
            .map_err(parse)?;
        let rule = TemplateProcessing::builder()
            .try_single("BOS $A")
            .and_then(|builder| builder.try_pair("BOS $A BOS $B:1"))
            .map_err(malformed)?
            .special_tokens(vec![special])
            .build()
            .map_err(|error| malformed(error.to_string()))?;
        tokenizer.with_post_processor(Some(rule));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Tokenizer;

    fn digits(pre: &str) -> Result<Vec<String>, TextError> {
        let tokens: Vec<String> = ["1", "2", "3", "4", "12", "123", "z", "zz"].map(String::from).into();
        let merges = vec!["1 2".into(), "12 3".into()];
        let (model, pre) = ("gpt2".into(), Some(pre.into()));
        let tokenizer = Tokenizer::from_gguf(&GgufVocab { model, pre, tokens, merges, ..GgufVocab::default() })?;
        let ids = tokenizer.encode("123123zz", false)?;
        Ok(ids.into_iter().filter_map(|id| tokenizer.id_to_token(id)).collect())
    }

    /// Digits singly, in threes or in runs; whole words before merges or only by merges.
    #[test]
    fn pre_tokenizers_differ() {
        assert_eq!(digits("smollm").unwrap(), ["1", "2", "3", "1", "2", "3", "z", "z"]);
        assert_eq!(digits("qwen2").unwrap(), ["1", "2", "3", "1", "2", "3", "z", "z"]);
        assert_eq!(digits("llama-bpe").unwrap(), ["123", "123", "zz"]);
        assert_eq!(digits("gpt-2").unwrap(), ["123", "123", "z", "z"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let error = digits("tekken").unwrap_err().to_string();
        assert!(error.contains("tokenizer.ggml.pre = \"tekken\"") && error.contains("smollm"), "{error}");
        let vocab = GgufVocab { model: "t5".into(), tokens: vec!["a".into()], ..GgufVocab::default() };
        assert!(Tokenizer::from_gguf(&vocab).unwrap_err().to_string().contains("tokenizer.ggml.model"));
        for broken in [
            GgufVocab { tokens: vec![], ..vocab.clone() },
            GgufVocab { model: "llama".into(), ..vocab.clone() },
            GgufVocab { model: "llama".into(), scores: vec![0.0, 1.0], ..vocab.clone() },
            GgufVocab { model: "llama".into(), scores: vec![0.0], tokens: vec!["a".repeat(100_000)], ..vocab.clone() },
            GgufVocab { model: "gpt2".into(), merges: vec!["ab".into()], ..vocab.clone() },
            GgufVocab { model: "gpt2".into(), merges: vec!["a b".into()], ..vocab.clone() },
            GgufVocab { model: "gpt2".into(), bos: Some(9), add_bos: Some(true), ..vocab.clone() },
        ] {
            assert!(matches!(Tokenizer::from_gguf(&broken), Err(TextError::Parse { .. })), "{broken:?}");
        }
    }

    #[test]
    fn beginning_of_sequence() {
        let tokens: Vec<String> = ["a", "<s>"].map(String::from).into();
        let vocab = GgufVocab {
            model: "gpt2".into(),
            pre: Some("llama3".into()),
            tokens,
            token_types: vec![1, 3],
            bos: Some(1),
            ..GgufVocab::default()
        };
        let encode = |vocab: &GgufVocab, add| Tokenizer::from_gguf(vocab).unwrap().encode("aa", add).unwrap();
        assert_eq!(encode(&vocab, true), [1, 0, 0]);
        assert_eq!(encode(&vocab, false), [0, 0]);
        assert_eq!(encode(&GgufVocab { add_bos: Some(false), ..vocab }, true), [0, 0]);
    }
}
