//! A broken model directory is refused. The error names the file and the reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gte_engine::{Encoder, Error};
use safetensors::tensor::Dtype;
use support::tiny_model::{HIDDEN, TensorData, Tensors};
use support::{TempDir, TinyModel, embed};

#[derive(Debug, PartialEq)]
enum Kind {
    Missing,
    Corrupt,
    Unsupported,
}

/// Loads `dir`, which must fail, and checks that the error names `file` and not its directory.
fn refused(dir: &Path, file: &str, case: &str) -> (Kind, String) {
    let Err(error) = Encoder::load(dir) else { panic!("{case}: it loads") };
    let kind = match &error {
        Error::MissingFile { .. } => Kind::Missing,
        Error::Corrupt { .. } => Kind::Corrupt,
        Error::Unsupported { .. } => Kind::Unsupported,
        other => panic!("{case}: {other:?}"),
    };
    assert_eq!(error.path().map(PathBuf::from), Some(dir.join(file)), "{case}: {error}");
    let message = error.to_string();
    assert!(message.contains(file), "{case}: {message}");
    assert!(!message.contains(dir.to_str().unwrap()), "{case}: {message}");
    (kind, message)
}

fn refused_as(kind: Kind, dir: &Path, file: &str, case: &str) -> String {
    let (found, message) = refused(dir, file, case);
    assert_eq!(found, kind, "{case}: {message}");
    message
}

fn tiny() -> TempDir {
    TempDir::with(&TinyModel::default())
}

fn with_tensors(damage: impl FnOnce(&mut Tensors)) -> TempDir {
    let dir = TempDir::new();
    TinyModel::default().write_with(dir.path(), damage).unwrap();
    dir
}

/// A model in whose `file` `from` is replaced by `to`.
fn with_edit(file: &str, from: &str, to: &str) -> TempDir {
    let dir = tiny();
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(dir.join(file), text.replacen(from, to, 1)).unwrap();
    dir
}

const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

const OPTIONAL: [&str; 4] = [
    "sentence_bert_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
];

/// A model with each of these files.
fn full() -> TempDir {
    let prompts = &[("query", "the ")];
    TempDir::with(&TinyModel { pooling: Some("mean"), prompts, ..TinyModel::default() })
}

#[test]
fn a_missing_file_is_named() {
    for file in FILES {
        let dir = tiny();
        std::fs::remove_file(dir.join(file)).unwrap();
        refused_as(Kind::Missing, dir.path(), file, "removed");
    }
    let nowhere = TempDir::new().join("nowhere");
    assert!(matches!(Encoder::load(&nowhere), Err(Error::MissingFile { .. })));
}

#[test]
fn a_directory_or_a_pipe_is_refused_without_waiting() {
    for file in FILES.into_iter().chain(OPTIONAL) {
        let dir = full();
        std::fs::remove_file(dir.join(file)).unwrap();
        std::fs::create_dir(dir.join(file)).unwrap();
        refused_as(Kind::Corrupt, dir.path(), file, "a directory");
        std::fs::remove_dir(dir.join(file)).unwrap();
        // Opening a pipe without a writer would wait forever.
        let made = std::process::Command::new("mkfifo").arg(dir.join(file)).status().unwrap();
        assert!(made.success());
        let path = dir.path().to_owned();
        let (done, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            refused_as(Kind::Corrupt, &path, file, "a pipe");
            done.send(()).unwrap();
        });
        answer.recv_timeout(Duration::from_secs(20)).expect("refused, not waited for");
    }
}

#[test]
fn invalid_json_is_refused() {
    let inputs: [&[u8]; 7] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"<!doctype html>",
        b"\xff\xfe\x00",
        b"version https://git-lfs",
    ];
    for file in ["config.json", "tokenizer.json"].into_iter().chain(OPTIONAL) {
        for input in inputs {
            // A list is what modules.json must be; an empty one is not supported.
            if file == "modules.json" && input == b"[]" {
                continue;
            }
            let dir = full();
            std::fs::write(dir.join(file), input).unwrap();
            refused_as(Kind::Corrupt, dir.path(), file, &String::from_utf8_lossy(input));
        }
        let dir = full();
        let whole = std::fs::read(dir.join(file)).unwrap();
        std::fs::write(dir.join(file), &whole[..whole.len() / 2]).unwrap();
        refused_as(Kind::Corrupt, dir.path(), file, "half of it");
        // A huge sparse file must not be read into memory.
        std::fs::File::create(dir.join(file)).unwrap().set_len(8 << 30).unwrap();
        refused_as(Kind::Corrupt, dir.path(), file, "8 GB");
    }
}

