//! A small tokenizer for unit tests.

/// A BERT tokenizer over a handful of words, with the pipeline of the real ones.
pub(crate) fn bert_tokenizer() -> tokenizers::Tokenizer {
    let letters = ('a'..='z').chain('0'..='9');
    let mut vocab: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).to_vec();
    vocab.extend(letters.flat_map(|c| [c.to_string(), format!("##{c}")]));
    vocab.extend(
        ["the", "cat", "##s", "日", "本", "[", "]", ".", ",", "한", "ᄒ", "##ᅡ", "¿"]
            .map(String::from),
    );
    vocab.sort();
    vocab.dedup();
    let ids: serde_json::Map<String, serde_json::Value> =
        vocab.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added: Vec<serde_json::Value> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .iter()
        .map(|token| {
            serde_json::json!({"id": ids[*token], "content": token, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let special =
        |token: &str| serde_json::json!({"id": token, "ids": [ids[token]], "tokens": [token]});
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")}},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids},
    });
    tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap()
}
