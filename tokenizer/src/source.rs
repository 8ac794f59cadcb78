//! Where a tokenizer's files come from: this crate, a folder, a file, or the hub's cache.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{EMBEDDED, Error, hub};

/// Far above the largest `tokenizer.json` in use (Gemma's has 33 MB); keeps a wrong file from filling the memory.
pub(crate) const SIZE_LIMIT: u64 = 64 << 20;

/// The file that makes a folder a tokenizer.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
/// Its settings, the chat template among them.
pub(crate) const CONFIG_FILE: &str = "tokenizer_config.json";
/// The chat template in a file of its own, as newer models have it; goes before the settings' one.
pub(crate) const JINJA_FILE: &str = "chat_template.jinja";
/// The chat template in a JSON file of its own, as multi-modal models have it; the last resort.
pub(crate) const JSON_TEMPLATE_FILE: &str = "chat_template.json";

/// A tokenizer's files, read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) json: Vec<u8>,
    pub(crate) template: Option<TemplateSource>,
    /// The texts of the special tokens that the settings name.
    pub(crate) special_tokens: Vec<String>,
}

/// A chat template and the special tokens that it may name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TemplateSource {
    pub(crate) source: String,
    /// `bos_token`, `eos_token`, …: names and texts.
    pub(crate) special_tokens: Vec<(String, String)>,
}

impl Source {
    pub(crate) fn embedded() -> Self {
        let config = include_bytes!("../data/tokenizer_config.json");
        Self {
            name: EMBEDDED.to_owned(),
            json: include_bytes!("../data/tokenizer.json").to_vec(),
            template: template(Some(config.to_vec()), None, None),
            special_tokens: all_special_tokens(Some(config)),
        }
    }

    /// What `name` means: see [`crate::Tokenizer::load`].
    pub(crate) fn find(name: &str) -> Result<Self, Error> {
        if name == EMBEDDED {
            return Ok(Self::embedded());
        }
        let path = Path::new(name);
        if path.exists() {
            return Self::local(path);
        }
        if hub::is_hub_name(name) {
            let folder = hub::Hub::from_env().folder(name)?;
            return Ok(Self { name: name.to_owned(), ..Self::local(&folder)? });
        }
        Err(Error::Unknown { name: name.to_owned() })
    }

    fn local(path: &Path) -> Result<Self, Error> {
        let (file, folder) = if path.is_dir() {
            (path.join(TOKENIZER_FILE), path)
        } else {
            // A bare file name has the parent "".
            (path.to_owned(), path.parent().unwrap_or(Path::new("")))
        };
        let json = read(&file)?.ok_or_else(|| Error::Read {
            path: file,
            source: io::Error::new(io::ErrorKind::NotFound, "no such file"),
        })?;
        let config = read(&folder.join(CONFIG_FILE))?;
        let special_tokens = all_special_tokens(config.as_deref());
        let template =
            template(config, read(&folder.join(JINJA_FILE))?, read(&folder.join(JSON_TEMPLATE_FILE))?);
        Ok(Self { name: last_component(path), json, template, special_tokens })
    }
}

/// The last component of the path, resolved where it has none (`.`).
fn last_component(path: &Path) -> String {
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    named(path)
        .or_else(|| path.canonicalize().ok().and_then(|path| named(&path)))
        .unwrap_or_else(|| "tokenizer".to_owned())
}

/// The file's bytes; `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: PathBuf::from(path), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(Error::TooLarge { what: path.display().to_string(), limit_mib: SIZE_LIMIT >> 20 });
    }
    Ok(Some(bytes))
}

/// The chat template, from whichever file has it. Settings that are no JSON have no template: counting still works.
fn template(
    config: Option<Vec<u8>>,
    jinja: Option<Vec<u8>>,
    json: Option<Vec<u8>>,
) -> Option<TemplateSource> {
    let parse = |bytes: Option<Vec<u8>>| {
        bytes.and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).ok()).unwrap_or_default()
    };
    let (config, json) = (parse(config), parse(json));
    let source = jinja
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .or_else(|| named_template(config.get("chat_template")?))
        .or_else(|| named_template(json.get("chat_template")?))?;
    Some(TemplateSource { source, special_tokens: special_tokens(&config) })
}

