//! Reads `modules.json` and `1_Pooling/config.json`, in which sentence-transformers stores what
//! becomes of the hidden states.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::files::{ModelFiles, POOLING, read_optional};
use crate::model::pooling::Pooling;
use crate::model::prompts::Prompts;
use crate::{DIMS, Error};

/// The classes of a module, in the order in which they must come. The last one may be absent: every
/// vector has unit length here.
const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// A module of a pipeline. Its class is a dotted name of Python.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    class: String,
    path: String,
}

impl Module {
    /// Its name, if the class is one of sentence-transformers'. The modules between the package and
    /// the class differ between its versions.
    fn name(&self) -> &str {
        let own = self.class.starts_with("sentence_transformers.");
        own.then(|| self.class.rsplit('.').next()).flatten().unwrap_or(&self.class)
    }
}

/// The fields of `1_Pooling/config.json`: one name, or, in files of older versions, a flag for each
/// kind of pooling.
#[derive(Deserialize)]
struct PoolingFile {
    #[serde(alias = "word_embedding_dimension")]
    embedding_dimension: Option<usize>,
    pooling_mode: Option<Modes>,
    include_prompt: Option<bool>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(String),
    Several(Vec<String>),
}

/// The pooling of a model. Without both files it is the mean.
///
/// # Errors
/// [`Error::Unsupported`] for other modules, another order, and another pooling than mean or CLS;
/// [`Error::MissingFile`] when `modules.json` names a pooling that is not there;
/// [`Error::Corrupt`], [`Error::Io`].
pub(crate) fn read_pooling(files: &ModelFiles, prompts: &Prompts) -> Result<Pooling, Error> {
    let modules: Option<Vec<Module>> = read_optional(&files.modules)?;
    if let Some(modules) = &modules {
        check_modules(files, modules)?;
    }
    let path = &files.pooling;
    let Some(file) = read_optional::<PoolingFile>(path)? else {
        return match modules {
            Some(_) => Err(Error::MissingFile { path: path.clone() }),
            None => Ok(Pooling::Mean),
        };
    };
    if let Some(size) = file.embedding_dimension
        && size != DIMS
    {
        return Err(Error::unsupported(
            path,
            format_args!("its hidden states have {size} dimensions, they must have {DIMS}"),
        ));
    }
    if file.include_prompt == Some(false) && !prompts.are_empty() {
        return Err(Error::unsupported(
            path,
            "include_prompt is false, and the model has a prompt; only true is supported",
        ));
    }
    match modes(files, file)?.as_slice() {
        [mode] if mode == "mean" => Ok(Pooling::Mean),
        [mode] if mode == "cls" => Ok(Pooling::Cls),
        modes => Err(Error::unsupported(
            path,
            format_args!(
                "its pooling is {:?}, only \"mean\" and \"cls\" are supported",
                modes.join(" + ")
            ),
        )),
    }
}

fn check_modules(files: &ModelFiles, modules: &[Module]) -> Result<(), Error> {
    let path = &files.modules;
    let names: Vec<&str> = modules.iter().map(Module::name).collect();
    if names != MODULES && names != MODULES[..2] {
        return Err(Error::unsupported(
            path,
            format_args!(
                "its modules are {:?}, only \"Transformer, Pooling, Normalize\" is supported",
                names.join(", ")
            ),
        ));
    }
    // The engine reads these places.
    let places = ["", POOLING.trim_end_matches("/config.json")];
    for (module, place) in modules.iter().zip(places) {
        if module.path != place {
            return Err(Error::unsupported(
                path,
                format_args!(
                    "its {} is in {:?}, only {place:?} is supported",
                    module.name(),
                    module.path
                ),
            ));
        }
    }
    Ok(())
}

/// The kinds of pooling whose results are joined; mean if the file names none.
fn modes(files: &ModelFiles, file: PoolingFile) -> Result<Vec<String>, Error> {
    match file.pooling_mode {
        Some(Modes::One(mode)) => return Ok(vec![mode]),
        Some(Modes::Several(modes)) => return Ok(modes),
        None => {}
    }
    let mut modes = Vec::new();
    for (name, value) in file.others {
        let Some(mode) = name.strip_prefix("pooling_mode_") else {
            continue;
        };
        match value {
            Value::Bool(false) => {}
            Value::Bool(true) => modes.push(match mode {
                "mean_tokens" => "mean".to_owned(),
                "cls_token" => "cls".to_owned(),
                other => other.to_owned(),
            }),
            other => {
                return Err(Error::corrupt(
                    &files.pooling,
                    format_args!("{name} is {other}, it must be true or false"),
                ));
            }
        }
    }
    if modes.is_empty() {
        modes.push("mean".to_owned());
    }
    Ok(modes)
}
