//! The prompts of a model are read before each text, as tokens of the text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use gte_engine::{Chunk, Embedding, Encoder, Error, Role};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{TempDir, TinyModel, embed, go, load, max_abs, mixed_texts, words};

const FILE: &str = "config_sentence_transformers.json";

/// As the prompts of e5. "the" and ":" are one token each.
const E5: &[(&str, &str)] = &[("query", "search: "), ("passage", "the data: ")];

fn e5() -> TinyModel {
    TinyModel { prompts: E5, ..TinyModel::default() }
}

fn embed_as(encoder: &Encoder, role: Role, text: &str) -> Embedding {
    encoder.embed_as(role, &[text], &mut go).unwrap().pop().unwrap()
}

/// A tiny model with this configuration.
fn with(config: &Value) -> TempDir {
    let dir = TempDir::with(&TinyModel::default());
    std::fs::write(dir.join(FILE), config.to_string()).unwrap();
    dir
}

/// The prompts that are in use: of a query, of a document.
fn prompts(config: &Value) -> (String, String) {
    let encoder = Encoder::load(with(config).path()).unwrap();
    let identity = encoder.identity().unwrap();
    (identity.query_prompt.clone(), identity.document_prompt.clone())
}

#[test]
fn a_text_has_the_vector_of_prompt_and_text_together() {
    let (plain, encoder) = (load(&TinyModel::default()), load(&e5()));
    assert!(encoder.has_roles() && !plain.has_roles());
    for text in mixed_texts() {
        let document = embed(&encoder, &text);
        assert_eq!(document, embed_as(&encoder, Role::Document, &text));
        assert_eq!(document, embed(&plain, &format!("the data: {text}")), "{text:?}");
        let query = embed_as(&encoder, Role::Query, &text);
        assert_eq!(query, embed(&plain, &format!("search: {text}")), "{text:?}");
        assert!(max_abs(&document.values, &query.values) > 1e-3, "{text:?}");
    }
}

#[test]
fn a_prompt_that_touches_the_text_is_joined_with_it() {
    let prompts = &[("query", "un"), ("document", "data")];
    let (plain, encoder) =
        (load(&TinyModel::default()), load(&TinyModel { prompts, ..TinyModel::default() }));
    for text in ["base", "ed", "", " base", "\u{301}base"] {
        let query = embed_as(&encoder, Role::Query, text);
        assert_eq!(query, embed(&plain, &format!("un{text}")), "{text:?}");
        assert_eq!(embed(&encoder, text), embed(&plain, &format!("data{text}")), "{text:?}");
    }
    assert_eq!(embed(&encoder, "base").tokens, 4, "data ##base");
}

#[test]
fn a_prompt_counts_for_truncation_and_counting() {
    let encoder = load(&TinyModel { max_tokens: Some(16), ..e5() });
    // Two specials and three of "the data:".
    for (count, tokens, truncated) in [(11, 16, false), (12, 16, true)] {
        let found = embed(&encoder, &words(count));
        assert_eq!((found.tokens, found.truncated), (tokens, truncated));
    }
    let counted = |role| encoder.count_tokens(role, &words(100), &mut go).unwrap();
    assert_eq!((counted(Role::Document), counted(Role::Query)), (105, 104));
    assert_eq!((encoder.special_tokens(), encoder.prompt_tokens()), (2, 3));
}

fn chunks(encoder: &Encoder, text: &str, max_tokens: usize, overlap: usize) -> Vec<Chunk> {
    let mut chunks = encoder.chunks(text, max_tokens, overlap).unwrap();
    std::iter::from_fn(|| chunks.next(&mut go).unwrap()).collect()
}

#[test]
fn a_chunk_has_room_for_its_prompt() {
    let long_word = format!("{} {} cat", words(30), "qx".repeat(45));
    for prompt in ["the data: ", "the data", ""] {
        let dir = with(&json!({ "prompts": { "document": prompt } }));
        let encoder = Encoder::load(dir.path()).unwrap();
        for text in [words(300), "cat. ".repeat(200), long_word.clone()] {
            for (max_tokens, overlap) in [(8, 0), (12, 2), (40, 10)] {
                let found = chunks(&encoder, &text, max_tokens, overlap);
                assert!(found.len() > 2);
                assert_eq!(
                    (found[0].range.start, found[found.len() - 1].range.end),
                    (0, text.len())
                );
                for chunk in &found {
                    let own = embed(&encoder, &text[chunk.range.clone()]);
                    assert_eq!(own.tokens, chunk.tokens, "{prompt:?} {chunk:?}");
                    assert!(chunk.tokens <= max_tokens, "{prompt:?} {chunk:?}");
                }
                let fullest = found.iter().map(|chunk| chunk.tokens).max();
                assert!(fullest >= Some(max_tokens - 3), "{prompt:?} {fullest:?}");
            }
        }
        let prompt_tokens = encoder.prompt_tokens();
        for (max_tokens, overlap) in [(2 + prompt_tokens, 0), (10, 8 - prompt_tokens)] {
            let refused = encoder.chunks("cat", max_tokens, overlap).err();
            assert!(matches!(refused, Some(Error::Internal(_))), "{prompt:?}");
        }
    }
}

