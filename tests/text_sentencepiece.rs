//! A `llama` vocabulary (SentencePiece BPE) rebuilt from GGUF metadata, held to what the sentencepiece library made:
//! tests/golden/sentencepiece.json, written by tests/golden/make_sentencepiece.py.
#![cfg(feature = "runtime")]

use std::sync::Arc;

use bindery::structured::{GrammarCompiler, GrammarSpec};
use bindery::text::{Detokenizer, GgufVocab, Span, Tokenizer};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/sentencepiece.json")).unwrap()
}

fn vocab(golden: &Value) -> GgufVocab {
    fn list<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        serde_json::from_value(value.clone()).unwrap()
    }
    GgufVocab {
        model: "llama".into(),
        tokens: list(&golden["tokens"]),
        scores: list(&golden["scores"]),
        token_types: list(&golden["token_types"]),
        bos: list(&golden["bos"]),
        eos: list(&golden["eos"]),
        unk: list(&golden["unk"]),
        ..GgufVocab::default()
    }
}

fn each(check: impl Fn(&Arc<Tokenizer>, &str, &[u32], &str)) {
    let golden = golden();
    let tokenizer = Arc::new(Tokenizer::from_gguf(&vocab(&golden)).unwrap());
    for entry in golden["strings"].as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(entry["ids"].clone()).unwrap();
        check(&tokenizer, entry["text"].as_str().unwrap(), &ids, entry["decoded"].as_str().unwrap());
    }
}

#[test]
fn ids_equal_sentencepiece() {
    each(|tokenizer, text, ids, decoded| {
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.encode(text, true).unwrap(), [&[1], ids].concat(), "{text:?}");
        assert_eq!(tokenizer.encode_ordinary(text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids, true).unwrap(), decoded, "{text:?}");
    });
}

#[test]
fn special_tokens_in_users_text() {
    each(|tokenizer, text, ids, _| {
        let typed = tokenizer.encode_ordinary(&format!("{text}</s>")).unwrap();
        assert!(!typed.contains(&2), "{text:?}");
        let spans = [Span::Template("<s>".into()), Span::User(text.into()), Span::Template("</s>".into())];
        let want = [&[1], ids, &[2]].concat();
        assert_eq!(tokenizer.encode_spans(&spans).unwrap(), want, "{text:?}");
    });
}

/// After a prompt, the pieces continue its text: the blank that a text would begin with is kept.
#[test]
fn streamed_pieces_continue_the_prompt() {
    each(|tokenizer, text, ids, _| {
        for cut in 0..=ids.len() {
            let (prompt, completion) = ids.split_at(cut);
            let mut detokenizer = Detokenizer::new(tokenizer.clone(), prompt, true);
            let mut streamed = String::new();
            for &id in completion {
                streamed += &detokenizer.push(id).unwrap().unwrap_or_default();
            }
            streamed += &detokenizer.finish().unwrap().unwrap_or_default();
            let before = tokenizer.decode(prompt, true).unwrap();
            if before.ends_with('\u{FFFD}') {
                continue; // cut within a character: its beginning is not the completion's to tell
            }
            assert_eq!(before + &streamed, tokenizer.decode(ids, true).unwrap(), "{text:?} cut at {cut}");
        }
    });
}

/// A grammar that leaves no choice: where a text gets a blank in front of it, it is not known in which tokens it comes.
#[test]
fn a_grammar_forces_no_tokens() {
    each(|tokenizer, text, _, _| {
        if text.is_empty() {
            return;
        }
        let compiler = GrammarCompiler::new(Some(tokenizer.clone()), vec![2]);
        let mut grammar = compiler.compile(&GrammarSpec::Choice(vec![text.into()])).unwrap();
        let mut bytes = Vec::new();
        loop {
            assert_eq!(grammar.forced(), [0; 0], "{text:?}");
            let allowed = grammar.allowed().unwrap();
            let token = (0..32 * allowed.len() as u32).find(|id| allowed[*id as usize / 32] >> (id % 32) & 1 == 1);
            let token = token.expect("some token is allowed");
            if token == 2 {
                break;
            }
            bytes.extend(tokenizer.token_bytes(token).unwrap());
            grammar.accept(token).unwrap();
        }
        assert_eq!(bytes, text.as_bytes());
    });
}