#[test]
fn a_model_of_another_kind_is_not_supported() {
    for (from, to) in [
        (r#""hidden_size": 384"#, r#""hidden_size": 128"#),
        (r#""hidden_size": 384"#, r#""hidden_size": 768"#),
        (r#""model_type": "bert""#, r#""model_type": "roberta""#),
        (r#""hidden_act": "gelu""#, r#""hidden_act": "swiglu""#),
        (
            r#""position_embedding_type": "absolute""#,
            r#""position_embedding_type": "relative_key""#,
        ),
    ] {
        let dir = with_edit("config.json", from, to);
        let message = refused_as(Kind::Unsupported, dir.path(), "config.json", to);
        let value = to.rsplit(' ').next().unwrap();
        assert!(message.contains(value), "{message} does not tell {value}");
    }
}

#[test]
fn impossible_sizes_are_refused_before_memory_is_allocated() {
    let huge = "18446744073709551615";
    for (field, value) in [
        ("num_attention_heads", "12"),
        ("num_hidden_layers", "1"),
        ("max_position_embeddings", "512"),
        ("intermediate_size", "64"),
        ("type_vocab_size", "2"),
    ] {
        for wrong in ["0", "-1", "1.5", "\"12\"", "99999999", huge] {
            let from = format!("\"{field}\": {value}");
            let dir = with_edit("config.json", &from, &format!("\"{field}\": {wrong}"));
            refused(dir.path(), "config.json", &format!("{field} {wrong}"));
        }
        let dir = with_edit("config.json", &format!("\"{field}\":"), "\"another\":");
        if field != "type_vocab_size" {
            refused_as(Kind::Corrupt, dir.path(), "config.json", &format!("no {field}"));
        } else {
            assert!(Encoder::load(dir.path()).is_ok(), "two token types are BERT's default");
        }
    }
    let dir = with_edit("config.json", "\"num_attention_heads\": 12", "\"num_attention_heads\": 7");
    refused(dir.path(), "config.json", "384 is not divisible by 7");
    for wrong in ["0.0", "-1e-12", "1e400", "\"small\"", "7.0"] {
        let to = format!("\"layer_norm_eps\": {wrong}");
        let dir = with_edit("config.json", "\"layer_norm_eps\": 1e-12", &to);
        refused_as(Kind::Corrupt, dir.path(), "config.json", wrong);
    }
}

#[test]
fn an_impossible_token_limit_is_refused() {
    for wrong in ["0", "2", "513", "-1", "1e9", "\"256\"", "18446744073709551616"] {
        let dir = tiny();
        let text = format!("{{\"max_seq_length\": {wrong}}}");
        std::fs::write(dir.join("sentence_bert_config.json"), text).unwrap();
        refused_as(Kind::Corrupt, dir.path(), "sentence_bert_config.json", wrong);
    }
}

#[test]
fn weights_that_are_too_short_or_too_long_are_refused() {
    let dir = tiny();
    let path = dir.join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 7, 8, 9, 1000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        refused_as(Kind::Corrupt, dir.path(), "model.safetensors", &format!("{length} bytes"));
    }
    std::fs::write(&path, [&whole[..], b"\0"].concat()).unwrap();
    refused_as(Kind::Corrupt, dir.path(), "model.safetensors", "a byte too many");
    std::fs::write(&path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").unwrap();
    refused_as(Kind::Corrupt, dir.path(), "model.safetensors", "a pointer of Git LFS");
}

#[test]
fn a_wrong_header_length_is_refused_before_memory_is_allocated() {
    let dir = tiny();
    let path = dir.join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for claim in [0, 1, whole.len() as u64, 100_000_001, 1 << 40, u64::MAX - 7, u64::MAX] {
        std::fs::write(&path, [&claim.to_le_bytes()[..], &whole[8..]].concat()).unwrap();
        let case = format!("header {claim}");
        let message = refused_as(Kind::Corrupt, dir.path(), "model.safetensors", &case);
        assert!(claim < 2 || message.contains(&claim.to_string()), "{message}");
    }
}

#[test]
fn a_flipped_bit_in_the_header_never_loads() {
    let dir = tiny();
    let path = dir.join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    // The header ends with spaces for alignment. A flip there may make another white space.
    let end = whole[..header].iter().rposition(|&b| b != b' ').unwrap();
    // 31 and the length of a header's entry have no common divisor, so the flips hit all parts of
    // an entry.
    for position in (0..8).chain((8..=end).step_by(31)) {
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << (position % 8);
        std::fs::write(&path, flipped).unwrap();
        refused(
            dir.path(),
            "model.safetensors",
            &format!("bit {} of byte {position}", position % 8),
        );
    }
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_named() {
    let query = "encoder.layer.0.attention.self.query.weight";
    let dir = with_tensors(|tensors| drop(tensors.remove(query)));
    let message = refused_as(Kind::Corrupt, dir.path(), "model.safetensors", "missing");
    assert!(message.contains(query) && message.contains("missing"), "{message}");

    for shape in [vec![HIDDEN * HIDDEN], vec![HIDDEN, HIDDEN, 1], vec![HIDDEN * 2, HIDDEN / 2]] {
        let dir = with_tensors(|tensors| tensors.get_mut(query).unwrap().shape = shape.clone());
        let message = refused_as(Kind::Corrupt, dir.path(), "model.safetensors", "shape");
        assert!(message.contains(query) && message.contains("384"), "{message}");
    }

    for (from, to, tensor) in [
        ("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2", "encoder.layer.1."),
        ("\"intermediate_size\": 64", "\"intermediate_size\": 66", "intermediate"),
        ("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 513", "position"),
        ("\"type_vocab_size\": 2", "\"type_vocab_size\": 3", "token_type"),
        ("\"vocab_size\": ", "\"vocab_size\": 1", "word_embeddings"),
    ] {
        let dir = with_edit("config.json", from, to);
        let message = refused_as(Kind::Corrupt, dir.path(), "model.safetensors", to);
        assert!(message.contains(tensor), "{message}");
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for name in
            ["embeddings.position_embeddings.weight", "encoder.layer.0.output.LayerNorm.bias"]
        {
            let dir = with_tensors(|tensors| {
                let bytes = &mut tensors.get_mut(name).unwrap().bytes;
                let last = bytes.len() - 4;
                bytes[last..].copy_from_slice(&value.to_le_bytes());
            });
            let message = refused_as(Kind::Corrupt, dir.path(), "model.safetensors", name);
            assert!(message.contains(name), "{message}");
        }
    }
    let dir = TempDir::new();
    let halves = TinyModel { f16: true, ..Default::default() };
    let name = "embeddings.LayerNorm.bias";
    let infinity = 0x7c00u16.to_le_bytes();
    let damage = |t: &mut Tensors| t.get_mut(name).unwrap().bytes[..2].copy_from_slice(&infinity);
    halves.write_with(dir.path(), damage).unwrap();
    let message = refused_as(Kind::Corrupt, dir.path(), "model.safetensors", "infinity in F16");
    assert!(message.contains(name), "{message}");
}

/// Word embeddings are read when they are needed, so they are checked then.
#[test]
fn a_word_embedding_that_is_not_finite_is_refused_when_it_is_used() {
    let name = "embeddings.word_embeddings.weight";
    let dir = with_tensors(|tensors| {
        for row in tensors.get_mut(name).unwrap().bytes.chunks_mut(4 * HIDDEN) {
            row[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
    });
    let encoder = Encoder::load(dir.path()).unwrap();
    let error = encoder.embed("a", &mut || ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(name), "{error}");
}

#[test]
fn weights_truncated_while_in_use_are_an_error() {
    let dir = TempDir::with(&TinyModel::default());
    let encoder = Encoder::load(dir.path()).unwrap();
    let mut go_on = || ControlFlow::Continue(());
    encoder.embed("a", &mut go_on).unwrap();
    assert!(!encoder.has_changed());
    let weights = dir.join("model.safetensors");
    std::fs::OpenOptions::new().write(true).open(&weights).unwrap().set_len(100).unwrap();
    assert!(encoder.has_changed());
    let error = encoder.embed("a", &mut go_on).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(encoder.identity().is_err());
}

/// The layers of one model and the word embeddings of another would give a wrong vector.
#[test]
fn weights_overwritten_during_a_call_give_no_vector() {
    let dir = TempDir::with(&TinyModel::default());
    let encoder = Encoder::load(dir.path()).unwrap();
    let other = TempDir::with(&TinyModel { seed: 2, ..Default::default() });
    let weights = std::fs::read(other.join("model.safetensors")).unwrap();
    let mut overwrite = || {
        std::fs::write(dir.join("model.safetensors"), &weights).unwrap();
        ControlFlow::Continue(())
    };
    let error = encoder.embed("a stone", &mut overwrite).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(error.path(), Some(dir.join("model.safetensors").as_path()));
    assert!(encoder.has_changed());
}

#[test]
fn a_new_file_of_weights_does_not_change_the_loaded_model() {
    let dir = TempDir::with(&TinyModel::default());
    let encoder = Encoder::load(dir.path()).unwrap();
    let mut go_on = || ControlFlow::Continue(());
    let before = encoder.embed("a", &mut go_on).unwrap();
    let other = TempDir::with(&TinyModel { seed: 2, ..Default::default() });
    std::fs::rename(other.join("model.safetensors"), dir.join("model.safetensors")).unwrap();
    assert!(!encoder.has_changed());
    assert_eq!(encoder.embed("a", &mut go_on).unwrap(), before);
    assert_ne!(Encoder::load(dir.path()).unwrap().embed("a", &mut go_on).unwrap(), before);
}

#[test]
fn weights_of_another_type_are_not_supported() {
    let name = "encoder.layer.0.attention.self.key.bias";
    for (dtype, size) in [(Dtype::BF16, 2), (Dtype::F64, 8), (Dtype::I32, 4), (Dtype::U8, 1)] {
        let tensor = TensorData { dtype, shape: vec![HIDDEN], bytes: vec![0; HIDDEN * size] };
        let dir = with_tensors(|tensors| drop(tensors.insert(name.into(), tensor)));
        let message = refused_as(Kind::Unsupported, dir.path(), "model.safetensors", "type");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_token_without_an_embedding_is_an_error() {
    let dir = with_edit("tokenizer.json", "\"stone\": ", "\"stone\": 9");
    match Encoder::load(dir.path()) {
        Err(error) => assert_eq!(error.path(), Some(dir.join("tokenizer.json").as_path())),
        Ok(encoder) => {
            let result = encoder.embed("a stone", &mut support::go);
            assert!(matches!(result, Err(Error::Internal(_))), "{result:?}");
            assert_eq!(embed(&encoder, "a river").tokens, 4);
        }
    }
}

#[test]
fn a_repaired_directory_loads() {
    let dir = tiny();
    let path = dir.join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"broken").unwrap();
    refused_as(Kind::Corrupt, dir.path(), "model.safetensors", "broken");
    std::fs::write(&path, whole).unwrap();
    assert_eq!(embed(&Encoder::load(dir.path()).unwrap(), "cat").tokens, 3);
}

/// The tokenizers library panics on this file.
#[test]
fn a_tokenizer_whose_template_names_a_token_it_does_not_have_is_refused() {
    let dir = TempDir::with_tokenizer(|tokenizer| {
        let tokens = &mut tokenizer["post_processor"]["special_tokens"];
        assert!(tokens.is_object(), "the tiny tokenizer has a template");
        *tokens = serde_json::json!({});
    });
    refused_as(Kind::Corrupt, dir.path(), "tokenizer.json", "a template without its tokens");
}

#[test]
fn a_tokenizer_without_special_tokens_is_not_supported() {
    let dir = TempDir::with_tokenizer(|tokenizer| {
        tokenizer["post_processor"] = serde_json::Value::Null;
    });
    refused_as(Kind::Unsupported, dir.path(), "tokenizer.json", "no specials");
}

#[test]
fn a_tokenizer_whose_template_repeats_the_text_is_not_supported() {
    let dir = TempDir::with_tokenizer(|tokenizer| {
        let template = tokenizer["post_processor"]["single"].as_array_mut().unwrap();
        let text = template.iter().position(|part| part.get("Sequence").is_some()).unwrap();
        template.insert(text, template[text].clone());
    });
    let message = refused_as(Kind::Unsupported, dir.path(), "tokenizer.json", "a text twice");
    assert!(message.contains("post-processor changes the tokens"), "{message}");
}