#[test]
fn prompts_have_the_names_of_sentence_transformers() {
    let named = |query: &str, document: &str| (query.to_owned(), document.to_owned());
    for (config, expected) in [
        (json!({}), named("", "")),
        (json!({ "prompts": null, "default_prompt_name": null }), named("", "")),
        (json!({ "prompts": { "query": "Q ", "document": "D " } }), named("Q ", "D ")),
        (json!({ "prompts": { "query": "Q ", "passage": "P " } }), named("Q ", "P ")),
        (json!({ "prompts": { "corpus": "C ", "passage": "P " } }), named("", "P ")),
        (json!({ "prompts": { "corpus": "C " } }), named("", "C ")),
        (json!({ "prompts": { "document": "", "passage": "P " } }), named("", "")),
        (json!({ "prompts": { "query": "Q ", "document": null } }), named("Q ", "")),
        (json!({ "prompts": { "clustering": "X " } }), named("", "")),
        // The default is for a model without roles.
        (
            json!({ "prompts": { "clustering": "X " }, "default_prompt_name": "clustering" }),
            named("X ", "X "),
        ),
        (
            json!({ "prompts": { "query": "Q ", "x": "X " }, "default_prompt_name": "x" }),
            named("Q ", ""),
        ),
        (json!({ "prompts": { "query": "Q " }, "default_prompt_name": "query" }), named("Q ", "")),
        (json!({ "prompts": {}, "default_prompt_name": "document" }), named("", "")),
    ] {
        assert_eq!(prompts(&config), expected, "{config}");
    }
}

#[test]
fn prompts_that_can_not_be_used_are_refused() {
    let long = |count: usize| json!({ "prompts": { "query": "cat ".repeat(count) } });
    for (config, is_unsupported, reason) in [
        (long(510), true, "512"),
        (long(5000), true, "limit"),
        (json!({ "prompts": { "query": "a\u{0}b" } }), false, "U+0000"),
        (json!({ "prompts": { "a": "b" }, "default_prompt_name": "c" }), false, "\"c\""),
        (json!({ "prompts": ["query: "] }), false, "map"),
        (json!({ "prompts": { "query": 7 } }), false, "string"),
    ] {
        let dir = with(&config);
        let error = Encoder::load(dir.path()).err().expect("refused");
        let kind = match error {
            Error::Unsupported { .. } => true,
            Error::Corrupt { .. } => false,
            _ => panic!("{error}"),
        };
        assert!(kind == is_unsupported && error.to_string().contains(reason), "{error}");
        assert_eq!(error.path(), Some(dir.join(FILE).as_path()));
    }
    let fits = Encoder::load(with(&long(509)).path()).unwrap();
    assert!(embed_as(&fits, Role::Query, "dog").tokens == 512);
}

#[test]
fn mean_without_prompts_keeps_its_fingerprint() {
    let dir = TempDir::with(&TinyModel::default());
    let hash = |name: &str| {
        let bytes = std::fs::read(dir.join(name)).unwrap();
        format!("{:x}", Sha256::digest(bytes))
    };
    let (weights, tokenizer) = (hash("model.safetensors"), hash("tokenizer.json"));
    let text = format!("weights {weights}\ntokenizer {tokenizer}\nmax_tokens 512\n");
    let expected = format!("{:x}", Sha256::digest(text));
    let fingerprint =
        |dir: &TempDir| Encoder::load(dir.path()).unwrap().identity().unwrap().fingerprint.clone();
    assert_eq!(fingerprint(&dir), expected);
    assert_eq!(fingerprint(&with(&json!({ "prompts": { "query": "", "x": "X" } }))), expected);

    let others = [
        json!({ "prompts": { "query": "Q " } }),
        json!({ "prompts": { "document": "Q " } }),
        json!({ "prompts": { "query": "Q ", "document": "Q " } }),
        json!({ "prompts": { "query": "Q" } }),
        json!({ "prompts": { "query": "Q \ndocument_prompt " } }),
    ];
    let mut seen = vec![expected];
    for config in others {
        seen.push(fingerprint(&with(&config)));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6, "each prompt makes another model");
}

#[test]
fn unknown_tokens_are_counted() {
    let encoder = load(&TinyModel::default());
    let hashes = ["a\u{e01}ฃ ☂ \u{1f9ff}", "☂", &format!("{} cat", "z".repeat(101)), "cat", ""];
    let unknown = hashes.map(|text| embed(&encoder, text).unknown);
    assert_eq!(unknown, [3, 1, 1, 0, 0]);
    assert_eq!(embed(&encoder, "☂☂ [UNK] [MASK]").unknown, 2, "the token by its name");
}