/// A template is a string, or a list or a map of named ones, of which "default" is meant.
fn named_template(value: &Value) -> Option<String> {
    match value {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => named
            .iter()
            .find(|template| template["name"] == "default")
            .and_then(|template| template["template"].as_str())
            .map(str::to_owned),
        Value::Object(named) => named.get("default")?.as_str().map(str::to_owned),
        _ => None,
    }
}

/// A special token is a string, or an object with its `content`.
fn special_tokens(config: &Map<String, Value>) -> Vec<(String, String)> {
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
        .into_iter()
        .filter_map(|name| {
            let token = config.get(name)?;
            let text = token.as_str().or_else(|| token["content"].as_str())?;
            Some((name.to_owned(), text.to_owned()))
        })
        .collect()
}

/// The texts of `transformers`' `all_special_tokens`: the ones with a name of their own, then the additional ones, as
/// `tokenizer_config.json` has them.
fn all_special_tokens(config: Option<&[u8]>) -> Vec<String> {
    let config: Map<String, Value> =
        config.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let text = |token: &Value| token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned);
    let named = special_tokens(&config).into_iter().map(|(_, text)| text);
    let additional = ["additional_special_tokens", "extra_special_tokens"]
        .into_iter()
        .filter_map(|key| config.get(key)?.as_array())
        .flatten()
        .filter_map(text);
    named.chain(additional).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    #[test]
    fn a_template_is_found_in_each_of_its_places() {
        let config = json!({"chat_template": "a", "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null});
        let found =
            template(Some(bytes(&config)), None, Some(bytes(&json!({"chat_template": "b"})))).unwrap();
        assert_eq!(found.source, "a");
        assert_eq!(
            found.special_tokens,
            [("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())]
        );
        assert_eq!(template(Some(bytes(&config)), Some(b"c".to_vec()), None).unwrap().source, "c");
        assert_eq!(template(None, None, Some(bytes(&json!({"chat_template": "b"})))).unwrap().source, "b");
        let named = json!({"chat_template": [
            {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}
        ]});
        assert_eq!(template(Some(bytes(&named)), None, None).unwrap().source, "d");
        assert_eq!(template(Some(b"not json".to_vec()), None, None), None);
    }

    #[test]
    fn special_tokens_are_those_that_the_settings_name() {
        let config = json!({
            "eos_token": "<|im_end|>", "bos_token": null, "unk_token": {"content": "<unk>"},
            "additional_special_tokens": ["<a>", {"content": "<b>"}]
        });
        assert_eq!(all_special_tokens(Some(&bytes(&config))), ["<|im_end|>", "<unk>", "<a>", "<b>"]);
        assert_eq!(all_special_tokens(None), [""; 0]);
    }

    #[test]
    fn a_local_tokenizer_is_named_by_its_last_component() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("my-model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join(TOKENIZER_FILE), Source::embedded().json).unwrap();
        let by_folder = Source::find(model.to_str().unwrap()).unwrap();
        assert_eq!(by_folder.name, "my-model");
        assert_eq!(by_folder.template, None);
        let by_file = Source::find(model.join(TOKENIZER_FILE).to_str().unwrap()).unwrap();
        assert_eq!(by_file.name, TOKENIZER_FILE);
        assert_eq!(by_file.json, by_folder.json);
    }

    #[test]
    fn a_missing_tokenizer_is_named_with_the_remedy() {
        let message = Source::find("./no/such/folder").unwrap_err().to_string();
        assert!(message.contains("./no/such/folder") && message.contains("tokenizer.json"), "{message}");
        let empty = tempfile::tempdir().unwrap();
        let message = Source::find(empty.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json: no such file"), "{message}");
    }
}
